//! Of messages as services publish them.

use parlance_proto::v1::{MessageType, SenderKind, command as proto};

use super::*;
use crate::model::work::Action;

fn message() -> SystemMessage {
    SystemMessage {
        sender_id: "weather".into(),
        sender_name: "Weather".into(),
        content: "rain".into(),
        ..Default::default()
    }
}

fn made(target: &SystemTarget, id: &str, message: SystemMessage) -> Result<Vec<Command>, v1::Error> {
    command::of_message(target, id, message, ServiceOrigin::default())
}

const LIMITS: Limits = Limits {
    content_bytes: 100,
    metadata_bytes: 100,
    streams: stream::Limits::DEFAULT,
};
const TO_BOB: &str = "chat.system.user.bob";

/// What persistence makes of a message with these headers.
fn taken(
    subject: &str,
    own_id: Option<&str>,
    nats_id: Option<&str>,
    message: &SystemMessage,
) -> Result<Vec<Command>, v1::Error> {
    let payload = Bytes::from(message.encode_to_vec());
    let published = Published {
        subject,
        own_id,
        nats_id,
        reply_to: None,
        doubled: None,
        is_json: false,
        payload: &payload,
    };
    match read(&published, ServiceOrigin::default(), &LIMITS)? {
        Taken::Commands(commands) => Ok(commands),
        Taken::Step(step) => Ok(step.start),
    }
}

#[test]
fn the_header_of_nats_is_no_id_of_a_message_and_may_stand_beside_one() {
    let ours = taken(TO_BOB, Some("m1"), None, &message()).unwrap();
    assert_eq!(ours.len(), 2);
    for beside in ["m1", "m2", "5f0c4d4c-6dbb-5a3c-8f5b-000000000001"] {
        assert_eq!(taken(TO_BOB, Some("m1"), Some(beside), &message()).unwrap(), ours);
    }
    for (own_id, nats_id, cause) in [
        (None, None, "missing"),
        (None, Some("m1"), "Nats-Msg-Id alone"),
        (Some(""), None, "empty"),
        (
            None,
            Some("5f0c4d4c-6dbb-5a3c-8f5b-000000000001"),
            "Nats-Msg-Id alone",
        ),
    ] {
        let refusal = taken(TO_BOB, own_id, nats_id, &message()).unwrap_err();
        assert!(refusal.message.contains(cause), "{}", refusal.message);
    }
    // As a gateway of the version before publishes.
    let by_gateway = SystemMessage {
        sender_id: "service:weather".into(),
        ..message()
    };
    let derived = Some("5f0c4d4c-6dbb-5a3c-8f5b-000000000001");
    assert!(taken(TO_BOB, None, derived, &by_gateway).is_ok());
    assert!(taken(TO_BOB, None, Some("m1"), &by_gateway).is_err());
}

#[test]
fn what_no_conversation_could_take_is_refused_before_it_is_a_command() {
    let conversation = "chat.system.0190a6e0-0000-7000-8000-000000000001";
    let broken: [(&str, SystemMessage, &str); 9] = [
        (
            conversation,
            SystemMessage {
                content: String::new(),
                ..message()
            },
            "content is empty",
        ),
        (
            conversation,
            SystemMessage {
                content: "a\0b".into(),
                ..message()
            },
            "NUL",
        ),
        (
            conversation,
            SystemMessage {
                sender_name: "a\0b".into(),
                ..message()
            },
            "NUL",
        ),
        (
            conversation,
            SystemMessage {
                metadata_json: "[1".into(),
                ..message()
            },
            "JSON object",
        ),
        (
            conversation,
            SystemMessage {
                reply_to: Some("x".into()),
                ..message()
            },
            "reply_to is neither",
        ),
        (
            conversation,
            SystemMessage {
                r#type: 99,
                ..message()
            },
            "message type",
        ),
        (
            conversation,
            SystemMessage {
                sender_kind: 99,
                ..message()
            },
            "sender_kind",
        ),
        (
            conversation,
            SystemMessage {
                content: "x".repeat(101),
                ..message()
            },
            "100 are allowed",
        ),
        ("chat.system.user.service_3Aweather", message(), "itself"),
    ];
    for (subject, message, cause) in broken {
        let refusal = taken(subject, Some("m1"), None, &message).unwrap_err();
        assert!(refusal.message.contains(cause), "{cause}: {}", refusal.message);
    }
}

