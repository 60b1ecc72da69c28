//! What users were served: reported by gateways, and by what they read.

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
    }
}

#[tokio::test]
async fn the_latest_page_covers_all_before_it_and_a_later_one_only_what_it_goes_on_from() {
    with_database(async |mut db| {
        let id = conversation();
        let mut batch = vec![work(&creation("alice", id, &["bob"]))];
        batch.extend((1..=6).map(|n| work(&sending("alice", id, &format!("m{n}"), "x"))));
        db.commit(&batch).await;
        let queries = queries(&db).await;
        let get = query::Body::GetConversation(v1::GetConversation {
            conversation_id: id.to_string(),
        });
        // The page that is read, and up to where bob is served then.
        for (read, served) in [
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
            assert_eq!(seen.served_seq, served);
        }
        let seen = answered!(ask(&queries, "alice", get).await, Conversation);
        assert_eq!(seen.served_seq, None);
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
