//! What users were served: reported by gateways, and by what they read.

use std::time::Duration;

use parlance_persistence::store::served::{self as store, Position};
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, query};

use crate::database::with_database;
use crate::queries::{answered, ask, queries};
use crate::works::{conversation, creation, delete, message, sending, work};

fn page(id: ConversationId, limit: u32, before: Option<u64>, after: Option<u64>) -> query::Body {
    query::Body::ListMessages(v1::ListMessages {
        conversation_id: id.to_string(),
        limit,
        before,
        after,
        ..v1::ListMessages::default()
    })
}

fn reached(id: ConversationId, user: &str, seq: u64) -> v1::ServedPosition {
    v1::ServedPosition {
        conversation_id: id.to_string(),
        user_id: user.into(),
        seq,
        ..v1::ServedPosition::default()
    }
}

fn client(page: &str, connected_at_ms: i64) -> v1::Client {
    v1::Client {
        page: page.into(),
        connected_at_ms,
    }
}

fn get(id: ConversationId, client: v1::Client) -> query::Body {
    query::Body::GetConversation(v1::GetConversation {
        conversation_id: id.to_string(),
        client: Some(client),
    })
}

const fn served(seq: u64, exact: bool) -> Option<v1::Served> {
    Some(v1::Served { seq, exact })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the database stamps what is read with the time of day"
)]
fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[tokio::test]
async fn the_latest_page_covers_all_before_it_and_a_later_one_only_what_it_goes_on_from() {
    with_database(async |mut db| {
        let id = conversation();
        let mut batch = vec![work(&creation("alice", id, &["bob"]))];
        batch.extend((1..=6).map(|n| work(&sending("alice", id, &format!("m{n}"), "x"))));
        db.commit(&batch).await;
        let queries = queries(&db).await;
        // A client that connected long after any page of history goes by what its user was served.
        let get = get(id, client("page", now_ms() + 3_600_000));
        // The page that is read, and up to where bob is served then.
        for (read, expected) in [
            (None, None),
            (Some(page(id, 2, Some(4), None)), None),
            (Some(page(id, 2, None, Some(3))), None),
            (Some(page(id, 2, None, Some(0))), Some(2)),
            (Some(page(id, 2, None, Some(3))), Some(2)),
            (Some(page(id, 2, None, Some(2))), Some(4)),
            (Some(page(id, 1, None, None)), Some(6)),
        ] {
            if let Some(read) = read {
                ask(&queries, "bob", read).await.unwrap();
            }
            let seen = answered!(ask(&queries, "bob", get.clone()).await, Conversation);
            assert_eq!(seen.served, expected.and_then(|seq| served(seq, false)));
        }
        let seen = answered!(ask(&queries, "alice", get).await, Conversation);
        assert_eq!(seen.served, None);
    })
    .await;
}

#[tokio::test]
async fn reports_never_go_backwards_and_lists_count_apart() {
    with_database(async |mut db| {
        let id = conversation();
        let batch = [
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
            work(&sending("alice", id, "m2", "two")),
        ];
        let answers = db.commit(&batch).await;
        let queries = queries(&db).await;
        let memberships = query::Body::ListMemberships(v1::ListMemberships {
            user_ids: vec!["bob".into()],
        });
        let report = |seqs: &[u64]| {
            let positions = seqs.iter().map(|seq| reached(id, "bob", *seq)).collect();
            query::Body::ReportServed(v1::ReportServed { positions })
        };
        let list = query::Body::ListConversations(v1::ListConversations::default());
        for (asked, served, listed) in [
            (report(&[1, 2]), 2, 0),
            (report(&[1]), 2, 0),
            (list.clone(), 2, 2),
        ] {
            ask(&queries, "bob", asked).await.unwrap();
            let found = answered!(ask(&queries, "", memberships.clone()).await, Memberships);
            let bob = &found.memberships[0];
            assert_eq!(
                (&bob.served_seqs, &bob.listed_seqs),
                (&vec![served], &vec![listed])
            );
        }
        // Lists go on to show what is left.
        db.commit(&[work(&delete("alice", id, &message(&answers[2]).id))])
            .await;
        let state = query::Body::GetListState(v1::GetListState {
            conversation_id: id.to_string(),
            user_ids: vec!["alice".into(), "bob".into(), "mallory".into()],
            ..Default::default()
        });
        let state = answered!(ask(&queries, "", state).await, ListState);
        let counts: Vec<_> = state
            .unread
            .iter()
            .map(|one| (one.user_id.as_str(), one.unread))
            .collect();
        assert_eq!(state.last_message.unwrap().content, "one");
        assert_eq!((state.head_seq, counts), (3, vec![("alice", 0), ("bob", 1)]));
        let page = answered!(ask(&queries, "bob", list).await, Conversations);
        assert_eq!(
            page.conversations[0].last_message.as_ref().unwrap().content,
            "one"
        );
    })
    .await;
}

