//! What clients see of a database that was put back from a backup.

use parlance_harness::Stack;

use crate::director::directed;

#[tokio::test(flavor = "multi_thread")]
async fn clients_read_anew_after_a_restore_and_former_members_hear_no_more() {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    directed(&stack, "faults/restore", ".", "")
        .await
        .unwrap_or_else(|text| panic!("{text}"));
}
