//! Dialects: how a front end names and shapes what Parlance can do.
//!
//! A dialect is a set of pure functions, from an event to an [`Action`] and from an [`Outbound`] to
//! [`Frame`]s. It must not wait, look at a clock, or know a socket. A connection has one dialect for life; where nothing
//! says which, the first event that only one dialect understands does.
//! `README.md` beside this folder's files walks through one.

pub mod action;
pub mod camel;
pub mod chats;
pub mod contract;
pub mod encrypted;
pub mod fields;
pub mod inbox;
pub mod input;
pub mod journal;
pub mod key;
pub mod native;
pub mod payload;
pub mod place;
pub mod representation;
#[cfg(test)]
mod samples;
pub mod schema;
pub mod shape;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod union;
pub mod wide;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parlance_proto::v1::{
    BlockChanged, BlockPage, Conversation, ErrorCode, EventPage, JournalEdited, MembersAdded, Message,
    MessageChunk, MuteChanged, Participant, ParticipantPage, Presence, PresenceStatus, ReactionChanged,
    ReceiptUpdated, RoomPresence, StreamState, Thread, Typing, User,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use action::{
    Action, ConversationAction, Decoded, JournalAction, JournalChange, ReportAction, SendAction,
};
pub use place::{Place, UserRef};
pub use representation::Representation;

use crate::dialect::key::Key;
use crate::error::ClientError;
use crate::limits::Limits;

/// A conversation or journal as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConversationRef {
    /// By UUID.
    Id(ConversationId),
    /// By its unique number.
    Number(i64),
}

impl From<ConversationId> for ConversationRef {
    fn from(id: ConversationId) -> Self {
        Self::Id(id)
    }
}

/// A message as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageRef {
    /// By UUID.
    Id(MessageId),
    /// By its number, which holds conversation and seq.
    Number(i64),
}

/// Who speaks, as far as a dialect may care.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// From the token.
    pub user: &'a UserId,
    /// The user's unique number.
    pub number: i64,
}

/// What the server tells a client unasked. A [`Place`] is the conversation it happens in.
#[derive(Debug, Clone, Copy)]
pub enum Outbound<'a> {
    /// A message was sent.
    MessageCreated(&'a Place, &'a Message),
    /// A message that streamed has all of its text.
    MessageFinished(&'a Place, &'a Message),
    /// Text of a message that streams.
    MessageChunk(&'a Place, &'a MessageChunk),
    /// A message that streams, with its text so far; at most once a second.
    MessageGrown(&'a Place, &'a Message),
    /// A message was changed.
    MessageEdited(&'a Place, &'a Message),
    /// A message was deleted.
    MessageDeleted(&'a Place, &'a Message),
    /// This user, on another connection, hid a message from themselves.
    MessageHidden(&'a Place, &'a Message),
    /// This user muted the conversation, on whatever connection, or ended that.
    MuteChanged(&'a Place, &'a MuteChanged),
    /// This user blocked another, on whatever connection, or ended that.
    BlockChanged(&'a BlockChanged),
    /// A mark was put on a message or taken back.
    Reaction(&'a Place, &'a ReactionChanged),
    /// Somebody read, or got, messages.
    Receipt(&'a Place, &'a ReceiptUpdated),
    /// Somebody types.
    Typing(&'a Place, &'a Typing),
    /// Somebody opened or closed the conversation on a screen.
    RoomPresence(&'a Place, &'a RoomPresence),
    /// A thread was begun.
    ThreadCreated(&'a Place, &'a Thread),
    /// Users were added.
    MembersAdded(&'a Place, &'a MembersAdded),
    /// A user left or was removed; the last that the removed hears.
    MemberRemoved(&'a Place, &'a Participant),
    /// A user has another role.
    RoleChanged(&'a Place, &'a Participant),
    /// Title, status, channel or metadata changed.
    ConversationChanged(&'a Place, &'a Conversation),
    /// The user is in a further conversation.
    ConversationAdded(&'a Conversation),
    /// The user is in it no more, or it was deleted.
    ConversationRemoved(&'a Place),
    /// For lists: a conversation has a new latest message.
    ListUpdated {
        /// Which.
        place: &'a Place,
        /// The latest message.
        last: &'a Message,
        /// Messages of others this user has not read.
        unread: u64,
        /// Whether this client follows the conversation itself too.
        joined: bool,
    },
    /// A journal was changed: what, and the whole text for clients that do not keep the document themselves.
    JournalEdited(&'a JournalEdited, Option<&'a str>),
    /// The awareness of a journal changed.
    Awareness {
        /// Which.
        place: &'a Place,
        /// A y-protocols update.
        update: &'a [u8],
    },
    /// Somebody is seen otherwise than before.
    Presence {
        /// How.
        seen: &'a Presence,
        /// What this client was told before; unspecified where nothing was.
        before: PresenceStatus,
    },
    /// Seqs of this conversation are void; read it anew.
    Resync {
        /// Which.
        place: &'a Place,
        /// The epoch from now on.
        epoch: &'a str,
        /// The head from now on.
        head_seq: u64,
    },
    /// An event failed.
    Failed {
        /// The event's name as sent.
        event: &'a str,
        /// See [`Decoded::tag`].
        tag: Option<&'a str>,
        /// Why.
        error: &'a ClientError,
        /// The client also gets the ack, which says the same.
        acked: bool,
    },
}

/// The answer to an action.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived; boxing would cost every reader a line"
)]
pub enum Answer {
    /// Done, nothing to say.
    Done,
    /// The message as stored.
    Message(Message),
    /// The conversation as joined.
    Conversation(Conversation),
    /// The reader's receipts.
    Receipt(ReceiptUpdated),
    /// The thread as stored.
    Thread(Thread),
    /// The change of the journal as stored; or all of it, with its text, as joined.
    Journal(JournalEdited, Option<Arc<str>>),
    /// What a client that keeps the document itself lacks of the joined journal.
    JournalSync {
        /// Its newest version, with the difference as its update.
        journal: JournalEdited,
        /// What the server knows.
        state_vector: Vec<u8>,
    },
    /// Catch-up pages.
    Pages(Vec<EventPage>),
    /// How users are seen.
    Presence(Vec<Presence>),
    /// A page of participants.
    Participants(ParticipantPage),
    /// A page of blocked users.
    Blocks(BlockPage),
    /// The user under another name.
    User(User),
}

