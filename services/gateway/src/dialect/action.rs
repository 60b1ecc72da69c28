//! What a client asks for, whatever its dialect, and by socket or over REST. Pure.

use parlance_journal::ClientState;
use parlance_proto::UserId;
use parlance_proto::v1::{
    CreateConversation, MessageType, Mute, Position, PresenceStatus, ReportReason, Role, UpdateConversation,
};
use uuid::Uuid;

use super::{ConversationRef, MessageRef};

/// What a client asks for, whatever its dialect. Where the conversation is `None`, the message names it.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Follow a conversation.
    Join(ConversationRef),
    /// Follow it no more.
    Leave(ConversationRef),
    /// Send a message.
    Send(SendAction),
    /// Change a message.
    Edit {
        /// Where.
        conversation: Option<ConversationRef>,
        /// Which.
        message: MessageRef,
        /// To what.
        content: String,
    },
    /// Delete a message.
    Delete {
        /// Where.
        conversation: Option<ConversationRef>,
        /// Which.
        message: MessageRef,
        /// Only hide it from oneself.
        for_me: bool,
    },
    /// Mark messages as read, or only as delivered; all given are united.
    Receipt {
        /// Where; needed with `up_to_seq`.
        conversation: Option<ConversationRef>,
        /// Everything up to this seq.
        up_to_seq: Option<u64>,
        /// These messages, all of one conversation.
        messages: Vec<MessageRef>,
        /// They came, but were not looked at.
        delivered_only: bool,
        /// Everything before the latest of these messages too.
        through: bool,
    },
    /// Put a mark on a message or take it back.
    React {
        /// Where.
        conversation: Option<ConversationRef>,
        /// Which.
        message: MessageRef,
        /// The mark.
        emoji: String,
        /// Take it back.
        remove: bool,
    },
    /// Ask the service of a message that streams to end it.
    Stop {
        /// Where.
        conversation: Option<ConversationRef>,
        /// Which.
        message: MessageRef,
    },
    /// Notify the others that one types.
    Typing {
        /// Where.
        conversation: ConversationRef,
        /// Begins or ends.
        is_typing: bool,
    },
    /// Begin a thread.
    CreateThread {
        /// Where.
        conversation: ConversationRef,
        /// May be empty.
        title: String,
        /// The message it grows from.
        root: Option<MessageRef>,
        /// The thread it grows from.
        parent: Option<Uuid>,
    },
    /// Report a message of another to those who moderate.
    Report(ReportAction),
    /// Mute a conversation for oneself, or end that.
    Mute {
        /// Which.
        conversation: ConversationRef,
        /// Until when; `None` ends it.
        mute: Option<Mute>,
    },
    /// Look at a thread, or at the main line again. Nobody else is notified.
    SwitchThread {
        /// Where.
        conversation: ConversationRef,
        /// Which.
        thread: Option<Uuid>,
    },
    /// Follow a journal.
    JoinJournal {
        /// Which.
        journal: ConversationRef,
        /// Of a client that keeps the document itself: what it knows, as a Yjs (v1) state vector.
        state_vector: Option<Vec<u8>>,
    },
    /// Follow it no more.
    LeaveJournal(ConversationRef),
    /// Change a journal.
    EditJournal {
        /// Which.
        journal: ConversationRef,
        /// How.
        change: JournalChange,
    },
    /// Show the others in a journal names and cursors.
    ShareAwareness {
        /// Which.
        journal: ConversationRef,
        /// The states as sent.
        states: Vec<ClientState>,
    },
    /// A page of the participants of a conversation.
    ListParticipants {
        /// Which.
        conversation: ConversationRef,
        /// Those with greater ids than this; empty for the first.
        after: String,
        /// At most so many.
        limit: u32,
    },
    /// What happened since.
    Sync(Vec<Position>),
    /// The user wants to be seen like this by this connection.
    Presence {
        /// Online, away or offline.
        status: PresenceStatus,
    },
    /// Be notified of the presence of these users, also where no small conversation is shared with them.
    WatchPresence(Vec<String>),
    /// Not any more.
    UnwatchPresence(Vec<String>),
    /// Give oneself another name.
    Rename(String),
    /// Block a user, or end that.
    Block {
        /// Whom.
        user: UserId,
        /// Or ends it.
        blocked: bool,
    },
    /// A page of the users one has blocked.
    ListBlocks {
        /// Those with greater ids than this; empty for the first.
        after: String,
        /// At most so many.
        limit: u32,
    },
    /// Make, change or end a conversation.
    Conversation(ConversationAction),
    /// Make, change or end a journal as a whole.
    Journal(JournalAction),
}

/// What is done to a conversation and its participants.
#[derive(Debug, Clone, PartialEq)]
pub enum ConversationAction {
    /// Make one. Whether unknown users are created is not the client's to say.
    Create(CreateConversation),
    /// Change what is named of it.
    Update {
        /// Which.
        conversation: ConversationRef,
        /// How.
        update: UpdateConversation,
        /// Of a group: all who are participants from now on, besides oneself.
        participants: Option<Vec<UserId>>,
    },
    /// Delete it for all.
    Delete(ConversationRef),
    /// Add users. A role is given to present participants too; without one they keep theirs.
    AddMembers {
        /// To which.
        conversation: ConversationRef,
        /// Whom.
        users: Vec<UserId>,
        /// As what.
        role: Option<Role>,
    },
    /// Give a participant another role.
    ChangeRole {
        /// Where.
        conversation: ConversationRef,
        /// Whom.
        user: UserId,
        /// Which.
        role: Role,
    },
    /// Remove a user from a group for good, or let them be added again.
    Ban {
        /// Which.
        conversation: ConversationRef,
        /// Whom.
        user: UserId,
        /// Or ends it.
        banned: bool,
    },
    /// Remove a participant, or leave.
    RemoveMember {
        /// From which.
        conversation: ConversationRef,
        /// Whom.
        user: UserId,
    },
}

