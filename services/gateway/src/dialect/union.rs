//! The one form of a message, a conversation and what happens to them that suits the front ends of both `chats`
//! and `threads`: their keys side by side, in both casings. Pure.

use parlance_proto::v1::{Conversation, Message, Participant, Reaction, ReactionChanged};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::contract::{Contract, Shape};
use super::shape::{self, time};
use super::{Place, payload};

/// A message. Both front ends call the event `message:new` and look for different keys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnionMessage)]
pub struct MessageJson<'a> {
    id: &'a str,
    #[serde(rename = "_id")]
    document_id: &'a str,
    chat_id: &'a str,
    #[serde(rename = "chatId")]
    chat_id_camel: &'a str,
    conversation_id: &'a str,
    #[serde(rename = "conversationId")]
    conversation_id_camel: &'a str,
    seq: u64,
    sender: SenderJson<'a>,
    sender_id: &'a str,
    #[serde(rename = "senderId")]
    sender_id_camel: &'a str,
    #[serde(rename = "senderType")]
    #[schema(schema_with = crate::dialect::schema::sender_kind)]
    sender_type: &'static str,
    content: &'a str,
    #[schema(schema_with = crate::dialect::schema::message_type)]
    message_type: &'static str,
    #[serde(rename = "messageType")]
    #[schema(schema_with = crate::dialect::schema::message_type)]
    message_type_camel: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    #[serde(rename = "threadId")]
    #[schema(required)]
    thread_id: Option<&'a str>,
    #[serde(rename = "replyTo")]
    #[schema(required)]
    reply_to: Option<&'a str>,
    #[serde(rename = "clientMsgId")]
    #[schema(required)]
    client_msg_id: Option<&'a str>,
    /// What the client calls it that sent it; to that client alone.
    #[serde(rename = "tempId", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::dialect::schema::tag)]
    temp_id: Option<Box<RawValue>>,
    reactions: Vec<ReactionJson<'a>>,
    #[schema(format = DateTime)]
    created_at: String,
    #[serde(rename = "createdAt")]
    #[schema(format = DateTime)]
    created_at_camel: String,
    #[schema(required, format = DateTime)]
    edited_at: Option<String>,
    #[serde(rename = "editedAt")]
    #[schema(required, format = DateTime)]
    edited_at_camel: Option<String>,
    #[schema(required, format = DateTime)]
    deleted_at: Option<String>,
    #[serde(rename = "deletedAt")]
    #[schema(required, format = DateTime)]
    deleted_at_camel: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnionSender)]
struct SenderJson<'a> {
    id: &'a str,
    username: &'a str,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UnionReaction)]
struct ReactionJson<'a> {
    user_id: &'a str,
    emoji: &'a str,
}

/// That a message is gone, for all or for this user alone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UnionDeleted)]
pub struct DeletedJson<'a> {
    id: &'a str,
    #[serde(rename = "_id")]
    document_id: &'a str,
    message_id: &'a str,
    chat_id: String,
    conversation_id: String,
    #[schema(schema_with = crate::dialect::schema::scope)]
    scope: &'static str,
    #[schema(required, format = DateTime)]
    deleted_at: Option<String>,
}

/// A mark put on a message or taken back.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UnionReactionChanged)]
pub struct ReactionChangedJson<'a> {
    message_id: &'a str,
    chat_id: String,
    conversation_id: String,
    user_id: &'a str,
    emoji: &'a str,
    removed: bool,
    /// All that the message has now.
    reactions: Vec<ReactionJson<'a>>,
}

