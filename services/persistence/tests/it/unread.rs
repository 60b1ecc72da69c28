//! Unread counts that span many messages: what they are, and what they cost.

use parlance_persistence::store::arrivals::{self, Arriving};
use parlance_persistence::store::receipts;
use parlance_proto::ConversationId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::{TestDatabase, with_database};
use crate::plans::Meter;
use crate::queries::{answered, ask, queries};
use crate::works::{conversation, creation, delete, edit, message, read, sending, work};
use parlance_proto::v1::{self, query};

/// What is unread, by a look at each message.
async fn looked_at(connection: &mut PgConnection, id: Uuid, user: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM messages m JOIN participants p USING (conversation_id)
         WHERE m.conversation_id = $1 AND p.user_id = $2 AND m.sender_id <> $2 AND m.deleted_at IS NULL
           AND NOT p.read_seqs @> m.seq
           AND NOT EXISTS (SELECT FROM hidden_messages h WHERE h.conversation_id = $1 AND h.user_id = $2
                           AND h.message_seq = m.seq)",
    )
    .bind(id)
    .bind(user)
    .fetch_one(connection)
    .await
    .unwrap()
}

async fn counted(connection: &mut PgConnection, id: ConversationId, user: &str) -> i64 {
    let head_seq: i64 = sqlx::query_scalar("SELECT head_seq FROM conversations WHERE conversation_id = $1")
        .bind(id.uuid())
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let users = [user.to_owned()];
    let counts = receipts::unread(connection, id, head_seq.try_into().unwrap(), &users).await;
    counts.unwrap()[0].unread.try_into().unwrap()
}

/// Wherever bob's count is shown, it is this one.
async fn is_shown_everywhere(db: &TestDatabase, id: ConversationId, unread: u64) {
    let queries = queries(db).await;
    let one = query::Body::GetConversation(v1::GetConversation {
        conversation_id: id.to_string(),
        client: None,
    });
    assert_eq!(
        answered!(ask(&queries, "bob", one).await, Conversation).unread,
        unread
    );
    let arrive = query::Body::Arrive(v1::Arrive {
        arrivals: vec![v1::Arrival {
            user_id: "bob".into(),
            memberships: true,
            ..Default::default()
        }],
        create: false,
        limit: 10,
    });
    let arrived = answered!(ask(&queries, "", arrive).await, Arrived);
    assert_eq!(arrived.users[0].membership.as_ref().unwrap().unread, [unread]);
    let changed = query::Body::ListReceipts(v1::ListReceipts {
        conversation_id: id.to_string(),
        after_version: 0,
    });
    let changed = answered!(ask(&queries, "", changed).await, Receipts);
    let bob = changed.receipts.iter().find(|receipt| receipt.user_id == "bob");
    assert_eq!(bob.unwrap().unread, unread);
}

