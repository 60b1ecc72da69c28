//! How a command was answered, as it is remembered until the command cannot be redelivered any more. Plain data.

use parlance_proto::v1;
use parlance_proto::{CommandId, ConversationId};

/// A command of a conversation.
pub type CommandKey = (ConversationId, CommandId);

/// How a command was answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Processed {
    /// What it was refused with; `None` where it was not.
    pub refusal: Option<v1::Error>,
    /// The place of the message it was answered with; 0 for none.
    pub seq: u64,
}