/// That somebody read a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UnionRead)]
pub struct ReadJson<'a> {
    message_id: &'a str,
    chat_id: String,
    conversation_id: String,
    user_id: &'a str,
    #[schema(format = DateTime)]
    read_at: String,
}

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnionConversation)]
pub struct ConversationJson<'a> {
    id: &'a str,
    #[serde(rename = "_id")]
    document_id: &'a str,
    #[serde(rename = "type")]
    #[schema(schema_with = crate::dialect::schema::conversation_kind)]
    kind: &'static str,
    #[schema(required)]
    title: Option<&'a str>,
    #[schema(schema_with = crate::dialect::schema::channel)]
    channel: &'static str,
    #[schema(schema_with = crate::dialect::schema::status)]
    status: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    participants: Participants<'a>,
    participant_count: u64,
    /// Whether these are all participants; at most a hundred are listed: the first by id, and in the place of the last
    /// of them the viewer where they come later. All are listed in pages, from the beginning.
    participants_complete: bool,
    /// The participants as objects, where `participants` holds only their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<ParticipantJson<'a>>>,
    unread: u64,
    /// Whether the viewer muted it: they get no pushes of it, and `unread` is not for the badge of the application.
    muted: bool,
    /// Of a group with roles: only admins send and edit messages and begin threads.
    #[serde(rename = "readOnly")]
    read_only: bool,
    #[serde(rename = "lastMessage")]
    #[schema(required)]
    last_message: Option<LastMessage<'a>>,
    // The last message, where `lastMessage` is only its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageJson<'a>>,
    /// When the conversation last moved in its list, where rows are dated by this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[serde(rename = "createdAt")]
    #[schema(format = DateTime)]
    created_at_camel: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[serde(rename = "updatedAt")]
    #[schema(format = DateTime)]
    updated_at_camel: String,
}

/// What the front ends that share this form read differently in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Participants and the last message are objects.
    Chats,
    /// Participants are ids; the objects stand in `members`.
    Threads,
    /// The last message is its text, a preview; the object stands in `message`, the time in `timestamp`.
    Inbox,
}

/// Ids, or objects.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = UnionParticipants)]
pub enum Participants<'a> {
    /// Ids of users.
    Ids(Vec<&'a str>),
    /// Users with name and role.
    Objects(Vec<ParticipantJson<'a>>),
}

/// A message, or its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = UnionLastMessage)]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived; boxing would cost an allocation for each conversation"
)]
pub enum LastMessage<'a> {
    /// What a list shows of it.
    Preview(&'a str),
    #[expect(missing_docs, reason = "AsyncAPI allows no description beside a reference")]
    Message(MessageJson<'a>),
}

/// A participant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnionParticipant)]
pub struct ParticipantJson<'a> {
    id: &'a str,
    #[serde(rename = "userId")]
    user_id: &'a str,
    username: &'a str,
    #[schema(schema_with = crate::dialect::schema::role)]
    role: &'static str,
}

/// Writes a message.
pub fn message(message: &Message) -> MessageJson<'_> {
    let (sender, username) = shape::sender(message);
    let (content, metadata) = shape::readable(message);
    let kind = shape::type_name(message.r#type());
    let created_at = time(message.created_at_ms);
    let edited_at = message.edited_at_ms.map(time);
    let deleted_at = message.deleted_at_ms.map(time);
    MessageJson {
        id: &message.id,
        document_id: &message.id,
        chat_id: &message.conversation_id,
        chat_id_camel: &message.conversation_id,
        conversation_id: &message.conversation_id,
        conversation_id_camel: &message.conversation_id,
        seq: message.seq,
        sender: SenderJson { id: sender, username },
        sender_id: sender,
        sender_id_camel: sender,
        sender_type: shape::sender_name(message.sender.as_ref().map(|s| s.kind()).unwrap_or_default()),
        content,
        message_type: kind,
        message_type_camel: kind,
        metadata,
        thread_id: message.thread_id.as_deref(),
        reply_to: message.reply_to.as_deref(),
        client_msg_id: message.client_msg_id.as_deref(),
        temp_id: None,
        reactions: reactions(&message.reactions),
        created_at: created_at.clone(),
        created_at_camel: created_at,
        edited_at: edited_at.clone(),
        edited_at_camel: edited_at,
        deleted_at: deleted_at.clone(),
        deleted_at_camel: deleted_at,
    }
}

/// Writes a message for the client that sent it.
pub fn echo<'a>(message: &'a Message, tag: &str) -> MessageJson<'a> {
    MessageJson {
        temp_id: Some(payload::tag(tag)),
        ..self::message(message)
    }
}

/// Writes that a message is gone: `scope` is `all`, or `me` where only this user does not see it any more.
pub fn deleted<'a>(place: &Place, message: &'a Message, scope: &'static str) -> DeletedJson<'a> {
    DeletedJson {
        id: &message.id,
        document_id: &message.id,
        message_id: &message.id,
        chat_id: place.id.to_string(),
        conversation_id: place.id.to_string(),
        scope,
        deleted_at: message.deleted_at_ms.map(time),
    }
}

