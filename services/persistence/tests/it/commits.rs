//! What a committed batch leaves in the database and answers.

use parlance_persistence::error::{BatchError, Disposition, disposition};
use parlance_persistence::store::processed;
use parlance_proto::v1::{self, ErrorCode, Role, command, user_notice};

use crate::database::with_database;
use crate::works::{
    add, code, conversation, creation, delete, direct, edit, fresh, message, poison, sending, told, view,
    work,
};

#[tokio::test]
async fn a_message_is_stored_as_answered_and_a_repeat_gets_the_same() {
    with_database(async |mut db| {
        let id = conversation();
        let first = sending("alice", id, "m1", "  hi \u{202E}😀 <b>");
        let answers = db
            .commit(&[work(&creation("alice", id, &["bob"])), work(&first)])
            .await;
        let original = message(&answers[1]);
        assert_eq!(
            (original.seq, original.content.as_str()),
            (1, "  hi \u{202E}😀 <b>")
        );
        assert_eq!(original.sender.as_ref().unwrap().username, "ALICE");
        let again = sending("alice", id, "m1", "another content, other command");
        let answers = db.commit(&[work(&again), work(&first)]).await;
        for answer in &answers {
            assert!(answer.repeated);
            assert_eq!(message(answer), original);
            assert_eq!(
                told(answer.events.first().unwrap()),
                (1, "created", original.content.clone())
            );
        }
        assert_eq!(db.number("SELECT count(*) FROM messages").await, 1);
        assert_eq!(db.number("SELECT head_seq FROM conversations").await, 1);
    })
    .await;
}

