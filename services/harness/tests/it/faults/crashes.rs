//! F5: a process ends at each point where its end could matter. Needs services that were built with failpoints.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::load::Load;

use super::{CONVERGED, Scene, assert_converged};

/// A process under load gets to each point within this time.
const SOON: Duration = Duration::from_secs(30);

async fn crashes(point: &str, replicas: fn(&Stack) -> &[Process], fault: &str) {
    let stack = Stack::builder().gateways(2).persistence(2).failpoints("");
    let mut scene = Scene::of(stack, Load::default()).await;
    // Twice, at different places of the load.
    for after in [20, 70] {
        let [victim, other] = replicas(&scene.stack) else {
            unreachable!("there are two of each");
        };
        victim.kill();
        let points = format!("{point}={after}*off->1*return");
        victim
            .start_with(&[("PARLANCE_FAILPOINTS", &points)])
            .await
            .unwrap();
        // Clients that had gone to the other one come back: while it is there, all of them may stay.
        other.kill();
        victim.wait_exit(SOON).await.unwrap();
        other.start().await.unwrap();
        scene.goes_on_for(Duration::from_secs(1)).await;
        replicas(&scene.stack)[0].start().await.unwrap();
    }
    scene.heals().await;
    assert_converged(&scene.close(fault).await, CONVERGED);
}

macro_rules! crash_points {
    ($($(#[$when:meta])? $test:ident: $point:literal of $process:ident, $fault:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        $(#[$when])?
        async fn $test() {
            crashes($point, Stack::$process, $fault).await;
        }
    )*};
}

crash_points! {
    #[ignore = "make test-faults"]
    f5_a_gateway_dies_before_it_publishes: "before_publish" of gateways, "F5 gateway dies before publish";
    f5_a_gateway_dies_after_it_published: "after_publish" of gateways, "F5 gateway dies after publish";
    #[ignore = "make test-faults"]
    f5_a_replica_dies_before_its_commit: "before_commit" of persistence_replicas, "F5 persistence dies before commit";
    f5_a_replica_dies_after_its_commit: "after_commit" of persistence_replicas, "F5 persistence dies after commit";
    #[ignore = "make test-faults"]
    f5_a_replica_dies_before_it_acknowledges: "before_ack" of persistence_replicas, "F5 persistence dies before ack";
}
