//! The payloads of [`super`] for a dialect's contract.

use serde_json::json;

use super::{MessageParts, ReadParts, TypingParts, Whereabouts};
use crate::dialect::ConversationRef;
use crate::dialect::contract::Shape;

/// The names under which an object names a conversation.
const CONVERSATION: &[&str] = &["conversationId", "conversation_id", "chatId", "chat_id"];

/// The names of messages, and of one.
const MESSAGES: &[&str] = &["messageId", "message_id", "messageIds", "message_ids"];
/// The names of a seq.
const UP_TO: &[&str] = &["upTo", "up_to", "upToSeq", "up_to_seq"];

/// An object that may name a conversation.
pub fn conversation_if_named() -> Shape {
    Shape::of::<Whereabouts>()
}

/// An object that names a conversation.
pub fn conversation_in_object() -> Shape {
    conversation_if_named().and(Shape::with_any(CONVERSATION))
}

/// A conversation, bare or in an object.
pub fn conversation() -> Shape {
    Shape::of::<ConversationRef>().or(conversation_in_object())
}

/// A message to send, with the client's own name for it.
pub fn send() -> Shape {
    let tag =
        "The client's own name for this message: repeated when sending fails, if it is text or a number.";
    conversation_in_object()
        .and(Shape::of::<MessageParts<'_>>())
        .and(Shape::raw(json!({
            "properties": { "tempId": { "description": tag }, "temp_id": { "description": tag } },
        })))
}

/// Whether somebody begins or ends to type.
pub fn typing() -> Shape {
    Shape::of::<ConversationRef>().or(conversation_in_object().and(Shape::of::<TypingParts>()))
}

/// All of a conversation: nothing but it is named.
pub fn whole_conversation() -> Shape {
    let more = Shape::with_any(MESSAGES).or(Shape::with_any(UP_TO)).schema;
    let nothing_more = Shape::raw(json!({ "not": more }));
    Shape::of::<ConversationRef>().or(conversation_in_object().and(nothing_more))
}

/// What was read: a message, several, or all up to a seq of a conversation.
pub fn reading() -> Shape {
    let several = |name: &str| json!({ "required": [name], "properties": { name: { "type": "array", "minItems": 1 } } });
    let some = Shape::with_any(&["messageId", "message_id"])
        .or(Shape::raw(several("messageIds")))
        .or(Shape::raw(several("message_ids")))
        .or(Shape::with_any(UP_TO).and(Shape::with_any(CONVERSATION)));
    conversation_if_named().and(Shape::of::<ReadParts>()).and(some)
}
