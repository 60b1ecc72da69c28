//! What a batch has loaded under its locks, and what it decided. The two sides of `ingest::apply`. Plain data.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parlance_proto::v1::{self, Channel, ConversationKind, ConversationStatus, Role};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use uuid::Uuid;

use super::journal::{self, Journal};
use super::position::Position;
use super::processed::{CommandKey, Processed};
use super::read_set::ReadSet;
use super::work::{MessageName, Mute};

/// The part of the database a batch works on. `apply` carries its commands out on it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The database's time at the beginning of the transaction, unix milliseconds.
    pub now_ms: i64,
    /// See `Conversation.epoch`.
    pub epoch: String,
    /// Those that exist or were deleted, locked.
    pub conversations: HashMap<ConversationId, ConversationState>,
    /// Every living user that a creation or addition names.
    pub users: HashMap<UserId, Person>,
    /// Those of them that were deleted: they are never created anew.
    pub deleted_users: HashSet<UserId>,
    /// Fresh conversation numbers, one for each creation.
    pub numbers: Vec<i64>,
    /// Journals that messages name by number.
    pub journals_by_number: HashMap<i64, ConversationId>,
    /// Commands of the batch that were processed before and leave no other trace.
    pub processed: HashMap<CommandKey, Processed>,
    /// Which command sent a message that the batch names or sends, where that is known.
    pub sent_by: HashMap<(ConversationId, MessageId), CommandId>,
    /// Conversations of which the feed lacks events.
    pub feed_behind: HashMap<ConversationId, Position>,
    /// How many conversations each of `users` is in.
    pub memberships: HashMap<UserId, u64>,
    /// How many unsettled reports each of those has who report something.
    pub open_reports: HashMap<UserId, u64>,
    /// Who of them and of the actors who create or add has blocked whom.
    pub blocks: HashSet<(UserId, UserId)>,
    /// How large things may become.
    pub bounds: Bounds,
}

impl Loaded {
    /// A message of a loaded conversation.
    pub fn message(&self, (conversation, message): &(ConversationId, MessageId)) -> Option<&v1::Message> {
        self.conversations.get(conversation)?.messages.get(message)
    }
}

/// How large what users make may become.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Journals.
    pub journals: journal::Limits,
    /// Participants that a conversation carries in any answer or notice.
    pub inline_participants: usize,
    /// Participants of a conversation.
    pub group_members: u64,
    /// Conversations of a user, journals left out.
    pub user_conversations: u64,
    /// Users who are banned from a group.
    pub group_bans: u64,
    /// Reports of a user that nobody has settled.
    pub user_reports: u64,
}

impl Default for Bounds {
    /// Without bounds.
    fn default() -> Self {
        Self {
            journals: journal::Limits::default(),
            inline_participants: usize::MAX,
            group_members: u64::MAX,
            user_conversations: u64::MAX,
            group_bans: u64::MAX,
            user_reports: u64::MAX,
        }
    }
}

/// How a user is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As the latest token says.
    pub username: String,
    /// Unique; 0 for those that this batch creates.
    pub number: i64,
}

/// A locked conversation and those of its rows that the batch touches.
#[derive(Debug, Clone)]
pub struct ConversationState {
    /// Unique number.
    pub number: i64,
    /// Direct, group or journal.
    pub kind: ConversationKind,
    /// Of groups: every participant manages it.
    pub open: bool,
    /// Of groups with roles: only admins write.
    pub read_only: bool,
    /// May be empty for direct and open ones.
    pub title: String,
    /// How people reach each other.
    pub channel: Channel,
    /// Active, archived or completed.
    pub status: ConversationStatus,
    /// A JSON object as text; empty for `{}`.
    pub metadata_json: String,
    /// Who created it.
    pub created_by: String,
    /// By which command.
    pub created_by_command: CommandId,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Gone for all.
    pub deleted: bool,
    /// What has a seq up to this belongs to an earlier life and is hidden.
    pub history_from: u64,
    /// Seq of the latest change.
    pub head_seq: u64,
    /// Seq of the latest message.
    pub last_message_seq: u64,
    /// Version of the latest receipt.
    pub receipts_version: u64,
    /// Unix milliseconds of the latest message, of a journal's latest change, or of the creation.
    pub updated_at_ms: i64,
    /// Of a direct one: one of the two has blocked the other.
    pub blocked: bool,
    /// How many belong to it now.
    pub member_count: u64,
    /// Those users the batch names who are banned.
    pub banned: HashSet<UserId>,
    /// How many are banned, where the batch bans a user.
    pub ban_count: u64,
    /// Of those who belong to it now: the batch's actors, or everybody where a command needs that.
    pub members: HashMap<UserId, Member>,
    /// Those messages the batch names.
    pub messages: HashMap<MessageId, v1::Message>,
    /// Their ids by place.
    pub places: HashMap<u64, MessageId>,
    /// Those threads the batch names, and the seq of their making.
    pub threads: HashMap<Uuid, (u64, v1::Thread)>,
    /// Those changes that commands of the batch have made before.
    pub changes: HashMap<CommandId, Change>,
    /// The document, where the batch edits it.
    pub journal: Option<JournalState>,
}

