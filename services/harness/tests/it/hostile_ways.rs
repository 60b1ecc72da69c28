//! Every known way to be hostile, one after the other on one stack, beside two users who talk.
//!
//! All conversations are on one partition. The two have a stock client each, at two gateways; whatever is done, they are
//! answered and hear each other as before, and no process keeps what the hostile one made it take. Prints a table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use parlance_harness::Stack;
use parlance_harness::devstack::accounts::Role;
use parlance_harness::eventually::eventually;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::time::Instant;

use crate::accounts::{Member, forbidden};
use crate::hostile::{BYSTANDER, Memory};
use crate::hostile_edge::{dial, handshake, header, websocket};
use crate::observers::observe;

/// The least time that each way is watched, so that a percentile says something.
const WATCHED: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(30);
/// An address of documentation's own network, as a proxy writes it.
const ATTACKER: &str = "203.0.113.66";
const MOST_PARTICIPANTS: usize = 1_000;

/// What became of one message between the two, in milliseconds; or what went wrong.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Sent { acked: f64, heard: f64 },
    Failed { error: String },
}

/// Two users who talk, each in a stock client of its own.
struct Talk {
    _child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Talk {
    async fn begin(stack: &Stack, conversation: &str) -> Self {
        let gateways: Vec<_> = stack.gateways().iter().map(|one| one.base_url()).collect();
        let lines = Arc::default();
        let arguments = [conversation, "alice", "bob"];
        let child = observe(stack, &gateways, "bystander.mjs", &arguments, &lines);
        let talk = Self { _child: child, lines };
        let spoken = || async { !talk.lines.lock().unwrap().is_empty() };
        eventually(PATIENCE, "the two talk", spoken).await.unwrap();
        talk
    }

    /// What was sent since the last look.
    fn take(&self) -> Spoken {
        let mut spoken = Spoken::default();
        for line in std::mem::take(&mut *self.lines.lock().unwrap()) {
            match line {
                Line::Sent { acked, heard } => {
                    spoken.acked.push(acked);
                    spoken.heard.push(heard);
                }
                Line::Failed { error } => spoken.errors.push(error),
            }
        }
        spoken
    }
}

/// What the two said while something was done, times in milliseconds.
#[derive(Default)]
struct Spoken {
    acked: Vec<f64>,
    heard: Vec<f64>,
    errors: Vec<String>,
}

/// The time within which 99 of 100 were done.
fn p99(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[(times.len() - 1) * 99 / 100]
}

/// The hostile user, and where he is.
struct World {
    stack: Stack,
    http: reqwest::Client,
    /// A group of the hostile one.
    noisy: String,
    journal: String,
}

/// How often each status was the answer; connections that were closed are 0.
type Statuses = BTreeMap<u16, usize>;

impl World {
    async fn open() -> (Self, Talk) {
        let stack = Stack::builder()
            .gateways(2)
            .persistence(2)
            .accounts()
            // Less than is tried.
            .gateway_env("PARLANCE_LIMITS_BYTES_BURST", 8_000_000)
            .gateway_env("PARLANCE_LIMITS_BYTES_PER_SECOND", 500_000)
            .gateway_env("PARLANCE_BUS_PARTITIONS", 1)
            .persistence_env("PARLANCE_INGEST_PARTITIONS", 1)
            .start()
            .await
            .unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let mut world = Self {
            stack,
            http,
            noisy: String::new(),
            journal: String::new(),
        };
        let quiet = world
            .made("alice", "/conversations/direct", json!({"user_id": "bob"}))
            .await;
        let group = json!({"title": "Noise", "participant_ids": ["carol"]});
        world.noisy = world.made("mallory", "/conversations/group", group).await;
        world.journal = world
            .made("mallory", "/journals", json!({"title": "Noise"}))
            .await;
        let talk = Talk::begin(&world.stack, &quiet).await;
        (world, talk)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.stack.gateway(0).base_url())
    }

    async fn made(&self, who: &str, path: &str, body: Value) -> String {
        let make = || async {
            let request = self.http.post(self.url(path)).bearer_auth(self.stack.token(who));
            let answer = request.json(&body).send().await?.error_for_status()?;
            let body: Value = answer.json().await?;
            let id = body["id"].as_str().map(str::to_owned);
            id.ok_or_else(|| anyhow::anyhow!("no id in {body}"))
        };
        eventually(PATIENCE, path, make).await.unwrap()
    }

