//! Presence: in every front end's dialect, and after whatever may happen to a gateway.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlance_bus::{Bus, ConnectSettings, Tls};
use parlance_harness::eventually::eventually;
use parlance_harness::{Stack, StackBuilder};
use parlance_proto::v1::Presence;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::observers::observe;
use crate::spec::{Transport, run};

/// Within this the truth must be shown, whatever happened to a gateway.
const TRUTH: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(20);

/// Users who stay connected, and what they heard.
pub(crate) struct Watchers {
    _child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Watchers {
    pub(crate) fn start(stack: &Stack, users: &Value) -> Self {
        let gateways: Vec<_> = stack.gateways().iter().map(|one| one.base_url()).collect();
        let lines = Arc::default();
        let child = observe(stack, &gateways, "watch.mjs", &[&users.to_string()], &lines);
        Self { _child: child, lines }
    }

    /// Lines of a user with this event.
    fn all(&self, user: &str, event: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let wanted = |line: &&Value| line["user"] == user && line["event"] == event;
        lines.iter().filter(wanted).cloned().collect()
    }

    /// The statuses of `of` that `user` heard, in order.
    fn heard(&self, user: &str, of: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let wanted = |line: &&Value| line["user"] == user && line["of"] == of;
        let status = |line: &Value| line["status"].as_str().unwrap().to_owned();
        lines.iter().filter(wanted).map(status).collect()
    }

    pub(crate) async fn becomes(&self, user: &str, of: &str, status: &str, within: Duration) {
        let last = || async { self.heard(user, of).last().is_some_and(|last| last == status) };
        eventually(within, format_args!("{user} hears that {of} is {status}"), last)
            .await
            .unwrap();
    }

    pub(crate) async fn connected(&self, user: &str, times: usize) {
        let connected = || async { self.all(user, "connected").len() >= times };
        eventually(PATIENCE, format_args!("{user} is connected"), connected)
            .await
            .unwrap();
    }
}

fn stack() -> StackBuilder {
    Stack::builder().gateways(2).persistence(2)
}

pub(crate) async fn post(stack: &Stack, gateway: usize, user: &str, path: &str, body: &Value) -> Value {
    let url = format!("{}/api/v1{path}", stack.gateway(gateway).base_url());
    let request = reqwest::Client::new().post(url).bearer_auth(stack.token(user));
    request.json(body).send().await.unwrap().json().await.unwrap()
}

async fn befriend(stack: &Stack, one: &str, others: &[&str]) {
    for other in others {
        let body = json!({ "user_id": other });
        let made = post(stack, 1, one, "/conversations/direct", &body).await;
        assert!(made["id"].is_string(), "{made}");
    }
}

/// How `viewer` sees a user over REST of the second gateway.
async fn seen(stack: &Stack, viewer: &str, user: &str) -> Value {
    let url = format!("{}/api/v1/users/{user}/presence", stack.gateway(1).base_url());
    let request = reqwest::Client::new().get(url).bearer_auth(stack.token(viewer));
    request.send().await.unwrap().json().await.unwrap()
}

/// The time, in milliseconds since 1970.
async fn now_ms(stack: &Stack) -> i64 {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")
        .fetch_one(&stack.database().await.unwrap())
        .await
        .unwrap()
}

/// Every change of presence that crosses the bus.
async fn changes(stack: &Stack) -> Arc<Mutex<Vec<Presence>>> {
    let settings = ConnectSettings {
        url: stack.nats_url().into(),
        name: "tester".into(),
        inbox_prefix: "_INBOX".into(),
        user: String::new(),
        password: String::new(),
        credentials_file: String::new(),
        tls: Tls::default(),
    };
    let bus = Bus::connect(&settings).await.unwrap();
    bus.connected().await;
    let mut changes = bus.subscribe_presence().await.unwrap();
    // A request to the server travels behind the subscription.
    assert!(bus.answers(PATIENCE).await);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        let _bus = bus;
        while let Some(change) = changes.next().await {
            all.lock().unwrap().push(change);
        }
    });
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_who_shares_a_conversation_is_told_in_their_own_words() {
    let stack = stack()
        .gateway_env("PARLANCE_PRESENCE_LARGE_GROUP", 4)
        .start()
        .await
        .unwrap();
    for transport in [Transport::Websocket, Transport::Polling] {
        run(&stack, "presence", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_a_killed_gateway_are_gone_in_time() {
    let stack = stack().start().await.unwrap();
    befriend(&stack, "alice", &["bob", "carol"]).await;
    let watchers = Watchers::start(
        &stack,
        &json!([
            { "user": "alice", "dialect": "chats", "gateways": [0], "returns": false },
            // Comes again elsewhere.
            { "user": "carol", "dialect": "chats", "gateways": [0, 1] },
            { "user": "bob", "dialect": "native", "gateways": [1] },
        ]),
    );
    for user in ["alice", "bob", "carol"] {
        watchers.connected(user, 1).await;
    }
    befriend(&stack, "carol", &["bob"]).await;
    let online = || async { seen(&stack, "bob", "alice").await["status"] == "online" };
    eventually(PATIENCE, "alice is online", online).await.unwrap();
    let killed_at = now_ms(&stack).await;
    stack.gateway(0).kill();
    watchers.becomes("bob", "alice", "offline", TRUTH).await;
    println!(
        "kill -9: offline was emitted after {} ms",
        now_ms(&stack).await - killed_at
    );
    let shown = seen(&stack, "bob", "alice").await;
    let last_seen: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM $1::text::timestamptz) * 1000)::int8")
            .bind(shown["last_seen_at"].as_str())
            .fetch_one(&stack.database().await.unwrap())
            .await
            .unwrap();
    let before = killed_at - last_seen;
    assert!(
        (0..=4_000).contains(&before),
        "last seen {before} ms before the end: {shown}"
    );
    assert!(!watchers.heard("bob", "carol").contains(&"offline".to_owned()));
    assert_eq!(seen(&stack, "bob", "carol").await["status"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stood_still_drops_its_clients_and_those_who_left_it_are_shown() {
    let stack = stack()
        .gateway_env("PARLANCE_SOCKET_PING_INTERVAL_MS", 1_000)
        .gateway_env("PARLANCE_SOCKET_PING_TIMEOUT_MS", 1_000)
        .start()
        .await
        .unwrap();
    befriend(&stack, "bob", &["alice", "carol"]).await;
    let watchers = Watchers::start(
        &stack,
        &json!([
            { "user": "alice", "dialect": "chats", "gateways": [0, 1] },
            // Does not notice that nobody answers.
            { "user": "carol", "dialect": "chats", "gateways": [0, 1], "deaf": true },
            { "user": "bob", "dialect": "chats", "gateways": [1] },
        ]),
    );
    for user in ["alice", "carol"] {
        watchers.becomes("bob", user, "online", PATIENCE).await;
    }
    // The first one receives that the other is not online yet.
    let before = watchers.heard("bob", "alice").len();
    let stopped = tokio::time::Instant::now();
    stack.gateway(0).pause();
    watchers.becomes("bob", "carol", "offline", TRUTH).await;
    println!("SIGSTOP: offline was emitted after {:?}", stopped.elapsed());
    watchers.connected("alice", 2).await;
    assert_eq!(watchers.all("carol", "disconnected").len(), 0);
    let rest = Duration::from_secs(20).saturating_sub(stopped.elapsed());
    let begun = tokio::time::Instant::now();
    let over = || async { begun.elapsed() >= rest };
    eventually(PATIENCE, "20 s of standing still", over)
        .await
        .unwrap();
    stack.gateway(0).resume();
    watchers.connected("carol", 2).await;
    watchers.becomes("bob", "carol", "online", TRUTH).await;
    assert!(
        stack
            .gateway(0)
            .log_tail(200)
            .contains("the lease of this replica ran out")
    );
    assert!(!watchers.heard("bob", "alice")[before..].contains(&"offline".to_owned()));
    assert_eq!(seen(&stack, "bob", "alice").await["status"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_the_gateways_is_not_seen() {
    let stack = stack()
        .gateway_env("PARLANCE_SHUTDOWN_WAIT_MS", 200)
        .gateway_env("PARLANCE_SHUTDOWN_DRAIN_MS", 1_000)
        .start()
        .await
        .unwrap();
    let users: Vec<String> = (0..10).map(|number| format!("user-{number}")).collect();
    for pair in users.windows(2) {
        befriend(&stack, &pair[0], &[&pair[1]]).await;
    }
    let places: Vec<Value> = users
        .iter()
        .enumerate()
        .map(|(n, user)| json!({ "user": user, "dialect": "chats", "gateways": [n % 2, (n + 1) % 2] }))
        .collect();
    let watchers = Watchers::start(&stack, &Value::from(places));
    for pair in users.windows(2) {
        watchers.becomes(&pair[0], &pair[1], "online", PATIENCE).await;
        watchers.becomes(&pair[1], &pair[0], "online", PATIENCE).await;
    }
    let told = changes(&stack).await;
    for gateway in stack.gateways() {
        gateway.terminate();
        gateway.wait_exit(PATIENCE).await.unwrap();
        gateway.start().await.unwrap();
        let homes = || async { users.iter().all(|user| seen_connected(&watchers, user)) };
        eventually(PATIENCE, "all are back", homes).await.unwrap();
    }
    // A user who would be reported offline is so after the grace.
    let begun = tokio::time::Instant::now();
    let over = || async { begun.elapsed() >= Duration::from_secs(8) };
    eventually(PATIENCE, "the grace is over", over).await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 0, "{:?}", told.lock().unwrap());
    for user in &users {
        assert!(
            !watchers.all(user, "disconnected").is_empty(),
            "{user} was never moved"
        );
    }
}

/// Whether the latest that happened to a user's connection is that it began.
fn seen_connected(watchers: &Watchers, user: &str) -> bool {
    watchers.all(user, "connected").len() > watchers.all(user, "disconnected").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_one_message_and_one_event_however_many_conversations_are_shared() {
    let stack = stack().start().await.unwrap();
    for number in 0..50 {
        let body = json!({ "title": format!("Group {number}"), "participant_ids": ["bob", "carol"] });
        let made = post(&stack, 1, "alice", "/conversations/group", &body).await;
        assert!(made["id"].is_string(), "{made}");
    }
    let others = json!([
        { "user": "bob", "dialect": "native", "gateways": [0] },
        { "user": "bob", "dialect": "chats", "gateways": [1] },
        { "user": "carol", "dialect": "native", "gateways": [1] },
    ]);
    let watchers = Watchers::start(&stack, &others);
    watchers.connected("bob", 2).await;
    watchers.becomes("bob", "carol", "online", PATIENCE).await;
    let told = changes(&stack).await;
    let alice = Watchers::start(
        &stack,
        &json!([{ "user": "alice", "dialect": "native", "gateways": [0] }]),
    );
    alice.connected("alice", 1).await;
    watchers.becomes("carol", "alice", "online", PATIENCE).await;
    drop(alice);
    watchers.becomes("carol", "alice", "offline", PATIENCE).await;
    let of_alice = || async {
        let told = told.lock().unwrap();
        told.iter().filter(|change| change.user_id == "alice").count() == 2
    };
    eventually(PATIENCE, "two messages", of_alice).await.unwrap();
    let whole = || async { watchers.heard("bob", "alice").len() >= 5 };
    eventually(PATIENCE, "what both of bob's clients hear", whole)
        .await
        .unwrap();
    assert_eq!(watchers.heard("carol", "alice"), ["online", "offline"]);
    // The native client two, the other one two besides the greeting.
    let mut heard = watchers.heard("bob", "alice");
    heard.sort();
    assert_eq!(heard, ["offline", "offline", "offline", "online", "online"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_bus_lost_is_told_all_the_same() {
    let stack = stack()
        .gateway_env("PARLANCE_ROOMS_CHECK_INTERVAL_MS", 500)
        .start()
        .await
        .unwrap();
    befriend(&stack, "alice", &["bob"]).await;
    let watchers = Watchers::start(
        &stack,
        &json!([
            { "user": "bob", "dialect": "chats", "gateways": [0] },
            { "user": "alice", "dialect": "chats", "gateways": [1] },
        ]),
    );
    watchers.becomes("bob", "alice", "online", PATIENCE).await;
    // As if the replica that did this had died before it published.
    let database = stack.database().await.unwrap();
    let silently =
        "UPDATE presence SET status = 3, version = version + 1, changed_at = now() WHERE user_id = 'alice'";
    sqlx::query(silently).execute(&database).await.unwrap();
    watchers
        .becomes("bob", "alice", "offline", Duration::from_secs(5))
        .await;
}