/// A current participant.
#[derive(Debug, Clone)]
pub struct Member {
    /// What they may do.
    pub role: Role,
    /// How they are shown.
    pub person: Person,
    /// The head when they joined.
    pub joined_seq: u64,
    /// What they have read.
    pub read: ReadSet,
    /// Latest seq delivered to them.
    pub delivered_seq: u64,
    /// The conversation's version at the latest change of `read` or `delivered_seq`.
    pub receipts_version: u64,
}

/// A journal's document, as a batch edits it.
#[derive(Debug, Clone)]
pub struct JournalState {
    /// Seq of the latest change of the text.
    pub version: u64,
    /// All of it.
    pub journal: Journal,
    /// The latest version stored with the whole document.
    pub checkpoint_version: u64,
    /// Bytes of that document.
    pub checkpoint_bytes: usize,
    /// Bytes of the updates since.
    pub bytes_since: usize,
    /// Changes that commands of the batch have made before, by their seq.
    pub done: BTreeMap<u64, v1::JournalEdited>,
}

/// What a change did. The numbers are those stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum ChangeKind {
    /// New content of a message.
    Edited = 1,
    /// A message was emptied.
    Deleted = 2,
    /// A mark on a message came or went.
    Reaction = 3,
    /// A thread began.
    ThreadCreated = 4,
    /// Title, status, channel or metadata.
    Updated = 5,
    /// Participants came.
    MembersAdded = 6,
    /// A participant left or was removed.
    MemberRemoved = 7,
    /// A participant got another role.
    RoleChanged = 8,
    /// The conversation is gone.
    ConversationDeleted = 9,
    /// A journal's text.
    JournalEdited = 10,
    /// A message that streamed has all of its text.
    Finished = 11,
}

/// A change of the log that is no new message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place.
    pub seq: u64,
    /// What it did.
    pub kind: ChangeKind,
    /// The seq of the message it did it to; 0 for none.
    pub target_seq: u64,
    /// Who did it.
    pub actor: String,
    /// What cannot be joined when it is read: the event without messages, texts and names.
    pub payload: Vec<u8>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What `apply` decided: rows to write, by key into [`Loaded`], and an outcome per command.
#[derive(Debug, Default)]
pub struct Effects {
    /// One per command, in their order.
    pub outcomes: Vec<Outcome>,
    /// Commands to remember, because nothing else tells that they were processed.
    pub processed: Vec<(CommandKey, Processed)>,
    /// Users to create: id and user name.
    pub new_users: BTreeMap<UserId, String>,
    /// Conversations to insert.
    pub created: BTreeSet<ConversationId>,
    /// Conversations of which more than the counters is written anew.
    pub changed: BTreeSet<ConversationId>,
    /// Conversations whose counters moved.
    pub moved: BTreeSet<ConversationId>,
    /// Participants to insert or to bring back, with the head at that time.
    pub joined: BTreeMap<(ConversationId, UserId), (Role, u64)>,
    /// By how many the conversations of each user grow.
    pub memberships: BTreeMap<UserId, i64>,
    /// Participants to give another role.
    pub roles: BTreeMap<(ConversationId, UserId), Role>,
    /// Participants to end, with the last seq they may see.
    pub left: BTreeMap<(ConversationId, UserId), u64>,
    /// Users to ban from a group, by whom and when, or whose ban ends.
    pub bans: BTreeMap<(ConversationId, UserId), Option<(UserId, i64)>>,
    /// Messages to insert.
    pub new_messages: Vec<(ConversationId, MessageId)>,
    /// Messages to update.
    pub changed_messages: BTreeSet<(ConversationId, MessageId)>,
    /// Earlier contents to keep.
    pub edits: Vec<Edit>,
    /// Messages of which nothing is kept, by place.
    pub scrubbed: BTreeSet<(ConversationId, u64)>,
    /// Messages to hide from one user, by place.
    pub hidden: BTreeSet<(ConversationId, UserId, u64)>,
    /// Participants who muted the conversation, or ended that.
    pub muted: BTreeMap<(ConversationId, UserId), Option<Mute>>,
    /// Reports of messages to store.
    pub reports: Vec<Reported>,
    /// Marks to set, with the seq and time of the change, or to take away.
    pub reactions: BTreeMap<Mark, Option<(u64, i64)>>,
    /// Threads to insert.
    pub new_threads: BTreeSet<(ConversationId, Uuid)>,
    /// Threads whose counters moved.
    pub moved_threads: BTreeSet<(ConversationId, Uuid)>,
    /// Changes to insert.
    pub new_changes: Vec<(ConversationId, CommandId, Change)>,
    /// The journals that changed, with their texts where these are to be stored.
    pub journals: BTreeMap<ConversationId, Option<String>>,
    /// Versions of journals to insert.
    pub versions: Vec<(ConversationId, Version)>,
    /// Participants who told what they have read or got.
    pub readers: BTreeMap<(ConversationId, UserId), Reader>,
}

