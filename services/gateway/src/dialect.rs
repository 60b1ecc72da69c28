//! Dialects: how a front end names and shapes what Parlance can do.
//!
//! A dialect is a pair of pure functions, from an event to an [`Action`] and from an [`Outbound`] to a
//! [`Frame`]. It must not wait, look at a clock, or know a socket. A connection has one dialect for life.

pub mod native;

use parlance_proto::v1::{Conversation, EventPage, Message, MessageType, Position, ReceiptUpdated, Typing};
use parlance_proto::{ConversationId, MessageId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::ClientError;
use crate::limits::Limits;

/// What a client asks for, whatever its vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Follow a conversation.
    Join(ConversationId),
    /// Follow it no more.
    Leave(ConversationId),
    /// Send a message.
    Send(SendAction),
    /// Change a message.
    Edit {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: MessageId,
        /// To what.
        content: String,
    },
    /// Delete a message for all.
    Delete {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: MessageId,
    },
    /// Mark messages as read; both kinds are united.
    Read {
        /// Where.
        conversation: ConversationId,
        /// Everything up to this seq.
        up_to_seq: Option<u64>,
        /// These messages.
        messages: Vec<MessageId>,
    },
    /// Tell the others that one types.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Begins or ends.
        is_typing: bool,
    },
    /// What happened since.
    Sync(Vec<Position>),
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct SendAction {
    /// Where.
    pub conversation: ConversationId,
    /// The client's own id, which makes a repeat harmless.
    pub client_msg_id: Option<String>,
    /// Kind of content.
    pub kind: MessageType,
    /// Byte-exact.
    pub content: String,
    /// JSON object as text; empty for none.
    pub metadata: String,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
}

/// What the server tells a client unasked.
#[derive(Debug, Clone, Copy)]
pub enum Outbound<'a> {
    /// A message was sent.
    MessageCreated(&'a Message),
    /// A message was changed.
    MessageEdited(&'a Message),
    /// A message was deleted.
    MessageDeleted(&'a Message),
    /// Somebody read.
    Receipt(ConversationId, &'a ReceiptUpdated),
    /// Somebody types.
    Typing(ConversationId, &'a Typing),
    /// The user is in a further conversation.
    ConversationNew(&'a Conversation),
    /// A conversation that is not joined has a new latest message.
    ConversationUpdated(&'a Message),
    /// Seqs of this conversation are void; read it anew.
    Resync {
        /// Which.
        conversation: ConversationId,
        /// The epoch from now on.
        epoch: &'a str,
        /// The head from now on.
        head_seq: u64,
    },
    /// An event without ack failed.
    Failed {
        /// The event's name as sent.
        event: &'a str,
        /// Why.
        error: &'a ClientError,
    },
}

/// The answer to an action.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Done, nothing to say.
    Done,
    /// The message as stored.
    Message(Message),
    /// The conversation as joined.
    Conversation(Conversation),
    /// The reader's receipts.
    Receipt(ReceiptUpdated),
    /// Catch-up pages.
    Pages(Vec<EventPage>),
}

/// An encoded event; made once, sent to many.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Event name.
    pub event: &'static str,
    /// The one argument, encoded.
    pub payload: Box<RawValue>,
}

impl Frame {
    /// Encodes the one argument of an event.
    pub fn new(event: &'static str, payload: &impl Serialize) -> Self {
        Self {
            event,
            payload: encode(payload),
        }
    }
}

/// A vocabulary.
pub trait Dialect: Send + Sync + std::fmt::Debug {
    /// Its name in handshakes, configuration and metrics.
    fn name(&self) -> &'static str;

    /// The client's events, for metrics: any other name is counted as `other`.
    fn inbound_events(&self) -> &'static [&'static str];

    /// Reads an event. `payload` is its first argument, `null` where there is none.
    ///
    /// # Errors
    /// The event is unknown, or its payload malformed or over a limit.
    fn decode(&self, event: &str, payload: &RawValue, limits: &Limits) -> Result<Action, ClientError>;

    /// Writes what the server tells; `None` where the vocabulary has no word for it.
    fn encode(&self, outbound: Outbound<'_>) -> Option<Frame>;

    /// Writes the ack of an event.
    fn answer(&self, outcome: Result<&Answer, &ClientError>) -> Box<RawValue>;
}

/// The dialect of a connection that asks for none.
pub static DEFAULT: &dyn Dialect = &native::Native;

/// All dialects.
static DIALECTS: &[&dyn Dialect] = &[&native::Native];

/// The dialect of that name.
pub fn by_name(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name() == name)
}

/// Encodes a value that cannot fail: our own structs of strings, numbers and raw JSON.
pub(crate) fn encode(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a payload cannot be encoded");
        RawValue::NULL.to_owned()
    })
}
