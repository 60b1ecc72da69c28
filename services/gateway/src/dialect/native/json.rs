//! The native representation of the domain as JSON; REST speaks it too. Must not decide anything.

mod journal;
mod log;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parlance_proto::v1::{
    Conversation, JournalEdited, Message, MessageChunk, Participant, ParticipantPage, ReactionChanged,
    ReceiptUpdated, Sender, SenderKind, SeqRange, StreamState, Thread, Typing, User,
};
use parlance_proto::{ConversationId, MessageId};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::mute;
use super::presence::{self, PresenceJson};
use crate::dialect::Place;
use crate::dialect::shape::{
    channel_name, kind_name, metadata, role_name, sender_name, status_name, time, type_name,
};
pub(super) use journal::{AwarenessJson, JournalUpdateJson, Synced, awareness, journal_update};
pub use log::{EventJson, EventPageJson, SyncJson, event_page, sync};

#[derive(Serialize, ToSchema)]
#[schema(as = NamedUser)]
pub(crate) struct UserJson<'a> {
    user_id: &'a str,
    number: i64,
    username: &'a str,
}

/// A user under the present name.
pub(crate) fn user(user: &User) -> UserJson<'_> {
    UserJson {
        user_id: &user.user_id,
        number: user.number,
        username: &user.username,
    }
}

/// A message as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageJson<'a> {
    id: &'a str,
    conversation_id: &'a str,
    seq: u64,
    sender: SenderJson<'a>,
    #[schema(schema_with = crate::dialect::schema::sender_kind)]
    sender_kind: &'static str,
    #[serde(rename = "type")]
    #[schema(schema_with = crate::dialect::schema::message_type)]
    kind: &'static str,
    content: &'a str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    #[schema(required)]
    client_msg_id: Option<&'a str>,
    #[schema(required)]
    reply_to: Option<&'a str>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required, format = DateTime)]
    edited_at: Option<String>,
    #[schema(required, format = DateTime)]
    deleted_at: Option<String>,
    #[schema(required)]
    number: Option<i64>,
    encrypted: bool,
    #[schema(required)]
    thread_id: Option<&'a str>,
    reactions: Vec<ReactionJson<'a>>,
    /// Only of a message whose text streams, or did: how far it is. While it is `open` more text follows, and `content` is what
    /// was stored last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::dialect::schema::stream)]
    stream: Option<&'static str>,
}

/// Text of a message that streams.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Chunk)]
pub(super) struct ChunkJson<'a> {
    conversation_id: String,
    message_id: &'a str,
    /// Of the message.
    seq: u64,
    /// Bytes of the message's text, as UTF-8, that come before this.
    offset: u64,
    text: &'a str,
}

/// Who sent a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sender)]
pub struct SenderJson<'a> {
    id: &'a str,
    username: &'a str,
}

/// One user's mark.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reaction)]
pub struct ReactionJson<'a> {
    user_id: &'a str,
    emoji: &'a str,
}

/// A conversation as one of its participants sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub struct ConversationJson<'a> {
    id: &'a str,
    number: i64,
    #[schema(schema_with = crate::dialect::schema::conversation_kind)]
    kind: &'static str,
    #[schema(required)]
    title: Option<&'a str>,
    /// At most a hundred: the first by id, and in the place of the last of them the viewer where they come later. All are
    /// listed in pages, from the beginning.
    participants: Vec<ParticipantJson<'a>>,
    participant_count: u64,
    /// Whether these are all participants.
    participants_complete: bool,
    head_seq: u64,
    epoch: &'a str,
    unread: u64,
    #[schema(required)]
    last_message: Option<MessageJson<'a>>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(schema_with = crate::dialect::schema::channel)]
    channel: &'static str,
    #[schema(schema_with = crate::dialect::schema::status)]
    status: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_by: &'a str,
    /// Every participant of the group manages it: title, status, channel, metadata and members.
    open: bool,
    /// Of a group with roles: only admins send and edit messages and begin threads.
    read_only: bool,
    /// Whether the viewer muted it: they get no pushes of it, and `unread` is not for the badge of the application.
    muted: bool,
    /// When that ends by itself; null where it is not muted, or not before it is ended.
    #[schema(required, format = DateTime)]
    muted_until: Option<String>,
}

/// Participants of a conversation, by ascending id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParticipantPage)]
pub struct ParticipantPageJson<'a> {
    participants: Vec<ParticipantJson<'a>>,
    /// The `after` of the next page; null on the last one.
    #[schema(required)]
    next: Option<&'a str>,
}

