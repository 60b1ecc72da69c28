//! F3, F4, F14 and F15: what happens to persistence.

use std::path::Path;
use std::time::Duration;

use parlance_harness::eventually::{equal, eventually};

use super::{AWAY, CONVERGED, FAILOVER, Scene, assert_converged};
use crate::soak::Dice;
use crate::system_messages::Service;

const SOON: Duration = Duration::from_secs(15);
/// Beyond every lease.
const PAST_THE_LEASES: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f3_replicas_are_killed_every_two_seconds_for_a_minute() {
    let mut dice = Dice::seeded();
    let mut scene = Scene::open().await;
    for _ in 0..30 {
        let replica = usize::try_from(dice.roll(2)).unwrap();
        scene.stack.persistence(replica).kill();
        scene.goes_on_for(Duration::from_secs(2)).await;
        scene.stack.persistence(replica).start().await.unwrap();
    }
    scene.heals().await;
    let report = scene.close("F3 persistence kill -9 every 2 s, 60 s").await;
    assert_converged(&report, CONVERGED);
}

/// The rows of all conversations are held by someone else until both replicas wait for them in the middle of a
/// batch; there the first is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn f4_a_replica_is_paused_in_the_middle_of_a_batch() {
    let mut scene = Scene::open().await;
    let rows = scene.stack.database().await.unwrap();
    let mut marker = rows.begin().await.unwrap();
    sqlx::query("SELECT FROM conversations FOR UPDATE")
        .execute(&mut *marker)
        .await
        .unwrap();
    let waiting = || async {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE application_name = 'parlance-persistence' AND wait_event_type = 'Lock'";
        let count: i64 = sqlx::query_scalar(query).fetch_one(&rows).await?;
        anyhow::ensure!(count >= 2, "{count} wait");
        anyhow::Ok(())
    };
    eventually(SOON, "both replicas are in the middle of a batch", waiting)
        .await
        .unwrap();
    scene.stack.persistence(0).pause();
    marker.rollback().await.unwrap();
    scene.goes_on_for(PAST_THE_LEASES).await;
    scene.stack.persistence(0).resume();
    scene.heals().await;
    let report = scene.close("F4 persistence SIGSTOP in a batch").await;
    assert!(
        report.timing.longest_pause <= FAILOVER + Duration::from_secs(5),
        "{report}"
    );
    assert_converged(&report, CONVERGED);
}

/// Random bytes, text with NUL, and nearly as much as the bus takes, on every partition: unreadable, so parked. And
/// a readable command that lacks all that matters: only rejected.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f15_poison_from_the_bus_is_parked_and_delays_nobody() {
    let mut scene = Scene::open().await;
    let mut dice = Dice::seeded();
    let mut service = Service::connect(&scene.stack).await;
    let random: Vec<u8> = (0..5_000)
        .map(|_| u8::try_from(dice.roll(256)).unwrap())
        .collect();
    let large = vec![0xff; 1_000_000];
    let payloads: [&[u8]; 4] = [&random, b"\x0a\x03abc\x12\x00", b"a\0b\0c", &large];
    for partition in 0..16 {
        let subject = format!("chat.cmd.{partition}.01890000-0000-7000-8000-000000000000");
        for payload in payloads {
            service.publish(&subject, None, None, payload).await;
        }
    }
    scene.heals().await;
    let rows = scene.stack.database().await.unwrap();
    let parked = || async {
        let query = sqlx::query_scalar("SELECT count(*) FROM dead_letters");
        let count: i64 = query.fetch_one(&rows).await?;
        equal(count, &48).map_err(anyhow::Error::msg)
    };
    eventually(SOON, "all of it is parked", parked).await.unwrap();
    let report = scene.close("F15 poison on every partition").await;
    assert_eq!(report.counts.unknown, 0, "{report}");
    assert!(report.timing.longest_pause <= Duration::from_secs(5), "{report}");
}

/// Leases, order and repeats are decided by the database's clock; those of the replicas may say what they like.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults, where libfaketime is installed"]
async fn f14_replicas_whose_clocks_are_hours_apart_agree() {
    let mut scene = Scene::open().await;
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime is not installed");
    let rows = scene.stack.database().await.unwrap();
    for (index, offset) in [(0, "+1h"), (1, "-1h"), (0, "-1h"), (1, "+1h")] {
        let replica = scene.stack.persistence(index);
        replica.kill();
        let variables = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset)];
        replica.start_with(&variables).await.unwrap();
        let log = replica.log_tail(1);
        let time = log.split_whitespace().next().unwrap_or_default();
        let shifted: bool =
            sqlx::query_scalar("SELECT abs(extract(epoch FROM now() - $1::text::timestamptz)) > 3000")
                .bind(time)
                .fetch_one(&rows)
                .await
                .unwrap();
        assert!(shifted, "the clock of {} is right: {log}", replica.name());
        scene.goes_on_for(AWAY).await;
    }
    scene.heals().await;
    assert_converged(
        &scene.close("F14 replicas one hour ahead and behind").await,
        CONVERGED,
    );
}