/// What is done to a journal without following it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalAction {
    /// Make one.
    Create {
        /// Its title.
        title: String,
        /// Its first text.
        content: String,
    },
    /// Change title or text.
    Update {
        /// Which.
        journal: ConversationRef,
        /// To what.
        title: Option<String>,
        /// To what.
        content: Option<String>,
        /// The version whose text the client changed; 0 for the present.
        base_version: u64,
    },
    /// Make the text of a version the text of the journal again.
    Restore {
        /// Which.
        journal: ConversationRef,
        /// From 1 on.
        version: u64,
    },
    /// Delete it for all.
    Delete(ConversationRef),
    /// Let a user read or write it; a collaborator gets this role.
    Share {
        /// Which.
        journal: ConversationRef,
        /// With whom.
        user: UserId,
        /// Viewer or editor.
        role: Role,
    },
    /// Give a collaborator another role.
    ChangeRole {
        /// Of which.
        journal: ConversationRef,
        /// Whom.
        user: UserId,
        /// Viewer or editor.
        role: Role,
    },
    /// End what a user may do with it.
    Unshare {
        /// Which.
        journal: ConversationRef,
        /// Whom.
        user: UserId,
    },
}

impl Action {
    /// Whether it changes what is stored, so that a client may name it by an idempotency key. A second name has no id by
    /// which it would be found.
    pub fn is_change(&self) -> bool {
        match self {
            Self::Send(_)
            | Self::Edit { .. }
            | Self::Delete { .. }
            | Self::Receipt { .. }
            | Self::React { .. }
            | Self::CreateThread { .. }
            | Self::Mute { .. }
            | Self::Report(_)
            | Self::EditJournal { .. }
            | Self::Conversation(_)
            | Self::Journal(_) => true,
            Self::Join(_)
            | Self::Leave(_)
            | Self::Stop { .. }
            | Self::Typing { .. }
            | Self::SwitchThread { .. }
            | Self::JoinJournal { .. }
            | Self::LeaveJournal(_)
            | Self::ShareAwareness { .. }
            | Self::ListParticipants { .. }
            | Self::Sync(_)
            | Self::Presence { .. }
            | Self::WatchPresence(_)
            | Self::UnwatchPresence(_)
            | Self::Block { .. }
            | Self::ListBlocks { .. }
            | Self::Rename(_) => false,
        }
    }

    /// Whether it names messages without their conversation.
    pub fn names_messages_alone(&self) -> bool {
        match self {
            Self::Edit { conversation, .. }
            | Self::Delete { conversation, .. }
            | Self::Receipt { conversation, .. }
            | Self::React { conversation, .. }
            | Self::Report(ReportAction { conversation, .. })
            | Self::Stop { conversation, .. } => conversation.is_none(),
            Self::Send(_)
            | Self::CreateThread { .. }
            | Self::Mute { .. }
            | Self::EditJournal { .. }
            | Self::Conversation(_)
            | Self::Journal(_)
            | Self::Join(_)
            | Self::Leave(_)
            | Self::Typing { .. }
            | Self::SwitchThread { .. }
            | Self::JoinJournal { .. }
            | Self::LeaveJournal(_)
            | Self::ShareAwareness { .. }
            | Self::ListParticipants { .. }
            | Self::Sync(_)
            | Self::Presence { .. }
            | Self::WatchPresence(_)
            | Self::UnwatchPresence(_)
            | Self::Block { .. }
            | Self::ListBlocks { .. }
            | Self::Rename(_) => false,
        }
    }
}

impl From<ConversationAction> for Action {
    fn from(action: ConversationAction) -> Self {
        Self::Conversation(action)
    }
}

impl From<JournalAction> for Action {
    fn from(action: JournalAction) -> Self {
        Self::Journal(action)
    }
}

/// A change of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalChange {
    /// The whole text as this client now shows it.
    Content(String),
    /// A Yjs (v1) update.
    Update(Vec<u8>),
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct SendAction {
    /// Where.
    pub conversation: ConversationRef,
    /// The client's own id, which makes a repeat harmless.
    pub client_msg_id: Option<String>,
    /// Kind of content.
    pub kind: MessageType,
    /// Byte-exact.
    pub content: String,
    /// The content is ciphertext.
    pub encrypted: bool,
    /// JSON object as text; empty for none.
    pub metadata: String,
    /// The message it answers.
    pub reply_to: Option<MessageRef>,
    /// The thread it belongs to.
    pub thread: Option<Uuid>,
}

/// A message to be reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportAction {
    /// Where.
    pub conversation: Option<ConversationRef>,
    /// Which.
    pub message: MessageRef,
    /// Why.
    pub reason: ReportReason,
    /// May be empty.
    pub comment: String,
}

/// An event as a dialect reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What is wanted.
    pub action: Action,
    /// What the client calls this request, to be repeated when it fails.
    pub tag: Option<String>,
}

impl From<Action> for Decoded {
    fn from(action: Action) -> Self {
        Self { action, tag: None }
    }
}
