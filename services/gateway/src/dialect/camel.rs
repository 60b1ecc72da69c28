//! What front ends with camelCase fields are told besides messages and conversations, and how they are
//! answered: one shape per subject, whatever a dialect calls the event. Pure.

use parlance_proto::v1::{Conversation, Participant, RoomPresence, Thread, Typing};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::contract::Shape;
use super::{Answer, Place, encode, shape, union};
use crate::error::ClientError;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelTyping)]
struct TypingJson<'a> {
    conversation_id: String,
    user_id: &'a str,
    username: &'a str,
    is_typing: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelCameOrWent)]
struct CameOrWentJson<'a> {
    conversation_id: String,
    user_id: &'a str,
    username: &'a str,
    /// Became or ceased to be a participant; else only opened or closed the conversation.
    membership: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelRole)]
struct RoleJson<'a> {
    conversation_id: String,
    user_id: &'a str,
    username: &'a str,
    #[schema(schema_with = crate::dialect::schema::role)]
    role: &'static str,
}

/// A thread.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelThread)]
pub struct ThreadJson<'a> {
    id: &'a str,
    #[schema(required)]
    title: Option<&'a str>,
    #[serde(flatten)]
    fields: ThreadFields<'a>,
}

/// What a thread has besides its id and title.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelThreadFields)]
pub struct ThreadFields<'a> {
    #[serde(rename = "_id")]
    mongo_id: &'a str,
    thread_id: &'a str,
    conversation_id: &'a str,
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

/// Front ends differ in whether they read the event itself or the thread in it.
#[derive(Serialize, ToSchema)]
#[schema(as = CamelThreadCreated)]
struct ThreadCreatedJson<'a> {
    thread: ThreadJson<'a>,
    #[serde(flatten)]
    fields: ThreadJson<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelConversationEvent)]
struct ConversationEventJson<'a> {
    conversation_id: &'a str,
    conversation: union::ConversationJson<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelConversationChanged)]
struct ConversationChangedJson<'a> {
    conversation_id: &'a str,
    conversation: ChangedJson<'a>,
}

/// Only what can have changed: a client merges it into what it has.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelChanged)]
struct ChangedJson<'a> {
    id: &'a str,
    #[serde(rename = "_id")]
    mongo_id: &'a str,
    #[schema(required)]
    title: Option<&'a str>,
    #[schema(schema_with = crate::dialect::schema::channel)]
    channel: &'static str,
    #[schema(schema_with = crate::dialect::schema::status)]
    status: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CamelNamed)]
struct NamedJson {
    conversation_id: String,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = CamelAnswered)]
struct Answered<'a> {
    ok: bool,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<union::MessageJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<union::ConversationJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ClientError>,
}

/// The schema of [`typing`].
pub fn typing_shape() -> Shape {
    Shape::of::<TypingJson<'_>>()
}

/// The schema of [`looking`] and [`membership`].
pub fn came_or_went_shape() -> Shape {
    Shape::of::<CameOrWentJson<'_>>()
}

/// The schema of [`role`].
pub fn role_shape() -> Shape {
    Shape::of::<RoleJson<'_>>()
}

/// The schema of [`thread_created`].
pub fn thread_created_shape() -> Shape {
    Shape::of::<ThreadCreatedJson<'_>>()
}

/// The schema of [`conversation`].
pub fn conversation_shape() -> Shape {
    Shape::of::<ConversationEventJson<'_>>()
}

/// The schema of [`conversation_changed`].
pub fn conversation_changed_shape() -> Shape {
    Shape::of::<ConversationChangedJson<'_>>()
}

/// The schema of [`named`].
pub fn named_shape() -> Shape {
    Shape::of::<NamedJson>()
}

/// The schema of [`answer`], good news with these fields.
pub fn ack(fields: &[&str]) -> Shape {
    let answered = || Shape::of::<Answered<'_>>();
    let good: Vec<_> = fields.iter().copied().chain(["success"]).collect();
    answered()
        .answering("ok", true, &good)
        .or(answered().answering("ok", false, &["success", "error"]))
}