/// A participant as clients see one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Participant)]
pub struct ParticipantJson<'a> {
    user_id: &'a str,
    username: &'a str,
    #[schema(schema_with = crate::dialect::schema::role)]
    role: &'static str,
    /// Where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReactionChanged)]
pub(super) struct ReactionChangedJson<'a> {
    conversation_id: &'a str,
    message_id: &'a str,
    user_id: &'a str,
    emoji: &'a str,
    removed: bool,
    reactions: Vec<ReactionJson<'a>>,
}

/// A conversation as joined, and the presence of its participants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JoinedConversation)]
pub struct Joined<'a> {
    conversation: ConversationJson<'a>,
    /// Not of large groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Vec<PresenceJson<'a>>>,
}

/// A thread as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Thread)]
pub struct ThreadJson<'a> {
    id: &'a str,
    conversation_id: &'a str,
    title: &'a str,
    #[schema(required)]
    root_message_id: Option<&'a str>,
    #[schema(required)]
    parent_thread_id: Option<&'a str>,
    created_by: &'a str,
    #[schema(format = DateTime)]
    created_at: String,
    reply_count: u64,
    #[schema(required, format = DateTime)]
    last_reply_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationChanged)]
pub(super) struct ConversationChangedJson<'a> {
    conversation_id: &'a str,
    #[schema(required)]
    title: Option<&'a str>,
    #[schema(schema_with = crate::dialect::schema::channel)]
    channel: &'static str,
    #[schema(schema_with = crate::dialect::schema::status)]
    status: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    read_only: bool,
    head_seq: u64,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A journal's text as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Journal)]
pub struct JournalJson<'a> {
    journal_id: &'a str,
    number: i64,
    version: u64,
    /// The whole text. Absent in logs and in acks of changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    /// The change in base64, where there was one.
    #[schema(required)]
    update: Option<String>,
    user_id: &'a str,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Members)]
pub(super) struct MembersJson<'a> {
    conversation_id: String,
    members: Vec<ParticipantJson<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub(super) struct MemberJson<'a> {
    conversation_id: String,
    #[serde(flatten)]
    member: ParticipantJson<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hidden)]
pub(super) struct HiddenJson<'a> {
    conversation_id: &'a str,
    message_id: &'a str,
    seq: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Removed)]
pub(super) struct RemovedJson {
    conversation_id: String,
}

/// One object under the name of what it is.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Holding)]
pub struct Holding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<ConversationJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReadStateJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<JournalJson<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReadState)]
pub(super) struct ReadStateJson<'a> {
    user_id: &'a str,
    /// Everything up to here is read.
    up_to_seq: u64,
    /// Everything that is read, as inclusive ranges of seqs.
    read: Vec<[u64; 2]>,
    delivered_seq: u64,
    version: u64,
}

/// How far a participant has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub struct ReceiptJson<'a> {
    conversation_id: String,
    #[serde(flatten)]
    state: ReadStateJson<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Typing)]
pub(super) struct TypingJson<'a> {
    conversation_id: String,
    user_id: &'a str,
    username: &'a str,
    is_typing: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListUpdated)]
pub(super) struct ListUpdatedJson<'a> {
    conversation_id: &'a str,
    head_seq: u64,
    last_message: MessageJson<'a>,
    unread: u64,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resync)]
pub(super) struct ResyncJson<'a> {
    conversation_id: String,
    epoch: &'a str,
    head_seq: u64,
}

/// Writes a message.
pub fn message(message: &Message) -> MessageJson<'_> {
    let sender = message.sender.as_ref();
    MessageJson {
        id: &message.id,
        conversation_id: &message.conversation_id,
        seq: message.seq,
        sender: SenderJson {
            id: sender.map_or("", |sender| &sender.id),
            username: sender.map_or("", |sender| &sender.username),
        },
        sender_kind: sender_name(sender.map_or(SenderKind::User, Sender::kind)),
        kind: type_name(message.r#type()),
        content: &message.content,
        metadata: metadata(&message.metadata_json),
        client_msg_id: message.client_msg_id.as_deref(),
        reply_to: message.reply_to.as_deref(),
        created_at: time(message.created_at_ms),
        edited_at: message.edited_at_ms.map(time),
        deleted_at: message.deleted_at_ms.map(time),
        number: MessageId::number(message.conversation_number, message.seq),
        encrypted: message.encrypted,
        thread_id: message.thread_id.as_deref(),
        reactions: message
            .reactions
            .iter()
            .map(|reaction| ReactionJson {
                user_id: &reaction.user_id,
                emoji: &reaction.emoji,
            })
            .collect(),
        stream: match message.stream() {
            StreamState::Unspecified => None,
            StreamState::Open => Some("open"),
            StreamState::Finished => Some("finished"),
            StreamState::Cancelled => Some("cancelled"),
            StreamState::Interrupted => Some("interrupted"),
        },
    }
}