    async fn status(&self, request: reqwest::RequestBuilder) -> u16 {
        let answer = request.send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    /// So many requests of the hostile one, so many at a time.
    async fn ask(
        &self,
        count: usize,
        at_a_time: usize,
        request: impl Fn(usize) -> (Method, String, Value),
    ) -> Statuses {
        let token = self.stack.token("mallory");
        let asked = futures::stream::iter(0..count).map(|number| {
            let (method, path, body) = request(number);
            let request = self.http.request(method, self.url(&path)).bearer_auth(&token);
            let request = if body.is_null() {
                request
            } else {
                request.json(&body)
            };
            self.status(request)
        });
        let answers: Vec<u16> = asked.buffer_unordered(at_a_time).collect().await;
        count_each(answers)
    }

    fn messages(&self) -> String {
        format!("/conversations/{}/messages", self.noisy)
    }
}

fn count_each(answers: impl IntoIterator<Item = u16>) -> Statuses {
    let mut statuses = Statuses::new();
    for answer in answers {
        *statuses.entry(answer).or_default() += 1;
    }
    statuses
}

fn users(from: usize, count: usize) -> Vec<String> {
    (from..from + count)
        .map(|number| format!("person-{number}"))
        .collect()
}

async fn large_groups(world: &World) -> Statuses {
    world
        .ask(8, 8, |_| {
            let body = json!({"title": "Large", "participant_ids": users(0, MOST_PARTICIPANTS - 1)});
            (Method::POST, "/conversations/group".into(), body)
        })
        .await
}

async fn growing_groups(world: &World) -> Statuses {
    let path = format!("/conversations/{}/participants", world.noisy);
    world
        .ask(4, 4, |number| {
            let body = json!({"user_ids": users(number * MOST_PARTICIPANTS, MOST_PARTICIPANTS)});
            (Method::POST, path.clone(), body)
        })
        .await
}

async fn receipts_full_of_gaps(world: &World) -> Statuses {
    let path = world.messages();
    let written =
        (0..180).map(|number| world.made("mallory", &path, json!({"content": format!("line {number}")})));
    let ids: Vec<String> = futures::stream::iter(written).buffered(16).collect().await;
    let path = format!("/conversations/{}/read", world.noisy);
    let read = |number: usize| {
        let every_third: Vec<_> = ids.iter().skip(number % 3).step_by(3).collect();
        (Method::POST, path.clone(), json!({"message_ids": every_third}))
    };
    world.ask(60, 16, read).await
}

/// Whole texts that have nothing in common with each other.
async fn journals_rewritten(world: &World) -> Statuses {
    let path = format!("/journals/{}", world.journal);
    world
        .ask(24, 4, |number| {
            let words: Vec<String> = (0..30_000_usize)
                .map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761 + number)))
                .collect();
            let mut text = words.join(" ");
            text.truncate(300_000);
            (Method::PATCH, path.clone(), json!({"content": text}))
        })
        .await
}

