use parlance_proto::v1::{Command, ErrorCode, command};

use super::*;

fn send(metadata_json: &str, content: &str) -> Result<Work, v1::Error> {
    Work::parse(Command {
        id: "00000000-0000-4000-8000-000000000001".into(),
        conversation_id: "00000000-0000-4000-8000-000000000002".into(),
        actor: Some(v1::Actor {
            user_id: "alice".into(),
            ..Default::default()
        }),
        body: Some(command::Body::SendMessage(v1::SendMessage {
            message_id: "00000000-0000-4000-8000-000000000003".into(),
            content: content.into(),
            metadata_json: metadata_json.into(),
            ..Default::default()
        })),
        ..Default::default()
    })
}

#[test]
fn what_cannot_be_stored_is_invalid() {
    for (metadata, content) in [
        ("", "a\0b"),
        ("[1]", ""),
        ("{\"a\":", ""),
        ("null", ""),
        ("{\"a\":\"\\ud800\"}", ""),
    ] {
        let error = send(metadata, content).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Invalid, "{metadata} {content:?}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(send(&deep, "").is_err());
}

#[test]
fn content_stays_as_it_is() {
    let text = "  \u{202E}😀 <b>&amp;</b>\n";
    let work = send("{}", text).unwrap();
    let Action::Send(send) = work.action else {
        panic!("a send")
    };
    assert_eq!((send.content.as_str(), send.metadata_json.as_str()), (text, ""));
    assert_eq!(
        (send.kind, work.actor.username.as_str()),
        (MessageType::Text, "alice")
    );
}

fn create(
    kind: ConversationKind,
    id: ConversationId,
    title: &str,
    others: &[&str],
) -> Result<Work, v1::Error> {
    Work::parse(Command {
        id: "00000000-0000-4000-8000-000000000001".into(),
        conversation_id: id.to_string(),
        actor: Some(v1::Actor {
            user_id: "alice".into(),
            ..Default::default()
        }),
        body: Some(command::Body::CreateConversation(v1::CreateConversation {
            kind: kind.into(),
            title: title.into(),
            participant_ids: others.iter().map(|&id| id.to_owned()).collect(),
            provision_users: true,
            ..Default::default()
        })),
        ..Default::default()
    })
}

#[test]
fn a_direct_conversation_has_the_id_of_its_pair_and_a_group_never_such_an_id() {
    use ConversationKind::{Direct, Group};
    let user = |id: &str| UserId::parse(id).unwrap();
    let pair = ConversationId::direct(&user("alice"), &user("bob"));
    let other = ConversationId::direct(&user("alice"), &user("carol"));
    let free: ConversationId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
    assert!(create(Direct, pair, "", &["bob"]).is_ok());
    assert!(create(Direct, pair, "", &["alice", "bob"]).is_ok());
    assert!(create(Direct, other, "", &["bob"]).is_err());
    assert!(create(Direct, pair, "", &[]).is_err());
    assert!(create(Direct, pair, "", &["bob", "carol"]).is_err());
    assert!(create(Group, free, "t", &["bob"]).is_ok());
    assert!(create(Group, other, "t", &["bob"]).is_err());
    assert!(create(Group, free, " ", &["bob"]).is_err());
    assert!(create(Group, free, "t", &["alice"]).is_err());
}

fn with(body: command::Body) -> Result<Work, v1::Error> {
    Work::parse(Command {
        id: "00000000-0000-4000-8000-000000000001".into(),
        conversation_id: "00000000-0000-4000-8000-000000000002".into(),
        actor: Some(v1::Actor {
            user_id: "alice".into(),
            ..Default::default()
        }),
        body: Some(body),
        ..Default::default()
    })
}

#[test]
fn a_message_is_named_by_its_id_or_its_place() {
    let id = "00000000-0000-4000-8000-000000000003";
    assert_eq!(
        id.parse::<MessageName>().unwrap(),
        MessageName::Id(id.parse().unwrap())
    );
    assert_eq!("#7".parse::<MessageName>().unwrap(), MessageName::Seq(7));
    for bad in ["", "#", "#0", "#-1", "#x", "7", "#99999999999999999999"] {
        assert!(bad.parse::<MessageName>().is_err(), "{bad}");
    }
}

#[test]
fn an_emoji_is_something_to_see_and_short() {
    let react = |emoji: &str| {
        with(command::Body::React(v1::React {
            message_id: "#1".into(),
            emoji: emoji.into(),
            remove: false,
        }))
    };
    for good in ["😂", "👩‍👩‍👧‍👦", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️", "1️⃣", ":+1:", "+1"]
    {
        assert!(react(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "ok",
        "1",
        "1\u{FE0F}",
        "\u{FE0F}",
        " ",
        "👍 ",
        "\u{7}",
        &"😂".repeat(17),
    ] {
        assert!(react(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_shared_journal_is_named_in_either_casing_and_by_any_form_of_its_id() {
    let share = |metadata: &str| {
        let send = v1::SendMessage {
            message_id: "00000000-0000-4000-8000-000000000003".into(),
            r#type: MessageType::JournalShare.into(),
            metadata_json: metadata.into(),
            ..Default::default()
        };
        with(command::Body::SendMessage(send)).map(|work| match work.action {
            Action::Send(send) => send.journal,
            _ => None,
        })
    };
    let id = "01890000-0000-7000-8000-000000000001";
    for (metadata, journal) in [
        (r#"{"journalId":7}"#.to_owned(), JournalName::Number(7)),
        (r#"{"journal_id":"7","x":[1]}"#.to_owned(), JournalName::Number(7)),
        (
            format!(r#"{{"journalId":"{id}"}}"#),
            JournalName::Id(id.parse().unwrap()),
        ),
    ] {
        assert_eq!(share(&metadata).unwrap(), Some(journal), "{metadata}");
    }
    for bad in [
        "",
        "{}",
        r#"{"journalId":null}"#,
        r#"{"journalId":"x"}"#,
        r#"{"journalId":1.5}"#,
    ] {
        assert!(share(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_and_titles_hold_nothing_that_reorders_text_and_invisible_names_are_the_id() {
    for (name, expected) in [
        ("\u{202E}ecilA", "ecilA"),
        ("Alice\n", "Alice"),
        ("\u{200B}", "alice"),
        ("", "alice"),
    ] {
        let command = Command {
            id: "0190a6e0-0000-7000-8000-000000000001".into(),
            actor: Some(v1::Actor {
                user_id: "alice".into(),
                username: name.into(),
                kind: 0,
            }),
            conversation_id: "0190a6e0-0000-7000-8000-000000000002".into(),
            body: Some(command::Body::UpdateConversation(v1::UpdateConversation {
                title: Some(format!("Tea {name}")),
                ..Default::default()
            })),
            ..Default::default()
        };
        let work = Work::parse(command).unwrap();
        assert_eq!(work.actor.username, expected, "{name:?}");
        let Action::Update(update) = work.action else {
            panic!("{name:?}");
        };
        let title = update.title.unwrap();
        assert!(!title.contains(['\u{202E}', '\n']), "{title:?}");
    }
}

#[test]
fn what_means_nothing_is_refused() {
    let many = (0..=MAX_USERS).map(|n| format!("u{n}")).collect();
    for body in [
        command::Body::AddMembers(v1::AddMembers::default()),
        command::Body::AddMembers(v1::AddMembers {
            user_ids: many,
            ..Default::default()
        }),
        command::Body::ChangeRole(v1::ChangeRole {
            user_id: "bob".into(),
            role: 0,
        }),
        command::Body::UpdateConversation(v1::UpdateConversation {
            status: Some(9),
            ..Default::default()
        }),
        command::Body::UpdateConversation(v1::UpdateConversation {
            title: Some("x".repeat(201)),
            ..Default::default()
        }),
        command::Body::CreateThread(v1::CreateThread {
            thread_id: "x".into(),
            ..Default::default()
        }),
        command::Body::MarkRead(v1::MarkRead::default()),
    ] {
        assert!(with(body.clone()).is_err(), "{body:?}");
    }
}

#[test]
fn a_journal_needs_a_title_and_nobody_else() {
    let free: ConversationId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
    assert!(create(ConversationKind::Journal, free, "Diary", &[]).is_ok());
    assert!(create(ConversationKind::Journal, free, " ", &[]).is_err());
    assert!(
        create(
            ConversationKind::Journal,
            ConversationId::direct(&"a".parse().unwrap(), &"b".parse().unwrap()),
            "Diary",
            &[]
        )
        .is_err()
    );
}
