//! From the ids clients have, numbers and lone message ids, to ours. What an id means never changes, so
//! found answers are kept.

use moka::sync::Cache;
use parlance_proto::v1::Resolve;
use parlance_proto::{ConversationId, MessageId};

use crate::backend::Backend;
use crate::dialect::{ConversationRef, MessageRef};
use crate::error::ClientError;

/// Ids kept; some 10 MB when full.
const KEPT: u64 = 100_000;

/// Finds what ids mean. Allows nothing: whoever knows an id learns only another name of it.
pub struct Resolver {
    backend: Backend,
    numbers: Cache<i64, ConversationId>,
    messages: Cache<MessageId, ConversationId>,
}

/// A message as commands name it, with its conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub conversation: ConversationId,
    /// Its UUID, or `#` and its seq.
    pub message: String,
}

impl Resolver {
    /// Knows nothing yet.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            numbers: Cache::new(KEPT),
            messages: Cache::new(KEPT),
        }
    }

    /// The conversation or journal a client means.
    ///
    /// # Errors
    /// There is none of that number, or the question cannot be asked now.
    pub async fn conversation(&self, asked: ConversationRef) -> Result<ConversationId, ClientError> {
        let number = match asked {
            ConversationRef::Id(id) => return Ok(id),
            ConversationRef::Number(number) => number,
        };
        if let Some(id) = self.numbers.get(&number) {
            return Ok(id);
        }
        let request = Resolve {
            conversation_numbers: vec![number],
            message_ids: Vec::new(),
        };
        let found = self.backend.resolve(None, request).await?.conversations.pop();
        let id = found.and_then(|found| found.conversation_id.parse().ok());
        let id = id.ok_or_else(ClientError::no_conversation)?;
        self.numbers.insert(number, id);
        Ok(id)
    }

    /// The message a client means. A conversation named beside it must be the message's own.
    ///
    /// # Errors
    /// There is none, or the question cannot be asked now.
    pub async fn message(
        &self,
        conversation: Option<ConversationRef>,
        asked: MessageRef,
    ) -> Result<Found, ClientError> {
        let named = match conversation {
            Some(conversation) => Some(self.conversation(conversation).await?),
            None => None,
        };
        match asked {
            MessageRef::Id(id) => {
                let conversation = match named {
                    Some(conversation) => conversation,
                    None => self.conversation_of(id).await?,
                };
                Ok(Found {
                    conversation,
                    message: id.to_string(),
                })
            }
            MessageRef::Number(number) => {
                let (conversation, seq) =
                    MessageId::unpack_number(number).ok_or_else(ClientError::no_message)?;
                let own = self.conversation(ConversationRef::Number(conversation)).await;
                let own = own.map_err(|error| {
                    if error.retry {
                        error
                    } else {
                        ClientError::no_message()
                    }
                })?;
                if named.is_some_and(|named| named != own) {
                    return Err(ClientError::no_message());
                }
                Ok(Found {
                    conversation: own,
                    message: format!("#{seq}"),
                })
            }
        }
    }

    async fn conversation_of(&self, id: MessageId) -> Result<ConversationId, ClientError> {
        if let Some(conversation) = self.messages.get(&id) {
            return Ok(conversation);
        }
        let request = Resolve {
            conversation_numbers: Vec::new(),
            message_ids: vec![id.to_string()],
        };
        let found = self.backend.resolve(None, request).await?.messages.pop();
        let conversation = found.and_then(|found| found.conversation_id.parse().ok());
        let conversation = conversation.ok_or_else(ClientError::no_message)?;
        self.messages.insert(id, conversation);
        Ok(conversation)
    }
}
