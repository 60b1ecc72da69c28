//! Pushes to those who have no connection, as the service that carries them out sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use parlance_bus::push::{Fed, Feed};
use parlance_bus::{Bus, ConnectSettings, Tls};
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::{Stack, StackBuilder};
use parlance_proto::v1::Push;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::metrics::sum;
use crate::presence::{Watchers, post};

const PATIENCE: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(600);

fn stack() -> StackBuilder {
    Stack::builder()
        .gateways(2)
        .persistence(2)
        .persistence_env("PARLANCE_PUSH_BACKOFF_MS", BACKOFF.as_millis())
}

/// The service that carries pushes out.
struct Service {
    _bus: Bus,
    feed: Feed,
}

impl Service {
    async fn start(stack: &Stack) -> Self {
        let settings = ConnectSettings {
            url: stack.nats_url().into(),
            name: "pushing".into(),
            inbox_prefix: "_INBOX".into(),
            user: String::new(),
            password: String::new(),
            credentials_file: String::new(),
            tls: Tls::default(),
        };
        let bus = Bus::connect(&settings).await.unwrap();
        bus.connected().await;
        let bound = || async { bus.pushes().await };
        let feed = eventually(PATIENCE, "the consumer of pushes", bound)
            .await
            .unwrap();
        Self { _bus: bus, feed }
    }

    /// The next one handed out.
    async fn next(&mut self) -> (Push, Fed) {
        let mut batch = timeout(PATIENCE, self.feed.next_batch(1)).await.unwrap().unwrap();
        let fed = batch.pop().unwrap();
        (fed.push().unwrap(), fed)
    }
}

fn content(push: &Push) -> &str {
    push.message.as_ref().map_or("", |message| &message.content)
}

async fn group(stack: &Stack, others: &[&str]) -> String {
    let body = json!({ "title": "Group", "participant_ids": others });
    let made = post(stack, 1, "alice", "/conversations/group", &body).await;
    made["id"].as_str().unwrap().to_owned()
}

async fn send(stack: &Stack, conversation: &str, content: &str) {
    let path = format!("/conversations/{conversation}/messages");
    let sent: Value = post(stack, 1, "alice", &path, &json!({ "content": content })).await;
    assert!(
        sent["id"].is_string() || sent["message"]["id"].is_string(),
        "{sent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_connection_gets_one_push_and_who_has_one_none() {
    let stack = stack().start().await.unwrap();
    let mut service = Service::start(&stack).await;
    let (all, connected) = (
        group(&stack, &["bob", "carol"]).await,
        group(&stack, &["bob"]).await,
    );
    let watchers = Watchers::start(
        &stack,
        &json!([{ "user": "bob", "dialect": "native", "gateways": [0] }]),
    );
    watchers.connected("bob", 1).await;
    let known = || async {
        let database = stack.database().await?;
        let sessions: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions")
            .fetch_one(&database)
            .await?;
        equal(sessions, &1).map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "bob's session", known).await.unwrap();
    for (conversation, text) in [(&all, "first"), (&connected, "unpushed"), (&all, "last")] {
        send(&stack, conversation, text).await;
    }
    for text in ["first", "last"] {
        let (push, fed) = service.next().await;
        assert_eq!(
            (content(&push), push.recipient_ids.as_slice()),
            (text, ["carol".to_owned()].as_slice())
        );
        assert_eq!(push.conversation.unwrap().title, "Group");
        fed.ack().await;
    }
    // An acknowledged push never comes again, and the online ones never come.
    assert!(timeout(BACKOFF * 8, service.feed.next_batch(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_muted_a_conversation_gets_no_push_of_it() {
    let stack = stack().start().await.unwrap();
    let mut service = Service::start(&stack).await;
    let (muted, other) = (
        group(&stack, &["bob", "carol"]).await,
        group(&stack, &["bob"]).await,
    );
    let url = format!(
        "{}/api/v1/conversations/{muted}/mute",
        stack.gateway(0).base_url()
    );
    let request = reqwest::Client::new().put(url).bearer_auth(stack.token("bob"));
    let answer = request.json(&json!({})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for (conversation, text) in [(&muted, "first"), (&other, "second"), (&muted, "last")] {
        send(&stack, conversation, text).await;
    }
    for (text, recipient) in [("first", "carol"), ("second", "bob"), ("last", "carol")] {
        let (push, fed) = service.next().await;
        assert_eq!(
            (content(&push), push.recipient_ids.as_slice()),
            (text, [recipient.to_owned()].as_slice())
        );
        fed.ack().await;
    }
    assert!(timeout(BACKOFF * 8, service.feed.next_batch(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_nobody_acknowledges_is_handed_out_three_times_and_parked() {
    let stack = stack().start().await.unwrap();
    let mut service = Service::start(&stack).await;
    let conversation = group(&stack, &["bob"]).await;
    send(&stack, &conversation, "unheard").await;
    let mut handed_out = Vec::new();
    for _ in 0..3 {
        let (push, _) = service.next().await;
        assert_eq!(content(&push), "unheard");
        handed_out.push(Instant::now());
    }
    let gaps: Vec<Duration> = handed_out.windows(2).map(|two| two[1] - two[0]).collect();
    println!("handed out again after {gaps:?}");
    assert!(
        gaps[0] >= BACKOFF.mul_f64(0.9) && gaps[1] >= BACKOFF.mul_f64(1.8),
        "{gaps:?}"
    );
    let parked = || async {
        let database = stack.database().await?;
        let parked: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM dead_letters WHERE subject LIKE 'chat.push.%' AND error LIKE '%3 attempts'",
        )
        .fetch_one(&database)
        .await?;
        equal(parked, &1).map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "the push is parked", parked).await.unwrap();
    let counted = || async {
        let sum = sum(stack.persistence_replicas(), "chat_push_parked_total", "").await?;
        anyhow::ensure!((sum - 1.0).abs() < f64::EPSILON, "{sum}");
        Ok(())
    };
    eventually(PATIENCE, "the push is counted", counted)
        .await
        .unwrap();
    assert!(timeout(BACKOFF * 8, service.feed.next_batch(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_their_gateway_is_pushed_to_even_if_persistence_dies_in_between() {
    let stack = stack().start().await.unwrap();
    let mut service = Service::start(&stack).await;
    let conversation = group(&stack, &["bob", "carol", "dora"]).await;
    let watchers = Watchers::start(
        &stack,
        &json!([
            { "user": "bob", "dialect": "chats", "gateways": [0], "returns": false },
            { "user": "dora", "dialect": "chats", "gateways": [1] },
        ]),
    );
    watchers.becomes("dora", "bob", "online", PATIENCE).await;
    stack.gateway(0).kill();
    // Nobody knows yet that bob is gone.
    send(&stack, &conversation, "important").await;
    let (push, fed) = service.next().await;
    assert_eq!(push.recipient_ids, ["carol"]);
    fed.ack().await;
    for replica in stack.persistence_replicas() {
        replica.restart().await.unwrap();
    }
    let mut reached = BTreeSet::new();
    while !reached.contains("bob") {
        let mut batch = timeout(PATIENCE * 2, service.feed.next_batch(1))
            .await
            .unwrap()
            .unwrap();
        let fed = batch.pop().unwrap();
        let push = fed.push().unwrap();
        assert_eq!(content(&push), "important");
        reached.extend(push.recipient_ids);
        fed.ack().await;
    }
    assert!(
        !reached.contains("dora") && !reached.contains("alice"),
        "{reached:?}"
    );
}