/// In everyone's words: the answers of the stream, then what the publisher reads of each.
async fn messages_of_services_too_large(world: &World) -> Statuses {
    let mut emitter = Member::connect(&world.stack, Role::Emitter).await;
    let content = "x".repeat(960_000);
    let message = json!({"sender_id": "shop", "sender_name": "Shop", "content": content}).to_string();
    let subject = format!("chat.system.{}", world.noisy);
    let mut answers = Vec::new();
    for number in 0..10 {
        let head = format!("Parlance-Message-Id: large-{number}\r\nContent-Type: application/json\r\n");
        let answer = emitter.asks(&subject, &head, message.as_bytes()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answers.push(if answer["stream"] == "SYSTEM" { 202 } else { 400 });
    }
    let parked = || async {
        let rows = world.stack.database().await?;
        let parked: i64 =
            sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE subject LIKE '%system%'")
                .fetch_one(&rows)
                .await?;
        anyhow::ensure!(parked >= 10, "{parked} are parked");
        Ok(())
    };
    eventually(PATIENCE, "all are parked", parked).await.unwrap();
    count_each(answers)
}

async fn the_same_message(world: &World) -> Statuses {
    let same = |_| {
        let body = json!({"content": "again", "client_msg_id": "again"});
        (Method::POST, world.messages(), body)
    };
    let statuses = world.ask(400, 32, same).await;
    let rows = world.stack.database().await.unwrap();
    let stored = "SELECT count(*) FROM messages WHERE content = 'again'";
    let stored: i64 = sqlx::query_scalar(stored).fetch_one(&rows).await.unwrap();
    assert_eq!(stored, 1, "one message, however often it is sent");
    statuses
}

async fn one_key_for_many_changes(world: &World) -> Statuses {
    let token = world.stack.token("mallory");
    let asked = (0..64).map(|number| {
        let body = json!({"title": format!("Key {}", number % 2), "participant_ids": ["carol"]});
        let request = world.http.post(world.url("/conversations/group"));
        let request = request.bearer_auth(&token).header("idempotency-key", "one");
        world.status(request.json(&body))
    });
    let statuses = count_each(join_all(asked).await);
    let rows = world.stack.database().await.unwrap();
    let made = "SELECT count(*) FROM conversations WHERE title LIKE 'Key %'";
    let made: i64 = sqlx::query_scalar(made).fetch_one(&rows).await.unwrap();
    assert_eq!(made, 1, "one key, one group");
    statuses
}

async fn reads_without_end(world: &World) -> Statuses {
    let path = format!("{}?limit=100", world.messages());
    world
        .ask(600, 64, |_| (Method::GET, path.clone(), Value::Null))
        .await
}

async fn unfinished_frames(world: &World) -> Statuses {
    let mut sockets = Vec::new();
    for _ in 0..15 {
        let mut socket = websocket(world.stack.gateway(0)).await;
        socket.write_all(&header(0x81, 9_900_000)).await.unwrap();
        let frame = vec![b'x'; 1 << 20];
        drop(tokio::time::timeout(Duration::from_millis(200), socket.write_all(&frame)).await);
        sockets.push(socket);
    }
    count_each([0; 15])
}

async fn half_heads(world: &World) -> Statuses {
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = dial(world.stack.gateway(0)).await;
        let half = b"GET /health HTTP/1.1\r\nhost: parlance\r\nx-half: ";
        stream.write_all(half).await.unwrap();
        held.push(stream);
    }
    tokio::time::sleep(WATCHED / 2).await;
    count_each([0; 300])
}

async fn handshakes_that_never_go_on(world: &World) -> Statuses {
    let gateway = world.stack.gateway(0);
    let asked = (0..800).map(|_| handshake(&world.http, gateway, ATTACKER));
    let answers: Vec<u16> = futures::stream::iter(asked).buffer_unordered(64).collect().await;
    let statuses = count_each(answers);
    let refused = statuses.keys().any(|status| [429, 503].contains(status));
    assert!(refused, "an address has a limit: {statuses:?}");
    statuses
}

async fn forged_tokens(world: &World) -> Statuses {
    let token = format!("{}x", world.stack.token("alice"));
    let asked = (0..1_000).map(|_| {
        let request = world.http.get(world.url("/conversations")).bearer_auth(&token);
        world.status(request)
    });
    let answers: Vec<u16> = futures::stream::iter(asked).buffer_unordered(64).collect().await;
    let statuses = count_each(answers);
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&401], "{statuses:?}");
    statuses
}

async fn megabytes_a_second(world: &World) -> Statuses {
    let content = "x".repeat(60_000);
    let large = |_| (Method::POST, world.messages(), json!({"content": content}));
    let statuses = world.ask(300, 16, large).await;
    assert!(statuses.contains_key(&429), "a user has a limit: {statuses:?}");
    statuses
}

async fn nonsense(world: &World) -> Statuses {
    let deep = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let statuses = world
        .ask(600, 32, |number| {
            let bodies = [
                json!({"content": 7}),
                json!({"content": "nul \u{0}"}),
                json!({"content": "x", "metadata": deep(100)}),
                json!([]),
                json!({"content": "x".repeat(70_000)}),
                json!({"content": "x", "reply_to": "*.>"}),
            ];
            (
                Method::POST,
                world.messages(),
                bodies[number % bodies.len()].clone(),
            )
        })
        .await;
    let server = statuses.keys().any(|status| *status >= 500 || *status == 0);
    assert!(!server, "bad input is the client's fault: {statuses:?}");
    statuses
}

async fn other_roles_subjects(world: &World) -> Statuses {
    let mut answers = Vec::new();
    for role in Role::ALL {
        let mut member = Member::connect(&world.stack, role).await;
        for (_, what, operation) in forbidden().into_iter().filter(|row| row.0 == role) {
            let objection = member.objection(&operation).await.unwrap_or_default();
            assert!(
                objection.contains("Permissions Violation"),
                "{} {what}",
                role.name()
            );
            answers.push(403);
        }
    }
    count_each(answers)
}

