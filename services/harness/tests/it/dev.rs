//! The development stack as its users meet it: the commands behind `make up` and `make down`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use parlance_harness::dev::folder::{DevFolder, MARK};
use parlance_harness::dev::state::State;
use parlance_harness::devstack::identity::{Identity, with_environment};
use parlance_harness::devstack::ports;
use rustix::process::Signal;
use tempfile::TempDir;

/// A development stack in a folder of its own, on free ports; stopped when dropped.
struct Dev {
    root: TempDir,
}

impl Dev {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parlance-dev"));
        for name in [
            "DATABASE_URL",
            "PARLANCE_NATS_URL",
            "PARLANCE_JWT_SECRET",
            "GATEWAYS",
            "PERSISTENCE",
        ] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env(MARK, self.path())
            .env("PORT", "0")
            .env("STACK", "local")
            .env("PARLANCE_DEVSTACK_SERVERS", "wheels");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn state(&self) -> State {
        State::load(&DevFolder::at(self.path()))
    }

    fn processes(&self) -> BTreeMap<String, Identity> {
        let processes = self.state().processes;
        processes
            .into_iter()
            .map(|(name, record)| (name, record.identity))
            .collect()
    }

    fn kill_all(&self) {
        self.processes()
            .values()
            .for_each(|process| process.signal(Signal::KILL));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = std::fs::read_dir(self.path().join("logs"))
                .into_iter()
                .flatten()
                .flatten();
            for log in logs {
                let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                eprintln!(
                    "---- {} ----\n{}",
                    log.path().display(),
                    lines[lines.len().saturating_sub(30)..].join("\n")
                );
            }
        }
        self.run(&["down", "--purge"]);
    }
}

fn names(processes: &BTreeMap<String, Identity>) -> Vec<&str> {
    processes.keys().map(String::as_str).collect()
}

