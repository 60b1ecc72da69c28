//! The native dialect: everything Parlance can do, as JSON objects with snake_case fields.

pub mod json;

use std::collections::BTreeMap;

use parlance_proto::v1::{ErrorCode, MessageType, Position};
use parlance_proto::{ConversationId, MessageId, ids};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Action, Answer, Dialect, Frame, Outbound, SendAction, encode};
use crate::error::ClientError;
use crate::limits::Limits;

/// See the module.
#[derive(Debug)]
pub struct Native;

#[derive(Deserialize)]
struct ConversationPayload {
    conversation_id: ConversationRef,
}

#[derive(Deserialize)]
struct SendPayload<'a> {
    conversation_id: ConversationRef,
    client_msg_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    content: String,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    reply_to: Option<MessageRef>,
}

#[derive(Deserialize)]
struct EditPayload {
    conversation_id: ConversationRef,
    message_id: MessageRef,
    content: String,
}

#[derive(Deserialize)]
struct DeletePayload {
    conversation_id: ConversationRef,
    message_id: MessageRef,
}

#[derive(Deserialize)]
struct ReadPayload {
    conversation_id: ConversationRef,
    up_to_seq: Option<u64>,
    #[serde(default)]
    message_ids: Vec<MessageRef>,
}

#[derive(Deserialize)]
struct TypingPayload {
    conversation_id: ConversationRef,
    is_typing: bool,
}

#[derive(Deserialize)]
struct SyncPayload {
    conversations: BTreeMap<ConversationRef, PositionPayload>,
}

#[derive(Deserialize)]
struct PositionPayload {
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    seq: u64,
}

/// An id inside a payload, so that a malformed one is reported as such.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct ConversationRef(ConversationId);

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct MessageRef(MessageId);

impl TryFrom<String> for ConversationRef {
    type Error = ids::InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for MessageRef {
    type Error = ids::InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[derive(Serialize)]
struct Acknowledged<'a, T: Serialize> {
    ok: bool,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Refused<'a> {
    ok: bool,
    error: &'a ClientError,
}

#[derive(Serialize)]
struct FailedEvent<'a> {
    event: &'a str,
    #[serde(flatten)]
    error: &'a ClientError,
}

impl Dialect for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "conversation:join",
            "conversation:leave",
            "message:send",
            "message:edit",
            "message:delete",
            "receipt:read",
            "typing",
            "sync",
        ]
    }

    fn decode(&self, event: &str, payload: &RawValue, limits: &Limits) -> Result<Action, ClientError> {
        match event {
            "conversation:join" => {
                let payload: ConversationPayload = parse(payload)?;
                Ok(Action::Join(payload.conversation_id.0))
            }
            "conversation:leave" => {
                let payload: ConversationPayload = parse(payload)?;
                Ok(Action::Leave(payload.conversation_id.0))
            }
            "message:send" => decode_send(parse(payload)?, limits).map(Action::Send),
            "message:edit" => {
                let payload: EditPayload = parse(payload)?;
                limits.content(&payload.content)?;
                Ok(Action::Edit {
                    conversation: payload.conversation_id.0,
                    message: payload.message_id.0,
                    content: payload.content,
                })
            }
            "message:delete" => {
                let payload: DeletePayload = parse(payload)?;
                Ok(Action::Delete {
                    conversation: payload.conversation_id.0,
                    message: payload.message_id.0,
                })
            }
            "receipt:read" => decode_read(parse(payload)?, limits),
            "typing" => {
                let payload: TypingPayload = parse(payload)?;
                Ok(Action::Typing {
                    conversation: payload.conversation_id.0,
                    is_typing: payload.is_typing,
                })
            }
            "sync" => decode_sync(parse(payload)?, limits),
            _ => Err(ClientError::new(ErrorCode::UnknownEvent, "unknown event")),
        }
    }

    fn encode(&self, outbound: Outbound<'_>) -> Option<Frame> {
        Some(match outbound {
            Outbound::MessageCreated(message) => Frame::new("message:new", &json::message(message)),
            Outbound::MessageEdited(message) => Frame::new("message:edited", &json::message(message)),
            Outbound::MessageDeleted(message) => Frame::new("message:deleted", &json::message(message)),
            Outbound::Receipt(conversation, receipt) => {
                Frame::new("receipt:updated", &json::receipt(conversation, receipt))
            }
            Outbound::Typing(conversation, typing) => {
                Frame::new("typing", &json::typing(conversation, typing))
            }
            Outbound::ConversationNew(conversation) => {
                Frame::new("conversation:new", &json::conversation(conversation))
            }
            Outbound::ConversationUpdated(message) => {
                Frame::new("conversation:updated", &json::conversation_updated(message))
            }
            Outbound::Resync {
                conversation,
                epoch,
                head_seq,
            } => Frame::new("resync", &json::resync(conversation, epoch, head_seq)),
            Outbound::Failed { event, error } => Frame::new("error", &FailedEvent { event, error }),
        })
    }

    fn answer(&self, outcome: Result<&Answer, &ClientError>) -> Box<RawValue> {
        let body = match outcome {
            Err(error) => return encode(&Refused { ok: false, error }),
            Ok(answer) => answer,
        };
        match body {
            Answer::Done => acknowledged(&Nothing {}),
            Answer::Message(message) => acknowledged(&json::Holding::message(message)),
            Answer::Conversation(conversation) => acknowledged(&json::Holding::conversation(conversation)),
            Answer::Receipt(receipt) => acknowledged(&json::Holding::receipt(receipt)),
            Answer::Pages(pages) => acknowledged(&json::sync(pages)),
        }
    }
}

