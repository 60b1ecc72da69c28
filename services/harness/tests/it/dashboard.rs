//! Whether what operators look at shows anything: a real Prometheus scrapes a live stack and is asked every query
//! of the dashboard; every metric that an alert asks for is there; a fault raises its alert, and its end ends it.
//!
//! What the alerts say of made-up series is tested by `deploy/observability/check`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, ensure};
use parlance_harness::Stack;
use parlance_harness::devstack::account::Account;
use parlance_harness::devstack::launch::{Launch, Lifetime};
use parlance_harness::devstack::process::Process;
use parlance_harness::devstack::{ports, repository};
use parlance_harness::environment;
use parlance_harness::eventually::eventually;
use serde_json::Value;

use crate::spec::{Transport, run_with};

/// Prometheus loads its rules, finds its targets and sees two samples of each.
const SEEN: Duration = Duration::from_secs(60);
/// What `get-prometheus` says where Prometheus cannot be had.
const NOT_TO_BE_HAD: i32 = 3;

/// A running Prometheus with the rules of this repository.
struct Prometheus {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    async fn start(program: PathBuf, stack: &Stack) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let observability = repository().join("deploy/observability");
        let targets = |processes: &[Process]| {
            let addresses = processes.iter().map(|process| {
                let address = process.internal_url().trim_start_matches("http://");
                format!("'{address}'")
            });
            addresses.collect::<Vec<_>>().join(", ")
        };
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: parlance-gateway\n  static_configs: [{{targets: [{}]}}]\n\
             - job_name: parlance-persistence\n  static_configs: [{{targets: [{}]}}]\n",
            observability.join("alerts.yml").display(),
            targets(stack.gateways()),
            targets(stack.persistence_replicas()),
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        let launch = Launch {
            name: "prometheus".into(),
            program,
            arguments: vec![
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", folder.path().join("data").display()),
                format!("--web.listen-address={address}"),
            ],
            environment: Vec::new(),
            stdout: None,
            log: folder.path().join("log"),
            lifetime: Lifetime::WithParent,
            account: Account::Caller,
            orphan_signal: "KILL",
        };
        let child = launch.spawn()?;
        let url = format!("http://{address}");
        let started = Self {
            child,
            url,
            _folder: folder,
        };
        let ready = || async {
            let answer = reqwest::get(format!("{}/-/ready", started.url)).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            anyhow::Ok(())
        };
        eventually(SEEN, "Prometheus is ready", ready).await?;
        Ok(started)
    }

    /// Series that an expression has now.
    async fn ask(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let address = format!("{}/api/v1/query", self.url);
        let question = reqwest::Url::parse_with_params(&address, [("query", expression)])?;
        let answer: Value = reqwest::get(question).await?.json().await?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array();
        Ok(series.with_context(|| format!("{expression}: {answer}"))?.clone())
    }

    async fn shows(&self, expression: &str) {
        let look = || async {
            let series = self.ask(expression).await?;
            ensure!(!series.is_empty(), "nothing");
            anyhow::Ok(())
        };
        eventually(SEEN, format_args!("a series of {expression}"), look)
            .await
            .unwrap();
    }

    async fn shows_nothing(&self, expression: &str) {
        let look = || async {
            let series = self.ask(expression).await?;
            ensure!(series.is_empty(), "{series:?}");
            anyhow::Ok(())
        };
        eventually(SEEN, format_args!("no series of {expression}"), look)
            .await
            .unwrap();
    }
}

/// The program; none where it cannot be had and need not be.
fn program() -> Option<PathBuf> {
    let output = Command::new(repository().join("deploy/observability/get-prometheus"))
        .output()
        .unwrap();
    if output.status.success() {
        let folder = String::from_utf8(output.stdout).unwrap();
        return Some(PathBuf::from(folder.trim()).join("prometheus"));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let needed = environment::variable("PARLANCE_PROMETHEUS_REQUIRED").is_some();
    let excused = output.status.code() == Some(NOT_TO_BE_HAD) && !needed;
    assert!(excused, "{said}");
    eprintln!("NOT TESTED: {said}");
    None
}

/// Titles and expressions of all panels.
fn questions() -> Vec<(String, String)> {
    let path = repository().join("deploy/observability/grafana/dashboards/parlance.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            let title = panel["title"].as_str().unwrap_or_default().to_owned();
            targets
                .into_iter()
                .map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
        })
        .collect()
}

/// Metrics that alerts ask for.
fn metrics_of_alerts() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("deploy/observability/alerts.yml")).unwrap();
    let expressions = text.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    expressions
        .flat_map(|expression| expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("chat_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_are_about_what_a_live_stack_shows() {
    let Some(program) = program() else { return };
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    let prometheus = Prometheus::start(program, &stack).await.unwrap();
    let canary = [("PARLANCE_CANARY", "unremarkable".to_owned())];
    run_with(&stack, "traffic", Transport::Websocket, &canary).await;

    let questions = questions();
    assert!(questions.len() > 30, "{} questions", questions.len());
    for (title, expression) in &questions {
        println!("{title}: {expression}");
        prometheus.shows(expression).await;
    }
    let metrics = metrics_of_alerts();
    assert!(metrics.len() > 15, "{metrics:?}");
    for metric in &metrics {
        prometheus.shows(metric).await;
    }

    // Nobody is called for a healthy stack.
    let critical = r#"ALERTS{severity="critical"}"#;
    prometheus.shows_nothing(critical).await;
    let alert = |name: &str| format!(r#"ALERTS{{alertname="{name}"}}"#);
    stack.nats().kill();
    prometheus.shows(&alert("ParlanceNatsUnreachable")).await;
    stack.nats().start().await.unwrap();
    prometheus.shows_nothing(&alert("ParlanceNatsUnreachable")).await;
    stack.postgres().kill();
    prometheus.shows(&alert("ParlanceDatabaseUnreachable")).await;
    stack.postgres().start().await.unwrap();
    prometheus
        .shows_nothing(&alert("ParlanceDatabaseUnreachable"))
        .await;
    for replica in stack.persistence_replicas() {
        replica.kill();
    }
    prometheus.shows(&alert("ParlanceNoPersistence")).await;
    prometheus.shows(&alert("ParlanceReplicaDown")).await;
    for replica in stack.persistence_replicas() {
        replica.spawn().unwrap();
    }
    stack.wait_ready().await.unwrap();
    prometheus.shows_nothing(critical).await;
}
