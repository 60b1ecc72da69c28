//! What holds for every dialect and whatever a client sends.

use parlance_proto::UserId;
use parlance_proto::v1::{Message, StreamState};
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::{DEFAULT, DIALECTS, Dialect, Outbound, Speaker, Streams, samples};
use crate::limits::tests::small;

/// Stands in everything a client wrote that is no id, so that repeating it is noticed.
const MARK: &str = "s3cret";

/// Names of fields in any dialect, so that payloads get past the first missing one.
const FIELDS: &[&str] = &[
    "conversationId",
    "conversation_id",
    "chatId",
    "messageId",
    "message_id",
    "messageIds",
    "message_ids",
    "content",
    "contentEncrypted",
    "messageType",
    "type",
    "metadata",
    "threadId",
    "thread_id",
    "tempId",
    "clientMsgId",
    "client_msg_id",
    "replyTo",
    "reply_to",
    "senderId",
    "isTyping",
    "is_typing",
    "emoji",
    "title",
    "upTo",
    "up_to_seq",
    "scope",
    "remove",
    "journalId",
    "journal_id",
    "update",
    "conversations",
    "rootMessageId",
];

/// Leaves of JSON as text: those that fit, and those that only look so.
const LEAVES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "8",
    "-1",
    "1.5",
    "1e400",
    "9007199254740993",
    "18446744073709551616",
    r#""""#,
    r#""8""#,
    r#""text""#,
    r#""me""#,
    r#""temp-1""#,
    r#""s3cret\ud800""#,
    r#""s3cret\u0000""#,
    r#""s3cret expected s3cret""#,
    r#""missing field `s3cret` at line""#,
    r#""AQID""#,
];

/// One of them, an id, or anything else.
fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(LEAVES).prop_map(str::to_owned),
        proptest::sample::select(&[samples::DIRECT, samples::THREAD][..]).prop_map(quoted),
        ".{0,12}".prop_map(|text| quoted(&format!("{MARK}{text}"))),
        "[0-9]{1,30}",
    ]
    .prop_filter("a number does not begin with 0", |text| {
        serde_json::from_str::<&RawValue>(text).is_ok()
    })
}

