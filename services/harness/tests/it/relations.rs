//! What users decide about each other and about the conversations they are in, across two gateways.

use parlance_harness::Stack;

use crate::spec::{Transport, run};

#[tokio::test(flavor = "multi_thread")]
async fn what_users_decide_about_each_other_holds_everywhere() {
    let stack = Stack::builder().gateways(2).persistence(2);
    let stack = stack.patient().start().await.unwrap();
    run(&stack, "relations", Transport::Websocket).await;
}