/// Writes text of a message that streams.
pub(super) fn chunk(conversation: ConversationId, chunk: &MessageChunk) -> ChunkJson<'_> {
    ChunkJson {
        conversation_id: conversation.to_string(),
        message_id: &chunk.message_id,
        seq: chunk.seq,
        offset: chunk.offset,
        text: &chunk.text,
    }
}

impl<'a> Joined<'a> {
    /// Writes a conversation as joined.
    pub fn new(conversation: &'a Conversation) -> Self {
        let seen = conversation
            .participants
            .iter()
            .filter_map(|one| one.presence.as_ref());
        let presence: Vec<_> = seen.map(presence::json).collect();
        Self {
            conversation: self::conversation(conversation),
            presence: (!presence.is_empty()).then_some(presence),
        }
    }
}

/// Writes a conversation.
pub fn conversation(conversation: &Conversation) -> ConversationJson<'_> {
    ConversationJson {
        id: &conversation.id,
        number: conversation.number,
        kind: kind_name(conversation.kind()),
        title: Some(conversation.title.as_str()).filter(|title| !title.is_empty()),
        participants: participants(&conversation.participants),
        participant_count: conversation.participant_count,
        participants_complete: conversation.participants_complete,
        head_seq: conversation.head_seq,
        epoch: &conversation.epoch,
        unread: conversation.unread,
        last_message: conversation.last_message.as_ref().map(message),
        created_at: time(conversation.created_at_ms),
        updated_at: time(conversation.updated_at_ms),
        channel: channel_name(conversation.channel()),
        status: status_name(conversation.status()),
        metadata: metadata(&conversation.metadata_json),
        created_by: &conversation.created_by,
        open: conversation.open,
        read_only: conversation.read_only,
        muted: conversation.mute.is_some(),
        muted_until: mute::ends(conversation.mute.as_ref()),
    }
}

/// Writes a page of participants.
pub fn participant_page(page: &ParticipantPage) -> ParticipantPageJson<'_> {
    ParticipantPageJson {
        participants: participants(&page.participants),
        next: Some(page.next.as_str()).filter(|next| !next.is_empty()),
    }
}

/// Writes participants.
pub fn participants(participants: &[Participant]) -> Vec<ParticipantJson<'_>> {
    participants.iter().map(participant).collect()
}

fn participant(participant: &Participant) -> ParticipantJson<'_> {
    ParticipantJson {
        user_id: &participant.user_id,
        username: &participant.username,
        role: role_name(participant.role()),
        online: participant.presence.as_ref().map(presence::is_online),
        last_seen_at: participant.presence.as_ref().and_then(presence::last_seen),
    }
}

/// Writes a mark.
pub fn reaction(reaction: &ReactionChanged) -> impl Serialize {
    reaction_json(reaction)
}

fn reaction_json(reaction: &ReactionChanged) -> ReactionChangedJson<'_> {
    let message = reaction.message.as_ref();
    let all = message.map_or(&[][..], |message| &message.reactions);
    ReactionChangedJson {
        conversation_id: message.map_or("", |message| &message.conversation_id),
        message_id: message.map_or("", |message| &message.id),
        user_id: &reaction.user_id,
        emoji: &reaction.emoji,
        removed: reaction.removed,
        reactions: all
            .iter()
            .map(|reaction| ReactionJson {
                user_id: &reaction.user_id,
                emoji: &reaction.emoji,
            })
            .collect(),
    }
}

/// Writes a thread.
pub fn thread(thread: &Thread) -> ThreadJson<'_> {
    ThreadJson {
        id: &thread.id,
        conversation_id: &thread.conversation_id,
        title: &thread.title,
        root_message_id: thread.root_message_id.as_deref(),
        parent_thread_id: thread.parent_thread_id.as_deref(),
        created_by: &thread.created_by,
        created_at: time(thread.created_at_ms),
        reply_count: thread.reply_count,
        last_reply_at: thread.last_reply_at_ms.map(time),
    }
}

