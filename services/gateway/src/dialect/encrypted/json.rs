//! What the encrypted dialect writes. Must not decide anything.

use std::collections::BTreeSet;

use parlance_proto::v1::{
    Conversation, Message, MessageRef as StoredRef, Participant, Presence, Reaction, ReactionChanged,
    ReceiptUpdated, Typing,
};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::dialect::contract::{Contract, Shape};
use crate::dialect::place::LISTED;
use crate::dialect::shape::{self, metadata, role_name, time, type_name};
use crate::dialect::{Answer, Place, camel, encode, payload, wide};
use crate::error::ClientError;

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedMessage)]
pub struct MessageJson<'a> {
    id: &'a str,
    conversation_id: &'a str,
    seq: u64,
    sender_id: &'a str,
    sender: SenderJson<'a>,
    content_encrypted: &'a str,
    encrypted: bool,
    /// Of a message that is no ciphertext.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[schema(schema_with = crate::dialect::schema::message_type)]
    message_type: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    #[schema(required)]
    client_msg_id: Option<&'a str>,
    #[schema(required)]
    reply_to: Option<&'a str>,
    #[schema(required)]
    thread_id: Option<&'a str>,
    reactions: Vec<ReactionJson<'a>>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required, format = DateTime)]
    edited_at: Option<String>,
    #[schema(required, format = DateTime)]
    deleted_at: Option<String>,
    /// One for each of the first hundred recipients by id, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<Vec<StatusJson<'a>>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedSender)]
struct SenderJson<'a> {
    id: &'a str,
    username: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedStatus)]
struct StatusJson<'a> {
    user_id: &'a str,
    #[schema(schema_with = crate::dialect::schema::delivery)]
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedReaction)]
struct ReactionJson<'a> {
    user_id: &'a str,
    emoji: &'a str,
}

/// A message has come further.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedStatusUpdated)]
pub struct StatusUpdatedJson<'a> {
    message_id: &'a str,
    #[schema(schema_with = crate::dialect::schema::delivery)]
    status: &'static str,
    user_id: &'a str,
    #[schema(format = DateTime)]
    timestamp: String,
    conversation_id: String,
}

/// Somebody types.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedTyping)]
pub struct TypingJson<'a> {
    user_id: &'a str,
    username: &'a str,
    is_typing: bool,
    #[schema(format = DateTime)]
    timestamp: String,
    conversation_id: String,
}

/// A user came or went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedUserStatus)]
pub struct UserStatusJson<'a> {
    user_id: &'a str,
    /// `online` or `offline`.
    status: &'static str,
    #[schema(format = DateTime)]
    timestamp: String,
}

/// Writes that a user came or went.
pub fn user_status<'a>(seen: &'a Presence, status: &'static str) -> UserStatusJson<'a> {
    UserStatusJson {
        user_id: &seen.user_id,
        status,
        timestamp: time(seen.since_ms),
    }
}

/// A message is gone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedGone)]
pub struct GoneJson<'a> {
    message_id: &'a str,
    conversation_id: String,
    /// `all` or `me`.
    #[schema(schema_with = crate::dialect::schema::scope)]
    scope: &'static str,
    #[schema(required, format = DateTime)]
    deleted_at: Option<String>,
}

/// A mark came or went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedReactionUpdated)]
pub struct ReactionUpdatedJson<'a> {
    message_id: &'a str,
    conversation_id: String,
    user_id: &'a str,
    emoji: &'a str,
    removed: bool,
    /// All that the message has now.
    reactions: Vec<ReactionJson<'a>>,
}

/// Something happened to a conversation itself.
#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedConversationEvent)]
pub struct ConversationEventJson<'a> {
    #[serde(rename = "conversationId")]
    conversation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<wide::ConversationJson<'a>>,
    /// Those there are now, where they changed: the first hundred. Not of a large group.
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<Vec<ParticipantJson<'a>>>,
    /// With `participants`, or instead of those of a large group: how many there are, and whether all are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    participant_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participants_complete: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedParticipant)]
struct ParticipantJson<'a> {
    user_id: &'a str,
    username: &'a str,
    #[schema(schema_with = crate::dialect::schema::role)]
    role: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EncryptedFailed)]
struct FailedJson<'a> {
    name: &'static str,
    #[serde(flatten)]
    error: &'a ClientError,
}

/// An event failed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedFailedEvent)]
pub struct FailedEventJson<'a> {
    #[serde(flatten)]
    failed: FailedJson<'a>,
    /// What went wrong, as text that can be shown.
    error: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::dialect::schema::tag)]
    temp_id: Option<Box<RawValue>>,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = EncryptedAnswer)]
