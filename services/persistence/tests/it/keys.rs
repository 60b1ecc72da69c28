//! Changes that clients name by an idempotency key: who may carry one out, and how repeats are answered.

use futures::future::join_all;
use parlance_persistence::expiry::forget_keys;
use parlance_persistence::queries::Queries;
use parlance_proto::v1::change_claim::State;
use parlance_proto::v1::{self, ErrorCode, query};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::database::{TestDatabase, with_database};
use crate::queries::{answered, ask, queries};
use crate::works::fresh;

fn id() -> Uuid {
    fresh().parse().unwrap()
}

fn claiming(key: u8, request: u8, attempt: Uuid) -> query::Body {
    query::Body::ClaimChange(v1::ClaimChange {
        key_hash: vec![key; 32],
        fingerprint: vec![request; 32],
        attempt: attempt.to_string(),
        lapse_ms: 0,
    })
}

async fn claim(queries: &Queries, who: &str, key: u8, attempt: Uuid) -> State {
    let answer = ask(queries, who, claiming(key, 0, attempt)).await;
    answered!(answer, ChangeClaim).state.unwrap()
}

fn claimed(state: State) -> v1::ClaimedChange {
    match state {
        State::Claimed(claimed) => claimed,
        other => panic!("{other:?}"),
    }
}

async fn settle(
    queries: &Queries,
    who: &str,
    change_id: &str,
    attempt: Uuid,
    answer: Option<v1::KeptAnswer>,
) -> Result<(), ErrorCode> {
    let settle = v1::SettleChange {
        key_hash: vec![1; 32],
        change_id: change_id.to_owned(),
        attempt: attempt.to_string(),
        answer,
    };
    ask(queries, who, query::Body::SettleChange(settle))
        .await
        .map(drop)
}

fn answer(status: u32, body: &str) -> v1::KeptAnswer {
    v1::KeptAnswer {
        status,
        body: body.into(),
    }
}

/// The time at which something happened moves back.
async fn ages(db: &TestDatabase, column: &str, by: &str) {
    let update = format!("UPDATE idempotency_keys SET {column} = {column} - interval '{by}'");
    let update = sqlx::query(AssertSqlSafe(update));
    update.execute(&db.database.writes).await.unwrap();
}

async fn keys(db: &TestDatabase) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM idempotency_keys");
    count.fetch_one(&db.database.reads).await.unwrap()
}

#[tokio::test]
async fn of_many_that_claim_a_change_at_once_one_carries_it_out_and_all_are_answered_alike() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let attempts: Vec<Uuid> = (0..20).map(|_| id()).collect();
        let claims = attempts
            .iter()
            .map(|attempt| claim(&queries, "alice", 1, *attempt));
        let states = join_all(claims).await;
        let winners: Vec<_> = states
            .iter()
            .zip(&attempts)
            .filter(|(state, _)| matches!(state, State::Claimed(_)))
            .collect();
        let [(State::Claimed(winner), attempt)] = winners[..] else {
            panic!("{states:?}");
        };
        assert!(!winner.resumed);
        let waiting = |state: &State| matches!(state, State::InProgress(_));
        assert_eq!(states.iter().filter(|state| waiting(state)).count(), 19);
        // Asked once more because its answer was late.
        assert_eq!(claimed(claim(&queries, "alice", 1, *attempt).await), *winner);
        let kept = answer(201, "{}");
        settle(&queries, "alice", &winner.change_id, *attempt, Some(kept.clone()))
            .await
            .unwrap();
        for state in join_all((0..20).map(|_| claim(&queries, "alice", 1, id()))).await {
            assert_eq!(state, State::Answered(kept.clone()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_belongs_to_one_user_and_one_request() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let first = claimed(claim(&queries, "alice", 1, id()).await);
        for (who, key) in [("bob", 1), ("alice", 2)] {
            let other = claimed(claim(&queries, who, key, id()).await);
            assert_ne!(other.change_id, first.change_id);
        }
        let other = ask(&queries, "alice", claiming(1, 9, id())).await;
        assert_eq!(other.unwrap_err(), ErrorCode::Invalid);
        // Nobody ends a change of others.
        settle(&queries, "bob", &first.change_id, id(), Some(answer(200, "{}")))
            .await
            .unwrap();
        assert!(matches!(
            claim(&queries, "alice", 1, id()).await,
            State::InProgress(_)
        ));
        let without_actor = ask(&queries, "", claiming(1, 0, id())).await;
        assert_eq!(without_actor.unwrap_err(), ErrorCode::Invalid);
    })
    .await;
}

