//! The five front ends as a person sees them: pages rebuilt from their documents, checked by what they draw.
//!
//! Some of these checks still fail, so they run on demand only: `cargo test -p parlance-harness --test it frontends:: --
//! --ignored`.

use parlance_harness::Stack;

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
#[ignore = "not all of it holds yet"]
async fn the_journal_front_end_shows_what_its_users_expect() {
    drawn("journal", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not all of it holds yet"]
async fn the_encrypted_front_end_shows_what_its_users_expect() {
    drawn("encrypted", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not all of it holds yet"]
async fn the_chats_front_end_shows_what_its_users_expect() {
    drawn("chats", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not all of it holds yet"]
async fn the_threads_front_end_shows_what_its_users_expect() {
    drawn("threads", "named").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not all of it holds yet"]
async fn the_inbox_front_end_shows_what_its_users_expect() {
    drawn("inbox", "named").await;
}

/// `/api` without a dialect serves the pages whose documents use it, `/api/v1` the one that uses that.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "not all of it holds yet"]
async fn pages_whose_requests_name_no_dialect_are_served_too() {
    drawn("encrypted,threads,inbox", "bare").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not all of it holds yet"]
async fn a_killed_gateway_is_not_seen_by_any_front_end() {
    for transport in TRANSPORTS {
        let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
        match directed_over(&stack, "frontends/kill", transport, ".", "", &[]).await {
            Ok(text) => println!("{text}"),
            Err(text) => panic!("over {}:\n{text}", transport.name()),
        }
    }
}
