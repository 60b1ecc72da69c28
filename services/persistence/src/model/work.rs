//! A command in checked, typed form. Whoever wrote it to the bus, past this point every id is valid and
//! every text can be stored. Pure.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use parlance_proto::v1::{
    self, Channel, ConversationKind, ConversationStatus, MessageType, Role, SenderKind, StreamState,
};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use uuid::Uuid;

use super::refusals::refuse;

/// Users that one command may name.
pub const MAX_USERS: usize = 1_000;
/// Most users that one change of a conversation adds: no event carries more participants. A command that adds more makes
/// several changes.
pub const MEMBERS_PER_CHANGE: usize = 100;

/// One command to carry out.
#[derive(Debug, Clone)]
pub struct Work {
    /// The same across redeliveries.
    pub id: CommandId,
    /// Who wants it.
    pub actor: Actor,
    /// Where.
    pub conversation: ConversationId,
    /// What.
    pub action: Action,
}

/// Who acts.
#[derive(Debug, Clone)]
pub struct Actor {
    /// User or service.
    pub id: UserId,
    /// As the token or the service says.
    pub username: String,
    /// User, agent or system.
    pub kind: SenderKind,
}

/// A stored message, as a command names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageName {
    /// By its identity.
    Id(MessageId),
    /// By its place.
    Seq(u64),
}

/// What a command wants.
#[derive(Debug, Clone)]
pub enum Action {
    /// See [`Create`].
    Create(Create),
    /// See [`Send`].
    Send(Send),
    /// New content for a message.
    Edit {
        /// Which.
        message: MessageName,
        /// Byte-exact.
        content: String,
    },
    /// Empty a message.
    Delete(MessageName),
    /// Hide a message from the actor.
    Hide(MessageName),
    /// Mute the conversation for the actor; `None` ends that.
    Mute(Option<Mute>),
    /// See [`Report`].
    Report(Report),
    /// See [`Receive`].
    Receive(Receive),
    /// See [`React`].
    React(React),
    /// See [`StartThread`].
    StartThread(StartThread),
    /// See [`Update`].
    Update(Update),
    /// See [`AddMembers`].
    AddMembers(AddMembers),
    /// Remove somebody, or oneself.
    RemoveMember(UserId),
    /// Remove a user from a group for good.
    Ban(UserId),
    /// The user may be added again.
    Unban(UserId),
    /// Give somebody this role.
    ChangeRole(UserId, Role),
    /// Delete the conversation for all.
    DeleteConversation,
    /// Merge a Yjs (v1) update into a journal.
    EditJournal(Vec<u8>),
    /// More text of a message that streams.
    Append(StreamText),
    /// Its last text, and how it ends: finished, cancelled or interrupted.
    EndStream(StreamText, StreamState),
}

/// Create a conversation.
#[derive(Debug, Clone)]
pub struct Create {
    /// Never unspecified.
    pub kind: ConversationKind,
    /// Of groups: every participant manages it.
    pub open: bool,
    /// May be empty for direct and open ones.
    pub title: String,
    /// Without the actor; may be empty for journals and open groups only.
    pub others: BTreeSet<UserId>,
    /// Whether unknown users are created.
    pub provision: bool,
    /// Never unspecified.
    pub channel: Channel,
    /// A JSON object as text; empty for `{}`.
    pub metadata_json: String,
    /// First text of a journal, as an update of an empty document; empty for none.
    pub journal: Vec<u8>,
}

/// Send a message.
#[derive(Debug, Clone)]
pub struct Send {
    /// Its identity for ever.
    pub message: MessageId,
    /// Never unspecified.
    pub kind: MessageType,
    /// Byte-exact.
    pub content: String,
    /// A JSON object as text; empty for `{}`.
    pub metadata_json: String,
    /// The client's own id.
    pub client_msg_id: Option<String>,
    /// The message it answers.
    pub reply_to: Option<MessageName>,
    /// Whether the content is ciphertext.
    pub encrypted: bool,
    /// The thread it belongs to.
    pub thread: Option<Uuid>,
    /// Of `JOURNAL_SHARE`: which.
    pub journal: Option<JournalName>,
    /// More text follows; of services only.
    pub streaming: bool,
}

/// Text of a message that streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamText {
    /// Which.
    pub message: MessageId,
    /// Bytes of the message's text that come before this.
    pub offset: u64,
    /// Byte-exact.
    pub text: String,
}

/// A journal, as a message's metadata name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalName {
    /// By its identity.
    Id(ConversationId),
    /// By its number.
    Number(i64),
}

