//! Runs a specification in `js/tests` against a stack: what the stock Socket.IO client sees.
//!
//! Must not assert anything itself but that the specification passed, whole: a check that holds a line of
//! the baseline and did not run is a failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};
use tokio::process::Command;

use crate::conformance;

/// How the stock client connects.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// WebSocket from the beginning.
    Websocket,
    /// HTTP long polling only.
    Polling,
    /// The client's own choice: polling first, then the upgrade.
    Default,
}

/// Matches the name of every test.
const EVERY: &str = ".";
/// Longest run of one specification; Node's own limit strikes first and names the test that hangs.
const LIMIT: Duration = Duration::from_secs(330);
/// How long a gateway that is ready may refuse handshakes: it asks for persistence once a second.
const ADMITTING: Duration = Duration::from_secs(10);
/// How long replicas may take to share the partitions out.
const SHARING: Duration = Duration::from_secs(15);
/// Longest run of one specification and of each test in it, in milliseconds.
const TEST_LIMIT_MS: u32 = 300_000;

impl Transport {
    /// As the specifications read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Polling => "polling",
            Self::Default => "default",
        }
    }
}

/// Runs `js/tests/<name>.mjs` with further variables; shows its output if it fails.
pub async fn run_with(stack: &Stack, name: &str, transport: Transport, variables: &[(&str, String)]) {
    match outcome(stack, name, transport, variables, EVERY).await {
        Ok(text) => println!("{name} over {}:\n{text}", transport.name()),
        Err(text) => panic!("{name} over {} failed:\n{text}", transport.name()),
    }
}

/// Runs the tests of `js/tests/<name>.mjs` whose names match `pattern`; what it printed, as an error if it failed.
pub async fn outcome(
    stack: &Stack,
    name: &str,
    transport: Transport,
    variables: &[(&str, String)],
    pattern: &str,
) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
    assert!(
        folder.join("node_modules/socket.io-client").is_dir(),
        "the packages of services/harness/js are missing: run `npm ci` there"
    );
    for gateway in stack.gateways() {
        admits(gateway).await;
    }
    shared_out(stack).await;
    let gateways: Vec<_> = stack.gateways().iter().map(Process::base_url).collect();
    let internals: Vec<_> = stack.gateways().iter().map(Process::internal_url).collect();
    let results = tempfile::NamedTempFile::new().expect("a file for the results");
    let child = Command::new("node")
        .arg("--test")
        .arg(format!("--test-timeout={TEST_LIMIT_MS}"))
        .arg(format!("--test-name-pattern={pattern}"))
        .args(["--test-reporter=spec", "--test-reporter-destination=stdout"])
        .arg("--test-reporter=tap")
        .arg(format!(
            "--test-reporter-destination={}",
            results.path().display()
        ))
        .arg(format!("tests/{name}.mjs"))
        .current_dir(folder)
        .env("PARLANCE_GATEWAYS", gateways.join(","))
        .env("PARLANCE_INTERNALS", internals.join(","))
        .env("PARLANCE_NATS_URL", stack.nats_url())
        .env("DATABASE_URL", stack.database_url())
        .env("PARLANCE_JWT_SECRET", stack.jwt_secret())
        .env("PARLANCE_TRANSPORT", transport.name())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        // Its end signals the specification that nobody waits any more.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Node.js 20 or newer runs the specifications");
    let output = tokio::time::timeout(LIMIT, collect(child))
        .await
        .unwrap_or_else(|_| panic!("{name} over {} has not ended after {LIMIT:?}", transport.name()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(text + &String::from_utf8_lossy(&output.stderr));
    }
    let results = std::fs::read_to_string(results.path()).expect("the results");
    let held = conformance::held_by(name);
    let missing: Vec<_> = held.difference(&passed(&results)).cloned().collect();
    if missing.is_empty() || pattern != EVERY {
        Ok(text)
    } else {
        Err(format!("{text}no check that holds {missing:?} ran"))
    }
}

/// The lines of the baseline whose checks all ran and passed, by the TAP report.
fn passed(report: &str) -> BTreeSet<String> {
    let (mut passed, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    for line in report.lines().map(str::trim) {
        let Some((_, name)) = line.strip_prefix("ok ").and_then(|rest| rest.split_once(" - ")) else {
            continue;
        };
        let left_out = name.contains(" # SKIP") || name.contains(" # TODO");
        let ids = conformance::ids(name).into_iter().map(str::to_owned);
        if left_out { &mut skipped } else { &mut passed }.extend(ids);
    }
    passed.retain(|id| !skipped.contains(id));
    passed
}

/// Waits until the partitions are rebalanced. While one is released to another replica a message waits
/// a moment longer, which is not what specifications ask about.
async fn shared_out(stack: &Stack) {
    let replicas = i64::try_from(stack.persistence_replicas().len()).expect("a few");
    let database = stack.database().await.expect("the stack has a database");
    let all_owned = || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT count(DISTINCT owner) = $1 AND bool_and(expires_at > now())
             FROM partition_leases WHERE partition >= 0",
        )
        .bind(replicas)
        .fetch_one(&database)
        .await
    };
    let owned = || async { all_owned().await.is_ok_and(|owned| owned) };
    eventually(SHARING, "every replica owns partitions", owned)
        .await
        .expect("partitions are rebalanced");
}

/// [`run_with`] without further variables.
pub async fn run(stack: &Stack, name: &str, transport: Transport) {
    run_with(stack, name, transport, &[]).await;
}

/// Waits until the gateway takes handshakes, which it refuses while it does not reach persistence.
async fn admits(gateway: &Process) {
    let url = format!("{}/socket.io/?EIO=4&transport=polling", gateway.base_url());
    // Whether the certificate is right is for the specification to decide.
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true);
    let http = http.build().expect("a client");
    let look = || async {
        let status = http.get(&url).send().await?.status().as_u16();
        equal(status, &200).map_err(anyhow::Error::msg)
    };
    eventually(
        ADMITTING,
        format_args!("{} takes handshakes", gateway.name()),
        look,
    )
    .await
    .unwrap();
}

/// Like `wait_with_output`, which would close the standard input at once.
async fn collect(mut child: tokio::process::Child) -> std::process::Output {
    let _held = child.stdin.take();
    child.wait_with_output().await.unwrap()
}

#[test]
fn only_checks_that_ran_and_passed_hold_a_line() {
    let report = "TAP version 13\n\
        ok 1 - S0.c1 S0.m1: who joins hears\n\
        # Subtest: S0.c2: in a suite\n    ok 1 - S0.c2: in a suite\n\
        ok 2 - S0.c3: left out # SKIP\n\
        ok 3 - S0.m1: of two transports # SKIP only one\n\
        not ok 4 - S0.c4: failed\n\
        ok 5 - S0.c5 is no id in front: nor is this\n";
    let held: Vec<_> = passed(report).into_iter().collect();
    assert_eq!(held, ["S0.c1", "S0.c2"]);
}
