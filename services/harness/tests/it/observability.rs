//! What an operator sees: metrics, probes and logs; and what must never be seen there.

use std::collections::BTreeSet;
use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};

use crate::spec::{Transport, run_with};

const CANARY: &str = "canary-4f1d2c";
const SOON: Duration = Duration::from_secs(15);
/// More would mean that a client chooses label values.
const MOST_SERIES_OF_A_METRIC: usize = 200;

/// A metric's sample.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

async fn metrics(process: &Process) -> Vec<Sample> {
    let answer = reqwest::get(format!("{}/metrics", process.internal_url()))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(!text.contains(CANARY), "{text}");
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(sample)
        .collect()
}

/// Reads `name{labels} value`; anything else is a defect.
fn sample(line: &str) -> Sample {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no sample: {line:?}"));
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (
            name,
            labels
                .strip_suffix('}')
                .unwrap_or_else(|| panic!("open labels: {line:?}")),
        ),
        None => (series, ""),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    assert!(!name.is_empty() && name.chars().all(is_name), "{line:?}");
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
    Sample {
        name: name.to_owned(),
        labels: labels.to_owned(),
        value,
    }
}

fn sum(samples: &[Sample], name: &str, labels: &[&str]) -> f64 {
    let matching = samples
        .iter()
        .filter(|sample| sample.name == name && labels.iter().all(|label| sample.labels.contains(label)));
    matching.map(|sample| sample.value).sum()
}

async fn status(url: String) -> anyhow::Result<u16> {
    Ok(reqwest::get(url).await?.status().as_u16())
}

/// Waits until a probe of the process answers so.
async fn answers(process: &Process, path: &str, expected: u16) {
    let url = format!("{}{path}", process.internal_url());
    let what = format!("{path} of {} answers {expected}", process.name());
    let look = || async { equal(status(url.clone()).await?, &expected).map_err(anyhow::Error::msg) };
    eventually(SOON, what, look).await.unwrap();
}

async fn assert_gateways(stack: &Stack) {
    let mut samples = Vec::new();
    for gateway in stack.gateways() {
        samples.extend(metrics(gateway).await);
    }
    let samples = &samples[..];
    for (direction, event) in [
        ("in", "message:send"),
        ("in", "conversation:join"),
        ("in", "receipt:read"),
        ("in", "typing"),
        ("in", "sync"),
        ("out", "message:new"),
        ("in", "other"),
    ] {
        let (direction, event) = (format!("direction=\"{direction}\""), format!("event=\"{event}\""));
        let count = sum(samples, "chat_gateway_events_total", &[&direction, &event]);
        assert!(count > 0.0, "no {direction} {event}");
    }
    assert!(sum(samples, "chat_gateway_slow_consumers_total", &[]) > 0.0);
    assert!(sum(samples, "chat_gateway_connects_total", &["result=\"ok\""]) > 0.0);
    assert!(sum(samples, "chat_gateway_connects_total", &["result=\"refused\""]) > 0.0);
    assert!(
        samples
            .iter()
            .any(|sample| sample.name == "chat_gateway_connections")
    );
    let names: BTreeSet<_> = samples.iter().map(|sample| sample.name.as_str()).collect();
    for name in names {
        let own = samples.iter().filter(|sample| sample.name == name);
        let series: BTreeSet<_> = own.map(|sample| &sample.labels).collect();
        let count = series.len();
        assert!(count <= MOST_SERIES_OF_A_METRIC, "{name} has {count} series");
    }
    for sample in samples {
        assert!(!sample.labels.contains("unknown:"), "{sample:?}");
    }
}

async fn assert_persistence(stack: &Stack) {
    let mut samples = Vec::new();
    for replica in stack.persistence_replicas() {
        samples.extend(metrics(replica).await);
    }
    for name in ["chat_persistence_batch_size", "chat_persistence_commit_seconds"] {
        let count = sum(&samples, &format!("{name}_count"), &[]);
        assert!(count > 0.0, "{name} counts nothing");
        assert!(sum(&samples, &format!("{name}_sum"), &[]) > 0.0, "{name}");
    }
    assert!(
        samples
            .iter()
            .any(|sample| sample.name == "chat_persistence_lag_messages")
    );
    assert!(sum(&samples, "chat_persistence_commands_total", &[]) > 0.0);
    let owned = sum(&samples, "chat_persistence_partitions_owned", &[]);
    assert!(
        (owned - 16.0).abs() < f64::EPSILON,
        "{owned} partitions are owned"
    );
}

/// No log of any process holds content or tokens.
fn assert_discreet(stack: &Stack) {
    let mut read = 0;
    for entry in std::fs::read_dir(stack.folder().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for secret in [CANARY, stack.jwt_secret(), "eyJ"] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{} shows {secret}", path.display());
        }
        read += 1;
    }
    assert!(read >= 6, "only {read} logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_and_slow_clients_are_survived_and_counted_and_nothing_private_is_shown() {
    let stack = Stack::builder()
        .gateways(2)
        .persistence(2)
        // As talkative as an operator may make our own code.
        .env(
            "PARLANCE_TELEMETRY_LOG",
            "info,parlance_gateway=trace,parlance_persistence=trace,parlance_bus=trace,parlance_runtime=trace",
        )
        .start()
        .await
        .unwrap();
    let variables = [
        ("PARLANCE_CANARY", CANARY.to_owned()),
        (
            "PARLANCE_GATEWAY_PID",
            stack.gateway(0).pid().unwrap().to_string(),
        ),
    ];
    for transport in [Transport::Websocket, Transport::Polling] {
        run_with(&stack, "burst", transport, &variables).await;
        run_with(&stack, "traffic", transport, &variables).await;
    }
    assert_gateways(&stack).await;
    assert_persistence(&stack).await;
    assert_discreet(&stack);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_every_process_lives_is_not_ready_and_comes_back_by_itself() {
    let stack = Stack::builder().gateways(1).persistence(1).start().await.unwrap();
    let processes = || stack.gateways().iter().chain(stack.persistence_replicas());
    for process in processes() {
        for path in ["/livez", "/readyz", "/health"] {
            answers(process, path, 200).await;
        }
    }
    let public = |path: &str| format!("{}{path}", stack.gateway(0).base_url());
    assert_eq!(status(public("/health")).await.unwrap(), 200);
    // How the service is doing is nobody's business on the port of clients.
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(status(public(path)).await.unwrap(), 404, "{path}");
    }

    stack.nats().kill();
    for process in processes() {
        answers(process, "/readyz", 503).await;
        answers(process, "/livez", 200).await;
    }
    assert_eq!(status(public("/health")).await.unwrap(), 503);

    // Started while NATS is away: each waits for it instead of giving up.
    for process in processes() {
        process.kill();
        process.spawn().unwrap();
    }
    for process in processes() {
        answers(process, "/livez", 200).await;
        answers(process, "/readyz", 503).await;
        assert!(process.pid().is_some(), "{} ended", process.name());
    }
    stack.nats().start().await.unwrap();
    stack.wait_ready().await.unwrap();
    for process in processes() {
        answers(process, "/readyz", 200).await;
    }
    let url = public("/health");
    let usable = || async { equal(status(url.clone()).await?, &200).map_err(anyhow::Error::msg) };
    eventually(SOON, "usable again", usable).await.unwrap();
}