impl Answer {
    /// The message that the action led to.
    ///
    /// # Errors
    /// It led to something else: a defect.
    pub fn into_message(self) -> Result<Message, ClientError> {
        match self {
            Self::Message(message) => Ok(message),
            _ => Err(ClientError::internal()),
        }
    }

    /// The conversation or journal that the action led to.
    ///
    /// # Errors
    /// It led to something else: a defect.
    pub fn into_conversation(self) -> Result<Conversation, ClientError> {
        match self {
            Self::Conversation(conversation) => Ok(conversation),
            _ => Err(ClientError::internal()),
        }
    }

    /// The receipts that the action led to.
    ///
    /// # Errors
    /// It led to something else: a defect.
    pub fn into_receipt(self) -> Result<ReceiptUpdated, ClientError> {
        match self {
            Self::Receipt(receipt) => Ok(receipt),
            _ => Err(ClientError::internal()),
        }
    }
}

/// When a client is told what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Of every conversation, as soon as it is connected: whatever was not marked as delivered. Comes again until it
    /// is, because such a client knows what it has.
    UntilMarked,
    /// Of every conversation, as soon as it is connected: what the user was not served yet, neither by an event of any
    /// session nor by a page of history. Comes once.
    AtConnect,
    /// The same without what a list of conversations has counted as unread, which such a client would count twice.
    Uncounted,
    /// Of a conversation when it joins: what the user was not served yet. Who opens one for the first time reads the
    /// history.
    AtJoin,
}

/// How a message that streams is shown by a dialect without an event for its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// From its start, and edited as it grows.
    Edits,
    /// Once it has ended, as a new message.
    Finished,
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
pub trait Dialect: Representation {
    /// Its name in handshakes, configuration and metrics.
    fn name(&self) -> &'static str;

