//! Reading and writing in the native dialect.

use parlance_proto::v1::{Message, MessageType, ReceiptUpdated, Sender, SeqRange};
use serde_json::{Value, json};

use super::*;
use crate::limits::tests::small;

const CONVERSATION: &str = "0190a6e0-0000-7000-8000-000000000001";
const MESSAGE: &str = "0190a6e0-0000-7000-8000-000000000002";

fn decode(event: &str, payload: &Value) -> Result<Action, ClientError> {
    let user = parlance_proto::UserId::parse("alice").unwrap();
    let speaker = Speaker {
        user: &user,
        number: 1,
    };
    let decoded = Native.decode(speaker, event, &encode(payload), &small())?;
    Ok(decoded.action)
}

fn place() -> Place {
    Place {
        id: CONVERSATION.parse().unwrap(),
        number: 7,
        kind: parlance_proto::v1::ConversationKind::Group,
        title: "Team".to_owned(),
        participants: Vec::new(),
        participant_count: 0,
        head_seq: 9,
    }
}

fn one(outbound: Outbound<'_>) -> Frame {
    let mut frames = Native.encode(outbound);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
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
fn users_are_named_by_numbers_too_and_parts_of_positions_may_be_null() {
    let watched = decode("presence:subscribe", &json!({ "user_ids": [5, "bob"] }));
    assert_eq!(
        watched,
        Ok(Action::WatchPresence(vec!["5".to_owned(), "bob".to_owned()]))
    );
    let position = json!({ "epoch": null, "seq": null, "receipts_version": null });
    let synced = decode("sync", &json!({ "conversations": { CONVERSATION: position } }));
    assert_eq!(
        synced,
        decode("sync", &json!({ "conversations": { CONVERSATION: {} } }))
    );
    assert!(synced.is_ok());
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
    assert_eq!(
        send.conversation,
        ConversationRef::Id(CONVERSATION.parse().unwrap())
    );
    assert_eq!(send.client_msg_id.as_deref(), Some("m-1"));
    assert_eq!(send.kind, MessageType::Image);
    assert_eq!(
        (send.content.as_str(), send.metadata.as_str()),
        ("hi", r#"{"w":1}"#)
    );
    assert_eq!(send.reply_to, Some(MessageRef::Id(MESSAGE.parse().unwrap())));
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
            "conversation_id is text; it must be a UUID, or a number from 1 to",
        ),
        (
            "message:send",
            json!({"conversation_id": CONVERSATION, "content": 5}),
            "content is a number; it must be text",
        ),
        (
            "message:send",
            json!(["secret"]),
            "the payload is a list; it must be an object",
        ),
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
            "is_typing is text; it must be true or false",
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
    let frame = one(Outbound::MessageCreated(&place(), &message));
    assert_eq!(frame.event, "message:new");
    let expected = json!({
        "id": MESSAGE, "conversation_id": CONVERSATION, "seq": 3,
        "sender": {"id": "alice", "username": "Alice"}, "sender_kind": "user", "type": "text", "content": "héllo",
        "metadata": {"a": 1.5}, "client_msg_id": "m-1", "reply_to": null,
        "created_at": "2023-11-14T22:13:20.123Z", "edited_at": null, "deleted_at": null,
        "number": (7_i64 << 25) + 3, "encrypted": false, "thread_id": null, "reactions": [],
    });
    assert_eq!(as_json(&frame.payload), expected);
    assert!(
        frame.payload.get().contains(r#""metadata":{"a":1.50}"#),
        "metadata is passed as it is"
    );
}

#[test]
fn an_answer_says_ok_or_why_not() {
    let done = Native.answer(Ok(&Answer::Message(stored())), None);
    assert_eq!(as_json(&done)["ok"], json!(true));
    assert_eq!(as_json(&done)["message"]["seq"], json!(3));
    let refused = Native.answer(Err(&ClientError::no_conversation()), None);
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
    let frame = one(Outbound::Receipt(&place(), &receipt));
    let written = as_json(&frame.payload);
    assert_eq!(
        (&written["up_to_seq"], &written["read"]),
        (&json!(4), &json!([[1, 4], [6, 6]]))
    );
    receipt.read = vec![range(6, 6)];
    let frame = one(Outbound::Receipt(&place(), &receipt));
    assert_eq!(as_json(&frame.payload)["up_to_seq"], json!(0));
}
