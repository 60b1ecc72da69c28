//! What the payloads of several dialects have in common: a conversation named bare or in an object, keys in
//! both casings, the parts of a message. Pure; an error never repeats what it found.

pub mod contract;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::place::thread_id;
use super::{Action, ConversationRef, MessageRef, SendAction, fields};
use crate::error::ClientError;
use crate::limits::Limits;

/// Longest name of a client for its own request, as JSON in bytes; a longer one is not repeated.
const TAG_BYTES: usize = 256;

/// Two front ends know the same thing under two names.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Whereabouts)]
struct Whereabouts {
    #[serde(alias = "conversation_id")]
    conversation_id: Option<ConversationRef>,
    #[serde(alias = "chat_id")]
    chat_id: Option<ConversationRef>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MessageParts)]
struct MessageParts<'a> {
    #[schema(min_length = 1)]
    content: String,
    #[serde(alias = "message_type", alias = "type")]
    #[schema(schema_with = crate::dialect::schema::sendable_type)]
    message_type: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    #[serde(alias = "thread_id", default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
    #[serde(alias = "reply_to")]
    reply_to: Option<MessageRef>,
    #[serde(alias = "client_msg_id")]
    #[schema(pattern = "^[A-Za-z0-9_-]+$", min_length = 1, max_length = 64)]
    client_msg_id: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TypingParts)]
struct TypingParts {
    // The event is called after what it tells; only the end of it needs saying.
    #[serde(alias = "is_typing", default = "yes")]
    is_typing: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReadParts)]
struct ReadParts {
    #[serde(alias = "message_id")]
    message_id: Option<MessageRef>,
    #[serde(alias = "message_ids")]
    message_ids: Option<Vec<MessageRef>>,
    #[serde(alias = "up_to", alias = "upToSeq", alias = "up_to_seq")]
    up_to: Option<u64>,
}

/// What a client has read, as far as it says.
#[derive(Debug)]
pub struct Reading {
    /// Where.
    pub conversation: Option<ConversationRef>,
    /// These messages.
    pub messages: Option<Vec<MessageRef>>,
    /// Everything up to this seq.
    pub up_to_seq: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tagged<'a> {
    #[serde(alias = "temp_id", borrow)]
    temp_id: &'a RawValue,
}

/// Reads a payload that is an object.
///
/// # Errors
/// It is none, or a field is missing or of the wrong type.
pub fn object<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Result<T, ClientError> {
    fields::object("the payload", payload.get())
}

/// Whether a payload is an object; else it is a bare value.
pub fn is_object(payload: &RawValue) -> bool {
    payload.get().starts_with('{')
}

/// The conversation a payload names: by being its id, or as `conversationId` or `chatId`.
///
/// # Errors
/// It names none, or two.
pub fn conversation(payload: &RawValue) -> Result<ConversationRef, ClientError> {
    if !is_object(payload) {
        return bare(payload);
    }
    conversation_if_named(payload)?.ok_or_else(|| ClientError::invalid("conversationId is missing"))
}

/// A payload that is an id itself.
///
/// # Errors
/// It is none.
pub fn bare<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Result<T, ClientError> {
    fields::value("the payload", payload.get())
}

/// The conversation an object names, where a message in it can tell too.
///
/// # Errors
/// It names two, or is no object.
pub fn conversation_if_named(payload: &RawValue) -> Result<Option<ConversationRef>, ClientError> {
    let names: Whereabouts = object(payload)?;
    match (names.conversation_id, names.chat_id) {
        (Some(one), Some(other)) if one != other => {
            Err(ClientError::invalid("conversationId and chatId differ"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// The message an object describes, checked against every limit.
///
/// # Errors
/// A part is missing, malformed or over its limit.
pub fn send(payload: &RawValue, limits: &Limits) -> Result<SendAction, ClientError> {
    let conversation = conversation(payload)?;
    let parts: MessageParts<'_> = object(payload)?;
    Ok(SendAction {
        reply_to: parts.reply_to,
        thread: parts.thread_id,
        ..SendAction::checked(
            conversation,
            parts.client_msg_id,
            parts.message_type.as_deref(),
            parts.content,
            parts.metadata,
            limits,
        )?
    })
}

/// Whether somebody begins or ends to type, where one event tells both.
///
/// # Errors
/// The payload names no conversation, or says it in another way than `true` or `false`.
pub fn typing(payload: &RawValue) -> Result<Action, ClientError> {
    Ok(Action::Typing {
        conversation: conversation(payload)?,
        is_typing: !is_object(payload) || object::<TypingParts>(payload)?.is_typing,
    })
}

fn yes() -> bool {
    true
}

/// What an object says was read: a message, several, or all up to a seq.
///
/// # Errors
/// A part is malformed or there are too many.
pub fn reading(payload: &RawValue, limits: &Limits) -> Result<Reading, ClientError> {
    let conversation = conversation_if_named(payload)?;
    let parts: ReadParts = object(payload)?;
    let messages = match (parts.message_id, parts.message_ids) {
        (None, several) => several,
        (Some(one), several) => Some(several.into_iter().flatten().chain([one]).collect()),
    };
    limits.receipts(messages.as_ref().map_or(0, Vec::len))?;
    Ok(Reading {
        conversation,
        messages,
        up_to_seq: parts.up_to,
    })
}

impl Reading {
    /// What is to be marked.
    ///
    /// # Errors
    /// Nothing is named, or a seq without its conversation.
    pub fn action(self) -> Result<Action, ClientError> {
        let messages = self.messages.unwrap_or_default();
        if self.up_to_seq.is_none() && messages.is_empty() {
            return Err(ClientError::invalid("no message is named"));
        }
        if self.up_to_seq.is_some() && self.conversation.is_none() {
            return Err(ClientError::invalid("conversationId is missing"));
        }
        Ok(Action::Receipt {
            conversation: self.conversation,
            up_to_seq: self.up_to_seq,
            messages,
            delivered_only: false,
            through: false,
        })
    }
}

/// The `tempId` of an object, as JSON: clients compare it by type too, so a number must come back as one.
pub fn temp_id(payload: &RawValue) -> Option<String> {
    let tagged: Tagged<'_> = object(payload).ok()?;
    let text = tagged.temp_id.get();
    let scalar = text.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    (scalar && text.len() <= TAG_BYTES).then(|| text.to_owned())
}

/// Writes a tag of [`temp_id`] as it came.
pub fn tag(tag: &str) -> Box<RawValue> {
    RawValue::from_string(tag.to_owned()).unwrap_or_else(|_| super::encode(&tag))
}
