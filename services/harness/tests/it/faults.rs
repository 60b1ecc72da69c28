//! Kills, pauses and restarts under load: nothing acked is lost, doubled or reordered, and all converge.
//!
//! Every test has a stack of its own, two replicas of each service, and prints a line of figures. What takes
//! longer than a regular test run may is ignored there and part of `make test-faults`.

mod clients;
mod crashes;
mod gateways;
mod nats;
pub(crate) mod overload;
mod persistence;
mod postgres;
mod streams;

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use parlance_harness::checker::{ConversationRows, Database, Report, SAMPLE, check};
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::load::{Load, Player, Progress};
use parlance_harness::stack::StackBuilder;
use parlance_harness::{Stack, environment};

use crate::metrics::metric;

/// Load before the fault, so that it hits full pipes.
const BEFORE: Duration = Duration::from_secs(3);
/// Load while something is away.
const AWAY: Duration = Duration::from_secs(4);
/// Load after the fault; what is late then is waited for after the last message.
const AFTER: Duration = Duration::from_secs(8);
/// Without an answer: five seconds for the failover of a partition, the rest for a busy machine.
const FAILOVER: Duration = Duration::from_secs(10);
/// Until all is delivered again after any other fault.
const CONVERGED: Duration = Duration::from_secs(5);
/// Until all is delivered again where the bus or a client's connection was lost.
pub(crate) const REPAIRED: Duration = Duration::from_secs(15);

/// Share of the load before the fault that must be answered in the end: of what was offered, or of what a busy machine
/// answered. The rest is for the stranger's messages.
const RECOVERED: f64 = 0.5;
/// How long it may take until they are, where other work keeps the machine busy.
const COMES_BACK: Duration = Duration::from_secs(30);
/// How long a gateway may keep the rooms of clients that are gone.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Most memory of a service after such a load.
const MOST_MEMORY_KB: u64 = 300_000;

/// A stack under load.
pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) player: Player,
    /// Messages a second.
    offered: u32,
    /// Answered of them in a second before the fault.
    before: f64,
}

impl Scene {
    pub(crate) async fn open() -> Self {
        Self::of(Stack::builder().gateways(2).persistence(2), Load::default()).await
    }

    pub(crate) async fn of(stack: StackBuilder, load: Load) -> Self {
        let stack = stack.start().await.unwrap();
        let player = load.start(&stack).await.unwrap();
        let mut scene = Self {
            stack,
            player,
            offered: load.rate,
            before: 0.0,
        };
        let first = scene.player.goes_on_for(Duration::ZERO).await.unwrap();
        let last = scene.player.goes_on_for(BEFORE).await.unwrap();
        scene.before = rate(&first, &last).min(load.rate.into());
        scene.player.mark("fault").await.unwrap();
        scene
    }

    pub(crate) async fn goes_on_for(&mut self, time: Duration) {
        self.player.goes_on_for(time).await.unwrap();
    }

    /// From here on everything must become well again by itself.
    pub(crate) async fn heals(&mut self) {
        self.player.mark("healed").await.unwrap();
    }

    /// Goes on for a while, then stops and judges.
    pub(crate) async fn close(mut self, fault: &str) -> Report {
        self.goes_on_for(AFTER).await;
        self.player.all_connected().await.unwrap();
        // What must be back counts what was answered before by another window: a little more, so that it is there in both.
        let back = self.before * (RECOVERED + 0.1);
        let player = &mut self.player;
        player
            .goes_on_until_answered(back, SAMPLE, COMES_BACK)
            .await
            .unwrap();
        judge(&self.stack, self.player, self.offered, fault).await
    }
}

/// Positive answers a second between two reports.
fn rate(first: &Progress, last: &Progress) -> f64 {
    let answered = u32::try_from(last.acked - first.acked).unwrap_or(u32::MAX);
    f64::from(answered) * 1_000.0 / (last.at - first.at)
}

async fn judge(stack: &Stack, player: Player, offered: u32, fault: &str) -> Report {
    judge_those(stack, player, offered, fault, |_| true).await
}

/// Judges these conversations; the others are not the player's.
pub(crate) async fn judge_those(
    stack: &Stack,
    player: Player,
    offered: u32,
    fault: &str,
    are_those: impl Fn(&ConversationRows) -> bool,
) -> Report {
    let history = player.stop().await.unwrap();
    keep_history(stack, fault);
    stack.wait_ready().await.unwrap();
    let rows = stack.database().await.unwrap();
    let mut database = Database::read(&rows).await.unwrap();
    database.conversations.retain(|_, rows| are_those(rows));
    let report = check(&history, &database);
    println!("{}\n{}", Report::heading(), report.line(fault));
    keep_line(&report.line(fault));
    assert!(report.violations.is_empty(), "{fault}: {report}");
    nothing_is_left_behind(stack).await;
    let counts = report.counts;
    assert!(
        counts.acked > 500,
        "{fault}: too little load to tell anything: {report}"
    );
    assert!(
        counts.rejected > 0,
        "{fault}: the stranger was never rejected: {report}"
    );
    let before = Some(report.timing.rate_before).filter(|before| *before > 0.0);
    let before = before.map_or(offered.into(), |before| before.min(offered.into()));
    assert!(
        report.timing.rate_after >= before * RECOVERED,
        "{fault}: the load does not come back: {report}"
    );
    report
}

