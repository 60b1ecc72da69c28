//! F6, F7 and F20: what happens to NATS and its streams.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::eventually;
use parlance_harness::load::Load;

use super::{AWAY, CONVERGED, REPAIRED, Scene, assert_converged};
use crate::system_messages::Service;

/// The disk of a machine that lost its power: the server wakes up with its store as it was some seconds ago.
#[tokio::test(flavor = "multi_thread")]
async fn f7_nats_forgets_its_last_seconds_and_nothing_acked_is_lost() {
    let mut scene = Scene::open().await;
    let store = scene.stack.folder().join("nats/store");
    let saved = scene.stack.folder().join("nats-before");
    scene.stack.nats().pause();
    copy(&store, &saved);
    scene.stack.nats().resume();
    scene.goes_on_for(AWAY * 2).await;
    scene.stack.nats().kill();
    std::fs::remove_dir_all(&store).unwrap();
    copy(&saved, &store);
    scene.stack.nats().start().await.unwrap();
    scene.heals().await;
    let report = scene.close("F7 NATS forgets its last 8 s").await;
    assert_converged(&report, REPAIRED);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

async fn deleted(what: &[&str], fault: &str) {
    let mut scene = Scene::open().await;
    let mut operator = Service::connect(&scene.stack).await;
    for subject in what {
        let answer = operator
            .publish(&format!("$JS.API.{subject}"), None, None, b"")
            .await;
        assert_eq!(answer["success"], true, "{subject}: {answer}");
        scene.goes_on_for(Duration::from_secs(1)).await;
    }
    scene.heals().await;
    let report = scene.close(fault).await;
    assert_converged(&report, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_deleted_streams_are_made_again() {
    let streams = [
        "STREAM.DELETE.COMMANDS",
        "STREAM.DELETE.EVENTS",
        "STREAM.DELETE.SYSTEM",
    ];
    deleted(&streams, "F20 all streams deleted").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f20_deleted_consumers_are_made_again() {
    let mut scene = Scene::open().await;
    let mut operator = Service::connect(&scene.stack).await;
    let answer = operator
        .publish("$JS.API.CONSUMER.NAMES.COMMANDS", None, None, b"")
        .await;
    let names = answer["consumers"].as_array().unwrap().clone();
    assert_eq!(names.len(), 16, "{answer}");
    for name in names {
        let subject = format!("$JS.API.CONSUMER.DELETE.COMMANDS.{}", name.as_str().unwrap());
        let answer = operator.publish(&subject, None, None, b"").await;
        assert_eq!(answer["success"], true, "{subject}: {answer}");
    }
    scene.heals().await;
    let report = scene.close("F20 all consumers deleted").await;
    assert_converged(&report, CONVERGED);
}

/// A scene on a cluster of three, and the process that leads this stream.
async fn led(stream: &str) -> (Scene, usize) {
    let stack = Stack::builder().gateways(2).persistence(2).nats_cluster();
    let scene = Scene::of(stack, Load::default()).await;
    let leader = eventually(AWAY, "the stream has a leader", || leader(&scene.stack, stream))
        .await
        .unwrap();
    (scene, leader)
}

async fn leader(stack: &Stack, stream: &str) -> Option<usize> {
    let mut operator = Service::connect(stack).await;
    let answer = operator
        .publish(&format!("$JS.API.STREAM.INFO.{stream}"), None, None, b"")
        .await;
    let leader = answer["cluster"]["leader"].as_str().map(str::to_owned);
    let mut servers = stack.nats_servers().iter();
    servers.position(|server| leader.as_deref() == Some(server.name()))
}

async fn leader_is_killed(stream: &str) {
    let (mut scene, leader) = led(stream).await;
    scene.stack.nats_servers()[leader].kill();
    scene.goes_on_for(AWAY * 2).await;
    scene.stack.nats_servers()[leader].start().await.unwrap();
    scene.heals().await;
    scene.goes_on_for(AWAY * 4).await;
    let report = scene
        .close(&format!("F6 NATS R3 leader of {stream} kill -9"))
        .await;
    assert_converged(&report, REPAIRED);
}

/// For longer than the others wait until they choose another leader: 4 to 9 s.
async fn leader_is_paused(stream: &str) {
    let (mut scene, leader) = led(stream).await;
    scene.stack.nats_servers()[leader].pause();
    scene.goes_on_for(AWAY * 3).await;
    scene.stack.nats_servers()[leader].resume();
    scene.heals().await;
    scene.goes_on_for(AWAY * 4).await;
    let report = scene
        .close(&format!("F6 NATS R3 leader of {stream} SIGSTOP 12 s"))
        .await;
    assert_converged(&report, REPAIRED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f6_the_leader_of_a_cluster_is_killed() {
    leader_is_killed("COMMANDS").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f6_the_leader_of_a_cluster_is_paused() {
    leader_is_paused("COMMANDS").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f6_the_leader_of_the_feed_is_killed() {
    leader_is_killed("EVENTS").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f6_the_leader_of_the_feed_is_paused() {
    leader_is_paused("EVENTS").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f6_all_servers_of_a_cluster_are_killed() {
    let (mut scene, _) = led("COMMANDS").await;
    scene.stack.nats_servers().iter().for_each(Process::kill);
    scene.goes_on_for(AWAY).await;
    for server in scene.stack.nats_servers() {
        server.spawn().unwrap();
    }
    scene.stack.wait_ready().await.unwrap();
    scene.heals().await;
    scene.goes_on_for(AWAY * 4).await;
    assert_converged(&scene.close("F6 NATS R3 all kill -9").await, REPAIRED);
}
