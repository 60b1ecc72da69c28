//! Who may do what, cell by cell: every route and every client event for every role.

use parlance_harness::Stack;

use crate::spec::{Transport, run};

async fn judged(specification: &str) {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    run(&stack, specification, Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_keeps_to_the_table_of_rights() {
    judged("matrix/routes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_keeps_to_the_table_of_rights() {
    judged("matrix/events").await;
}
