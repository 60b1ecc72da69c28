//! The five front ends as a person sees them: pages rebuilt from their documents, checked by what they draw.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use parlance_harness::Stack;
use tokio::process::Command;

use crate::director::directed_over;
use crate::spec::{Transport, run_with};

/// The upgrade is the same for all front ends; other specifications try it.
const TRANSPORTS: [Transport; 2] = [Transport::Websocket, Transport::Polling];

/// Runs what all pages have in common, then what only this one draws.
async fn drawn(front_end: &str, rest: &str, transports: &[Transport]) {
    let stack = Stack::builder().gateways(2).persistence(2);
    let stack = stack.patient().start().await.unwrap();
    let variables = [
        ("PARLANCE_FRONTENDS", front_end.to_owned()),
        ("PARLANCE_FRONTENDS_REST", rest.to_owned()),
    ];
    for &transport in transports {
        for name in ["frontends/common", "frontends/own"] {
            run_with(&stack, name, transport, &variables).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_front_end_shows_what_its_users_expect() {
    drawn("journal", "named", &TRANSPORTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encrypted_front_end_shows_what_its_users_expect() {
    drawn("encrypted", "named", &TRANSPORTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chats_front_end_shows_what_its_users_expect() {
    drawn("chats", "named", &TRANSPORTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threads_front_end_shows_what_its_users_expect() {
    drawn("threads", "named", &TRANSPORTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_front_end_shows_what_its_users_expect() {
    drawn("inbox", "named", &TRANSPORTS).await;
}

/// `/api` without a dialect serves the pages whose documents use it, `/api/v1` the one that uses that. REST has no
/// transport, so one is enough.
#[tokio::test(flavor = "multi_thread")]
async fn pages_whose_requests_name_no_dialect_are_served_too() {
    drawn("encrypted,threads,inbox", "bare", &[Transport::Websocket]).await;
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

/// They are run as they stand, but for the address, and with a `make` that signs tokens for this stack.
#[tokio::test(flavor = "multi_thread")]
async fn the_snippets_of_the_readme_run_as_pasted() {
    let stack = Stack::builder().gateways(1).persistence(1).start().await.unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("services/gateway/README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1);
    let snippets: Vec<&str> = blocks
        .filter_map(|block| block.split_once("\n```"))
        .map(|(snippet, _)| snippet)
        .filter(|snippet| snippet.starts_with("# S"))
        .collect();
    assert_eq!(snippets.len(), 5);
    let sign = format!(
        "make() {{ case \"$*\" in *SUB=1*) echo {};; *SUB=alice*) echo {};; *) exit 1;; esac; }}",
        stack.token("1"),
        stack.token("alice")
    );
    let address = stack.gateway(0).base_url();
    for snippet in snippets {
        let script = format!("{sign}\n{}", snippet.replace("http://localhost:4004", address));
        let running = Command::new("bash")
            .args(["-euc", &script])
            .current_dir(&root)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), running)
            .await
            .unwrap_or_else(|_| panic!("it did not end: {snippet}"))
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{snippet}\n{shown}\n{errors}");
        let brings_the_message = shown.contains("Hello!") || shown.contains("SGVsbG8h");
        assert!(brings_the_message, "{snippet}\n{shown}\n{errors}");
    }
}