#[test]
fn a_replay_sends_the_same_message_by_other_commands() {
    let payload = Bytes::from(message().encode_to_vec());
    let first = taken(TO_BOB, Some("m1"), None, &message()).unwrap();
    let again = replayed(TO_BOB, Some("m1"), &payload, Uuid::from_u128(7), &LIMITS).unwrap();
    assert!(
        first
            .iter()
            .zip(&again)
            .all(|(a, b)| a.id != b.id && a.body == b.body)
    );
    let origin = again[1].service.as_ref().unwrap();
    assert_eq!((origin.message_id.as_str(), origin.reply_to.as_str()), ("m1", ""));
}

#[test]
fn an_id_is_cut_between_characters() {
    let id = cut("\u{e9}".repeat(300));
    assert_eq!(id.len(), MESSAGE_ID_MAX_BYTES + 2);
    assert!(id.chars().all(|c| c == '\u{e9}'));
    assert_eq!(cut("m1".into()), "m1");
    assert_eq!(cut("x".repeat(256)).len(), 256);
}

#[test]
fn a_letter_whose_id_was_cut_is_not_replayed() {
    let payload = Bytes::from(message().encode_to_vec());
    let id = cut("x".repeat(300));
    let refused = replayed(TO_BOB, Some(&id), &payload, Uuid::from_u128(7), &LIMITS);
    assert!(refused.unwrap_err().contains("longer than 256"));
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

#[test]
fn the_same_message_id_makes_the_same_commands_and_another_other_ones() {
    let target = SystemTarget::User(user("bob"));
    let first = made(&target, "m1", message()).unwrap();
    assert_eq!(first, made(&target, "m1", message()).unwrap());
    let other = made(&target, "m2", message()).unwrap();
    assert!(first.iter().all(|a| other.iter().all(|b| a.id != b.id)));
}

#[test]
fn a_message_to_a_user_makes_its_conversation_first_and_both_commands_are_valid() {
    let commands = made(&SystemTarget::User(user("bob")), "m1", message()).unwrap();
    let works: Vec<Work> = commands
        .into_iter()
        .map(|command| Work::parse(command).unwrap())
        .collect();
    assert!(matches!(works[0].action, Action::Create(_)) && matches!(works[1].action, Action::Send(_)));
    assert_eq!(
        works[0].conversation,
        ConversationId::direct(&user("service:weather"), &user("bob"))
    );
    assert!(!works[1].actor.is_user());
}

#[test]
fn what_a_service_sends_opens_no_journal() {
    let share = SystemMessage {
        sender_id: "alice".into(),
        sender_kind: SenderKind::Agent.into(),
        r#type: MessageType::JournalShare.into(),
        metadata_json: r#"{"journalId":7}"#.into(),
        ..message()
    };
    let target = SystemTarget::Conversation(ConversationId::direct(&user("alice"), &user("bob")));
    let mut commands = made(&target, "m1", share).unwrap();
    let Action::Send(send) = Work::parse(commands.remove(0)).unwrap().action else {
        panic!("a send")
    };
    assert!(send.journal.is_none());
}

#[test]
fn a_service_cannot_take_the_identity_of_a_user_s_message_nor_pose_as_one() {
    let conversation = ConversationId::direct(&user("weather"), &user("bob"));
    let commands = made(&SystemTarget::Conversation(conversation), "m1", message()).unwrap();
    let Some(proto::Body::SendMessage(send)) = &commands[0].body else {
        panic!("a send")
    };
    assert_ne!(
        send.message_id,
        MessageId::derive(conversation, &user("service:weather"), "m1").to_string()
    );
    // A user of the name that the service gives itself is another one.
    let named = SystemMessage {
        sender_id: "bob".into(),
        ..message()
    };
    let commands = made(&SystemTarget::Conversation(conversation), "m1", named).unwrap();
    assert_eq!(commands[0].actor.as_ref().unwrap().user_id, "service:bob");
    let posing = SystemMessage {
        sender_kind: SenderKind::User.into(),
        ..message()
    };
    assert!(made(&SystemTarget::Conversation(conversation), "m1", posing).is_err());
}