#[tokio::test]
async fn a_page_that_returns_goes_on_from_itself_and_a_new_one_from_the_history_it_read() {
    with_database(async |mut db| {
        let id = conversation();
        let mut batch = vec![work(&creation("alice", id, &["bob"]))];
        batch.extend((1..=9).map(|n| work(&sending("alice", id, &format!("m{n}"), "x"))));
        db.commit(&batch[..4]).await;
        let queries = queries(&db).await;
        let report = |page: &str, seq, joined_at_ms| {
            let position = v1::ServedPosition {
                page: page.into(),
                joined_at_ms,
                ..reached(id, "bob", seq)
            };
            let positions = vec![position];
            query::Body::ReportServed(v1::ReportServed { positions })
        };
        let began = now_ms() - 1_000;
        let of = async |page: &str, connected_at_ms| {
            let get = get(id, client(page, connected_at_ms));
            answered!(ask(&queries, "bob", get).await, Conversation).served
        };
        // A phone that was here before, and a first tab that goes on.
        for asked in [report("phone", 2, began), report("tab", 3, began)] {
            ask(&queries, "bob", asked).await.unwrap();
        }
        // A second tab reads the history; the first one is emitted more.
        ask(&queries, "bob", page(id, 10, None, None)).await.unwrap();
        db.commit(&batch[4..]).await;
        ask(&queries, "bob", report("tab", 9, began)).await.unwrap();
        for (page, expected) in [
            ("phone", served(2, true)),
            ("tab", served(9, true)),
            ("second", served(3, true)),
        ] {
            assert_eq!(of(page, now_ms()).await, expected, "{page}");
        }
        assert_eq!(of("second", now_ms() + 3_600_000).await, served(9, false));
        // The phone has read that history since it connected.
        assert_eq!(of("phone", began).await, served(3, true));
        // It joins: whoever comes after it has not read that history.
        ask(&queries, "bob", report("second", 9, now_ms() + 1))
            .await
            .unwrap();
        assert_eq!(of("third", now_ms()).await, served(9, false));
        // A late report takes nothing back.
        ask(&queries, "bob", report("tab", 5, began)).await.unwrap();
        assert_eq!(of("tab", now_ms()).await, served(9, true));
        let asked = query::Body::ListServed(v1::ListServed {
            page: "phone".into(),
            ..Default::default()
        });
        let emitted = answered!(ask(&queries, "bob", asked.clone()).await, ServedPositions);
        let positions: Vec<_> = emitted
            .positions
            .iter()
            .map(|one| (one.conversation_id.as_str(), one.seq))
            .collect();
        assert_eq!(positions, [(id.to_string().as_str(), 2)]);
        // Only the latest pages are remembered.
        for n in 0..8 {
            ask(&queries, "bob", report(&format!("page {n}"), 8, began))
                .await
                .unwrap();
        }
        let emitted = answered!(ask(&queries, "bob", asked).await, ServedPositions);
        assert_eq!(emitted.positions, []);
        let long = "x".repeat(33);
        let refused = query::Body::ListServed(v1::ListServed {
            page: long,
            ..Default::default()
        });
        assert!(ask(&queries, "bob", refused).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn of_two_pages_the_one_counts_that_was_read_later_whichever_is_written_last() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[work(&creation("alice", id, &["bob"]))]).await;
        let mut connection = db.database.writes.acquire().await.unwrap();
        // The seq, how long ago the page was read, and what counts then.
        for (seq, age_ms, expected) in [
            (5, 5_000, 5),
            (3, 10_000, 5),
            (7, 1_000, 7),
            (6, 0, 6),
            (9, 2_000, 6),
        ] {
            let position = Position {
                conversation: id,
                user: "bob".into(),
                seq,
            };
            store::show(&mut connection, &position, Duration::from_millis(age_ms))
                .await
                .unwrap();
            let shown: i64 = sqlx::query_scalar("SELECT history_seq FROM served WHERE user_id = 'bob'")
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            assert_eq!(shown, expected, "after {seq}, {age_ms} ms old");
        }
        let served: i64 = sqlx::query_scalar("SELECT seq FROM served WHERE user_id = 'bob'")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        assert_eq!(served, 9);
    })
    .await;
}
