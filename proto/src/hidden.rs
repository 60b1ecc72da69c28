//! What a user hid is empty for that user wherever it is shown; its place stays.
//!
//! Must not know who hid what.

use crate::v1::{Event, Message, event};

impl Event {
    /// The message that it shows, if it shows one.
    pub fn message_mut(&mut self) -> Option<&mut Message> {
        match &mut self.body {
            Some(event::Body::MessageCreated(body)) => body.message.as_mut(),
            Some(event::Body::MessageEdited(body)) => body.message.as_mut(),
            Some(event::Body::MessageFinished(body)) => body.message.as_mut(),
            Some(event::Body::MessageDeleted(body)) => body.message.as_mut(),
            Some(event::Body::ReactionChanged(body)) => body.message.as_mut(),
            _ => None,
        }
    }
}

impl Event {
    /// The message that it shows, if it shows one.
    pub fn message(&self) -> Option<&Message> {
        match &self.body {
            Some(event::Body::MessageCreated(body)) => body.message.as_ref(),
            Some(event::Body::MessageEdited(body)) => body.message.as_ref(),
            Some(event::Body::MessageFinished(body)) => body.message.as_ref(),
            Some(event::Body::MessageDeleted(body)) => body.message.as_ref(),
            Some(event::Body::ReactionChanged(body)) => body.message.as_ref(),
            _ => None,
        }
    }
}

impl Message {
    /// Empties it for a user who hid it.
    pub fn hide(&mut self) {
        self.content.clear();
        self.reactions.clear();
        self.metadata_json = r#"{"hidden":true}"#.to_owned();
    }
}
