//! Muted conversations on a real Postgres: which users are pushed to, what counts, which sessions learn of it.

use chrono::DateTime;
use parlance_persistence::ingest::answer::Answer;
use parlance_persistence::store::mutes::unread_total;
use parlance_persistence::store::pushes::{After, Sent, recipients};
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, Command, ErrorCode, command, user_notice};

use crate::database::{TestDatabase, with_database};
use crate::works::{code, command, conversation, creation, direct, sending, user, view, work};

/// 2100-01-01.
const LATER: i64 = 4_102_444_800_000;

fn mute(who: &str, id: ConversationId, mute: Option<v1::Mute>) -> Command {
    let body = v1::MuteConversation { mute };
    command(who, id, command::Body::MuteConversation(body))
}

fn until(until_ms: Option<i64>) -> Option<v1::Mute> {
    Some(v1::Mute { until_ms })
}

/// What the actor's sessions are notified of.
fn noticed(answer: &Answer) -> (&str, Option<v1::Mute>) {
    match &answer.notices[..] {
        [
            v1::UserNotice {
                user_id,
                body: Some(user_notice::Body::MuteChanged(changed)),
                ..
            },
        ] => (user_id.as_str(), changed.mute),
        other => panic!("no single notice of a mute: {other:?}"),
    }
}

async fn pushed_to(db: &TestDatabase, conversation: ConversationId, seq: u64) -> Vec<String> {
    let mut connection = db.database.reads.acquire().await.unwrap();
    let sent = Sent {
        conversation: conversation.uuid(),
        seq,
        sender: "alice".into(),
        sent_at: DateTime::UNIX_EPOCH,
    };
    let found = recipients(&mut connection, &[sent], &After::default(), 100).await;
    found.unwrap().recipients.into_values().flatten().collect()
}

async fn total(db: &TestDatabase, who: &str) -> (u64, u64) {
    let mut connection = db.database.reads.acquire().await.unwrap();
    let total = unread_total(&mut connection, who).await.unwrap();
    (total.unread, total.conversations)
}

#[tokio::test]
async fn a_muted_conversation_is_not_pushed_and_counts_in_no_total_until_the_mute_ends() {
    with_database(async |mut db| {
        let (id, other) = (conversation(), conversation());
        db.commit(&[
            work(&creation("alice", id, &["bob", "carol"])),
            work(&creation("alice", other, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
            work(&sending("alice", other, "m1", "two")),
        ])
        .await;
        assert_eq!(pushed_to(&db, id, 1).await, ["bob", "carol"]);
        assert_eq!(total(&db, "bob").await, (2, 2));

        let answers = db.commit(&[work(&mute("bob", id, until(None)))]).await;
        assert_eq!(view(&answers[0]).mute, until(None));
        // What is unread stays what it is: only the total leaves it out.
        assert_eq!(view(&answers[0]).unread, 1);
        assert!(answers[0].events.is_empty());
        assert_eq!(noticed(&answers[0]), ("bob", until(None)));
        assert_eq!(pushed_to(&db, id, 1).await, ["carol"]);
        assert_eq!(pushed_to(&db, other, 1).await, ["bob"]);
        assert_eq!(total(&db, "bob").await, (1, 1));
        assert_eq!(total(&db, "carol").await, (1, 1));

        let answers = db.commit(&[work(&mute("bob", id, until(Some(LATER))))]).await;
        assert_eq!(noticed(&answers[0]), ("bob", until(Some(LATER))));
        assert_eq!(pushed_to(&db, id, 1).await, ["carol"]);
        sqlx::query(
            "UPDATE participants SET muted_until = now() - interval '1 second' WHERE isfinite(muted_until)",
        )
        .execute(&db.database.writes)
        .await
        .unwrap();
        assert_eq!(pushed_to(&db, id, 1).await, ["bob", "carol"]);
        assert_eq!(total(&db, "bob").await, (2, 2));

        let works = [work(&mute("bob", id, until(None))), work(&mute("bob", id, None))];
        let answers = db.commit(&works).await;
        assert_eq!(noticed(&answers[1]), ("bob", None));
        assert_eq!(view(&answers[1]).mute, None);
        assert_eq!(pushed_to(&db, id, 1).await, ["bob", "carol"]);
        // The first of them, redelivered, does not mute again.
        let again = db.commit_elsewhere(&works[..1]).await;
        assert!(again[0].repeated);
        assert_eq!(noticed(&again[0]), ("bob", None));
        assert_eq!(pushed_to(&db, id, 1).await, ["bob", "carol"]);
    })
    .await;
}

#[tokio::test]
async fn only_participants_mute_and_only_until_a_time_in_the_future() {
    with_database(async |mut db| {
        let pair = ConversationId::direct(&user("alice"), &user("bob"));
        let answers = db
            .commit(&[
                work(&direct("alice", "bob")),
                work(&mute("mallory", pair, until(None))),
                work(&mute("bob", pair, until(Some(1)))),
                work(&mute("bob", conversation(), until(None))),
                work(&mute("bob", pair, until(Some(LATER)))),
            ])
            .await;
        assert_eq!(code(&answers[1]), Some(ErrorCode::NotFound));
        assert_eq!(code(&answers[2]), Some(ErrorCode::Invalid));
        assert_eq!(code(&answers[3]), Some(ErrorCode::NotFound));
        assert_eq!(view(&answers[4]).mute, until(Some(LATER)));
        let muted = db.number("SELECT count(*) FROM participants WHERE muted_until IS NOT NULL");
        assert_eq!(muted.await, 1);
        for wrong in [i64::MIN, 0, 253_402_300_800_000] {
            let refused =
                parlance_persistence::model::work::Work::parse(mute("bob", pair, until(Some(wrong))));
            assert_eq!(refused.unwrap_err().code(), ErrorCode::Invalid);
        }
    })
    .await;
}

#[tokio::test]
async fn a_mute_outlives_leaving_so_that_who_is_added_again_is_not_pushed_to() {
    with_database(async |mut db| {
        let id = conversation();
        let remove = v1::RemoveMember {
            user_id: "bob".into(),
        };
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&mute("bob", id, until(None))),
            work(&command("alice", id, command::Body::RemoveMember(remove))),
            work(&crate::works::add("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
        ])
        .await;
        let none: [&str; 0] = [];
        assert_eq!(pushed_to(&db, id, 4).await, none);
    })
    .await;
}
