//! Who a message is to be pushed to, on a real Postgres.

use std::time::Duration;

use chrono::DateTime;
use parlance_persistence::identity;
use parlance_persistence::presence::{Limits, take_in};
use parlance_persistence::store::pushes::{Recipient, Sent, recipients};
use parlance_proto::v1::{PresenceStatus, ReportPresence, SessionReport};

use crate::database::with_database;
use crate::works::{conversation, creation, message, read, sending, work};

/// In the year 2100.
const NOT_YET_MS: i64 = 4_102_444_800_000;

#[tokio::test]
async fn a_push_is_for_participants_who_have_not_read_it_with_when_their_gateway_was_heard_of() {
    with_database(async |mut db| {
        let (id, other) = (conversation(), conversation());
        let everyone = ["bob", "carol", "dora", "eve"];
        let sent = db
            .commit(&[
                work(&creation("alice", id, &everyone)),
                work(&creation("alice", other, &["bob"])),
                work(&sending("alice", id, "m1", "one")),
                work(&sending("bob", other, "m1", "two")),
            ])
            .await;
        let first = message(&sent[2]).seq;
        db.commit(&[work(&read("dora", id, first, &[]))]).await;
        let mut c = db.database.writes.acquire().await.unwrap();
        sqlx::query("UPDATE participants SET left_seq = 9 WHERE user_id = 'eve'")
            .execute(&mut *c)
            .await
            .unwrap();
        // Connected, although not to be seen.
        let report = ReportPresence {
            gateway: identity::random().to_string(),
            number: 1,
            sessions: vec![SessionReport {
                session: 1,
                user_id: "carol".into(),
                status: PresenceStatus::Offline.into(),
                ..Default::default()
            }],
            leaving: false,
        };
        let limits = Limits {
            lease: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        };
        take_in(&mut c, &report, limits).await.unwrap();
        let asked = |sent_at_ms: i64| {
            [(id, "alice"), (other, "bob")].map(|(id, sender)| Sent {
                conversation: id.uuid(),
                seq: 1,
                sender: sender.into(),
                sent_at: DateTime::from_timestamp_millis(sent_at_ms).unwrap(),
            })
        };
        // Her gateway was heard of after the message.
        let found = recipients(&mut c, &asked(0)).await.unwrap();
        assert_eq!(
            found[&0]
                .iter()
                .map(|one| one.user_id.as_str())
                .collect::<Vec<_>>(),
            ["bob"]
        );
        let found = recipients(&mut c, &asked(NOT_YET_MS)).await.unwrap();
        let named = |place: usize| -> Vec<(&str, bool)> {
            fn one(Recipient { user_id, heard_at }: &Recipient) -> (&str, bool) {
                (user_id.as_str(), heard_at.is_some())
            }
            found[&place].iter().map(one).collect()
        };
        assert_eq!(named(0), [("bob", false), ("carol", true)]);
        assert_eq!(named(1), [("alice", false)]);
    })
    .await;
}
