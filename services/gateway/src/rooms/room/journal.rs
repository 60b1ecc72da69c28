//! The room of a journal: keeps its text, from which whole-text edits are told apart.

use std::sync::Arc;
use std::time::Instant;

use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::{ConversationKind, ErrorCode, JournalEdited};

use super::{RETRY, Room};
use crate::commands::now;
use crate::dialect::Outbound;
use crate::error::ClientError;
use crate::journal::{Document, History};

/// The history of a journal that begins with this state; `None` for any other conversation.
pub(super) fn history(
    kind: ConversationKind,
    state: Option<&[u8]>,
    version: u64,
) -> Result<Option<Arc<History>>, ClientError> {
    if kind != ConversationKind::Journal {
        return Ok(None);
    }
    let document = Document::from_state(state.unwrap_or_default()).map_err(|error| {
        tracing::error!(%error, "the state of a journal cannot be read; are versions mixed?");
        ClientError::internal()
    })?;
    Ok(Some(Arc::new(History::new(document, version, Instant::now()))))
}

impl Room {
    pub(super) async fn journal_edited(&mut self, edited: &JournalEdited) {
        let added = self.journal.as_ref().map_or(Ok(()), |journal| {
            journal.push(edited.version, &edited.content, &edited.update, Instant::now())
        });
        self.audience.tell_joined(Outbound::JournalEdited(edited));
        if let Err(error) = added {
            tracing::error!(conversation = %self.conversation, %error, "a change of a journal cannot be read");
            self.restore_journal().await;
        }
    }

    /// Takes the text anew from the database, and tells everyone of it: clients that know only whole texts
    /// have no other way to ask.
    pub(super) async fn restore_journal(&mut self) {
        let Some(journal) = self.journal.clone() else {
            return;
        };
        let room = loop {
            match self.rooms.backend.room(None, self.conversation).await {
                Ok(room) => break room,
                // Deleted: the last event says so.
                Err(error) if error.code == ErrorCode::NotFound.name() => return,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let state = room.journal_state.unwrap_or_default();
        let Ok(document) = Document::from_state(&state) else {
            tracing::error!(conversation = %self.conversation, "the state of a journal cannot be read");
            return;
        };
        let restored = JournalEdited {
            journal_id: self.conversation.to_string(),
            journal_number: self.place.number,
            version: room.head_seq,
            content: document.text(),
            update: state,
            actor_id: String::new(),
            at_ms: now().timestamp_millis(),
        };
        journal.reset(document, room.head_seq, Instant::now());
        self.audience.tell_joined(Outbound::JournalEdited(&restored));
    }
}
