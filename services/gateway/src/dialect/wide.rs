//! The form for REST callers whose dialect nothing names: the native fields, and beside them those that front ends
//! of several documents read, under their names. Pure.

use parlance_proto::v1::{Conversation, ConversationKind, Message, Participant, Thread};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::native::{json as native, mute};
use super::place::LISTED;
use super::shape::{self, time};
use super::{Place, camel, union};

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WideMessage)]
pub struct MessageJson<'a> {
    #[serde(flatten)]
    native: native::MessageJson<'a>,
    #[serde(rename = "_id")]
    document_id: &'a str,
    #[serde(rename = "conversationId")]
    conversation_id: &'a str,
    sender_id: &'a str,
    #[serde(rename = "senderId")]
    sender_id_camel: &'a str,
    #[serde(rename = "senderType")]
    #[schema(schema_with = crate::dialect::schema::sender_kind)]
    sender_type: &'static str,
    #[schema(schema_with = crate::dialect::schema::message_type)]
    message_type: &'static str,
    #[serde(rename = "messageType")]
    #[schema(schema_with = crate::dialect::schema::message_type)]
    message_type_camel: &'static str,
    #[serde(rename = "threadId")]
    #[schema(required)]
    thread_id: Option<&'a str>,
    #[serde(rename = "replyTo")]
    #[schema(required)]
    reply_to: Option<&'a str>,
    #[serde(rename = "clientMsgId")]
    #[schema(required)]
    client_msg_id: Option<&'a str>,
    #[serde(rename = "createdAt")]
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    timestamp: String,
    #[serde(rename = "editedAt")]
    #[schema(required, format = DateTime)]
    edited_at: Option<String>,
    #[serde(rename = "deletedAt")]
    #[schema(required, format = DateTime)]
    deleted_at: Option<String>,
    /// The content once more, under `/api` and on the routes of ciphertext.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encrypted: Option<&'a str>,
    /// One for each of the first hundred recipients by id, on the routes of ciphertext.
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<Vec<StatusJson<'a>>>,
}

/// How far a message has come to a recipient.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WideStatus)]
pub struct StatusJson<'a> {
    user_id: &'a str,
    #[schema(schema_with = crate::dialect::schema::delivery)]
    status: &'static str,
}

/// What the readers of this form read differently in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style<'a> {
    /// Under `/api`: participants are ids, the objects stand in `members`; `lastMessage` is an object. A direct
    /// conversation without a title has the name of the other one, because ids name nobody.
    Older {
        /// The user who reads it.
        viewer: &'a str,
    },
    /// Under `/api/v1`: participants are objects; `lastMessage` is the text, the object stands in `last_message`.
    Current,
    /// The front end of ciphertext: participants and the last message are objects.
    Encrypted,
}

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WideConversation)]
pub struct ConversationJson<'a> {
    id: &'a str,
    #[serde(rename = "_id")]
    document_id: &'a str,
    number: i64,
    #[schema(schema_with = crate::dialect::schema::conversation_kind)]
    kind: &'static str,
    #[serde(rename = "type")]
    #[schema(schema_with = crate::dialect::schema::conversation_kind)]
    kind_as_type: &'static str,
    #[schema(required)]
    title: Option<&'a str>,
    participants: Participants<'a>,
    participant_count: u64,
    /// Whether these are all participants; at most a hundred are listed: the first by id, and in the place of the last
    /// of them the viewer where they come later. All are listed in pages, from the beginning.
    participants_complete: bool,
    /// The participants as objects, where `participants` holds only their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<native::ParticipantJson<'a>>>,
    head_seq: u64,
    epoch: &'a str,
    unread: u64,
    #[schema(required)]
    last_message: Option<MessageJson<'a>>,
    #[serde(rename = "lastMessage")]
    #[schema(required)]
    last_message_camel: Option<LastMessage<'a>>,
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
    /// When it last moved in its list.
    #[schema(format = DateTime)]
    timestamp: String,
    #[schema(schema_with = crate::dialect::schema::channel)]
    channel: &'static str,
    #[schema(schema_with = crate::dialect::schema::status)]
    status: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    created_by: &'a str,
    #[serde(rename = "createdBy")]
    created_by_camel: &'a str,
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

