//! F1, F2, F16 and F19: what happens to gateways.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::load::Load;

use super::{AWAY, CONVERGED, REPAIRED, Scene, assert_converged};
use crate::soak::Dice;

const SHORT_PAUSE: Duration = Duration::from_secs(5);
const LONG_PAUSE: Duration = Duration::from_secs(30);
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// Small, so that a paused gateway is cut off within seconds.
const PENDING: u32 = 4 << 20;

async fn paused(pause: Duration, fault: &str) {
    let mut scene = Scene::open().await;
    scene.stack.gateway(0).pause();
    scene.goes_on_for(pause).await;
    scene.stack.gateway(0).resume();
    scene.heals().await;
    assert_converged(&scene.close(fault).await, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f2_a_gateway_that_was_paused_for_a_moment_goes_on() {
    paused(SHORT_PAUSE, "F2 gateway SIGSTOP 5 s").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f2_a_gateway_that_was_paused_for_long_goes_on() {
    paused(LONG_PAUSE, "F2 gateway SIGSTOP 30 s").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f1_three_gateways_are_killed_at_random() {
    let mut dice = Dice::seeded();
    let stack = Stack::builder().gateways(3).persistence(2);
    let mut scene = Scene::of(stack, Load::default()).await;
    for _ in 0..8 {
        let index = usize::try_from(dice.roll(3)).unwrap();
        scene.stack.gateway(index).kill();
        scene
            .goes_on_for(Duration::from_millis(500 + dice.roll(2_500)))
            .await;
        scene.stack.gateway(index).start().await.unwrap();
    }
    scene.heals().await;
    assert_converged(&scene.close("F1 gateways kill -9, 8 at random").await, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f16_all_services_are_restarted_one_after_the_other() {
    let mut scene = Scene::open().await;
    let order = [(false, 0), (false, 1), (true, 0), (true, 1)];
    for (gateway, index) in order {
        let process = if gateway {
            scene.stack.gateway(index)
        } else {
            scene.stack.persistence(index)
        };
        process.terminate();
        let status = process.wait_exit(LEAVES_WITHIN).await.unwrap();
        assert!(status.success(), "{} left with {status}", process.name());
        process.start().await.unwrap();
        scene.goes_on_for(AWAY / 2).await;
    }
    scene.heals().await;
    let report = scene.close("F16 rolling restart of everything").await;
    assert_converged(&report, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f19_a_gateway_that_nats_cut_off_finds_what_it_missed() {
    let load = Load {
        padding: 24_000,
        // Half of what others get: these are large, and all that came while it was paused comes beside them.
        rate: 50,
        ..Load::default()
    };
    let stack = Stack::builder().gateways(2).persistence(2).max_pending(PENDING);
    let mut scene = Scene::of(stack, load).await;
    scene.stack.gateway(0).pause();
    scene.goes_on_for(Duration::from_secs(20)).await;
    scene.stack.gateway(0).resume();
    scene.heals().await;
    let log = scene.stack.folder().join("logs/nats.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("Slow Consumer"), "NATS cut nobody off:\n{log}");
    let report = scene.close("F19 gateway SIGSTOP, cut off by NATS").await;
    assert_converged(&report, REPAIRED);
}