#[test]
fn up_starts_everything_once_and_heals_what_was_killed() {
    let dev = Dev::new();
    let text = dev.succeed(&["up"]);
    assert!(text.contains("curl"), "{text}");
    let first = dev.processes();
    let all = [
        "gateway-1",
        "gateway-2",
        "nats",
        "persistence-1",
        "persistence-2",
        "postgres",
    ];
    assert_eq!(names(&first), all);

    let again = Instant::now();
    dev.succeed(&["up"]);
    assert_eq!(dev.processes(), first, "a serving process was replaced");
    assert!(
        again.elapsed() < Duration::from_secs(5),
        "took {:?} with nothing to do",
        again.elapsed()
    );
    dev.succeed(&["status"]);

    first["gateway-2"].signal(Signal::KILL);
    first["nats"].signal(Signal::STOP);
    dev.succeed(&["up"]);
    let healed = dev.processes();
    assert_eq!(healed["postgres"], first["postgres"]);
    assert_eq!(healed["gateway-1"], first["gateway-1"]);
    assert_ne!(healed["gateway-2"], first["gateway-2"]);
    assert_ne!(healed["nats"], first["nats"]);

    dev.kill_all();
    let mut at_once =
        [dev.command(&["up"]), dev.command(&["up"])].map(|mut command| command.spawn().unwrap());
    assert!(
        at_once
            .iter_mut()
            .all(|command| command.wait().unwrap().success())
    );
    dev.succeed(&["status"]);
    let marked = with_environment(MARK, &dev.path().display().to_string())
        .into_iter()
        .filter_map(Identity::of);
    let known = dev.processes();
    let unknown: Vec<_> = marked
        .filter(|process| !known.values().any(|other| other == process))
        .collect();
    assert!(
        unknown.is_empty(),
        "two commands at once started too much: {unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_this_machine_may_use_the_stack_and_others_may_not() {
    let dev = Dev::new();
    let text = dev.succeed(&["up", "--gateways", "1", "--persistence", "1"]);
    let mut words = text.split_whitespace();
    let gateway = words.find(|word| word.starts_with("http://127.0.0.1:")).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |path: &str, origin: &str| {
        let answer = http.get(format!("{gateway}{path}")).header("origin", origin);
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let handshake = "/socket.io/?EIO=4&transport=polling";
    for origin in [
        "http://localhost:5173",
        "http://localhost",
        "http://127.0.0.1:3000",
        "http://[::1]:8080",
    ] {
        assert_eq!(ask(handshake, origin).await.0, 200, "{origin}");
    }
    for (path, origin) in [
        (handshake, "https://evil.example"),
        ("/api/conversations", "http://localhost.evil.example:5173"),
    ] {
        let (status, body) = ask(path, origin).await;
        assert_eq!(status, 403, "{origin}");
        assert!(body.contains("PARLANCE_CORS_ORIGINS"), "{body}");
    }
    // The packages of services/harness/js are there for every test that uses the stock client.
    let (status, script) = ask("/socket.io/socket.io.js", "http://localhost:5173").await;
    assert_eq!(status, 200);
    assert!(script.contains("Socket.IO v4"));
}

#[test]
fn replicas_follow_what_is_asked_for() {
    let dev = Dev::new();
    dev.succeed(&["up", "--gateways", "1", "--persistence", "1"]);
    let small = dev.processes();
    assert_eq!(names(&small), ["gateway-1", "nats", "persistence-1", "postgres"]);
    dev.succeed(&["up", "--gateways", "3", "--persistence", "2"]);
    let large = dev.processes();
    assert_eq!(large.len(), 7);
    assert!(
        small.iter().all(|(name, process)| large[name] == *process),
        "a kept replica was replaced"
    );
    dev.succeed(&["up", "--gateways", "1", "--persistence", "1"]);
    assert_eq!(dev.processes(), small);
    assert!(!large["gateway-3"].is_alive());
}

#[test]
fn down_leaves_no_process_and_no_port_and_may_be_repeated() {
    let dev = Dev::new();
    dev.succeed(&["up", "--gateways", "1", "--persistence", "1"]);
    let taken: Vec<_> = dev
        .state()
        .processes
        .values()
        .flat_map(|record| [record.port, record.internal_port])
        .collect();
    let processes = dev.processes();
    dev.succeed(&["down"]);
    assert!(processes.values().all(|process| !process.is_alive()));
    assert!(
        taken
            .iter()
            .filter(|port| **port > 0)
            .all(|port| ports::is_free(*port))
    );
    dev.succeed(&["down"]);
    assert!(!dev.run(&["status"]).status.success());
}

#[test]
fn a_taken_port_is_named_before_anything_starts() {
    let dev = Dev::new();
    let port = ports::free().unwrap();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = dev.run(&["up", "--port", &port.to_string()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains(&port.to_string()) && text.contains("PORT=0"),
        "{text}"
    );
    assert!(dev.processes().is_empty());
}

#[test]
fn a_named_server_that_does_not_answer_is_reported_without_its_password() {
    let dev = Dev::new();
    let url = format!("postgres://me:hunter2@127.0.0.1:{}/x", ports::free().unwrap());
    let output = dev.command(&["up"]).env("DATABASE_URL", url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("DATABASE_URL") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn a_token_without_a_stack_is_one_clear_line() {
    let dev = Dev::new();
    let output = dev.run(&["token", "alice"]);
    assert!(!output.status.success() && output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.lines().count() == 1 && text.contains("make up"), "{text}");
}

/// A `docker` that answers `docker info` and knows the subcommand `compose`, or not.
fn engine(folder: &Path, answers: bool) -> String {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("docker");
    let text = format!("#!/bin/sh\n{answers}\n");
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", folder.display())
}

#[test]
fn containers_are_used_where_an_engine_answers_unless_told_otherwise() {
    let programs = tempfile::tempdir().unwrap();
    let dev = Dev::new();
    let ask = |path: &str, stack: &str| {
        let mut command = dev.command(&["engine"]);
        command.env("PATH", path).env("STACK", stack).output().unwrap()
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let dead = engine(programs.path(), false);
    let output = ask(&dead, "");
    assert!(!output.status.success() && said(&output) == "local", "{output:?}");
    let output = ask(&dead, "compose");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.lines().count() == 1 && text.contains("docker info"),
        "{text}"
    );
    let living = engine(programs.path(), true);
    let output = ask(&living, "");
    assert!(
        output.status.success() && said(&output) == "compose",
        "{output:?}"
    );
    let output = ask(&living, "local");
    assert!(!output.status.success() && said(&output) == "local", "{output:?}");
    let output = ask(&living, "swarm");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("swarm") && text.contains("local"), "{text}");
}