fn acknowledged(body: &impl Serialize) -> Box<RawValue> {
    encode(&Acknowledged { ok: true, body })
}

/// Reads a payload; the error names the field but never repeats content.
fn parse<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Result<T, ClientError> {
    serde_json::from_str(payload.get()).map_err(|error| json::unreadable(&error))
}

fn decode_send(payload: SendPayload<'_>, limits: &Limits) -> Result<SendAction, ClientError> {
    Ok(SendAction {
        conversation: payload.conversation_id.0,
        ..json::message_input(
            json::MessageInput {
                client_msg_id: payload.client_msg_id,
                kind: payload.kind,
                content: payload.content,
                metadata: payload.metadata,
                reply_to: payload.reply_to.map(|id| id.0),
            },
            payload.conversation_id.0,
            limits,
        )?
    })
}

fn decode_read(payload: ReadPayload, limits: &Limits) -> Result<Action, ClientError> {
    if payload.up_to_seq.is_none() && payload.message_ids.is_empty() {
        return Err(ClientError::invalid("up_to_seq or message_ids is missing"));
    }
    limits.receipts(payload.message_ids.len())?;
    Ok(Action::Read {
        conversation: payload.conversation_id.0,
        up_to_seq: payload.up_to_seq,
        messages: payload.message_ids.into_iter().map(|id| id.0).collect(),
    })
}

fn decode_sync(payload: SyncPayload, limits: &Limits) -> Result<Action, ClientError> {
    limits.sync(payload.conversations.len())?;
    let positions = payload.conversations.into_iter().map(|(id, position)| Position {
        conversation_id: id.0.to_string(),
        epoch: position.epoch.unwrap_or_default(),
        seq: position.seq,
    });
    Ok(Action::Sync(positions.collect()))
}

/// The message types a client may send; `system` is for services.
pub(crate) fn message_type(name: Option<&str>) -> Result<MessageType, ClientError> {
    match name {
        None | Some("text") => Ok(MessageType::Text),
        Some("image") => Ok(MessageType::Image),
        Some("file") => Ok(MessageType::File),
        Some("voice") => Ok(MessageType::Voice),
        Some("journal_share") => Ok(MessageType::JournalShare),
        Some(_) => Err(ClientError::invalid(
            "type is none of text, image, file, voice, journal_share",
        )),
    }
}
