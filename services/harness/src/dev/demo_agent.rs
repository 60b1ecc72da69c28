//! `make demo-agent`: an agent in Rust, then the same in Python, answer in a conversation between front ends of two dialects.
//! On a stack of its own, with the roles of `deploy/nats.conf`: agents follow the feed and send as `shop`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::Stack;
use crate::devstack::accounts::Role;
use crate::devstack::process::Process;
use crate::devstack::service::Kind;
use crate::devstack::{clients, repository};
use crate::environment;

/// Runs both. Whether both answered.
///
/// # Errors
/// Something that they need is missing, or the stack does not start.
pub async fn demo_agent() -> anyhow::Result<bool> {
    let types = tempfile::tempdir()?;
    let made = Command::new(repository().join("proto/clients/generate"))
        .arg(types.path())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    ensure!(
        made.status.success(),
        "the types for Python cannot be made: {said}"
    );
    let stack = Stack::builder()
        .gateways(2)
        .persistence(2)
        .accounts()
        .persistence_env("PARLANCE_FEED_CONSUMERS", "feed")
        .start()
        .await?;
    let in_rust = Kind::Gateway.binary()?.with_file_name("examples").join("agent");
    ensure!(
        in_rust.is_file(),
        "build it: cargo build --workspace --example agent"
    );
    let in_python = repository().join("services/harness/python/agent.py");
    let agents: [(&str, Vec<OsString>); 2] = [
        ("Rust", vec![in_rust.into()]),
        ("Python", vec!["python3".into(), in_python.into()]),
    ];
    for (language, agent) in agents {
        super::report::line(format_args!("An agent in {language}"));
        if !answers(&stack, types.path(), &agent).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn answers(stack: &Stack, types: &Path, agent: &[OsString]) -> anyhow::Result<bool> {
    let scripts = repository().join("services/harness/js");
    let node =
        environment::program("node").context("node is not installed: `make doctor` tells how to get it")?;
    let gateways: Vec<&str> = stack.gateways().iter().map(Process::base_url).collect();
    let packages = std::env::join_paths([types.join("python"), clients::python()?])?;
    let mut command = Command::new(node);
    command
        .arg(scripts.join("demo_agent.mjs"))
        .args(agent)
        .env("PARLANCE_GATEWAYS", gateways.join(","))
        .env("PARLANCE_JWT_SECRET", stack.jwt_secret())
        .env("NATS_URL", stack.nats_url())
        .env("NATS_FEED_PASSWORD", stack.credentials(Role::Feed).1)
        .env("NATS_EMITTER_PASSWORD", stack.credentials(Role::Emitter).1)
        .env("PYTHONPATH", packages)
        // Its end tells the script that nobody waits any more.
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("cannot run the demonstration")?;
    let input = child.stdin.take();
    let status = child.wait().await?;
    drop(input);
    Ok(status.success())
}
