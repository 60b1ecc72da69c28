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
    // serde would take a list of the fields' values for the object.
    if !payload.get().starts_with('{') {
        return Err(ClientError::invalid("the payload is not an object"));
    }
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

#[cfg(test)]
mod tests {
    use parlance_proto::v1::{Message, ReceiptUpdated, Sender, SeqRange};
    use serde_json::{Value, json};

    use super::*;
    use crate::limits::tests::small;

    const CONVERSATION: &str = "0190a6e0-0000-7000-8000-000000000001";
    const MESSAGE: &str = "0190a6e0-0000-7000-8000-000000000002";

    fn decode(event: &str, payload: &Value) -> Result<Action, ClientError> {
        Native.decode(event, &encode(payload), &small())
    }

    fn as_json(payload: &RawValue) -> Value {
        serde_json::from_str(payload.get()).unwrap()
    }

    fn stored() -> Message {
        Message {
            id: MESSAGE.to_owned(),
            conversation_id: CONVERSATION.to_owned(),
            conversation_number: 7,
            seq: 3,
            sender: Some(Sender {
                id: "alice".to_owned(),
                username: "Alice".to_owned(),
                ..Sender::default()
            }),
            content: "héllo".to_owned(),
            metadata_json: r#"{"a":1.50}"#.to_owned(),
            client_msg_id: Some("m-1".to_owned()),
            created_at_ms: 1_700_000_000_123,
            ..Message::default()
        }
    }

    #[test]
    fn a_message_is_read_with_all_its_parts() {
        let payload = json!({
            "conversation_id": CONVERSATION, "client_msg_id": "m-1", "type": "image", "content": "hi",
            "metadata": {"w": 1}, "reply_to": MESSAGE, "senderId": "mallory",
        });
        let Action::Send(send) = decode("message:send", &payload).unwrap() else {
            panic!("not a send");
        };
        assert_eq!(send.conversation.to_string(), CONVERSATION);
        assert_eq!(send.client_msg_id.as_deref(), Some("m-1"));
        assert_eq!(send.kind, MessageType::Image);
        assert_eq!(
            (send.content.as_str(), send.metadata.as_str()),
            ("hi", r#"{"w":1}"#)
        );
        assert_eq!(send.reply_to.map(|id| id.to_string()).as_deref(), Some(MESSAGE));
    }

    #[test]
    fn every_listed_event_is_known_and_no_other() {
        for event in Native.inbound_events() {
            assert_ne!(
                decode(event, &json!(null)).unwrap_err().code,
                "unknown_event",
                "{event}"
            );
        }
        assert_eq!(
            decode("message:sent", &json!({})).unwrap_err().code,
            "unknown_event"
        );
    }

    #[test]
    fn a_malformed_payload_is_named_without_repeating_it() {
        let cases = [
            (
                "message:send",
                json!({"conversation_id": CONVERSATION}),
                "content is missing",
            ),
            (
                "message:send",
                json!({"conversation_id": "secret", "content": "x"}),
                "conversation id is not a UUID",
            ),
            (
                "message:send",
                json!({"conversation_id": CONVERSATION, "content": 5}),
                "wrong type",
            ),
            ("message:send", json!(["secret"]), ""),
            (
                "message:send",
                json!({"conversation_id": CONVERSATION, "content": "x", "type": "system"}),
                "type",
            ),
            (
                "message:send",
                json!({"conversation_id": CONVERSATION, "content": "x", "client_msg_id": "a b"}),
                "client_msg_id",
            ),
            (
                "receipt:read",
                json!({"conversation_id": CONVERSATION}),
                "up_to_seq",
            ),
            (
                "typing",
                json!({"conversation_id": CONVERSATION, "is_typing": "secret"}),
                "wrong type",
            ),
        ];
        for (event, payload, part) in cases {
            let error = decode(event, &payload).unwrap_err();
            assert_eq!(error.code, "invalid", "{event} {payload}");
            assert!(
                error.message.contains(part),
                "{event} {payload}: {}",
                error.message
            );
            assert!(!error.message.contains("secret"), "{}", error.message);
        }
    }

    #[test]
    fn a_message_is_written_in_the_documented_shape() {
        let message = stored();
        let frame = Native.encode(Outbound::MessageCreated(&message)).unwrap();
        assert_eq!(frame.event, "message:new");
        let expected = json!({
            "id": MESSAGE, "conversation_id": CONVERSATION, "seq": 3,
            "sender": {"id": "alice", "username": "Alice"}, "type": "text", "content": "héllo",
            "metadata": {"a": 1.5}, "client_msg_id": "m-1", "reply_to": null,
            "created_at": "2023-11-14T22:13:20.123Z", "edited_at": null, "deleted_at": null,
            "number": (7_i64 << 25) + 3,
        });
        assert_eq!(as_json(&frame.payload), expected);
        assert!(
            frame.payload.get().contains(r#""metadata":{"a":1.50}"#),
            "metadata is passed as it is"
        );
    }

    #[test]
    fn an_answer_says_ok_or_why_not() {
        let done = Native.answer(Ok(&Answer::Message(stored())));
        assert_eq!(as_json(&done)["ok"], json!(true));
        assert_eq!(as_json(&done)["message"]["seq"], json!(3));
        let refused = Native.answer(Err(&ClientError::no_conversation()));
        let expected = json!({
            "ok": false,
            "error": {"code": "not_found", "message": "no such conversation", "retry": false},
        });
        assert_eq!(as_json(&refused), expected);
    }

    #[test]
    fn the_watermark_of_a_receipt_ends_at_the_first_gap() {
        let range = |first, last| SeqRange { first, last };
        let mut receipt = ReceiptUpdated {
            user_id: "bob".to_owned(),
            read: vec![range(1, 4), range(6, 6)],
            version: 9,
            ..ReceiptUpdated::default()
        };
        let conversation = CONVERSATION.parse().unwrap();
        let frame = Native.encode(Outbound::Receipt(conversation, &receipt)).unwrap();
        let written = as_json(&frame.payload);
        assert_eq!(
            (&written["up_to_seq"], &written["read"]),
            (&json!(4), &json!([[1, 4], [6, 6]]))
        );
        receipt.read = vec![range(6, 6)];
        let frame = Native.encode(Outbound::Receipt(conversation, &receipt)).unwrap();
        assert_eq!(as_json(&frame.payload)["up_to_seq"], json!(0));
    }
}
