//! The five front ends as a person sees them: pages rebuilt from their documents, checked by what they draw.

use std::path::Path;
use std::time::Duration;

use parlance_harness::Stack;
use tokio::process::Command;

use crate::director::directed_over;
use crate::spec::{Transport, run_with};

/// The upgrade is the same for all front ends; other specifications try it.
const TRANSPORTS: [Transport; 2] = [Transport::Websocket, Transport::Polling];

/// Runs what all pages have in common, then what only this one draws.
async fn drawn(front_end: &str, rest: &str) {
    let stack = Stack::builder().gateways(2).persistence(2);
    let stack = stack.start().await.unwrap();
    let variables = [
        ("PARLANCE_FRONTENDS", front_end.to_owned()),
        ("PARLANCE_FRONTENDS_REST", rest.to_owned()),
    ];
    for transport in TRANSPORTS {
        for name in ["frontends/common", "frontends/own"] {
            run_with(&stack, name, transport, &variables).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_front_end_shows_what_its_users_expect() {
    drawn("journal", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encrypted_front_end_shows_what_its_users_expect() {
    drawn("encrypted", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chats_front_end_shows_what_its_users_expect() {
    drawn("chats", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threads_front_end_shows_what_its_users_expect() {
    drawn("threads", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_front_end_shows_what_its_users_expect() {
    drawn("inbox", "named").await;
}

/// `/api` without a dialect serves the pages whose documents use it, `/api/v1` the one that uses that.
#[tokio::test(flavor = "multi_thread")]
async fn pages_whose_requests_name_no_dialect_are_served_too() {
    drawn("encrypted,threads,inbox", "bare").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_is_not_seen_by_any_front_end() {
    for transport in TRANSPORTS {
        let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
        match directed_over(&stack, "frontends/kill", transport, ".", "", &[]).await {
            Ok(text) => println!("{text}"),
            Err(text) => panic!("over {}:\n{text}", transport.name()),
        }
    }
}

/// Longest run of one snippet.
const SNIPPET_LIMIT: Duration = Duration::from_secs(60);

/// A stack of `make up` differs from this one by its address and its secret only.
#[tokio::test(flavor = "multi_thread")]
async fn every_snippet_of_the_readme_runs_as_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let snippets: Vec<_> = blocks
        .filter(|block| block.contains("socket.io-client"))
        .collect();
    assert_eq!(snippets.len(), 5, "one snippet for each front end");
    let stack = Stack::builder().gateways(1).start().await.unwrap();
    for snippet in snippets {
        let here = snippet.replace("http://localhost:4004", stack.gateway(0).base_url());
        let mut command = Command::new("bash");
        let run = command
            .args(["-ec", &here])
            .current_dir(&root)
            .env("PARLANCE_JWT_SECRET", stack.jwt_secret());
        let output = tokio::time::timeout(SNIPPET_LIMIT, run.kill_on_drop(true).output());
        let output = output
            .await
            .unwrap_or_else(|_| panic!("has not ended: {snippet}"))
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{snippet}\n{out}\n{err}");
        // What it prints is a message that was stored.
        let shown = out.contains("Hello!") || out.contains("SGVsbG8h");
        assert!(shown && err.is_empty(), "{snippet}\n{out}\n{err}");
    }
}