/// How a conversation is muted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mute {
    /// When it ends by itself, unix milliseconds; `None`: not before the actor ends it.
    pub until_ms: Option<i64>,
}

/// Report a message to those who moderate.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which.
    pub message: MessageName,
    /// Never unspecified.
    pub reason: v1::ReportReason,
    /// May be empty.
    pub comment: String,
}

/// Tell what was delivered to the actor, or read by them.
#[derive(Debug, Clone)]
pub struct Receive {
    /// Everything up to this seq; 0 for none.
    pub up_to: u64,
    /// And these.
    pub messages: Vec<MessageName>,
    /// Not read.
    pub delivered_only: bool,
    /// And everything before these.
    pub through: bool,
}

/// Mark a message, or take the mark back.
#[derive(Debug, Clone)]
pub struct React {
    /// Which.
    pub message: MessageName,
    /// 1 to 64 bytes.
    pub emoji: String,
    /// Take it back.
    pub remove: bool,
}

/// Begin a thread.
#[derive(Debug, Clone)]
pub struct StartThread {
    /// Its identity for ever.
    pub thread: Uuid,
    /// May be empty.
    pub title: String,
    /// The message it grows from.
    pub root: Option<MessageName>,
    /// The thread it grows from.
    pub parent: Option<Uuid>,
}

/// Change what a conversation is about; `None` stays as it is.
#[derive(Debug, Clone)]
pub struct Update {
    /// Not checked against the kind.
    pub title: Option<String>,
    /// Never unspecified.
    pub status: Option<ConversationStatus>,
    /// Never unspecified.
    pub channel: Option<Channel>,
    /// A JSON object as text; empty for `{}`.
    pub metadata_json: Option<String>,
    /// Whether only admins write. Not checked against the kind.
    pub read_only: Option<bool>,
}

/// Add participants.
#[derive(Debug, Clone)]
pub struct AddMembers {
    /// Not empty.
    pub users: BTreeSet<UserId>,
    /// Unspecified: the least of the kind.
    pub role: Role,
    /// Whether unknown users are created.
    pub provision: bool,
    /// Whether those that are in it already get the role too; never without a role.
    pub change_present: bool,
    /// Whether users who have blocked the actor are left out instead of being refused.
    pub leave_out_blocking: bool,
}

