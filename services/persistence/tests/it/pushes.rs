//! Who a message is to be pushed to, on a real Postgres.

use std::time::Duration;

use chrono::DateTime;
use parlance_persistence::identity;
use parlance_persistence::presence::{Limits, take_in};
use parlance_persistence::store::pushes::{After, Sent, all_heard_at, recipients};
use parlance_proto::v1::{PresenceStatus, ReportPresence, SessionReport};

use crate::database::with_database;
use crate::works::{conversation, creation, message, read, sending, work};

#[tokio::test]
async fn a_push_is_for_participants_without_a_connection_who_have_not_read_it() {
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
        let asked = [(id, "alice"), (other, "bob")].map(|(id, sender)| Sent {
            conversation: id.uuid(),
            seq: 1,
            sender: sender.into(),
            sent_at: DateTime::UNIX_EPOCH,
        });
        let whole = recipients(&mut c, &asked, &After::default(), 100).await.unwrap();
        let expected = [(0, vec!["bob".to_owned()]), (1, vec!["alice".to_owned()])];
        assert_eq!(whole.recipients.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(whole.next, None);
        // The same in parts.
        let mut found = Vec::new();
        let mut after = Some(After::default());
        while let Some(place) = after {
            let part = recipients(&mut c, &asked, &place, 1).await.unwrap();
            found.extend(part.recipients);
            after = part.next;
        }
        assert_eq!(found, expected);
        let before = all_heard_at(&mut c).await.unwrap();
        assert!(before > DateTime::UNIX_EPOCH);
        // One that is silent counts until it is given up.
        let silent =
            "INSERT INTO gateways (instance, number, renewed_at) VALUES (gen_random_uuid(), 1, 'epoch')";
        sqlx::query(silent).execute(&mut *c).await.unwrap();
        assert_eq!(all_heard_at(&mut c).await.unwrap(), DateTime::UNIX_EPOCH);
        let given_up = "UPDATE gateways SET lost_at = now() WHERE renewed_at = 'epoch'";
        sqlx::query(given_up).execute(&mut *c).await.unwrap();
        assert_eq!(all_heard_at(&mut c).await.unwrap(), before);
    })
    .await;
}