/// Somebody begins or ends to type.
pub fn typing(place: &Place, typing: &Typing) -> impl Serialize {
    TypingJson {
        conversation_id: place.id.to_string(),
        user_id: &typing.user_id,
        username: &typing.username,
        is_typing: typing.is_typing,
    }
}

/// Somebody opened or closed the conversation.
pub fn looking(place: &Place, presence: &RoomPresence) -> impl Serialize {
    CameOrWentJson {
        conversation_id: place.id.to_string(),
        user_id: &presence.user_id,
        username: &presence.username,
        membership: false,
    }
}

/// Somebody became or ceased to be a participant.
pub fn membership(place: &Place, member: &Participant) -> impl Serialize {
    CameOrWentJson {
        conversation_id: place.id.to_string(),
        user_id: &member.user_id,
        username: &member.username,
        membership: true,
    }
}

/// Somebody has another role.
pub fn role(place: &Place, member: &Participant) -> impl Serialize {
    RoleJson {
        conversation_id: place.id.to_string(),
        user_id: &member.user_id,
        username: &member.username,
        role: shape::role_name(member.role()),
    }
}

/// A thread that was begun.
pub fn thread_created(created: &Thread) -> impl Serialize {
    ThreadCreatedJson {
        thread: thread(created),
        fields: thread(created),
    }
}

/// A thread.
pub fn thread(thread: &Thread) -> ThreadJson<'_> {
    ThreadJson {
        id: &thread.id,
        title: Some(&*thread.title).filter(|title| !title.is_empty()),
        fields: thread_fields(thread),
    }
}

/// A thread without its id and title.
pub fn thread_fields(thread: &Thread) -> ThreadFields<'_> {
    ThreadFields {
        mongo_id: &thread.id,
        thread_id: &thread.id,
        conversation_id: &thread.conversation_id,
        root_message_id: thread.root_message_id.as_deref(),
        parent_thread_id: thread.parent_thread_id.as_deref(),
        created_by: &thread.created_by,
        created_at: shape::time(thread.created_at_ms),
        reply_count: thread.reply_count,
        last_reply_at: thread.last_reply_at_ms.map(shape::time),
    }
}

/// A conversation whose title, channel, status or metadata changed.
pub fn conversation_changed(conversation: &Conversation) -> impl Serialize {
    ConversationChangedJson {
        conversation_id: &conversation.id,
        conversation: ChangedJson {
            id: &conversation.id,
            mongo_id: &conversation.id,
            title: Some(&*conversation.title).filter(|title| !title.is_empty()),
            channel: shape::channel_name(conversation.channel()),
            status: shape::status_name(conversation.status()),
            metadata: shape::metadata(&conversation.metadata_json),
            updated_at: shape::time(conversation.updated_at_ms),
        },
    }
}

/// A conversation that is new to this user.
pub fn conversation(conversation: &Conversation, style: union::Style) -> impl Serialize {
    ConversationEventJson {
        conversation_id: &conversation.id,
        conversation: union::conversation(conversation, style),
    }
}

/// Only which conversation.
pub fn named(place: &Place) -> impl Serialize {
    NamedJson {
        conversation_id: place.id.to_string(),
    }
}

/// The ack of an event. Their documents ask for none, so it says success under both usual names.
pub fn answer(outcome: Result<&Answer, &ClientError>, style: union::Style) -> Box<RawValue> {
    let mut answered = Answered {
        ok: outcome.is_ok(),
        success: outcome.is_ok(),
        ..Answered::default()
    };
    match outcome {
        Ok(Answer::Message(message)) => answered.message = Some(union::message(message)),
        Ok(Answer::Conversation(conversation)) => {
            answered.conversation = Some(union::conversation(conversation, style));
        }
        Ok(Answer::Thread(created)) => answered.thread = Some(thread(created)),
        Ok(Answer::Receipt(receipt)) => answered.unread = Some(receipt.unread),
        // Nothing these front ends can ask for is answered with a journal or a page.
        Ok(
            Answer::Done
            | Answer::Journal(..)
            | Answer::JournalSync { .. }
            | Answer::Pages(_)
            | Answer::Presence(_)
            | Answer::Participants(_)
            | Answer::Blocks(_)
            | Answer::User(_),
        ) => {}
        Err(error) => answered.error = Some(error),
    }
    encode(&answered)
}
