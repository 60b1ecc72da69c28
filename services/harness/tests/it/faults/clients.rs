//! F13 and F18: what clients do.

use parlance_harness::Stack;
use parlance_harness::load::Load;

use super::{AWAY, CONVERGED, REPAIRED, Scene, assert_converged};
use crate::metrics::metric;

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_storm_of_repeats_over_all_gateways_is_one_message_each() {
    let load = Load {
        copies: 5,
        rate: 60,
        ..Load::default()
    };
    let stack = Stack::builder().gateways(2).persistence(2);
    let mut scene = Scene::of(stack, load).await;
    scene.goes_on_for(AWAY).await;
    scene.heals().await;
    let report = scene.close("F18 every send 5 times at once").await;
    assert_converged(&report, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f13_clients_that_stop_reading_are_closed_and_come_back_whole() {
    let load = Load {
        padding: 16_000,
        rate: 100,
        sleepers: 3,
        ..Load::default()
    };
    let stack = Stack::builder()
        .gateways(2)
        .persistence(2)
        .gateway_env("PARLANCE_SOCKET_MAX_BACKLOG_BYTES", 1 << 20);
    let mut scene = Scene::of(stack, load).await;
    scene.goes_on_for(AWAY * 10).await;
    let mut closed = 0.0;
    for gateway in scene.stack.gateways() {
        closed += metric(gateway, "chat_gateway_slow_consumers_total")
            .await
            .unwrap();
        closed += metric(gateway, "chat_gateway_disconnects_total").await.unwrap();
    }
    assert!(closed > 0.0, "nobody was too slow");
    scene.heals().await;
    let report = scene.close("F13 three clients read nothing for 12 s").await;
    assert_converged(&report, REPAIRED);
}
