//! Who may do what, cell by cell: every route and every client event for every role.

use parlance_harness::Stack;

use crate::spec::{Transport, run_with};

async fn judged(specification: &str, part: &str, prefix: &str) {
    let stack = Stack::builder().gateways(2).persistence(2);
    let stack = stack.patient().start().await.unwrap();
    let variables = [
        ("PARLANCE_PART", part.to_owned()),
        ("PARLANCE_PREFIX", prefix.to_owned()),
    ];
    run_with(&stack, specification, Transport::Websocket, &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_keeps_to_the_table_of_rights() {
    judged("matrix/routes", "1/2", "/api/v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_route_keeps_to_the_table_of_rights() {
    judged("matrix/routes", "2/2", "/api/v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_older_route_keeps_to_the_table_of_rights() {
    judged("matrix/routes", "1/2", "/api").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_older_route_keeps_to_the_table_of_rights() {
    judged("matrix/routes", "2/2", "/api").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_keeps_to_the_table_of_rights() {
    judged("matrix/events", "1/2", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_event_keeps_to_the_table_of_rights() {
    judged("matrix/events", "2/2", "").await;
}