struct AnswerJson<'a> {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageJson<'a>>,
    /// What went wrong, as text that can be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::error::code_schema)]
    code: Option<&'static str>,
    // The whole failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<FailedJson<'a>>,
}

/// All events.
pub(super) fn contract() -> Contract {
    use payload::contract as shapes;
    let send = Shape::of::<super::SendPayload<'_>>().and(Shape::raw(json!({
        "properties": { "tempId": {
            "description": "The client's own name for this message: repeated when sending fails, if it is text or a number.",
        } },
    })));
    let contract =
        Contract::new("Ciphertext with delivery statuses, followed without joining; ids as UUIDs.")
            .accepts(
                "presence:online",
                "Be seen as online.",
                Shape::anything(),
                ack(&[]),
            )
            .accepts(
                "presence:offline",
                "Be seen as offline.",
                Shape::anything(),
                ack(&[]),
            )
            .accepts("chat:message_send", "Send ciphertext.", send, ack(&["message"]))
            .accepts(
                "chat:message_delivered",
                "Mark messages as delivered.",
                shapes::reading(),
                ack(&[]),
            )
            .accepts(
                "chat:message_read",
                "Mark messages as read.",
                shapes::reading(),
                ack(&[]),
            )
            .accepts(
                "chat:typing",
                "Tell the others that one types, or ends to.",
                shapes::typing(),
                ack(&[]),
            );
    told(contract)
}

fn told(contract: Contract) -> Contract {
    let message = || Shape::of::<MessageJson<'_>>();
    let conversation = || Shape::of::<ConversationEventJson<'_>>();
    let changed = camel::conversation_changed_shape().or(conversation());
    contract
        .emits(
            "user:status_changed",
            "A user one shares a conversation with came or went.",
            Shape::of::<UserStatusJson<'_>>(),
        )
        .emits("chat:message_received", "A message was sent.", message())
        .emits("chat:message_edited", "A message was changed.", message())
        .emits(
            "chat:message_deleted",
            "A message is gone, for all or for this user.",
            Shape::of::<GoneJson<'_>>(),
        )
        .emits(
            "chat:reaction_updated",
            "A mark was put on a message or taken back.",
            Shape::of::<ReactionUpdatedJson<'_>>(),
        )
        .emits(
            "chat:message_status_updated",
            "A message has come further.",
            Shape::of::<StatusUpdatedJson<'_>>(),
        )
        .emits(
            "chat:user_typing",
            "Somebody types, or ends to.",
            Shape::of::<TypingJson<'_>>(),
        )
        .emits(
            "chat:conversation_created",
            "The user is in a further conversation.",
            conversation(),
        )
        .emits(
            "chat:conversation_updated",
            "What changed of a conversation, or who is in it now.",
            changed,
        )
        .emits(
            "chat:conversation_removed",
            "The user is in the conversation no more.",
            conversation(),
        )
        .emits(
            "chat:error",
            "An event without an ack failed.",
            Shape::of::<FailedEventJson<'_>>(),
        )
}

fn ack(fields: &[&str]) -> Shape {
    let answer = || Shape::of::<AnswerJson<'_>>();
    answer().answering("success", true, fields).or(answer().answering(
        "success",
        false,
        &["error", "code", "details"],
    ))
}

/// A message, with how far it has come to each recipient where they are known.
pub fn message<'a>(message: &'a Message, place: Option<&'a Place>) -> MessageJson<'a> {
    let (sender, username) = shape::sender(message);
    let status = |recipient: &'a Participant| StatusJson {
        user_id: &recipient.user_id,
        status: shape::delivery(recipient, message.seq),
    };
    MessageJson {
        id: &message.id,
        conversation_id: &message.conversation_id,
        seq: message.seq,
        sender_id: sender,
        sender: SenderJson { id: sender, username },
        content_encrypted: &message.content,
        encrypted: message.encrypted,
        content: (!message.encrypted).then_some(&*message.content),
        message_type: type_name(message.r#type()),
        metadata: metadata(&message.metadata_json),
        client_msg_id: message.client_msg_id.as_deref(),
        reply_to: message.reply_to.as_deref(),
        thread_id: message.thread_id.as_deref(),
        reactions: reactions(&message.reactions),
        created_at: time(message.created_at_ms),
        edited_at: message.edited_at_ms.map(time),
        deleted_at: message.deleted_at_ms.map(time),
        statuses: place.map(|place| {
            shape::recipients(place, message)
                .take(LISTED)
                .map(status)
                .collect()
        }),
    }
}

/// That a message is gone: `scope` is `all`, or `me` where only this user does not see it any more.
pub fn gone<'a>(place: &Place, message: &'a Message, scope: &'static str) -> GoneJson<'a> {
    GoneJson {
        message_id: &message.id,
        conversation_id: place.id.to_string(),
        scope,
        deleted_at: message.deleted_at_ms.map(time),
    }
}