/// Any JSON, most of it objects with fields of our vocabularies.
fn payload() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        8 => proptest::sample::select(FIELDS).prop_map(quoted),
        1 => ".{0,6}".prop_map(|text| quoted(&format!("{MARK}{text}"))),
    ];
    let nested = leaf().prop_recursive(3, 24, 6, move |inner| {
        let field = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        let object = proptest::collection::vec(field, 0..8);
        prop_oneof![
            3 => object.prop_map(|fields| format!("{{{}}}", fields.join(","))),
            1 => proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    });
    prop_oneof![
        // Named conversation and good content: what comes after them is reached.
        1 => nested.clone().prop_map(|value| {
            format!(r#"{{"conversationId":8,"content":"{MARK}","messageType":"text","metadata":{value}}}"#)
        }),
        6 => nested,
    ]
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[test]
fn native_speaks_as_recorded() {
    samples::check(DEFAULT);
}

#[test]
fn every_dialect_is_recorded() {
    for dialect in DIALECTS {
        for kind in ["decode", "encode", "answer"] {
            let snapshot = format!("src/dialect/snapshots/{}.{kind}.snap", dialect.name());
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&snapshot);
            assert!(
                path.exists(),
                "{snapshot} is missing; does its test call samples::check?"
            );
        }
    }
}

proptest! {
    #[test]
    fn nothing_a_client_sends_breaks_a_dialect_or_is_repeated(payload in payload(), other in ".{0,20}") {
        let payload = RawValue::from_string(payload).unwrap();
        let limits = small();
        let user = UserId::parse("alice").unwrap();
        let speaker = Speaker { user: &user, number: 11 };
        let other = format!("{MARK}{other}");
        for dialect in DIALECTS {
            for event in dialect.inbound_events().iter().copied().chain([&*other, ""]) {
                dialect.tag(event, &payload);
                if let Err(error) = dialect.decode(speaker, event, &payload, &limits) {
                    let told = format!("{} {event}: {}", dialect.name(), error.message);
                    prop_assert!(!error.message.contains(MARK), "{told}");
                    prop_assert!(!error.message.is_empty() && error.message.len() < 200, "{told}");
                }
            }
        }
    }
}

#[test]
fn every_listed_event_is_known_and_no_other() {
    let user = UserId::parse("alice").unwrap();
    let speaker = Speaker {
        user: &user,
        number: 11,
    };
    for dialect in DIALECTS {
        let code = |event: &str| {
            let outcome = dialect.decode(speaker, event, RawValue::NULL, &small());
            outcome.err().map_or("", |error| error.code)
        };
        for event in dialect.inbound_events() {
            assert_ne!(code(event), "unknown_event", "{} {event}", dialect.name());
        }
        assert_eq!(code("no:such event"), "unknown_event", "{}", dialect.name());
    }
}

#[test]
fn an_event_that_only_one_dialect_understands_shows_it() {
    const ID: &str = samples::DIRECT;
    let user = UserId::parse("alice").unwrap();
    let speaker = Speaker {
        user: &user,
        number: 11,
    };
    let shown = |assumed, event, payload: serde_json::Value| {
        let payload = RawValue::from_string(payload.to_string()).unwrap();
        super::shown_by(assumed, speaker, event, &payload, &small()).map(|dialect| dialect.name())
    };
    for (event, payload, dialect) in [
        ("joinRoom", json!(7), Some("journal")),
        ("chat:typing", json!({}), Some("encrypted")),
        ("chat:join", json!(ID), Some("chats")),
        ("join_conversation", json!(null), Some("inbox")),
        ("receipt:read", json!({}), Some("native")),
        // By its name of several dialects, by its fields of one.
        (
            "conversation:join",
            json!({ "conversationId": ID }),
            Some("threads"),
        ),
        ("conversation:join", json!({ "conversation_id": ID }), None),
        (
            "message:send",
            json!({ "conversation_id": ID, "content": "hi" }),
            None,
        ),
        ("message:send", json!({ "chatId": ID, "content": "hi" }), None),
        ("no:such event", json!(null), None),
    ] {
        assert_eq!(
            shown(DEFAULT, event, payload.clone()),
            dialect,
            "{event} {payload}"
        );
    }
    let threads = super::by_name("threads", Streams::Finished).unwrap();
    let join = json!({ "conversationId": ID });
    assert_eq!(shown(threads, "conversation:join", join), None);
}

#[test]
fn a_failure_without_an_ack_is_told_in_every_dialect() {
    let unacked = |(name, _): &(&str, _)| *name == "failed";
    let (_, failed) = samples::outbound().into_iter().find(unacked).unwrap();
    for dialect in DIALECTS {
        assert!(!dialect.encode(failed).is_empty(), "{}", dialect.name());
    }
}

#[test]
fn a_message_that_streams_is_shown_by_edits_where_the_settings_say_so() {
    let frames = |dialect: &dyn Dialect, outbound: Outbound<'_>| -> Vec<String> {
        let frames = dialect.frames(outbound).into_iter();
        frames
            .map(|frame| format!("{} {}", frame.event, frame.payload))
            .collect()
    };
    let (place, open, ended) = samples::streams();
    let created = Outbound::MessageCreated(place, open);
    let grown = Outbound::MessageGrown(place, open);
    let listed = Outbound::ListUpdated {
        place,
        last: open,
        unread: 1,
        joined: false,
    };
    let finished = Outbound::MessageFinished(place, ended);
    for dialect in DIALECTS.iter().filter(|dialect| dialect.streams().is_some()) {
        let showing = |streams| super::by_name(dialect.name(), streams).unwrap();
        let (hiding, editing) = (showing(Streams::Finished), showing(Streams::Edits));
        for outbound in [created, grown, listed] {
            assert_eq!(frames(hiding, outbound), [""; 0], "{}", dialect.name());
        }
        let new = |message| {
            let plain = Message {
                stream: StreamState::Unspecified.into(),
                ..Message::clone(message)
            };
            frames(hiding, Outbound::MessageCreated(place, &plain))
        };
        let edited = |message| frames(hiding, Outbound::MessageEdited(place, message));
        assert_eq!(frames(hiding, finished), new(ended));
        assert_eq!(frames(editing, created), new(open));
        assert_eq!(frames(editing, grown), edited(open));
        assert_eq!(frames(editing, finished), edited(ended));
        assert_eq!(edited(open).len(), 1, "{}", dialect.name());
    }
}

#[test]
fn no_two_dialects_share_a_name() {
    let mut names: Vec<_> = DIALECTS.iter().map(|dialect| dialect.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DIALECTS.len());
}
