//! Who may do what, cell by cell: every route and every client event for every role.

use parlance_harness::Stack;

use crate::spec::{Transport, run_with};

async fn judged(specification: &str, variables: &[(&str, String)]) {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    run_with(&stack, specification, Transport::Websocket, variables).await;
}

async fn routes_under(prefix: &str) {
    judged("matrix/routes", &[("PARLANCE_PREFIX", prefix.to_owned())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_keeps_to_the_table_of_rights() {
    routes_under("/api/v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_older_route_keeps_to_the_table_of_rights() {
    routes_under("/api").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_keeps_to_the_table_of_rights() {
    judged("matrix/events", &[]).await;
}