#[tokio::test]
async fn changes_after_the_batch_of_the_message_are_repeated_exactly() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("bob", id, "m1", "old")),
        ])
        .await;
        let m1 = parlance_proto::MessageId::derive(id, &crate::works::user("bob"), "m1").to_string();
        let (edited, deleted) = (edit("bob", id, &m1, "new"), delete("alice", id, &m1));
        let answers = db.commit(&[work(&edited)]).await;
        assert_eq!(
            told(answers[0].events.first().unwrap()),
            (2, "edited", "new".to_owned())
        );
        assert_eq!(
            db.number("SELECT count(*) FROM messages WHERE content = 'new' AND edited_at IS NOT NULL")
                .await,
            1
        );
        let answers = db.commit(&[work(&edited), work(&deleted)]).await;
        assert!(answers[0].repeated && !answers[1].repeated);
        assert_eq!(
            told(answers[1].events.first().unwrap()),
            (3, "deleted", String::new())
        );
        let answers = db.commit(&[work(&edited), work(&deleted)]).await;
        assert!(answers.iter().all(|answer| answer.repeated));
        // The edit's event shows what the message is now.
        assert_eq!(
            told(answers[0].events.first().unwrap()),
            (2, "edited", String::new())
        );
        assert_eq!(db.number("SELECT count(*) FROM changes").await, 2);
        assert_eq!(
            db.number("SELECT count(*) FROM messages WHERE content = '' AND metadata = '{}'")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn both_sides_of_a_direct_conversation_get_the_same_one_and_each_is_told_once_created() {
    with_database(async |mut db| {
        let (mine, theirs) = (direct("alice", "bob"), direct("bob", "alice"));
        let answers = db.commit(&[work(&mine), work(&theirs)]).await;
        assert_eq!((answers[0].repeated, answers[1].repeated), (false, true));
        let seen = view(&answers[0]);
        assert_eq!(
            (seen.number, seen.head_seq, seen.unread),
            (view(&answers[1]).number, 0, 0)
        );
        let people: Vec<(&str, i32)> = seen
            .participants
            .iter()
            .map(|p| (p.user_id.as_str(), p.role))
            .collect();
        assert_eq!(
            people,
            [("alice", Role::Member.into()), ("bob", Role::Member.into())]
        );
        // One for each: replicas of the version before know no notices to several.
        let notices: Vec<(&str, u64)> = answers[0]
            .notices
            .iter()
            .map(|n| (n.user_id.as_str(), n.memberships_version))
            .collect();
        assert_eq!(notices, [("alice", 1), ("bob", 1)]);
        let is_gain = |notice: &v1::UserNotice| {
            notice.users.is_empty()
                && matches!(&notice.body, Some(user_notice::Body::ConversationAdded(c)) if c.id == seen.id)
        };
        assert!(answers[0].notices.iter().all(is_gain));
        assert!(answers[1].notices.is_empty());
        // The same command once more: the notices may have been lost.
        let again = db.commit(&[work(&mine)]).await;
        assert_eq!(
            (again[0].repeated, &again[0].notices),
            (false, &answers[0].notices)
        );
        assert_eq!(db.number("SELECT max(memberships_version) FROM users").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM conversation_numbers").await, 1);
    })
    .await;
}

#[tokio::test]
async fn without_the_lease_nothing_is_committed() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        db.lose_the_lease().await;
        let result = db.try_commit(&[work(&sending("alice", id, "m1", "late"))]).await;
        assert!(matches!(result, Err(BatchError::LeaseLost(lost)) if lost == [0]));
        assert_eq!(db.number("SELECT count(*) FROM messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_poisoned_batch_leaves_nothing_and_is_told_apart_from_a_failing_database() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        let batch = [work(&sending("alice", id, "m1", "good")), work(&poison("alice", id, "m2"))];
        let Err(BatchError::Database(error)) = db.try_commit(&batch).await else { panic!("it was stored") };
        assert_eq!(disposition(&error), Disposition::Culprit);
        assert_eq!(db.number("SELECT count(*) + (SELECT head_seq FROM conversations) FROM messages").await, 0);
        // The next batch is not hindered by the last one's transaction.
        assert_eq!(message(&db.commit(&batch[..1]).await[0]).seq, 1);
        // Every connection is cut: nothing is wrong with the commands.
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            .execute(&db.database.writes)
            .await
            .unwrap();
        let next = [work(&sending("alice", id, "m3", "good"))];
        match db.try_commit(&next).await {
            Err(BatchError::Database(error)) => assert_eq!(disposition(&error), Disposition::Retry),
            other => panic!("on a dead connection: {other:?}"),
        }
        assert_eq!(message(&db.commit(&next).await[0]).seq, 2);
    })
    .await;
}

#[tokio::test]
async fn strangers_and_missing_conversations_get_one_answer() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("bob", id, "m1", "x")),
        ])
        .await;
        let here = db
            .commit(&[
                work(&sending("mallory", id, "m", "x")),
                work(&edit("mallory", id, &fresh(), "x")),
            ])
            .await;
        let nowhere = conversation();
        let there = db
            .commit(&[
                work(&sending("mallory", nowhere, "m", "x")),
                work(&edit("mallory", nowhere, &fresh(), "x")),
            ])
            .await;
        for (here, there) in here.iter().zip(&there) {
            assert_eq!(code(here), Some(ErrorCode::NotFound));
            assert_eq!(format!("{here:?}"), format!("{there:?}"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_batch_over_many_conversations_is_one_transaction_with_whole_sequences() {
    with_database(async |mut db| {
        let ids: Vec<_> = (0..20).map(|_| conversation()).collect();
        let creations: Vec<_> = ids
            .iter()
            .map(|&id| work(&creation("alice", id, &["bob"])))
            .collect();
        db.commit(&creations).await;
        let batch: Vec<_> = (0..500)
            .map(|n| work(&sending("alice", ids[n % 20], &format!("m{n}"), "text")))
            .collect();
        let answers = db.commit(&batch).await;
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(message(answer).seq, n as u64 / 20 + 1);
        }
        let whole = "SELECT count(*) FROM conversations c WHERE head_seq = 25 AND last_message_seq = 25
                     AND 25 = (SELECT count(*) FROM messages m WHERE m.conversation_id = c.conversation_id
                               AND m.seq BETWEEN 1 AND 25)";
        assert_eq!(db.number(whole).await, 20);
    })
    .await;
}

#[tokio::test]
async fn a_client_s_id_is_used_up_in_one_life_of_a_conversation_only() {
    with_database(async |mut db| {
        let id =
            parlance_proto::ConversationId::direct(&crate::works::user("alice"), &crate::works::user("bob"));
        let first = sending("alice", id, "m1", "first life");
        let end = command::Body::DeleteConversation(parlance_proto::v1::DeleteConversation {});
        let end = crate::works::command("bob", id, end);
        db.commit(&[
            work(&direct("alice", "bob")),
            work(&first),
            work(&end),
            work(&direct("bob", "alice")),
        ])
        .await;
        let second = sending("alice", id, "m1", "second life");
        let answers = db
            .commit(&[work(&second), work(&sending("alice", id, "m1", "said twice"))])
            .await;
        let stored = message(&answers[0]);
        assert_eq!(
            (answers[0].repeated, stored.content.as_str()),
            (false, "second life")
        );
        assert_eq!(
            (answers[1].repeated, message(&answers[1])),
            (true, stored.clone())
        );
        // What comes again of either life is what it was.
        let again = db.commit(&[work(&first), work(&second)]).await;
        assert!(again.iter().all(|answer| answer.repeated) && again[0].events.is_empty());
        assert_eq!((message(&again[0]).seq, message(&again[1])), (1, stored));
        assert_eq!(db.number("SELECT count(*) FROM messages").await, 2);
    })
    .await;
}

#[tokio::test]
async fn what_changed_nothing_or_was_refused_is_remembered_until_nothing_as_old_waits() {
    with_database(async |mut db| {
        let id = conversation();
        let (idle, refused) = (
            add("alice", id, &["bob"]),
            sending("carol", id, "m1", "let me in"),
        );
        let remove = command::Body::RemoveMember(parlance_proto::v1::RemoveMember {
            user_id: "bob".into(),
        });
        let remove = crate::works::command("alice", id, remove);
        let answers = db
            .commit(&[
                work(&creation("alice", id, &["bob"])),
                work(&idle),
                work(&idle),
                work(&refused),
            ])
            .await;
        assert!(answers[1].repeated && answers[2].repeated);
        assert_eq!(code(&answers[3]), Some(ErrorCode::NotFound));
        db.commit(&[work(&remove), work(&add("alice", id, &["carol"]))])
            .await;
        let again = db.commit(&[work(&idle), work(&refused)]).await;
        assert!(again[0].repeated && again[0].events.is_empty() && again[0].notices.is_empty());
        assert_eq!(
            format!("{:?}", again[1].result),
            format!("{:?}", answers[3].result)
        );
        let members = "SELECT count(*) FROM participants WHERE left_seq IS NULL";
        assert_eq!(db.number(members).await, 2);
        assert_eq!(db.number("SELECT count(*) FROM messages").await, 0);

        let remembered = "SELECT count(*) FROM processed_commands";
        let all = db.number(remembered).await;
        assert_eq!(all, 3, "the creation, the idle and the refused one");
        let mut connection = db.database.writes.acquire().await.unwrap();
        let none = std::time::Duration::ZERO;
        let hour = std::time::Duration::from_secs(3600);
        for (age, oldest, gone) in [(hour, None, 0), (none, Some(0), 0), (none, None, 3)] {
            let forgotten = processed::forget(&mut connection, age, oldest, 100)
                .await
                .unwrap();
            assert_eq!(forgotten, gone, "{age:?} {oldest:?}");
        }
    })
    .await;
}