impl Work {
    /// A name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match &self.action {
            Action::Create(_) => "create_conversation",
            Action::Send(_) => "send_message",
            Action::Edit { .. } => "edit_message",
            Action::Delete(_) => "delete_message",
            Action::Hide(_) => "hide_message",
            Action::Mute(_) => "mute_conversation",
            Action::Report(_) => "report_message",
            Action::Receive(_) => "mark_read",
            Action::React(_) => "react",
            Action::StartThread(_) => "create_thread",
            Action::Update(_) => "update_conversation",
            Action::AddMembers(_) => "add_members",
            Action::RemoveMember(_) => "remove_member",
            Action::Ban(_) => "ban_member",
            Action::Unban(_) => "unban_member",
            Action::ChangeRole(..) => "change_role",
            Action::DeleteConversation => "delete_conversation",
            Action::EditJournal(_) => "edit_journal",
            Action::Append(_) => "append_text",
            Action::EndStream(..) => "end_stream",
        }
    }

    /// The id under which the command's change of this index is logged: the first under its own.
    pub fn change_id(&self, index: usize) -> CommandId {
        match index {
            0 => self.id,
            1 => CommandId::from_uuid(Uuid::new_v5(&self.id.uuid(), b"second")),
            _ => CommandId::from_uuid(Uuid::new_v5(
                &self.id.uuid(),
                format!("change:{index}").as_bytes(),
            )),
        }
    }

    /// The most changes it makes that are found again under [`Work::change_id`].
    pub fn max_changes(&self) -> usize {
        match &self.action {
            Action::Create(_)
            | Action::Send(_)
            | Action::Receive(_)
            | Action::Hide(_)
            | Action::Mute(_)
            | Action::Report(_)
            | Action::Unban(_)
            | Action::Append(_) => 0,
            Action::AddMembers(add) if add.change_present => add.users.len(),
            Action::AddMembers(add) => add.users.len().div_ceil(MEMBERS_PER_CHANGE),
            Action::RemoveMember(_) | Action::Ban(_) => 2,
            _ => 1,
        }
    }

    /// Whether a document is merged, which may take a while.
    pub fn changes_journal(&self) -> bool {
        match &self.action {
            Action::EditJournal(_) => true,
            Action::Create(create) => create.kind == ConversationKind::Journal,
            _ => false,
        }
    }

    /// Whether carrying it out needs to know all participants.
    pub fn needs_all_members(&self) -> bool {
        match &self.action {
            Action::DeleteConversation => true,
            Action::Send(send) => send.journal.is_some(),
            _ => false,
        }
    }

    /// Up to this weight a command is carried out with all others.
    pub const LIGHT: usize = 100;

    /// What carrying it out may cost, as far as the command tells: about a row or a message each. What needs all members
    /// may be costly in a large group, and is never light.
    pub fn weight(&self) -> usize {
        /// Of an update of a journal: one inserts blocks that may have to be compared with others.
        const BYTES: usize = 10;
        let own = match &self.action {
            Action::Create(create) => create.others.len() + create.journal.len() / BYTES,
            Action::AddMembers(add) => add.users.len(),
            Action::Receive(receive) => receive.messages.len(),
            Action::EditJournal(update) => update.len() / BYTES,
            _ => 1,
        };
        if self.needs_all_members() {
            own + Self::LIGHT
        } else {
            own
        }
    }

    /// The users it names as participants, or makes some.
    pub fn named_members(&self) -> Vec<&UserId> {
        match &self.action {
            Action::Create(create) => create.others.iter().collect(),
            Action::AddMembers(add) => add.users.iter().collect(),
            Action::RemoveMember(user) | Action::Ban(user) | Action::ChangeRole(user, _) => vec![user],
            _ => Vec::new(),
        }
    }

    /// How many participants it may take the lead from: whoever leads afterwards is one of so many and one more that
    /// come first.
    pub fn dethroned(&self) -> usize {
        match &self.action {
            Action::AddMembers(add) if add.change_present => add.users.len(),
            Action::RemoveMember(_) | Action::Ban(_) | Action::ChangeRole(..) => 1,
            _ => 0,
        }
    }

    /// The messages it names.
    pub fn named_messages(&self) -> Vec<MessageName> {
        match &self.action {
            Action::Send(send) => send
                .reply_to
                .into_iter()
                .chain([MessageName::Id(send.message)])
                .collect(),
            Action::Edit { message, .. } | Action::Delete(message) | Action::Hide(message) => vec![*message],
            Action::React(react) => vec![react.message],
            Action::Report(report) => vec![report.message],
            Action::Receive(receive) => receive.messages.clone(),
            Action::StartThread(start) => start.root.into_iter().collect(),
            Action::Append(text) | Action::EndStream(text, _) => vec![MessageName::Id(text.message)],
            _ => Vec::new(),
        }
    }

    /// The threads it names.
    pub fn named_threads(&self) -> Vec<Uuid> {
        match &self.action {
            Action::Send(send) => send.thread.into_iter().collect(),
            Action::StartThread(start) => start.parent.into_iter().chain([start.thread]).collect(),
            _ => Vec::new(),
        }
    }
}

impl Actor {
    /// Whether it is a service, which sends for itself alone. Some of the commands that wait were made before services had
    /// ids of their own; their actors are told by their kind.
    pub fn is_service(&self) -> bool {
        self.id.is_service() || self.kind == SenderKind::System
    }

    /// Whether membership decides what the actor may do, an agent's too; services may write anywhere.
    pub fn is_user(&self) -> bool {
        !self.is_service()
    }
}

impl std::str::FromStr for MessageName {
    type Err = v1::Error;

    /// A UUID, or `#` and a seq.
    fn from_str(text: &str) -> Result<Self, v1::Error> {
        match text.strip_prefix('#') {
            Some(seq) => {
                let seq = seq.parse().ok().filter(|seq| (1..=i64::MAX as u64).contains(seq));
                seq.map(Self::Seq)
                    .ok_or_else(|| refuse("message id is neither a UUID nor # and a seq"))
            }
            None => text.parse().map(Self::Id).map_err(parse::invalid),
        }
    }
}

/// Groups with roles and journals have a title that can be seen.
///
/// # Errors
/// [`v1::ErrorCode::Invalid`].
pub fn needs_title(kind: ConversationKind, open: bool, title: &str) -> Result<(), v1::Error> {
    match kind {
        ConversationKind::Group if !open && title.trim().is_empty() => Err(refuse("a group needs a title")),
        ConversationKind::Journal if title.trim().is_empty() => Err(refuse("a journal needs a title")),
        _ => Ok(()),
    }
}