    /// The client's events, for metrics: any other name is counted as `other`.
    fn inbound_events(&self) -> &'static [&'static str];

    /// All events with the schemas of their payloads.
    fn contract(&self) -> contract::Contract;

    /// The error for any other name: where the names stand, and how a client comes to others.
    fn unknown_event(&self) -> ClientError {
        let name = self.name();
        let message = format!(
            "unknown event: this connection speaks the dialect {name}, whose events stand in /docs/asyncapi/{name}.json; \
             auth.dialect names another"
        );
        ClientError::new(ErrorCode::UnknownEvent, message)
    }

    /// Whether a client follows all of its user's conversations without joining them.
    fn joins_by_itself(&self) -> bool {
        false
    }

    /// Whether a client that joins a journal is emitted its text, because it looks for it in no answer.
    fn shows_joined_journals(&self) -> bool {
        false
    }

    /// Whether the session that sent a message is emitted it like all others of its user, beside the acknowledgement
    /// with the message.
    fn echoes(&self) -> bool {
        true
    }

    /// When a client is told, unasked, what was sent while it was away.
    fn backlog(&self) -> Backlog {
        if self.joins_by_itself() {
            Backlog::AtConnect
        } else {
            Backlog::AtJoin
        }
    }

    /// Whether the vocabulary can tell how others are seen.
    fn shows_presence(&self) -> bool {
        false
    }

    /// Whether the other participants are notified when a client opens or closes a conversation.
    fn announces_room_presence(&self) -> bool {
        false
    }

    /// Reads an event. `payload` is its first argument, `null` where there is none.
    ///
    /// # Errors
    /// The event is unknown, or its payload malformed or over a limit.
    fn decode(
        &self,
        speaker: Speaker<'_>,
        event: &str,
        payload: &RawValue,
        limits: &Limits,
    ) -> Result<Decoded, ClientError>;

    /// What the client calls a request that could not be read, where it can be found in it.
    fn tag(&self, event: &str, payload: &RawValue) -> Option<String> {
        let _ = (event, payload);
        None
    }

    /// The idempotency key of an event that changes something, where the dialect has a field for one.
    ///
    /// # Errors
    /// It is malformed.
    fn idempotency_key(&self, payload: &RawValue) -> Result<Option<Key>, ClientError> {
        let _ = payload;
        Ok(None)
    }

    /// Writes a message for the client that sent it and calls it `tag`, as JSON.
    fn echo(&self, place: &Place, message: &Message, tag: &str) -> Vec<Frame> {
        let _ = tag;
        self.encode(Outbound::MessageCreated(place, message))
    }

    /// Writes what the server tells, with messages that stream as [`Representation::streams`] says.
    fn frames(&self, outbound: Outbound<'_>) -> Vec<Frame> {
        match (self.streams(), outbound) {
            (Some(Streams::Finished), Outbound::MessageCreated(_, message))
                if message.stream() != StreamState::Unspecified =>
            {
                Vec::new()
            }
            (Some(Streams::Finished), Outbound::ListUpdated { last, .. })
                if last.stream() == StreamState::Open =>
            {
                Vec::new()
            }
            (Some(Streams::Finished), Outbound::MessageFinished(place, message)) => {
                self.encode(Outbound::MessageCreated(place, message))
            }
            (
                Some(Streams::Edits),
                Outbound::MessageGrown(place, message) | Outbound::MessageFinished(place, message),
            ) => self.encode(Outbound::MessageEdited(place, message)),
            (_, other) => self.encode(other),
        }
    }

    /// Writes what the server tells, as [`Dialect::frames`] passes it on; nothing where the vocabulary has no word for it.
    fn encode(&self, outbound: Outbound<'_>) -> Vec<Frame>;

    /// Writes the ack of an event. `place` is the conversation of the answer, where this replica knows it.
    fn answer(&self, outcome: Result<&Answer, &ClientError>, place: Option<&Place>) -> Box<RawValue>;

    /// What a client is told a while before its token ends, in milliseconds since 1970.
    fn expiring(&self, expires_at_ms: i64) -> Option<Frame> {
        let _ = expires_at_ms;
        None
    }

    /// What a refused client reads in `connect_error`.
    fn refusal(&self, reason: &str) -> String {
        reason.to_owned()
    }
}

/// The dialect of a connection that asks for none and has no other reason for one.
pub static DEFAULT: &dyn Dialect = &native::Native;

/// All dialects, each with messages that stream shown as `$streams` says. A further dialect is a file beside these, a line
/// here, and its fixtures.
macro_rules! dialects {
    ($streams:path) => {
        &[
            &native::Native,
            &journal::Journal($streams),
            &encrypted::Encrypted($streams),
            &chats::Chats($streams),
            &threads::Threads($streams),
            &inbox::Inbox($streams),
        ]
    };
}

/// All dialects, with messages that stream shown when they have ended.
pub static DIALECTS: &[&dyn Dialect] = dialects!(Streams::Finished);
/// The same with messages that stream shown by edits.
static WITH_EDITS: &[&dyn Dialect] = dialects!(Streams::Edits);

/// The names of all dialects, for people.
pub fn names() -> String {
    let names: Vec<_> = DIALECTS.iter().map(|dialect| dialect.name()).collect();
    names.join(", ")
}

/// What a client speaks that is taken to speak `assumed`, if this event shows it: only one dialect takes events of that
/// name; or `assumed` does not understand this one, and exactly one of the others does.
pub fn shown_by(
    assumed: &dyn Dialect,
    speaker: Speaker<'_>,
    event: &str,
    payload: &RawValue,
    limits: &Limits,
) -> Option<&'static dyn Dialect> {
    static TAKERS: LazyLock<HashMap<&str, Vec<&dyn Dialect>>> = LazyLock::new(|| {
        let mut takers: HashMap<&str, Vec<&dyn Dialect>> = HashMap::new();
        for dialect in DIALECTS {
            for event in dialect.inbound_events() {
                takers.entry(event).or_default().push(*dialect);
            }
        }
        takers
    });
    let takers = TAKERS.get(event)?;
    if let [only] = takers[..] {
        return Some(only);
    }
    let understands = |dialect: &dyn Dialect| dialect.decode(speaker, event, payload, limits).is_ok();
    if understands(assumed) {
        return None;
    }
    let mut others = takers.iter().copied().filter(|dialect| understands(*dialect));
    match (others.next(), others.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// The dialect of that name, with messages that stream shown like that.
pub fn by_name(name: &str, streams: Streams) -> Option<&'static dyn Dialect> {
    let dialects = match streams {
        Streams::Edits => WITH_EDITS,
        Streams::Finished => DIALECTS,
    };
    dialects.iter().copied().find(|dialect| dialect.name() == name)
}

/// Encodes a value that cannot fail: our own structs of strings, numbers and raw JSON.
pub(crate) fn encode(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a payload cannot be encoded");
        RawValue::NULL.to_owned()
    })
}
