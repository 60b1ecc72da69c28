//! Clients that come and go, or whose gateway is killed again and again: they end with what the server has.

use parlance_harness::{Stack, environment};

use crate::director::directed_with;
use crate::spec::{Transport, run_with};

/// Kills of one specification: it may not take longer than any other.
const ROUNDS: u32 = 10;

async fn killed(rounds: u32, specifications: u32, pushed: bool) {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    for _ in 0..specifications {
        let variables = [
            ("PARLANCE_KILLS", rounds.to_string()),
            ("PARLANCE_PUSHED", u8::from(pushed).to_string()),
        ];
        match directed_with(&stack, "faults/kills", ".", "", &variables).await {
            Ok(text) => println!("{text}"),
            Err(text) => panic!("{text}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_front_end_survives_the_end_of_its_gateway() {
    killed(3, 1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn every_front_end_survives_fifty_ends_of_its_gateway() {
    killed(ROUNDS, 5, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_front_end_is_pushed_what_it_missed() {
    killed(ROUNDS, 1, true).await;
}

/// Hundreds of random conversations with a client that is offline now and then.
async fn modelled(hundreds: u64) {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    let seed = environment::variable("PARLANCE_FAULTS_SEED").and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(environment::scatter) % (1 << 31);
    for hundred in 0..hundreds {
        let variables = [
            ("PARLANCE_CASES", "100".to_owned()),
            ("PARLANCE_SEED", (seed + hundred * 100).to_string()),
        ];
        run_with(&stack, "faults/model", Transport::Websocket, &variables).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_and_goes_ends_with_what_the_server_has() {
    modelled(1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn a_thousand_clients_that_come_and_go_end_with_what_the_server_has() {
    modelled(10).await;
}
