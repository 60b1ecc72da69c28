//! What a batch has loaded under its locks, and what it decided. The two sides of `apply`. Plain data.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parlance_proto::v1::{self, ConversationKind, Role};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};

use crate::read_set::ReadSet;

/// The part of the database a batch works on. `apply` carries its commands out on it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The database's time at the beginning of the transaction, unix milliseconds.
    pub now_ms: i64,
    /// See `Conversation.epoch`.
    pub epoch: String,
    /// Those that exist, locked.
    pub conversations: HashMap<ConversationId, ConversationState>,
    /// User name of every living user that a creation names.
    pub users: HashMap<UserId, String>,
    /// Those of them that were deleted: they are never created anew.
    pub deleted_users: HashSet<UserId>,
    /// Fresh conversation numbers, one for each creation.
    pub numbers: Vec<i64>,
}

/// A locked conversation and those of its rows that the batch touches.
#[derive(Debug, Clone)]
pub struct ConversationState {
    /// Unique number.
    pub number: i64,
    /// Direct or group.
    pub kind: ConversationKind,
    /// Empty for direct.
    pub title: String,
    /// Who created it.
    pub created_by: String,
    /// By which command.
    pub created_by_command: CommandId,
    /// Seq of the latest change.
    pub head_seq: u64,
    /// Seq of the latest message.
    pub last_message_seq: u64,
    /// Version of the latest receipt.
    pub receipts_version: u64,
    /// Unix milliseconds of the latest message, or of the creation.
    pub updated_at_ms: i64,
    /// Those of the batch's actors who belong to it now.
    pub members: HashMap<UserId, Member>,
    /// Those messages the batch names.
    pub messages: HashMap<MessageId, v1::Message>,
    /// Those changes that commands of the batch have made before.
    pub changes: HashMap<CommandId, Change>,
}

/// A current participant.
#[derive(Debug, Clone)]
pub struct Member {
    /// What they may do.
    pub role: Role,
    /// How they are shown.
    pub username: String,
    /// What they have read.
    pub read: ReadSet,
    /// The conversation's version at the latest change of `read`.
    pub receipts_version: u64,
}

/// What a change did to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// New content.
    Edited,
    /// Emptied.
    Deleted,
}

/// A change of the log that is no new message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place.
    pub seq: u64,
    /// What it did.
    pub kind: ChangeKind,
    /// The seq of the message it did it to.
    pub target_seq: u64,
    /// Who did it.
    pub actor: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What `apply` decided: rows to write, by key into [`Loaded`], and an outcome per command.
#[derive(Debug, Default)]
pub struct Effects {
    /// One per command, in their order.
    pub outcomes: Vec<Outcome>,
    /// Users to create: id and user name.
    pub new_users: BTreeMap<UserId, String>,
    /// Conversations to insert, with their participants.
    pub created: BTreeMap<ConversationId, BTreeMap<UserId, Role>>,
    /// Messages to insert.
    pub new_messages: Vec<(ConversationId, MessageId)>,
    /// Messages to update.
    pub changed_messages: BTreeSet<(ConversationId, MessageId)>,
    /// Changes to insert.
    pub new_changes: Vec<(ConversationId, CommandId, Change)>,
    /// Conversations whose counters moved.
    pub moved: BTreeSet<ConversationId>,
    /// Participants who marked something as read, and whether that was news.
    pub readers: BTreeMap<(ConversationId, UserId), bool>,
}

/// What became of one command, before the last pieces are read back.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Surely not stored.
    Rejected(v1::Error),
    /// A message as it is now.
    Message {
        /// Answer and event.
        message: Box<v1::Message>,
        /// Carried out before.
        repeated: bool,
        /// What the members are told; `None` where they were told under another command.
        event: Option<Told>,
    },
    /// A conversation, to be read back for the actor.
    Conversation {
        /// Existed before.
        repeated: bool,
        /// Whether its participants are told that they have it.
        announce: bool,
    },
    /// The actor's receipts, to be settled.
    Receipt,
}

/// The event of a message outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its place.
    pub seq: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// `None` for a new message.
    pub change: Option<ChangeKind>,
}