fn conversation_changed_json(conversation: &Conversation) -> ConversationChangedJson<'_> {
    ConversationChangedJson {
        conversation_id: &conversation.id,
        title: Some(conversation.title.as_str()).filter(|title| !title.is_empty()),
        channel: channel_name(conversation.channel()),
        status: status_name(conversation.status()),
        metadata: metadata(&conversation.metadata_json),
        read_only: conversation.read_only,
        head_seq: conversation.head_seq,
        updated_at: time(conversation.updated_at_ms),
    }
}

/// Writes a journal's text.
pub fn journal<'a>(edited: &'a JournalEdited, content: Option<&'a str>) -> JournalJson<'a> {
    JournalJson {
        journal_id: &edited.journal_id,
        number: edited.journal_number,
        version: edited.version,
        content,
        update: Some(&edited.update)
            .filter(|update| !update.is_empty())
            .map(|update| BASE64.encode(update)),
        user_id: &edited.actor_id,
        updated_at: time(edited.at_ms),
    }
}

/// Writes users that were added.
pub fn members(conversation: ConversationId, members: &[Participant]) -> impl Serialize {
    MembersJson {
        conversation_id: conversation.to_string(),
        members: members.iter().map(participant).collect(),
    }
}

/// Writes a user that left or has another role.
pub fn member(conversation: ConversationId, member: &Participant) -> impl Serialize {
    MemberJson {
        conversation_id: conversation.to_string(),
        member: participant(member),
    }
}

/// Writes a message that is hidden.
pub fn hidden(message: &Message) -> impl Serialize {
    HiddenJson {
        conversation_id: &message.conversation_id,
        message_id: &message.id,
        seq: message.seq,
    }
}

/// Writes that a conversation is no longer the user's.
pub fn removed(conversation: ConversationId) -> impl Serialize {
    RemovedJson {
        conversation_id: conversation.to_string(),
    }
}

/// Writes a reader's state.
pub fn receipt(conversation: ConversationId, receipt: &ReceiptUpdated) -> impl Serialize {
    ReceiptJson {
        conversation_id: conversation.to_string(),
        state: read_state(receipt),
    }
}

/// Writes that somebody types.
pub fn typing(conversation: ConversationId, typing: &Typing) -> impl Serialize {
    TypingJson {
        conversation_id: conversation.to_string(),
        user_id: &typing.user_id,
        username: &typing.username,
        is_typing: typing.is_typing,
    }
}

/// Writes the latest message of a conversation for a list of conversations.
pub fn list_updated(place: &Place, last: &Message, unread: u64) -> impl Serialize {
    ListUpdatedJson {
        conversation_id: &last.conversation_id,
        head_seq: place.head_seq,
        updated_at: time(last.created_at_ms),
        unread,
        last_message: message(last),
    }
}

/// Writes what changed of a conversation itself.
pub fn conversation_changed(conversation: &Conversation) -> impl Serialize {
    conversation_changed_json(conversation)
}

/// Writes that a conversation must be read anew.
pub fn resync(conversation: ConversationId, epoch: &str, head_seq: u64) -> impl Serialize {
    ResyncJson {
        conversation_id: conversation.to_string(),
        epoch,
        head_seq,
    }
}

impl<'a> Holding<'a> {
    /// `{message}`.
    pub fn message(held: &'a Message) -> Self {
        Self {
            message: Some(message(held)),
            ..Self::default()
        }
    }

    /// `{conversation}`.
    pub fn conversation(held: &'a Conversation) -> Self {
        Self {
            conversation: Some(conversation(held)),
            ..Self::default()
        }
    }

    /// `{thread}`.
    pub fn thread(held: &'a Thread) -> Self {
        Self {
            thread: Some(thread(held)),
            ..Self::default()
        }
    }

    /// `{journal}`.
    pub fn journal(held: &'a JournalEdited, content: Option<&'a str>) -> Self {
        Self {
            journal: Some(journal(held, content)),
            ..Self::default()
        }
    }

    /// `{receipt}`.
    pub fn receipt(held: &'a ReceiptUpdated) -> Self {
        Self {
            receipt: Some(read_state(held)),
            ..Self::default()
        }
    }
}

fn read_state(receipt: &ReceiptUpdated) -> ReadStateJson<'_> {
    let whole = |range: &&SeqRange| range.first <= 1;
    ReadStateJson {
        user_id: &receipt.user_id,
        up_to_seq: receipt.read.first().filter(whole).map_or(0, |range| range.last),
        read: receipt
            .read
            .iter()
            .map(|range| [range.first, range.last])
            .collect(),
        delivered_seq: receipt.delivered_seq,
        version: receipt.version,
    }
}
