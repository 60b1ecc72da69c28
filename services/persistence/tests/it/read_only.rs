//! Read-only groups on a real Postgres: only admins write.

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, Command, ErrorCode, Role, command, event};

use crate::database::with_database;
use crate::works::{
    code, command, conversation, creation, delete, direct, edit, message, read, sending, user, view, work,
};

fn read_only(who: &str, id: ConversationId, read_only: bool) -> Command {
    let update = v1::UpdateConversation {
        read_only: Some(read_only),
        ..Default::default()
    };
    command(who, id, command::Body::UpdateConversation(update))
}

fn role(id: ConversationId, whom: &str, role: Role) -> Command {
    let change = v1::ChangeRole {
        user_id: whom.into(),
        role: role.into(),
    };
    command("alice", id, command::Body::ChangeRole(change))
}

fn thread(who: &str, id: ConversationId) -> Command {
    let thread = v1::CreateThread {
        thread_id: crate::works::fresh(),
        ..Default::default()
    };
    command(who, id, command::Body::CreateThread(thread))
}

fn react(who: &str, id: ConversationId, message: &str) -> Command {
    let react = v1::React {
        message_id: message.into(),
        emoji: "👍".into(),
        remove: false,
    };
    command(who, id, command::Body::React(react))
}

#[tokio::test]
async fn in_a_read_only_group_fifty_attempts_of_members_and_moderators_to_write_change_nothing() {
    with_database(async |mut db| {
        let id = conversation();
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob", "carol"])),
                work(&role(id, "carol", Role::Moderator)),
                work(&sending("bob", id, "b1", "mine")),
                work(&sending("carol", id, "c1", "hers")),
                work(&read_only("alice", id, true)),
            ])
            .await;
        assert!(view(&answers[4]).read_only);
        let Some(event::Body::ConversationUpdated(updated)) = &answers[4].events[0].body else {
            panic!("{:?}", answers[4].events);
        };
        assert!(updated.conversation.as_ref().is_some_and(|one| one.read_only));
        let (his, hers) = (message(&answers[2]).id, message(&answers[3]).id);
        let head = db.number("SELECT head_seq FROM conversations").await;
        for round in 0..50 {
            let attempts = [
                work(&sending("bob", id, &format!("b-{round}"), "again")),
                work(&sending("carol", id, &format!("c-{round}"), "again")),
                work(&edit("bob", id, &his, "changed")),
                work(&edit("carol", id, &hers, "changed")),
                work(&thread("bob", id)),
                work(&read_only("bob", id, false)),
                work(&read_only("carol", id, false)),
            ];
            for answer in db.commit(&attempts).await {
                assert_eq!(code(&answer), Some(ErrorCode::Forbidden));
            }
        }
        assert_eq!(db.number("SELECT head_seq FROM conversations").await, head);
        assert_eq!(db.number("SELECT count(*) FROM threads").await, 0);

        // What is read and marked, and what an admin says.
        let works = [
            work(&react("bob", id, &hers)),
            work(&read("bob", id, u64::try_from(head).unwrap(), &[])),
            work(&delete("bob", id, &his)),
            work(&sending("alice", id, "a1", "announced")),
            work(&thread("alice", id)),
            work(&read_only("alice", id, true)),
            work(&role(id, "bob", Role::Admin)),
            work(&sending("bob", id, "b2", "admin now")),
            work(&read_only("alice", id, false)),
            work(&sending("carol", id, "c2", "at last")),
        ];
        let answers = db.commit(&works).await;
        assert!(answers.iter().all(|answer| code(answer).is_none()), "{answers:?}");
        assert!(answers[5].repeated && answers[5].events.is_empty());
    })
    .await;
}

#[tokio::test]
async fn only_a_group_with_roles_can_be_read_only() {
    with_database(async |mut db| {
        let open = conversation();
        let mut creating = creation("alice", open, &["bob"]);
        if let Some(command::Body::CreateConversation(create)) = &mut creating.body {
            create.open = true;
        }
        let pair = ConversationId::direct(&user("alice"), &user("bob"));
        let answers = db
            .commit(&[
                work(&creating),
                work(&direct("alice", "bob")),
                work(&read_only("alice", open, true)),
                work(&read_only("alice", pair, true)),
            ])
            .await;
        let codes: Vec<_> = answers.iter().skip(2).map(code).collect();
        assert_eq!(codes, [Some(ErrorCode::Invalid), Some(ErrorCode::Invalid)]);
    })
    .await;
}
