//! The feed `EVENTS` while it cannot store: the chat goes on, and the feed has everything in order afterwards.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parlance_harness::Stack;
use parlance_harness::eventually::{equal, eventually};
use parlance_proto::v1::{Event, EventBatch, event};
use prost::Message as _;
use serde_json::{Value, json};

use crate::metrics::sum;
use crate::system_messages::Service;

const SOON: Duration = Duration::from_secs(20);
/// More than were ever kept for the feed in memory.
const MESSAGES: usize = 150;

struct Scene {
    stack: Stack,
    http: reqwest::Client,
    conversation: String,
}

impl Scene {
    async fn open(points: &str) -> Self {
        let mut stack = Stack::builder().gateways(1).persistence(2);
        if !points.is_empty() {
            stack = stack.failpoints(points);
        }
        let stack = stack.start().await.unwrap();
        let mut scene = Self {
            stack,
            http: reqwest::Client::new(),
            conversation: String::new(),
        };
        let created = scene
            .post("alice", "/conversations/direct", json!({"user_id": "bob"}))
            .await;
        scene.conversation = created["id"].as_str().unwrap().to_owned();
        scene
    }

    /// What is done is answered; nothing here may be slow or fail.
    async fn post(&self, who: &str, path: &str, body: Value) -> Value {
        let request = self
            .http
            .post(format!("{}/api/v1{path}", self.stack.gateway(0).base_url()))
            .bearer_auth(self.stack.token(who))
            .json(&body);
        let answer = request.send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{path}: {}",
            answer.text().await.unwrap()
        );
        answer.json().await.unwrap_or_default()
    }

    async fn send(&self, content: &str) {
        let path = format!("/conversations/{}/messages", self.conversation);
        self.post("alice", &path, json!({"content": content})).await;
    }

    async fn bob_reads(&self, seq: usize) {
        let path = format!("/conversations/{}/read", self.conversation);
        self.post("bob", &path, json!({"up_to_seq": seq})).await;
    }

    /// Lets the feed hold so many bytes and refuse what is beyond, or what it holds otherwise.
    async fn limit_feed(&self, operator: &mut Service, full_at: Option<u32>) {
        let info = operator
            .publish("$JS.API.STREAM.INFO.EVENTS", None, None, b"")
            .await;
        let mut config = info["config"].clone();
        config["max_bytes"] = json!(full_at.unwrap_or(1 << 30));
        config["discard"] = json!(if full_at.is_some() { "new" } else { "old" });
        let asked = config.to_string();
        let answer = operator
            .publish("$JS.API.STREAM.UPDATE.EVENTS", None, None, asked.as_bytes())
            .await;
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// All events of the conversation, in the order of the feed.
    async fn feed(&self, operator: &mut Service) -> Vec<Event> {
        let subject = format!("chat.evt.{}", self.conversation);
        let mut events = Vec::new();
        let mut next = 1;
        loop {
            let asked = json!({"seq": next, "next_by_subj": subject}).to_string();
            let answer = operator
                .publish("$JS.API.STREAM.MSG.GET.EVENTS", None, None, asked.as_bytes())
                .await;
            let Some(data) = answer["message"]["data"].as_str() else {
                return events;
            };
            let batch = EventBatch::decode(&STANDARD.decode(data).unwrap()[..]).unwrap();
            events.extend(batch.events);
            next = answer["message"]["seq"].as_u64().unwrap() + 1;
        }
    }

    async fn backlog_becomes(&self, check: impl Fn(i64) -> bool, what: &str) {
        let rows = self.stack.database().await.unwrap();
        let look = || async {
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM feed_backlog")
                .fetch_one(&rows)
                .await?;
            anyhow::ensure!(check(count), "{count} conversations");
            Ok(())
        };
        eventually(SOON, what, look).await.unwrap();
    }

    async fn nothing_waits(&self, operator: &mut Service) {
        for _ in 0..200 {
            let info = operator
                .publish("$JS.API.STREAM.INFO.COMMANDS", None, None, b"")
                .await;
            if info["state"]["messages"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("commands are not acknowledged while the feed is full");
    }
}

/// A consumer that keeps the last seq per conversation and drops what is not above it has all of them, without a gap.
fn assert_whole(feed: &[Event], messages: usize) {
    let mut last = 0;
    let mut receipts: HashMap<String, u64> = HashMap::new();
    for event in feed {
        if let Some(event::Body::ReceiptUpdated(receipt)) = &event.body {
            let version = receipts.entry(receipt.user_id.clone()).or_default();
            *version = receipt.version.max(*version);
        } else if event.seq > last {
            assert_eq!(event.seq, last + 1, "the feed has a later event first");
            last = event.seq;
        }
    }
    assert_eq!(last, messages as u64);
    assert!(receipts.contains_key("bob"), "the receipt is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_feed_holds_up_no_chat_and_catches_up_in_order() {
    catches_up("").await;
}

/// Panics where the chat waits for the feed, or the feed does not have everything in order in the end.
pub(crate) async fn catches_up(points: &str) {
    let scene = Scene::open(points).await;
    let mut operator = Service::connect(&scene.stack).await;
    scene.send("before").await;
    scene.limit_feed(&mut operator, Some(1)).await;
    for number in 1..MESSAGES {
        scene.send(&format!("m{number}")).await;
    }
    scene.bob_reads(MESSAGES).await;
    scene
        .backlog_becomes(|count| count == 1, "what the feed lacks is noted")
        .await;
    scene.nothing_waits(&mut operator).await;
    let lags = || async {
        let lag = sum(
            scene.stack.persistence_replicas(),
            "chat_persistence_feed_lag_seconds",
            "",
        )
        .await?;
        anyhow::ensure!(lag > 0.0, "no lag is shown");
        Ok(())
    };
    eventually(SOON, "the lag shows", lags).await.unwrap();
    let stored = scene.feed(&mut operator).await.len();
    assert!(stored <= 1, "the feed was not full: {stored}");

    scene.limit_feed(&mut operator, None).await;
    // What is sent meanwhile must not overtake what the feed lacks.
    for number in 0..MESSAGES {
        scene.send(&format!("n{number}")).await;
    }
    scene
        .backlog_becomes(|count| count == 0, "the feed caught up")
        .await;
    scene.send("after").await;
    let whole = || async {
        let mut reader = Service::connect(&scene.stack).await;
        let feed = scene.feed(&mut reader).await;
        let last = feed.iter().map(|event| event.seq).max().unwrap_or_default();
        equal(last, &(2 * MESSAGES as u64 + 1)).map_err(anyhow::Error::msg)?;
        Ok::<_, anyhow::Error>(feed)
    };
    let feed = eventually(SOON, "the feed has the last message", whole)
        .await
        .unwrap();
    assert_whole(&feed, 2 * MESSAGES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_feed_lacks_outlives_every_replica() {
    let scene = Scene::open("").await;
    let mut operator = Service::connect(&scene.stack).await;
    scene.send("before").await;
    scene.limit_feed(&mut operator, Some(1)).await;
    for number in 1..MESSAGES / 2 {
        scene.send(&format!("m{number}")).await;
    }
    scene.bob_reads(1).await;
    scene.nothing_waits(&mut operator).await;
    for replica in scene.stack.persistence_replicas() {
        replica.kill();
    }
    scene.limit_feed(&mut operator, None).await;
    for replica in scene.stack.persistence_replicas() {
        replica.start().await.unwrap();
    }
    scene
        .backlog_becomes(|count| count == 0, "the feed caught up")
        .await;
    let feed = scene.feed(&mut operator).await;
    assert_whole(&feed, MESSAGES / 2);
}
