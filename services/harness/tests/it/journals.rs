//! One journal in the hands of many, over two gateways: everybody's words stay, also where services die.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::eventually::eventually;
use serde_json::Value;
use sqlx::PgPool;

use crate::spec::{Transport, run_with};

/// Until so many changes are stored.
const UNDER_WAY: Duration = Duration::from_secs(60);

async fn replicas() -> Stack {
    Stack::builder().gateways(2).persistence(2).start().await.unwrap()
}

async fn written(stack: &Stack, seconds: u32) {
    let seconds = [("PARLANCE_JOURNAL_SECONDS", seconds.to_string())];
    run_with(stack, "journal_load", Transport::Websocket, &seconds).await;
}

/// Waits until the one journal of this stack has so many versions.
async fn reaches(database: &PgPool, versions: i64) {
    let grown = || async {
        let version: Result<Option<i64>, _> = sqlx::query_scalar("SELECT max(version) FROM journals")
            .fetch_one(database)
            .await;
        version.is_ok_and(|version| version >= Some(versions))
    };
    eventually(UNDER_WAY, format_args!("{versions} versions"), grown)
        .await
        .unwrap();
}

/// The stored text is what REST tells, and every version is there.
async fn assert_stored(stack: &Stack) {
    let database = stack.database().await.unwrap();
    let (id, owner, content, version, head): (String, String, String, i64, i64) = sqlx::query_as(
        "SELECT j.conversation_id::text, c.created_by, j.content, j.version, c.head_seq \
         FROM journals j JOIN conversations c ON c.conversation_id = j.conversation_id",
    )
    .fetch_one(&database)
    .await
    .unwrap();
    let told: Value = reqwest::Client::new()
        .get(format!("{}/api/v1/journals/{id}", stack.gateway(0).base_url()))
        .bearer_auth(stack.token(&owner))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(told["content"].as_str(), Some(content.as_str()));
    assert!(version <= head, "version {version}, head {head}");
    let latest: String =
        sqlx::query_scalar("SELECT content FROM journal_versions ORDER BY version DESC LIMIT 1")
            .fetch_one(&database)
            .await
            .unwrap();
    assert_eq!(latest, content);
    let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
        .fetch_one(&database)
        .await
        .unwrap();
    assert_eq!(parked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn editors_of_every_kind_lose_nothing_to_each_other() {
    let stack = replicas().await;
    written(&stack, 30).await;
    assert_stored(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_whole_after_the_bus_and_a_replica_died_while_it_was_written() {
    let stack = replicas().await;
    let database = stack.database().await.unwrap();
    let faults = async {
        reaches(&database, 60).await;
        stack.nats().kill();
        stack.nats().start().await.unwrap();
        reaches(&database, 120).await;
        stack.persistence(0).kill();
        reaches(&database, 180).await;
        stack.persistence(0).start().await.unwrap();
    };
    tokio::join!(written(&stack, 30), faults);
    assert_stored(&stack).await;
}
