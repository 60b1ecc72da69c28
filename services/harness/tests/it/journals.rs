//! One journal in the hands of many, over two gateways: everybody's words stay, also where services die.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::bench::processes::{Meter, Server};
use parlance_harness::eventually::eventually;
use serde_json::Value;
use sqlx::PgPool;

use crate::spec::{Transport, run_with};

/// Until so many changes are stored.
const UNDER_WAY: Duration = Duration::from_secs(60);

async fn replicas() -> Stack {
    let stack = Stack::builder().gateways(2).persistence(2);
    stack.patient().start().await.unwrap()
}

async fn written(stack: &Stack, seconds: u32) {
    let seconds = [("PARLANCE_JOURNAL_SECONDS", seconds.to_string())];
    run_with(stack, "journal_load", Transport::Websocket, &seconds).await;
}

/// The same while connections break.
async fn written_on_and_off(stack: &Stack, seconds: u32) {
    let variables = [
        ("PARLANCE_JOURNAL_SECONDS", seconds.to_string()),
        ("PARLANCE_JOURNAL_BREAKS", "1".to_owned()),
    ];
    run_with(stack, "journal_load", Transport::Websocket, &variables).await;
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

/// The stored text is what REST returns, and every version is there.
async fn assert_stored(stack: &Stack) {
    let database = stack.database().await.unwrap();
    let (id, owner, content, version, head): (String, String, Option<String>, i64, i64) = sqlx::query_as(
        "SELECT j.conversation_id::text, c.created_by, \
                CASE WHEN coalesce(j.content_version, j.version) = j.version THEN j.content END, j.version, c.head_seq \
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
    // A large one is not stored with every version.
    if let Some(content) = content {
        assert_eq!(told["content"].as_str(), Some(content.as_str()));
    }
    assert!(version <= head, "version {version}, head {head}");
    // No version is stored with its text.
    let texts: i64 = sqlx::query_scalar("SELECT count(*) FROM journal_versions WHERE content <> ''")
        .fetch_one(&database)
        .await
        .unwrap();
    assert_eq!(texts, 0);
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
    tokio::join!(written_on_and_off(&stack, 30), faults);
    assert_stored(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_whole_after_a_gateway_died_and_another_hung_while_it_was_written() {
    let stack = replicas().await;
    let database = stack.database().await.unwrap();
    let faults = async {
        reaches(&database, 60).await;
        stack.gateway(1).kill();
        stack.gateway(1).start().await.unwrap();
        reaches(&database, 120).await;
        stack.gateway(0).pause();
        reaches(&database, 140).await;
        stack.gateway(0).resume();
    };
    tokio::join!(written_on_and_off(&stack, 30), faults);
    assert_stored(&stack).await;
}

/// What a large journal costs: bytes through NATS and CPU time for each edit, and how long messages of others take
/// beside it. Measures; run it by name.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for two minutes"]
async fn ten_editors_of_a_large_journal() {
    let stack = replicas().await;
    let servers: Vec<Server> = [
        ("gateways", stack.gateways()),
        ("persistence", stack.persistence_replicas()),
        ("Postgres", std::slice::from_ref(stack.postgres())),
    ]
    .into_iter()
    .flat_map(|(role, processes)| processes.iter().map(move |process| (role, process)))
    .map(|(role, process)| Server {
        role,
        pid: process.pid().unwrap(),
    })
    .collect();
    let run = async |editors: u32| {
        let variables = [("PARLANCE_EDITORS", editors.to_string())];
        run_with(&stack, "journal_large", Transport::Websocket, &variables).await;
    };
    for editors in [0, 10] {
        let bytes = bytes_on_the_bus(&stack).await;
        let meter = Meter::start(servers.clone()).unwrap();
        // Those who chat beside it have a process of their own: a slow editor must not count as a slow server.
        match editors {
            0 => run(0).await,
            editors => drop(tokio::join!(run(editors), run(0))),
        }
        let used = meter.stop().unwrap();
        println!(
            "{editors} editors: {} bytes through NATS, CPU time {:?}",
            bytes_on_the_bus(&stack).await - bytes,
            used.cpu,
        );
    }
}

/// All that was published so far.
async fn bytes_on_the_bus(stack: &Stack) -> u64 {
    let status = reqwest::get(format!("{}/varz", stack.nats().internal_url()));
    let status: Value = status.await.unwrap().json().await.unwrap();
    status["in_bytes"].as_u64().unwrap()
}