/// Writes a mark; nothing where it is on no message.
pub fn reaction<'a>(place: &Place, change: &'a ReactionChanged) -> Option<ReactionChangedJson<'a>> {
    let message = change.message.as_ref()?;
    Some(ReactionChangedJson {
        message_id: &message.id,
        chat_id: place.id.to_string(),
        conversation_id: place.id.to_string(),
        user_id: &change.user_id,
        emoji: &change.emoji,
        removed: change.removed,
        reactions: reactions(&message.reactions),
    })
}

/// Writes that a user read a message.
pub fn read<'a>(place: &Place, message: &'a str, user: &'a str, at_ms: i64) -> ReadJson<'a> {
    ReadJson {
        message_id: message,
        chat_id: place.id.to_string(),
        conversation_id: place.id.to_string(),
        user_id: user,
        read_at: time(at_ms),
    }
}

/// What a list shows of a message: its text, nothing of ciphertext.
pub fn preview(message: &Message) -> &str {
    if message.encrypted { "" } else { &message.content }
}

/// When a conversation last moved in its list.
pub fn moved_at(conversation: &Conversation) -> String {
    let last = conversation.last_message.as_ref();
    time(last.map_or(conversation.updated_at_ms, |message| message.created_at_ms))
}

/// Writes a conversation.
pub fn conversation(conversation: &Conversation, style: Style) -> ConversationJson<'_> {
    let created_at = time(conversation.created_at_ms);
    let updated_at = time(conversation.updated_at_ms);
    let last = conversation.last_message.as_ref();
    let objects = || participants(&conversation.participants);
    ConversationJson {
        id: &conversation.id,
        document_id: &conversation.id,
        kind: shape::kind_name(conversation.kind()),
        title: Some(&*conversation.title).filter(|title| !title.is_empty()),
        channel: shape::channel_name(conversation.channel()),
        status: shape::status_name(conversation.status()),
        metadata: shape::metadata(&conversation.metadata_json),
        participants: if style == Style::Threads {
            Participants::Ids(ids(&conversation.participants))
        } else {
            Participants::Objects(objects())
        },
        participant_count: conversation.participant_count,
        participants_complete: conversation.participants_complete,
        members: (style == Style::Threads).then(objects),
        unread: conversation.unread,
        muted: conversation.mute.is_some(),
        read_only: conversation.read_only,
        last_message: last.map(|last| {
            if style == Style::Inbox {
                LastMessage::Preview(preview(last))
            } else {
                LastMessage::Message(message(last))
            }
        }),
        message: last.filter(|_| style == Style::Inbox).map(message),
        timestamp: (style == Style::Inbox).then(|| moved_at(conversation)),
        created_at: created_at.clone(),
        created_at_camel: created_at,
        updated_at: updated_at.clone(),
        updated_at_camel: updated_at,
    }
}

/// Writes the ids of participants.
pub fn ids(participants: &[Participant]) -> Vec<&str> {
    participants
        .iter()
        .map(|participant| &*participant.user_id)
        .collect()
}

/// Writes participants.
pub fn participants(participants: &[Participant]) -> Vec<ParticipantJson<'_>> {
    participants
        .iter()
        .map(|participant| ParticipantJson {
            id: &participant.user_id,
            user_id: &participant.user_id,
            username: &participant.username,
            role: shape::role_name(participant.role()),
        })
        .collect()
}

/// Adds what is emitted of messages by dialects that call those events alike.
pub fn message_events(contract: Contract) -> Contract {
    let message = || Shape::of::<MessageJson<'_>>();
    contract
        .emits("message:new", "A message was sent.", message())
        .emits("message:edited", "A message was changed.", message())
        .emits(
            "message:deleted",
            "A message is gone, for all or for this user.",
            Shape::of::<DeletedJson<'_>>(),
        )
        .emits(
            "message:reaction",
            "A mark was put on a message or taken back.",
            Shape::of::<ReactionChangedJson<'_>>(),
        )
        .emits(
            "message:read",
            "Somebody read a message.",
            Shape::of::<ReadJson<'_>>(),
        )
}

fn reactions(reactions: &[Reaction]) -> Vec<ReactionJson<'_>> {
    reactions
        .iter()
        .map(|reaction| ReactionJson {
            user_id: &reaction.user_id,
            emoji: &reaction.emoji,
        })
        .collect()
}