#[tokio::test]
async fn a_change_whose_gateway_died_is_resumed_with_its_ids_by_one_only() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let (dead, slow) = (id(), id());
        let first = claimed(claim(&queries, "alice", 1, dead).await);
        ages(&db, "attempted_at", "14 seconds").await;
        assert!(matches!(
            claim(&queries, "alice", 1, slow).await,
            State::InProgress(_)
        ));
        ages(&db, "attempted_at", "1 second").await;
        let states = join_all((0..20).map(|_| claim(&queries, "alice", 1, id()))).await;
        let resumed = v1::ClaimedChange {
            resumed: true,
            ..first.clone()
        };
        let winners = states
            .iter()
            .filter(|state| **state == State::Claimed(resumed.clone()));
        assert_eq!(winners.count(), 1, "{states:?}");
        // The first was only slow: what it stored is the same change, but what refused it may not refuse the other.
        let refused = Some(answer(403, "no"));
        settle(&queries, "alice", &first.change_id, dead, refused.clone())
            .await
            .unwrap();
        assert!(matches!(
            claim(&queries, "alice", 1, slow).await,
            State::InProgress(_)
        ));
        for kept in [Some(answer(200, "yes")), Some(answer(201, "again")), refused] {
            settle(&queries, "alice", &first.change_id, dead, kept)
                .await
                .unwrap();
        }
        assert_eq!(
            claim(&queries, "alice", 1, id()).await,
            State::Answered(answer(200, "yes"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_change_without_a_known_outcome_is_resumed_at_once() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let (first, second) = (id(), id());
        let change = claimed(claim(&queries, "alice", 1, first).await);
        settle(&queries, "alice", &change.change_id, first, None)
            .await
            .unwrap();
        let again = claimed(claim(&queries, "alice", 1, second).await);
        assert_eq!(
            (again.change_id.as_str(), again.resumed),
            (change.change_id.as_str(), true)
        );
        // Whoever was taken over gives nothing up.
        settle(&queries, "alice", &change.change_id, first, None)
            .await
            .unwrap();
        assert!(matches!(
            claim(&queries, "alice", 1, id()).await,
            State::InProgress(_)
        ));
        let large = answer(200, &"x".repeat(16 * 1024 + 1));
        let kept = settle(&queries, "alice", &change.change_id, second, Some(large)).await;
        assert_eq!(kept.unwrap_err(), ErrorCode::Invalid);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_is_taken_over_after_the_time_its_gateways_name() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let patient = |attempt: Uuid| {
            let query::Body::ClaimChange(claim) = claiming(1, 0, attempt) else {
                unreachable!()
            };
            query::Body::ClaimChange(v1::ClaimChange {
                lapse_ms: 40_000,
                ..claim
            })
        };
        claimed(claim(&queries, "alice", 1, id()).await);
        ages(&db, "attempted_at", "39 seconds").await;
        let early = answered!(ask(&queries, "alice", patient(id())).await, ChangeClaim);
        assert!(matches!(early.state, Some(State::InProgress(_))));
        ages(&db, "attempted_at", "1 second").await;
        let late = answered!(ask(&queries, "alice", patient(id())).await, ChangeClaim);
        assert!(claimed(late.state.unwrap()).resumed);
    })
    .await;
}

#[tokio::test]
async fn a_key_lives_for_an_hour_with_its_answer_and_names_another_change_then() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let attempt = id();
        let first = claimed(claim(&queries, "alice", 1, attempt).await);
        let kept = answer(201, "a message");
        settle(&queries, "alice", &first.change_id, attempt, Some(kept.clone()))
            .await
            .unwrap();
        claim(&queries, "alice", 2, id()).await;
        ages(&db, "created_at", "59 minutes").await;
        forget_keys(&db.database).await.unwrap();
        assert_eq!(keys(&db).await, 2);
        assert_eq!(claim(&queries, "alice", 1, id()).await, State::Answered(kept));
        ages(&db, "created_at", "1 minute").await;
        // Also where nothing was cleaned up yet, and for another request.
        let next = answered!(ask(&queries, "alice", claiming(1, 9, id())).await, ChangeClaim);
        let next = claimed(next.state.unwrap());
        assert!(next.change_id != first.change_id && !next.resumed);
        forget_keys(&db.database).await.unwrap();
        assert_eq!(keys(&db).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_user_claims_at_most_ten_thousand_keys_an_hour() {
    with_database(async |db| {
        let queries = queries(&db).await;
        let usage = "INSERT INTO idempotency_usage VALUES ('alice', date_trunc('hour', now()), 9999),
                                                          ('alice', date_trunc('hour', now()) + interval '1 hour', 9999)";
        sqlx::query(usage).execute(&db.database.writes).await.unwrap();
        claimed(claim(&queries, "alice", 1, id()).await);
        // Where the hour has just ended, the first claim was the last of the next one all the same.
        let refused = ask(&queries, "alice", claiming(2, 0, id())).await;
        assert_eq!(refused.unwrap_err(), ErrorCode::RateLimited);
        // Those that are there go on to be answered, and so do those of others.
        assert!(matches!(
            claim(&queries, "alice", 1, id()).await,
            State::InProgress(_)
        ));
        claimed(claim(&queries, "bob", 2, id()).await);
        // What is counted is forgotten with its hour.
        let past = "UPDATE idempotency_usage SET hour = hour - interval '2 hours'";
        sqlx::query(past).execute(&db.database.writes).await.unwrap();
        forget_keys(&db.database).await.unwrap();
        claimed(claim(&queries, "alice", 2, id()).await);
    })
    .await;
}