/// A mark put on a message or taken back; nothing where it is on no message.
pub fn reaction<'a>(place: &Place, change: &'a ReactionChanged) -> Option<ReactionUpdatedJson<'a>> {
    let message = change.message.as_ref()?;
    Some(ReactionUpdatedJson {
        message_id: &message.id,
        conversation_id: place.id.to_string(),
        user_id: &change.user_id,
        emoji: &change.emoji,
        removed: change.removed,
        reactions: reactions(&message.reactions),
    })
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

/// The best status each message has reached now.
pub fn statuses<'a>(place: &Place, receipt: &'a ReceiptUpdated) -> Vec<StatusUpdatedJson<'a>> {
    let updated = |message: &'a StoredRef, status| StatusUpdatedJson {
        message_id: &message.id,
        status,
        user_id: &receipt.user_id,
        timestamp: time(receipt.at_ms),
        conversation_id: place.id.to_string(),
    };
    let read: BTreeSet<u64> = receipt.read_now.iter().map(|message| message.seq).collect();
    let delivered = receipt
        .delivered_now
        .iter()
        .filter(|message| !read.contains(&message.seq));
    delivered
        .map(|message| updated(message, "delivered"))
        .chain(receipt.read_now.iter().map(|message| updated(message, "read")))
        .collect()
}

/// That somebody types, or ends to.
pub fn typing<'a>(place: &Place, typing: &'a Typing) -> TypingJson<'a> {
    TypingJson {
        user_id: &typing.user_id,
        username: &typing.username,
        is_typing: typing.is_typing,
        timestamp: time(typing.at_ms),
        conversation_id: place.id.to_string(),
    }
}

/// A conversation that is new to this user or changed.
pub fn conversation(conversation: &Conversation) -> ConversationEventJson<'_> {
    ConversationEventJson {
        conversation_id: conversation.id.clone(),
        conversation: Some(wide::conversation(conversation, wide::Style::Encrypted)),
        participants: None,
        participant_count: None,
        participants_complete: None,
    }
}

fn participant(participant: &Participant) -> ParticipantJson<'_> {
    ParticipantJson {
        user_id: &participant.user_id,
        username: &participant.username,
        role: role_name(participant.role()),
    }
}

/// Who is in a conversation now.
pub fn participants(place: &Place) -> ConversationEventJson<'_> {
    ConversationEventJson {
        conversation_id: place.id.to_string(),
        conversation: None,
        participants: place
            .listed()
            .map(|listed| listed.iter().map(participant).collect()),
        participant_count: Some(place.participant_count),
        participants_complete: Some(place.lists_all()),
    }
}

/// That a conversation is gone for this user.
pub fn removed(place: &Place) -> ConversationEventJson<'static> {
    ConversationEventJson {
        conversation_id: place.id.to_string(),
        conversation: None,
        participants: None,
        participant_count: None,
        participants_complete: None,
    }
}

/// That an event failed.
pub fn failed_event<'a>(event: &'a str, tag: Option<&str>, error: &'a ClientError) -> FailedEventJson<'a> {
    FailedEventJson {
        failed: failed(error),
        error: &error.message,
        event,
        temp_id: tag.map(payload::tag),
    }
}

/// The ack of an event.
pub fn answer(outcome: Result<&Answer, &ClientError>, place: Option<&Place>) -> Box<RawValue> {
    let mut answer = AnswerJson {
        success: outcome.is_ok(),
        ..AnswerJson::default()
    };
    match outcome {
        Ok(Answer::Message(sent)) => answer.message = Some(message(sent, place)),
        // Nothing else this front end can ask for has an answer it could show.
        Ok(
            Answer::Done
            | Answer::Conversation(_)
            | Answer::Receipt(_)
            | Answer::Thread(_)
            | Answer::Journal(..)
            | Answer::JournalSync { .. }
            | Answer::Pages(_)
            | Answer::Presence(_)
            | Answer::Participants(_)
            | Answer::Blocks(_)
            | Answer::User(_),
        ) => {}
        Err(error) => {
            answer.error = Some(&error.message);
            answer.code = Some(error.code);
            answer.details = Some(failed(error));
        }
    }
    encode(&answer)
}

fn failed(error: &ClientError) -> FailedJson<'_> {
    FailedJson {
        name: error_name(error),
        error,
    }
}

/// The class of a failure as this front end tells them apart. A non-member does not learn whether there is a
/// conversation: both are forbidden.
fn error_name(error: &ClientError) -> &'static str {
    if *error == ClientError::no_conversation() {
        "ForbiddenError"
    } else {
        error.class()
    }
}
