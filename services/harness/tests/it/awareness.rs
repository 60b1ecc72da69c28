//! Clients that keep a journal's Yjs document themselves: differences, names and cursors.

use parlance_harness::Stack;

use crate::director::directed;
use crate::spec::{Transport, run};

async fn replicas() -> Stack {
    Stack::builder().gateways(2).persistence(1).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_and_names_are_shown_to_those_who_joined_and_end_in_time() {
    let stack = replicas().await;
    for transport in [Transport::Websocket, Transport::Polling] {
        run(&stack, "awareness", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_state_vector_exchanges_differences_instead_of_texts() {
    let stack = replicas().await;
    for transport in [Transport::Websocket, Transport::Polling] {
        run(&stack, "journal_sync", transport).await;
    }
}

/// Two pages of the example, each with an editor in a document of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_codemirror_example_shares_text_and_cursors_and_loses_neither_to_killed_connections() {
    let stack = replicas().await;
    match directed(&stack, "codemirror", ".", "").await {
        Ok(text) => println!("{text}"),
        Err(text) => panic!("{text}"),
    }
}