#[tokio::test]
async fn a_long_count_leaves_out_what_is_read_own_deleted_hidden_or_no_message() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        let mut ids = Vec::new();
        for part in 0..8 {
            let sender = |number: u32| if number.is_multiple_of(9) { "bob" } else { "alice" };
            let works: Vec<_> = (0..60)
                .map(|number| work(&sending(sender(number), id, &format!("{part}.{number}"), "x")))
                .collect();
            let sent = db.commit(&works).await;
            ids.extend(sent.iter().map(|answer| message(answer).id));
            // Changes take seqs among the messages.
            let (edited, deleted) = (ids[part * 60 + 5].clone(), ids[part * 60 + 7].clone());
            db.commit(&[
                work(&edit("alice", id, &edited, "y")),
                work(&delete("alice", id, &deleted)),
            ])
            .await;
        }
        let mut c = db.database.writes.acquire().await.unwrap();
        sqlx::query(
            "INSERT INTO hidden_messages (conversation_id, user_id, message_seq)
             SELECT conversation_id, 'bob', seq FROM messages WHERE seq % 11 = 3",
        )
        .execute(&mut *c)
        .await
        .unwrap();
        let by_looking = looked_at(&mut c, id.uuid(), "bob").await;
        assert!(by_looking > 256, "{by_looking}");
        assert_eq!(counted(&mut c, id, "bob").await, by_looking);
        // Read here and there.
        for (index, up_to) in [(100, 0), (101, 0), (300, 0), (0, 40)] {
            let some = [ids[index].as_str()];
            db.commit(&[work(&read("bob", id, up_to, if up_to > 0 { &[] } else { &some }))])
                .await;
            assert_eq!(
                counted(&mut c, id, "bob").await,
                looked_at(&mut c, id.uuid(), "bob").await
            );
        }
        // Wherever a count is shown, it is the same.
        let by_looking = u64::try_from(looked_at(&mut c, id.uuid(), "bob").await).unwrap();
        assert!(by_looking > 256, "{by_looking}");
        is_shown_everywhere(&db, id, by_looking).await;
        // Changes that a version wrote which does not count them are counted one by one.
        sqlx::query("UPDATE changes SET nth = NULL WHERE nth % 3 <> 1")
            .execute(&mut *c)
            .await
            .unwrap();
        assert_eq!(
            counted(&mut c, id, "bob").await,
            looked_at(&mut c, id.uuid(), "bob").await
        );
        let one_more = ids[11].clone();
        db.commit(&[work(&edit("alice", id, &one_more, "z"))]).await;
        let (all, last): (i64, Option<i64>) = sqlx::query_as(
            "SELECT count(*), (SELECT nth FROM changes ORDER BY seq DESC LIMIT 1) FROM changes",
        )
        .fetch_one(&mut *c)
        .await
        .unwrap();
        assert_eq!(last, Some(all));
    })
    .await;
}

#[tokio::test]
async fn an_unread_count_costs_the_same_over_a_thousand_and_a_hundred_thousand_messages() {
    const ARRIVES: u64 = 120;
    const READS: u64 = 40;
    with_database(async |mut db| {
        for messages in [1_000, 100_000] {
            let id = conversation();
            db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
            let mut c = db.database.writes.acquire().await.unwrap();
            sqlx::query(
                "INSERT INTO messages (conversation_id, seq, message_id, sender_id, sender_kind, type, content, created_at)
                 SELECT $1, n, gen_random_uuid(), 'alice', 1, 1, 'x', now() FROM generate_series(1, $2) AS n",
            )
            .bind(id.uuid())
            .bind(messages)
            .execute(&mut *c)
            .await
            .unwrap();
            sqlx::query("UPDATE conversations SET head_seq = $2, last_message_seq = $2 WHERE conversation_id = $1")
                .bind(id.uuid())
                .bind(i64::from(messages))
                .execute(&mut *c)
                .await
                .unwrap();
            let arriving = [Arriving {
                user_id: "bob".into(),
                page: String::new(),
                memberships: true,
                after: Uuid::nil(),
            }];
            let mut meter = Meter::start(&db).await;
            // Planned once for each connection, which reads too.
            arrivals::arrive(meter.connection(), &arriving, 10).await.unwrap();
            meter.restart().await;
            let arrived = arrivals::arrive(meter.connection(), &arriving, 10).await.unwrap();
            let arrives = meter.stop("arrive").await;
            assert!(arrived[0].membership.as_ref().unwrap().unread.contains(&(messages as u64)));
            let mut meter = Meter::start(&db).await;
            let users = ["bob".to_owned()];
            receipts::unread(meter.connection(), id, messages as u64, &users).await.unwrap();
            meter.restart().await;
            receipts::unread(meter.connection(), id, messages as u64, &users).await.unwrap();
            let reads = meter.stop("unread").await;
            assert!(arrives <= ARRIVES && reads <= READS, "{messages}: {arrives} and {reads} buffers");
        }
    })
    .await;
}
