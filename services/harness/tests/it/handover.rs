//! Partitions that change hands while nothing is wrong: a replica comes, another one goes, and nobody notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parlance_harness::Stack;
use parlance_harness::eventually::eventually;
use serde_json::{Value, json};
use sqlx::PgPool;

/// Until the replicas have shared the partitions out.
const SHARED: Duration = Duration::from_secs(20);
/// Sixteen partitions, each with a few of these.
const CONVERSATIONS: usize = 48;
/// Times a replica goes and comes again: the moment matters, and it is never the same.
const ROUNDS: usize = 4;
/// What nobody would notice, beside what an answer takes while nothing changes hands. A tick of the leases is a second.
const UNNOTICED: Duration = Duration::from_millis(600);

/// Writes into every conversation, one message after the other in each, and keeps the longest answer.
struct Writers<'a> {
    stack: &'a Stack,
    http: reqwest::Client,
    token: String,
    stopped: AtomicBool,
    longest_us: AtomicUsize,
    sent: AtomicUsize,
}

impl Writers<'_> {
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/api/v1{path}", self.stack.gateway(0).base_url());
        let answer = self.http.post(url).bearer_auth(&self.token).json(&body);
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn write(&self, number: usize) {
        let other = json!({ "user_id": format!("friend-{number}") });
        let (_, conversation) = self.post("/conversations/direct", other).await;
        let path = format!("/conversations/{}/messages", conversation["id"].as_str().unwrap());
        // Light load.
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        while !self.stopped.load(Ordering::Relaxed) {
            pace.tick().await;
            let begun = Instant::now();
            let (status, answer) = self.post(&path, json!({ "content": "hello" })).await;
            assert_eq!(status, 201, "{answer}");
            let took = usize::try_from(begun.elapsed().as_micros()).unwrap();
            self.longest_us.fetch_max(took, Ordering::Relaxed);
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn longest_since_last(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed) as u64)
    }
}

async fn shared_by(database: &PgPool, replicas: i64) {
    let look = || async {
        let shared: Result<bool, _> = sqlx::query_scalar(
            "SELECT count(DISTINCT owner) = $1 AND bool_and(owner IS NOT NULL AND expires_at > now())
             FROM partition_leases WHERE partition >= 0",
        )
        .bind(replicas)
        .fetch_one(database)
        .await;
        shared.is_ok_and(|shared| shared)
    };
    eventually(
        SHARED,
        format_args!("{replicas} replicas own all partitions"),
        look,
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_change_hands_without_a_pause() {
    let stack = Stack::builder().persistence(2).start().await.unwrap();
    let database = stack.database().await.unwrap();
    shared_by(&database, 2).await;
    let writers = Writers {
        stack: &stack,
        http: reqwest::Client::new(),
        token: stack.token("wendy"),
        stopped: AtomicBool::new(false),
        longest_us: AtomicUsize::new(0),
        sent: AtomicUsize::new(0),
    };
    let rounds = async {
        let enough = || async { writers.sent.load(Ordering::Relaxed) > CONVERSATIONS * 5 };
        eventually(SHARED, "all write", enough).await.unwrap();
        // The first answers of all meet cold services.
        writers.longest_since_last();
        let more = || async { writers.sent.load(Ordering::Relaxed) > CONVERSATIONS * 15 };
        eventually(SHARED, "all write on", more).await.unwrap();
        let usual = writers.longest_since_last();
        println!("before: longest answer {usual:?}");
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let replica = stack.persistence(1);
            replica.terminate();
            replica.wait_exit(SHARED).await.unwrap();
            shared_by(&database, 1).await;
            let goes = writers.longest_since_last();
            replica.start().await.unwrap();
            shared_by(&database, 2).await;
            let comes = writers.longest_since_last();
            println!("longest answer while a replica goes {goes:?}, comes {comes:?}");
            best = best.min(goes.max(comes));
        }
        writers.stopped.store(true, Ordering::Relaxed);
        (best, usual)
    };
    // One of the rounds: whatever else the machine does may delay the others, a tick would delay all.
    let ((best, usual), _) = tokio::join!(rounds, join_all((0..CONVERSATIONS).map(|n| writers.write(n))));
    assert!(
        best < UNNOTICED + usual,
        "in every round an answer took {best:?} or more, {usual:?} before"
    );
}
