//! A service whose answer streams while every part of the stack is killed.

use parlance_harness::Stack;

use crate::director::directed_with;
use crate::streams::agent;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_streams_through_kills_of_every_part_without_a_lost_or_doubled_character() {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    match directed_with(&stack, "faults/streams", ".", "", &agent(&stack)).await {
        Ok(text) => println!("{text}"),
        Err(text) => panic!("{text}"),
    }
}
