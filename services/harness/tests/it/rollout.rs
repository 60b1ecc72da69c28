//! A new version of everything, replica by replica, behind a load balancer and under connected stock clients:
//! nobody notices.
//!
//! The whole size, some minutes:
//! `cargo test -p parlance-harness --test it rollout::two_thousand -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::load::Load;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::faults::{REPAIRED, judge_those};
use crate::metrics::metric;
use crate::observers::observe;

const GATEWAYS: usize = 3;
/// What the names of those begin with who do not send.
const CROWD: &str = "crowd";
/// Participants of a group, all of whom receive each other's presence.
const GROUP: usize = 50;
/// Clients of one Node.js process.
const PER_PROCESS: usize = 500;
/// Unready before anything else: two looks of the balancer and some more.
const WAIT: Duration = Duration::from_millis(1_500);
/// Beyond waiting and drain, for what is to be flushed and given back.
const GRACE: Duration = Duration::from_secs(15);
/// How long the crowd may take to connect, for a busy machine.
const CROWDED: Duration = Duration::from_secs(240);
/// Over which the rate of reconnections is taken.
const WINDOW_MS: i64 = 1_000;

/// How much there is of everything.
struct Scale {
    /// Connected clients, those who send included.
    clients: usize,
    /// Messages a second.
    rate: u32,
    /// Over which a replica closes its connections.
    drain: Duration,
    /// What the figures stand under.
    name: &'static str,
}

/// Users who stay connected, and what became of that.
struct Crowd {
    _children: Vec<Child>,
    lines: Arc<Mutex<Vec<Line>>>,
    size: usize,
}

#[derive(Clone, Debug, Deserialize)]
struct Line {
    at: i64,
    event: String,
    user: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    of: String,
    #[serde(default)]
    status: String,
}

/// One gateway that went.
struct Turn {
    sessions: f64,
    /// What the crowd wrote down until all were back.
    lines: Vec<Line>,
    took: Duration,
}

fn name(number: usize) -> String {
    format!("{CROWD}{number}")
}

/// The first member of each group watches the others.
async fn befriend(stack: &Stack, size: usize) -> Vec<String> {
    let http = reqwest::Client::new();
    let mut watchers = Vec::new();
    for first in (0..size).step_by(GROUP) {
        let others: Vec<_> = (first + 1..(first + GROUP).min(size)).map(name).collect();
        let url = format!("{}/api/v1/conversations/group", stack.balancer().base_url());
        let body = json!({ "title": "A group", "participant_ids": others });
        let answer = http.post(url).bearer_auth(stack.token(&name(first))).json(&body);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        watchers.push(name(first));
    }
    watchers
}

impl Crowd {
    async fn gather(stack: &Stack, size: usize) -> Self {
        let watchers = befriend(stack, size).await;
        let lines = Arc::default();
        let entrance = [stack.balancer().base_url()];
        let children = (0..size).step_by(PER_PROCESS).map(|first| {
            let users: Vec<_> = (first..(first + PER_PROCESS).min(size)).map(name).collect();
            let plan = json!({ "url": stack.balancer().base_url(), "users": users, "watchers": watchers });
            observe(stack, &entrance, "crowd.mjs", &[&plan.to_string()], &lines)
        });
        let crowd = Self {
            _children: children.collect(),
            lines,
            size,
        };
        crowd.all_connected().await;
        crowd
    }

    /// What was written down from line `from` on.
    fn since(&self, from: usize) -> Vec<Line> {
        self.lines.lock().unwrap()[from..].to_vec()
    }

