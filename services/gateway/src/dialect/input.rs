//! What a client supplies, in any dialect and over REST: checked against every limit before anything else
//! happens, and told what is wrong without having its content repeated.

use parlance_proto::ids;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::message_type;
use crate::dialect::{ConversationRef, MessageRef, SendAction};
use crate::error::ClientError;
use crate::limits::Limits;

/// The parts of a message a client supplies, by socket or REST, in any dialect.
#[derive(Debug, Default)]
pub struct MessageInput<'a> {
    /// See [`ids::check_client_msg_id`].
    pub client_msg_id: Option<String>,
    /// Name of the type.
    pub kind: Option<String>,
    /// Byte-exact.
    pub content: String,
    /// The content is ciphertext.
    pub encrypted: bool,
    /// A JSON object.
    pub metadata: Option<&'a RawValue>,
    /// The message it answers.
    pub reply_to: Option<MessageRef>,
    /// The thread it belongs to.
    pub thread: Option<Uuid>,
}

impl MessageInput<'_> {
    /// Checks what a client wants to send against every limit.
    ///
    /// # Errors
    /// The first limit that is broken.
    pub fn check(self, conversation: ConversationRef, limits: &Limits) -> Result<SendAction, ClientError> {
        if let Some(id) = &self.client_msg_id {
            ids::check_client_msg_id(id)?;
        }
        limits.content(&self.content)?;
        Ok(SendAction {
            conversation,
            client_msg_id: self.client_msg_id,
            kind: message_type(self.kind.as_deref())?,
            metadata: limits.metadata(self.metadata)?,
            content: self.content,
            encrypted: self.encrypted,
            reply_to: self.reply_to,
            thread: self.thread,
        })
    }
}