/// While it is full, and until it has caught up.
async fn a_feed_that_is_full(world: &World) -> Statuses {
    let mut persistence = Member::connect(&world.stack, Role::Persistence).await;
    let limit = async |persistence: &mut Member, bytes: u32, discard: &str| {
        let info = persistence.asks("$JS.API.STREAM.INFO.EVENTS", "", b"").await;
        let mut info: Value = serde_json::from_slice(&info).unwrap();
        info["config"]["max_bytes"] = json!(bytes);
        info["config"]["discard"] = json!(discard);
        let config = info["config"].to_string();
        let answer = persistence
            .asks("$JS.API.STREAM.UPDATE.EVENTS", "", config.as_bytes())
            .await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    };
    limit(&mut persistence, 1_024, "new").await;
    let written = |number: usize| {
        (
            Method::POST,
            world.messages(),
            json!({"content": format!("full {number}")}),
        )
    };
    let statuses = world.ask(300, 8, written).await;
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&201], "{statuses:?}");
    limit(&mut persistence, 1 << 30, "old").await;
    let caught_up = || async {
        let rows = world.stack.database().await?;
        let behind: i64 = sqlx::query_scalar("SELECT count(*) FROM feed_backlog")
            .fetch_one(&rows)
            .await?;
        anyhow::ensure!(behind == 0, "{behind} conversations are behind");
        Ok(())
    };
    eventually(PATIENCE, "the feed catches up", caught_up)
        .await
        .unwrap();
    statuses
}

/// Runs one way, and says what the two noticed of it; an error where they noticed more than they may.
async fn beside(
    world: &World,
    talk: &Talk,
    name: &str,
    allowed: f64,
    way: impl Future<Output = Statuses>,
) -> Result<(), String> {
    drop(talk.take());
    let memory = Memory::watch(&world.stack);
    let begun = Instant::now();
    let statuses = way.await;
    tokio::time::sleep_until(begun + WATCHED).await;
    let took = begun.elapsed();
    let spoken = talk.take();
    let memory = memory.compared().await;
    if spoken.acked.is_empty() {
        return Err(format!(
            "{name}: nothing was said for {took:?}: {:?}",
            spoken.errors
        ));
    }
    let (acked, heard) = (p99(&spoken.acked), p99(&spoken.heard));
    println!(
        "{name} | {statuses:?} | {:.1} s | {} | {acked:.0} | {heard:.0} | {} | {}",
        took.as_secs_f64(),
        spoken.acked.len(),
        spoken.errors.len(),
        memory.as_ref().map_or_else(Clone::clone, Clone::clone),
    );
    if !spoken.errors.is_empty() {
        return Err(format!("{name}: the two read {:?}", spoken.errors));
    }
    if acked.max(heard) > allowed {
        return Err(format!(
            "{name}: the two waited {acked:.0} and {heard:.0} ms, {allowed:.0} are allowed"
        ));
    }
    memory.map(drop).map_err(|error| format!("{name}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-hostile"]
async fn whatever_one_user_or_service_does_two_others_talk_on() {
    let (world, talk) = World::open().await;
    println!(
        "way | answers | took | messages of the two | p99 acked, ms | p99 heard, ms | errors | memory, KiB"
    );
    // Everything once, and small: what processes need to work at all is not charged to the hostile user.
    let usual = |number: usize| {
        (
            Method::POST,
            world.messages(),
            json!({"content": format!("usual {number}")}),
        )
    };
    world.ask(200, 16, usual).await;
    drop(talk.take());
    tokio::time::sleep(WATCHED).await;
    let before = talk.take();
    assert!(before.errors.is_empty(), "{:?}", before.errors);
    let usual = p99(&before.acked).max(p99(&before.heard));
    // On a busy machine, what it took before.
    let allowed = (BYSTANDER.as_secs_f64() * 1_000.0).max(usual * 3.0);
    let mut flaws = Vec::new();
    macro_rules! ways {
        ($($way:ident),+ $(,)?) => {$(
            let name = stringify!($way).replace('_', " ");
            flaws.extend(beside(&world, &talk, &name, allowed, $way(&world)).await.err());
        )+};
    }
    ways!(
        forged_tokens,
        unfinished_frames,
        half_heads,
        handshakes_that_never_go_on,
        other_roles_subjects,
        nonsense,
        the_same_message,
        one_key_for_many_changes,
        receipts_full_of_gaps,
        reads_without_end,
        large_groups,
        growing_groups,
        journals_rewritten,
        messages_of_services_too_large,
        a_feed_that_is_full,
        megabytes_a_second,
    );
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}