    fn mark(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    async fn all_connected(&self) {
        let connected = || async {
            let lines = self.lines.lock().unwrap();
            let count = |event: &str| lines.iter().filter(|line| line.event == event).count();
            equal(count("connected") - count("disconnected"), &self.size)
        };
        let outcome = eventually(CROWDED, "the whole crowd is connected", connected).await;
        if let Err(error) = outcome {
            panic!("{error}: {:?}", self.absent());
        }
    }

    /// What was last written down of those who are not connected.
    fn absent(&self) -> BTreeMap<String, Vec<Line>> {
        let mut own: BTreeMap<String, Vec<Line>> =
            (0..self.size).map(|number| (name(number), vec![])).collect();
        for line in self.since(0) {
            own.entry(line.user.clone()).or_default().push(line);
        }
        own.retain(|_, lines| {
            let state = lines.iter().rfind(|line| line.event != "presence");
            state.is_none_or(|line| line.event != "connected")
        });
        own
    }
}

/// A replica goes as in a rolling update, and comes again.
async fn replaced(process: &Process, within: Duration) -> Duration {
    let begun = Instant::now();
    process.terminate();
    let status = process.wait_exit(within).await.unwrap();
    assert!(status.success(), "{} ended with {status}", process.name());
    let took = begun.elapsed();
    process.start().await.unwrap();
    took
}

/// The most connections made within any [`WINDOW_MS`].
fn steepest(mut times: Vec<i64>) -> usize {
    times.sort_unstable();
    let within = |(index, end): (usize, &i64)| {
        let first = times.partition_point(|time| *time <= end - WINDOW_MS);
        index + 1 - first
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}

/// Answers that a user would have seen as a failure, by their code: all but "outcome unknown, ask again".
fn failed_sends(stack: &Stack) -> BTreeMap<String, usize> {
    let history = std::fs::read_to_string(stack.folder().join("history.jsonl")).unwrap();
    let mut failures = BTreeMap::new();
    for line in history.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let fine = line["outcome"] == "ok" || line["user"] == "stranger";
        let code = line["code"].as_str().unwrap_or("none");
        if line["kind"] == "ack" && !fine && !matches!(code, "unknown" | "no answer") {
            *failures.entry(code.to_owned()).or_default() += 1;
        }
    }
    failures
}

impl Scale {
    async fn goes_unnoticed(self) {
        let grace = WAIT + self.drain + GRACE;
        let stack = Stack::builder()
            .gateways(GATEWAYS)
            .persistence(2)
            .balanced()
            .gateway_env("PARLANCE_SHUTDOWN_WAIT_MS", WAIT.as_millis())
            .gateway_env("PARLANCE_SHUTDOWN_DRAIN_MS", self.drain.as_millis())
            .gateway_env("PARLANCE_SHUTDOWN_GRACE_MS", grace.as_millis())
            .start()
            .await
            .unwrap();
        let load = Load {
            rate: self.rate,
            ..Load::default()
        };
        let crowd = Crowd::gather(&stack, self.clients - load.users).await;
        let mut player = load.start(&stack).await.unwrap();
        player.goes_on_for(Duration::from_secs(5)).await.unwrap();
        let mark = crowd.mark();
        player.mark("fault").await.unwrap();

        let mut turns = Vec::new();
        for gateway in stack.gateways() {
            let sessions = metric(gateway, "chat_gateway_connections").await.unwrap();
            let mark = crowd.mark();
            let took = replaced(gateway, grace).await;
            crowd.all_connected().await;
            turns.push(Turn {
                sessions,
                lines: crowd.since(mark),
                took,
            });
        }
        let gateways_done = crowd.mark();
        for replica in stack.persistence_replicas() {
            replaced(replica, grace).await;
        }
        player.mark("healed").await.unwrap();
        player.goes_on_for(Duration::from_secs(8)).await.unwrap();
        player.all_connected().await.unwrap();
        crowd.all_connected().await;
        let meanwhile = crowd.since(gateways_done);
        assert!(meanwhile.is_empty(), "noticed: {meanwhile:?}");
        let lines = crowd.since(mark);
        let size = crowd.size;
        drop(crowd);
        let report = judge_those(&stack, player, self.rate, self.name, |rows| {
            !rows.members.iter().any(|member| member.starts_with(CROWD))
        })
        .await;
        assert!(report.timing.converged <= REPAIRED, "{report}");
        let failed = failed_sends(&stack);
        self.tell(&turns, &lines, &failed, size);
    }

    fn tell(&self, turns: &[Turn], lines: &[Line], failed: &BTreeMap<String, usize>, size: usize) {
        let of = |event: &'static str| lines.iter().filter(move |line| line.event == event);
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for line in of("refused").chain(of("disconnected")) {
            *reasons.entry(&line.reason).or_default() += 1;
        }
        let saw = |line: &Line| format!("{} saw {} {}", line.user, line.of, line.status);
        let flaps: Vec<_> = of("presence").take(5).map(saw).collect();
        let (mut steep, mut too_fast) = (Vec::new(), false);
        for Turn {
            sessions,
            lines,
            took,
        } in turns
        {
            let times = |event: &str| {
                let own = lines.iter().filter(|line| line.event == event);
                own.map(|line| line.at).collect::<Vec<_>>()
            };
            // Also those whose session is elsewhere and whose WebSocket came in here.
            let clients = times("disconnected").len();
            let configured = clients as f64 / self.drain.as_secs_f64();
            // Clients wait for 0.5 to 1.5 s of their own choice: that spreads what was even, as if by chance, and
            // this is the largest of many windows.
            let most = configured + 5.0 * configured.sqrt() + 1.0;
            let seen = steepest(times("connected"));
            steep.push(format!(
                "{clients} clients ({sessions:.0} sessions) / {:.0} s = {configured:.0}/s, seen at most {seen}/s, \
                 exit after {:.1} s",
                self.drain.as_secs_f64(),
                took.as_secs_f64()
            ));
            too_fast |= seen as f64 > most;
        }
        let line = format!(
            "{}: {} clients, {} came again, {} refused, {} gave up, {} presence changes, {} failed sends; {}; {reasons:?}",
            self.name,
            size,
            of("connected").count(),
            of("refused").count(),
            of("gave-up").count(),
            of("presence").count(),
            failed.len(),
            steep.join("; "),
        );
        println!("{line}");
        assert!(!too_fast, "reconnected too fast: {line}");
        assert!(
            of("connected").count() >= size,
            "not all gateways were restarted: {line}"
        );
        assert_eq!(of("gave-up").count(), 0, "{line}");
        assert!(flaps.is_empty(), "{flaps:?}: {line}");
        assert!(failed.is_empty(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_not_noticed() {
    let scale = Scale {
        clients: 300,
        rate: 60,
        drain: Duration::from_secs(5),
        name: "rollout, 300 clients",
    };
    scale.goes_unnoticed().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some minutes: the command stands above"]
async fn two_thousand_clients_do_not_notice_a_rollout() {
    let scale = Scale {
        clients: 2_000,
        rate: 100,
        drain: Duration::from_secs(20),
        name: "rollout, 2,000 clients",
    };
    scale.goes_unnoticed().await;
}
