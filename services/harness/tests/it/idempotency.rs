//! Changes by idempotency key: every one that the contract has, through three gateways, and where a gateway dies.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::eventually::{equal, eventually};

use crate::director::directed;
use crate::spec::{Transport, run, run_with};

/// Persistence forgets keys every ten seconds.
const FORGOTTEN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn every_event_repeated_by_its_key_has_one_effect_and_one_answer() {
    let stack = Stack::builder().gateways(3).persistence(2).start().await.unwrap();
    run(&stack, "idempotency", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_repeated_by_its_key_has_one_effect_and_one_answer_and_keys_are_forgotten() {
    let stack = Stack::builder().gateways(3).persistence(2).start().await.unwrap();
    for prefix in ["/api/v1", "/api"] {
        let variables = [("PARLANCE_PREFIX", prefix.to_owned())];
        run_with(&stack, "idempotency", Transport::Websocket, &variables).await;
    }
    let database = stack.database().await.unwrap();
    let count = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM idempotency_keys").fetch_one(&database);
    assert!(count().await.unwrap() > 50);
    sqlx::query("UPDATE idempotency_keys SET created_at = created_at - interval '1 hour'")
        .execute(&database)
        .await
        .unwrap();
    let forgotten = || async { equal(count().await.unwrap(), &0) };
    eventually(FORGOTTEN, "keys are forgotten after an hour", forgotten)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_gateway_was_killed_is_resumed_by_another_with_the_same_key() {
    for point in ["after_publish", "before_settle"] {
        let stack = Stack::builder().gateways(3).persistence(2).failpoints("");
        let stack = stack.start().await.unwrap();
        if let Err(text) = directed(&stack, "faults/keys", point, "").await {
            panic!("{text}");
        }
    }
}