/// Ids, or objects.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = WideParticipants)]
pub enum Participants<'a> {
    /// Ids of users.
    Ids(Vec<&'a str>),
    /// Users with name and role.
    Objects(Vec<native::ParticipantJson<'a>>),
}

/// A message, or its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = WideLastMessage)]
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

/// A thread.
#[derive(Serialize, ToSchema)]
#[schema(as = WideThread)]
pub struct ThreadJson<'a> {
    #[serde(flatten)]
    native: native::ThreadJson<'a>,
    #[serde(flatten)]
    camel: camel::ThreadFields<'a>,
}

/// Writes a message.
pub fn message(message: &Message) -> MessageJson<'_> {
    let (sender, _) = shape::sender(message);
    let kind = shape::type_name(message.r#type());
    let created_at = time(message.created_at_ms);
    MessageJson {
        native: native::message(message),
        document_id: &message.id,
        conversation_id: &message.conversation_id,
        sender_id: sender,
        sender_id_camel: sender,
        sender_type: shape::sender_name(message.sender.as_ref().map(|s| s.kind()).unwrap_or_default()),
        message_type: kind,
        message_type_camel: kind,
        thread_id: message.thread_id.as_deref(),
        reply_to: message.reply_to.as_deref(),
        client_msg_id: message.client_msg_id.as_deref(),
        created_at: created_at.clone(),
        timestamp: created_at,
        edited_at: message.edited_at_ms.map(time),
        deleted_at: message.deleted_at_ms.map(time),
        content_encrypted: None,
        statuses: None,
    }
}

/// Writes a message for whoever may read ciphertext, with its statuses where its recipients are at hand.
pub fn ciphertext<'a>(sent: &'a Message, place: Option<&'a Place>) -> MessageJson<'a> {
    let status = |recipient: &'a Participant| StatusJson {
        user_id: &recipient.user_id,
        status: shape::delivery(recipient, sent.seq),
    };
    MessageJson {
        content_encrypted: Some(&sent.content),
        statuses: place.map(|place| shape::recipients(place, sent).take(LISTED).map(status).collect()),
        ..message(sent)
    }
}

/// Writes a conversation.
pub fn conversation<'a>(conversation: &'a Conversation, style: Style<'_>) -> ConversationJson<'a> {
    let kind = shape::kind_name(conversation.kind());
    let created_at = time(conversation.created_at_ms);
    let updated_at = time(conversation.updated_at_ms);
    let last = conversation.last_message.as_ref();
    let full = |last| match style {
        Style::Current => message(last),
        Style::Older { .. } | Style::Encrypted => ciphertext(last, None),
    };
    let objects = || native::participants(&conversation.participants);
    let title = match style {
        Style::Older { viewer }
            if conversation.title.is_empty() && conversation.kind() == ConversationKind::Direct =>
        {
            let mut others = conversation
                .participants
                .iter()
                .filter(|one| one.user_id != viewer);
            others.next().map(|other| other.username.as_str())
        }
        _ => Some(conversation.title.as_str()),
    };
    ConversationJson {
        id: &conversation.id,
        document_id: &conversation.id,
        number: conversation.number,
        kind,
        kind_as_type: kind,
        title: title.filter(|title| !title.is_empty()),
        participants: match style {
            Style::Older { .. } => Participants::Ids(union::ids(&conversation.participants)),
            Style::Current | Style::Encrypted => Participants::Objects(objects()),
        },
        participant_count: conversation.participant_count,
        participants_complete: conversation.participants_complete,
        members: matches!(style, Style::Older { .. }).then(objects),
        head_seq: conversation.head_seq,
        epoch: &conversation.epoch,
        unread: conversation.unread,
        last_message: last.map(full),
        last_message_camel: last.map(|last| match style {
            Style::Current => LastMessage::Preview(union::preview(last)),
            Style::Older { .. } | Style::Encrypted => LastMessage::Message(full(last)),
        }),
        created_at: created_at.clone(),
        created_at_camel: created_at,
        updated_at: updated_at.clone(),
        updated_at_camel: updated_at,
        timestamp: union::moved_at(conversation),
        channel: shape::channel_name(conversation.channel()),
        status: shape::status_name(conversation.status()),
        metadata: shape::metadata(&conversation.metadata_json),
        created_by: &conversation.created_by,
        created_by_camel: &conversation.created_by,
        open: conversation.open,
        read_only: conversation.read_only,
        muted: conversation.mute.is_some(),
        muted_until: mute::ends(conversation.mute.as_ref()),
    }
}

/// Writes a thread.
pub fn thread(thread: &Thread) -> ThreadJson<'_> {
    ThreadJson {
        native: native::thread(thread),
        camel: camel::thread_fields(thread),
    }
}
