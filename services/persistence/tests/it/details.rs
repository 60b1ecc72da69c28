//! What conversations are about; that every kind of change reads back as it was told; ids of other forms.

use parlance_persistence::model::work::Work;
use parlance_proto::v1::{self, Channel, ConversationStatus, ErrorCode, Role, command, query};

use crate::database::with_database;
use crate::queries::{answered, ask, events, queries};
use crate::works::{
    code, command, conversation, creation, delete, edit, fresh, message, sending, view, work,
};

fn update(who: &str, id: parlance_proto::ConversationId, update: v1::UpdateConversation) -> Work {
    work(&command(who, id, command::Body::UpdateConversation(update)))
}

#[tokio::test]
async fn title_status_channel_and_metadata_change_by_right_and_only_where_they_differ() {
    with_database(async |mut db| {
        let id = conversation();
        let title = |text: &str| v1::UpdateConversation {
            title: Some(text.into()),
            ..Default::default()
        };
        let details = v1::UpdateConversation {
            status: Some(ConversationStatus::Archived.into()),
            channel: Some(Channel::Email.into()),
            metadata_json: Some("{\"a\":1}".into()),
            ..Default::default()
        };
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob"])),
                update("alice", id, title("Coffee")),
                update("alice", id, title("Coffee")),
                update("bob", id, title("Mine")),
                update("bob", id, details.clone()),
                update("alice", id, title(" ")),
                update("alice", id, details),
                work(&sending("bob", id, "m1", "an archive is no prison")),
            ])
            .await;
        assert_eq!(
            (
                answers[1].events.len(),
                answers[2].events.len(),
                answers[2].repeated
            ),
            (1, 0, true)
        );
        let codes = [3, 4, 5].map(|n| code(&answers[n]));
        assert_eq!(
            codes,
            [
                Some(ErrorCode::Forbidden),
                Some(ErrorCode::Forbidden),
                Some(ErrorCode::Invalid)
            ]
        );
        let seen = view(&answers[6]);
        assert_eq!(
            (seen.title.as_str(), seen.status(), seen.channel()),
            ("Coffee", ConversationStatus::Archived, Channel::Email)
        );
        assert_eq!(
            (seen.metadata_json.as_str(), message(&answers[7]).seq),
            ("{\"a\": 1}", 3)
        );
    })
    .await;
}

/// A creation, and then changes of every kind a conversation without journals knows: twelve of them.
fn one_of_each(id: parlance_proto::ConversationId) -> Vec<v1::Command> {
    let thread = fresh();
    let bodies = vec![
        (
            "bob",
            command::Body::CreateThread(v1::CreateThread {
                thread_id: thread.clone(),
                root_message_id: Some("#1".into()),
                ..Default::default()
            }),
        ),
        (
            "bob",
            command::Body::React(v1::React {
                message_id: "#1".into(),
                emoji: "🎉".into(),
                remove: false,
            }),
        ),
        (
            "alice",
            command::Body::UpdateConversation(v1::UpdateConversation {
                title: Some("Coffee".into()),
                ..Default::default()
            }),
        ),
        (
            "alice",
            command::Body::AddMembers(v1::AddMembers {
                user_ids: vec!["carol".into(), "dave".into()],
                role: Role::Moderator.into(),
                provision_users: true,
                change_present: false,
                leave_out_blocking: false,
            }),
        ),
        (
            "alice",
            command::Body::ChangeRole(v1::ChangeRole {
                user_id: "carol".into(),
                role: Role::Member.into(),
            }),
        ),
        (
            "carol",
            command::Body::RemoveMember(v1::RemoveMember {
                user_id: "carol".into(),
            }),
        ),
        (
            "alice",
            command::Body::RemoveMember(v1::RemoveMember {
                user_id: "alice".into(),
            }),
        ),
    ];
    let mut commands = vec![
        creation("alice", id, &["bob"]),
        sending("alice", id, "m1", "one"),
        sending("bob", id, "m2", "two"),
    ];
    commands.extend(bodies.into_iter().map(|(who, body)| command(who, id, body)));
    commands.insert(5, edit("bob", id, "#2", "two again"));
    commands.push(delete("bob", id, "#2"));
    commands
}

#[tokio::test]
async fn every_kind_of_change_reads_back_as_it_was_told() {
    with_database(async |mut db| {
        let id = conversation();
        let commands = one_of_each(id);
        let mut told = Vec::new();
        for command in &commands {
            let answers = db.commit(&[work(command)]).await;
            assert_eq!(code(&answers[0]), None, "{command:?}");
            told.extend(answers[0].events.clone());
        }
        assert_eq!(
            told.iter().map(|event| event.seq).collect::<Vec<_>>(),
            (1..=12).collect::<Vec<_>>()
        );
        // All once more: the same events, as the things are now.
        let works: Vec<Work> = commands.iter().map(work).collect();
        let again: Vec<v1::Event> = db
            .commit(&works)
            .await
            .into_iter()
            .flat_map(|answer| answer.events)
            .collect();
        let queries = queries(&db).await;
        let log = answered!(ask(&queries, "", events(&id.to_string(), 0, 0)).await, Events);
        assert!(log.complete && log.head_seq == 12);
        assert_eq!(log.events, again);
        for (before, now) in told
            .iter()
            .zip(&log.events)
            .filter(|(e, _)| [7, 8, 9, 10, 11, 12].contains(&e.seq))
        {
            assert_eq!(before, now);
        }
        assert_eq!(
            db.number("SELECT count(*) FROM changes WHERE encode(payload, 'escape') LIKE '%two%'")
                .await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn ids_of_other_forms_find_their_conversation_and_place() {
    with_database(async |mut db| {
        let id = conversation();
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob"])),
                work(&sending("alice", id, "m1", "x")),
            ])
            .await;
        let sent = message(&answers[1]);
        let number = sent.conversation_number;
        let queries = queries(&db).await;
        let resolve = v1::Resolve {
            conversation_numbers: vec![number, 999],
            message_ids: vec![sent.id.clone(), fresh(), "x".into()],
        };
        let resolved = answered!(ask(&queries, "", query::Body::Resolve(resolve)).await, Resolved);
        let conversations: Vec<_> = resolved
            .conversations
            .iter()
            .map(|c| (c.number, c.conversation_id.clone()))
            .collect();
        assert_eq!(conversations, [(number, id.to_string())]);
        let messages: Vec<_> = resolved
            .messages
            .iter()
            .map(|m| (&m.message_id, &m.conversation_id, m.seq))
            .collect();
        assert_eq!(messages, [(&sent.id, &id.to_string(), 1)]);
        for (who, name, found) in [
            ("bob", "#1", true),
            ("bob", sent.id.as_str(), true),
            ("bob", "#2", false),
            ("eve", "#1", false),
        ] {
            let get = v1::GetMessage {
                conversation_id: number.to_string(),
                message_id: name.into(),
            };
            assert_eq!(
                ask(&queries, who, query::Body::GetMessage(get)).await.is_ok(),
                found,
                "{who} {name}"
            );
        }
    })
    .await;
}
