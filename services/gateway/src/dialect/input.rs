//! What a client supplies, in any dialect and over REST: checked against every limit before anything else
//! happens. A refusal says what is wrong and repeats no content.

use parlance_proto::ids;
use parlance_proto::v1::MessageType;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Action, ConversationRef, MessageRef, SendAction};
use crate::error::ClientError;
use crate::limits::Limits;

impl SendAction {
    /// A readable message that answers none and belongs to no thread: what has limits of what a client wants to send.
    ///
    /// # Errors
    /// The first limit that is broken.
    pub fn checked(
        conversation: ConversationRef,
        client_msg_id: Option<String>,
        kind: Option<&str>,
        content: String,
        metadata: Option<&RawValue>,
        limits: &Limits,
    ) -> Result<Self, ClientError> {
        if let Some(id) = &client_msg_id {
            ids::check_client_msg_id(id)?;
        }
        limits.content(&content)?;
        Ok(Self {
            conversation,
            client_msg_id,
            kind: message_type(kind)?,
            metadata: limits.metadata(metadata)?,
            content,
            encrypted: false,
            reply_to: None,
            thread: None,
        })
    }
}

impl Action {
    /// Changes the content of a message.
    ///
    /// # Errors
    /// The content breaks a limit.
    pub fn edit(
        conversation: Option<ConversationRef>,
        message: MessageRef,
        content: String,
        limits: &Limits,
    ) -> Result<Self, ClientError> {
        limits.content(&content)?;
        Ok(Self::Edit {
            conversation,
            message,
            content,
        })
    }

    /// Puts a mark on a message, or takes it back.
    ///
    /// # Errors
    /// The mark breaks a limit.
    pub fn react(
        conversation: Option<ConversationRef>,
        message: MessageRef,
        emoji: String,
        remove: bool,
        limits: &Limits,
    ) -> Result<Self, ClientError> {
        limits.emoji(&emoji)?;
        Ok(Self::React {
            conversation,
            message,
            emoji,
            remove,
        })
    }

    /// Marks messages as read or delivered.
    ///
    /// # Errors
    /// There are too many.
    pub fn receipt(
        conversation: Option<ConversationRef>,
        up_to_seq: Option<u64>,
        messages: Vec<MessageRef>,
        delivered_only: bool,
        limits: &Limits,
    ) -> Result<Self, ClientError> {
        limits.receipts(messages.len())?;
        Ok(Self::Receipt {
            conversation,
            up_to_seq,
            messages,
            delivered_only,
            through: false,
        })
    }

    /// Begins a thread.
    ///
    /// # Errors
    /// It has a title that breaks a limit.
    pub fn create_thread(
        conversation: ConversationRef,
        title: String,
        root: Option<MessageRef>,
        parent: Option<Uuid>,
        limits: &Limits,
    ) -> Result<Self, ClientError> {
        if !title.is_empty() {
            limits.title(&title)?;
        }
        Ok(Self::CreateThread {
            conversation,
            title,
            root,
            parent,
        })
    }
}

/// The message types a client may send; `system` is for services.
pub(crate) fn message_type(name: Option<&str>) -> Result<MessageType, ClientError> {
    match name {
        None | Some("text") => Ok(MessageType::Text),
        Some("image") => Ok(MessageType::Image),
        Some("file") => Ok(MessageType::File),
        Some("voice") => Ok(MessageType::Voice),
        Some("journal_share") => Ok(MessageType::JournalShare),
        Some(_) => Err(ClientError::invalid(
            "type is none of text, image, file, voice, journal_share",
        )),
    }
}