/// Histories go with the stack, unless `PARLANCE_TEST_HISTORIES` names a folder for them.
fn keep_history(stack: &Stack, fault: &str) {
    if let Some(folder) = environment::variable("PARLANCE_TEST_HISTORIES") {
        let name = fault.replace(|char: char| !char.is_alphanumeric(), "-");
        std::fs::copy(
            stack.folder().join("history.jsonl"),
            format!("{folder}/{name}.jsonl"),
        )
        .unwrap();
    }
}

/// `make test-faults` prints the lines of all tests as one table.
fn keep_line(line: &str) {
    if let Some(path) = environment::variable("PARLANCE_FAULTS_TABLE") {
        let mut table = File::options().create(true).append(true).open(path).unwrap();
        writeln!(table, "{line}").unwrap();
    }
}

/// Nobody is connected any more, so nothing may be kept for anybody.
async fn nothing_is_left_behind(stack: &Stack) {
    for gateway in stack.gateways() {
        for gauge in ["chat_gateway_connections", "chat_gateway_rooms"] {
            let what = format!("{gauge} of {} is zero", gateway.name());
            eventually(FORGOTTEN, what, || async {
                equal(metric(gateway, gauge).await?, &0.0).map_err(anyhow::Error::msg)
            })
            .await
            .unwrap();
        }
    }
    for process in stack.gateways().iter().chain(stack.persistence_replicas()) {
        let memory = memory(process);
        assert!(memory < MOST_MEMORY_KB, "{} takes {memory} KB", process.name());
    }
}

fn memory(process: &Process) -> u64 {
    let path = format!("/proc/{}/status", process.pid().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn assert_converged(report: &Report, within: Duration) {
    assert!(
        report.timing.converged <= within,
        "not all converged within {within:?}: {report}"
    );
}

async fn replica_of_persistence_is_killed(index: usize) {
    let mut scene = Scene::open().await;
    scene.stack.persistence(index).kill();
    scene.heals().await;
    // The other takes over while this one is away; afterwards it gets its share back.
    scene.goes_on_for(AWAY * 2).await;
    scene.stack.persistence(index).start().await.unwrap();
    let report = scene
        .close(&format!("F3 persistence {} kill -9", index + 1))
        .await;
    assert!(report.timing.longest_pause <= FAILOVER, "{report}");
    assert_converged(&report, FAILOVER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_first_persistence_replica_is_replaced_by_the_second() {
    replica_of_persistence_is_killed(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_second_persistence_replica_is_replaced_by_the_first() {
    replica_of_persistence_is_killed(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistence_replica_that_was_paused_past_its_leases_does_no_harm() {
    let mut scene = Scene::open().await;
    scene.stack.persistence(0).pause();
    scene.goes_on_for(Duration::from_secs(20)).await;
    // The fault ends here: meanwhile the paused replica kept its share of the questions. How soon its
    // partitions found another owner is told by the longest pause of acks.
    scene.stack.persistence(0).resume();
    scene.heals().await;
    let report = scene.close("F4 persistence 1 SIGSTOP 20 s").await;
    assert!(report.timing.longest_pause <= FAILOVER, "{report}");
    assert_converged(&report, FAILOVER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_loses_no_acked_message() {
    let mut scene = Scene::open().await;
    scene.stack.nats().kill();
    scene.goes_on_for(AWAY).await;
    scene.stack.nats().start().await.unwrap();
    scene.heals().await;
    let report = scene.close("F6 NATS kill -9 + restart").await;
    assert_converged(&report, REPAIRED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_no_acked_message() {
    let mut scene = Scene::open().await;
    scene.stack.postgres().kill();
    scene.goes_on_for(AWAY).await;
    scene.stack.postgres().start().await.unwrap();
    scene.heals().await;
    let report = scene.close("F10 Postgres kill -9 + restart").await;
    assert_converged(&report, REPAIRED);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_killed_gateway_go_on_at_the_other() {
    let mut scene = Scene::open().await;
    scene.stack.gateway(0).kill();
    scene.heals().await;
    scene.goes_on_for(AWAY).await;
    scene.player.all_connected().await.unwrap();
    scene.stack.gateway(0).start().await.unwrap();
    let report = scene.close("F1 gateway 1 kill -9").await;
    assert_converged(&report, REPAIRED);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_whole_after_everything_was_killed_at_once() {
    let mut scene = Scene::open().await;
    let stack = &scene.stack;
    let services = || stack.gateways().iter().chain(stack.persistence_replicas());
    services()
        .chain([stack.nats(), stack.postgres()])
        .for_each(|process| process.kill());
    for server in [stack.postgres(), stack.nats()] {
        server.start().await.unwrap();
    }
    services().for_each(|service| service.spawn().unwrap());
    stack.wait_ready().await.unwrap();
    scene.heals().await;
    let report = scene.close("kill -9 of everything").await;
    assert_converged(&report, REPAIRED);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_without_a_fault_breaks_nothing() {
    let mut scene = Scene::open().await;
    scene.heals().await;
    let report = scene.close("none").await;
    assert!(report.timing.longest_pause <= FAILOVER, "{report}");
}