/// A mark: conversation, the message's place, user, emoji.
pub type Mark = (ConversationId, u64, UserId, String);

/// A message that was reported, as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Names the report.
    pub id: CommandId,
    /// Where.
    pub conversation: ConversationId,
    /// Which.
    pub message: MessageId,
    /// Its place.
    pub message_seq: u64,
    /// Who sent it.
    pub sender: String,
    /// Byte-exact.
    pub content: String,
    /// By whom.
    pub reporter: UserId,
    /// Why.
    pub reason: v1::ReportReason,
    /// May be empty.
    pub comment: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// The earlier content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where.
    pub conversation: ConversationId,
    /// The message's place.
    pub message_seq: u64,
    /// The seq of the change that replaced it.
    pub edit_seq: u64,
    /// As it was.
    pub content: String,
    /// When it was written, unix milliseconds.
    pub at_ms: i64,
}

/// A version of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its seq.
    pub version: u64,
    /// What changed.
    pub update: Vec<u8>,
    /// The whole document, now and then.
    pub checkpoint: Option<Vec<u8>>,
    /// Who made it.
    pub actor: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// Where a participant stood before the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// What they had read.
    pub read: ReadSet,
    /// What they had got.
    pub delivered_seq: u64,
    /// Whether the batch changes any of it.
    pub news: bool,
    /// Whether they read something, not only got it.
    pub has_read: bool,
}

/// What became of one command, before the last pieces are read back.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Surely not stored.
    Rejected(v1::Error),
    /// A message as it is now.
    Message {
        /// For the emitter.
        message: Box<v1::Message>,
        /// Carried out before.
        repeated: bool,
        /// What the members are told; `None` where they were told under another command.
        event: Option<v1::Event>,
        /// Whether the actor's connections are told that it is hidden.
        hidden: bool,
        /// What else the command leads to: opening a shared journal.
        then: Vec<v1::Command>,
    },
    /// A conversation.
    Conversation {
        /// What the emitter gets where it cannot be read back for them any more.
        bare: Box<v1::Conversation>,
        /// Carried out before.
        repeated: bool,
        /// What the members are told.
        events: Vec<v1::Event>,
        /// Who is notified that they have it, as far as they still do when the batch is done.
        added: Vec<UserId>,
        /// The head when those joined.
        joined_seq: u64,
        /// Who is notified that they have it no more.
        removed: Vec<UserId>,
    },
    /// A thread.
    Thread {
        /// For the emitter.
        thread: v1::Thread,
        /// Carried out before.
        repeated: bool,
        /// What the members are told.
        event: Option<v1::Event>,
    },
    /// A journal's text.
    Journal {
        /// For the emitter.
        edited: Box<v1::JournalEdited>,
        /// Carried out before, or nothing changed.
        repeated: bool,
        /// What the collaborators are told.
        event: Option<v1::Event>,
    },
    /// The actor muted the conversation, or ended that; their sessions are notified.
    Muted {
        /// What the emitter gets where the conversation cannot be read back for them any more.
        bare: Box<v1::Conversation>,
        /// Carried out before.
        repeated: bool,
    },
    /// The actor's receipts, to be settled.
    Receipt,
    /// Carried out before, for somebody who may not see it any more.
    Bare(Box<v1::confirmation::Result>),
}

impl JournalState {
    /// Of a document that is not stored yet.
    pub fn new(journal: Journal) -> Self {
        Self {
            version: 0,
            journal,
            checkpoint_version: 0,
            checkpoint_bytes: 0,
            bytes_since: 0,
            done: BTreeMap::new(),
        }
    }
}

impl ConversationState {
    /// The message a command names, if it belongs to this life of the conversation.
    pub fn message(&self, name: MessageName) -> Option<&v1::Message> {
        let id = match name {
            MessageName::Id(id) => id,
            MessageName::Seq(seq) => *self.places.get(&seq)?,
        };
        self.messages
            .get(&id)
            .filter(|message| message.seq > self.history_from)
    }

    /// Its id.
    pub fn message_id(&self, name: MessageName) -> Option<MessageId> {
        let message = self.message(name)?;
        self.places.get(&message.seq).copied()
    }

    /// Makes a message known.
    pub fn put_message(&mut self, id: MessageId, message: v1::Message) {
        self.places.insert(message.seq, id);
        self.messages.insert(id, message);
    }

    /// The thread with this id, if it belongs to this life of the conversation.
    pub fn thread(&self, id: Uuid) -> Option<&v1::Thread> {
        self.threads
            .get(&id)
            .filter(|(seq, _)| *seq > self.history_from)
            .map(|(_, thread)| thread)
    }
}
