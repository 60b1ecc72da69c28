//! `make demo`: runs the JavaScript demonstration against the running stack.

use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

use super::env_file;
use super::folder::DevFolder;
use crate::devstack::repository;
use crate::environment;
use crate::token::Token;

/// Runs the demonstration; its exit code is passed on.
///
/// # Errors
/// No stack runs, Node.js is missing, or its packages are not installed.
pub fn demo(folder: &DevFolder) -> anyhow::Result<ExitCode> {
    let settings = env_file::read(folder)?;
    let secret = settings
        .get("PARLANCE_JWT_SECRET")
        .context("the stack has no secret: run `make up`")?;
    let scripts = repository().join("services/harness/js");
    let node =
        environment::program("node").context("node is not installed: `make doctor` says how to get it")?;
    ensure!(
        scripts.join("node_modules/socket.io-client").is_dir(),
        "socket.io-client is not installed: run `npm ci` in services/harness/js, or use `make demo`"
    );
    let mut command = Command::new(node);
    command.arg(scripts.join("demo.mjs")).envs(&settings);
    for (user, variable) in [("alice", "ALICE_TOKEN"), ("bob", "BOB_TOKEN")] {
        let mut name = user.to_owned();
        name[..1].make_ascii_uppercase();
        command.env(variable, Token::new(user).name(&name).sign(secret)?);
    }
    let status = command.status().context("cannot run the demonstration")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
