//! Programs of `js/` that keep clients connected beside a test and write down what happens to them: one JSON line for each
//! event. They end when they are dropped.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use parlance_harness::Stack;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Starts one whose clients connect to these addresses; its lines are added to `lines`.
pub(crate) fn observe<L: DeserializeOwned + Send + 'static>(
    stack: &Stack,
    addresses: &[&str],
    program: &str,
    arguments: &[&str],
    lines: &Arc<Mutex<Vec<L>>>,
) -> Child {
    let mut child = Command::new("node")
        .arg(program)
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("js"))
        .env("PARLANCE_GATEWAYS", addresses.join(","))
        .env("PARLANCE_JWT_SECRET", stack.jwt_secret())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = Arc::clone(lines);
    tokio::spawn(async move {
        while let Ok(Some(line)) = output.next_line().await {
            let line = serde_json::from_str(&line).unwrap();
            seen.lock().unwrap().push(line);
        }
    });
    child
}
