//! F10 and F11: what happens to Postgres.

use std::time::Duration;

use parlance_harness::devstack::identity::Identity;
use rustix::process::Signal;
use sqlx::PgPool;

use super::{AWAY, CONVERGED, REPAIRED, Scene, assert_converged};

const STORM: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_secs(2);
const EXIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f10_an_immediate_stop_of_postgres_loses_nothing() {
    let mut scene = Scene::open().await;
    signal(scene.stack.postgres().pid().unwrap(), Signal::QUIT);
    scene.stack.postgres().wait_exit(EXIT).await.unwrap();
    scene.goes_on_for(AWAY).await;
    scene.stack.postgres().start().await.unwrap();
    scene.heals().await;
    assert_converged(&scene.close("F10 Postgres immediate stop").await, REPAIRED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f10_connections_of_postgres_are_ended_again_and_again() {
    let mut scene = Scene::open().await;
    let rows = scene.stack.database().await.unwrap();
    for _ in 0..40 {
        let ended = end_backends(&rows, "true").await;
        assert!(ended > 0, "no connection was there to be ended");
        scene.goes_on_for(STORM).await;
    }
    scene.heals().await;
    let report = scene.close("F10 pg_terminate_backend storm").await;
    assert_converged(&report, REPAIRED);
}

/// The connection ends while the client waits for the answer to its COMMIT: the rows are stored, and nobody is
/// told so.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f5_a_connection_is_lost_during_the_commit() {
    let mut scene = Scene::open().await;
    let rows = scene.stack.database().await.unwrap();
    let mut ended = 0;
    for _ in 0..3 {
        // Commits wait for a standby that does not exist.
        standby(&rows, "ghost").await;
        scene.goes_on_for(Duration::from_secs(1)).await;
        ended += end_backends(&rows, "wait_event = 'SyncRep'").await;
        standby(&rows, "").await;
        scene.goes_on_for(Duration::from_secs(1)).await;
    }
    assert!(ended > 0, "no commit was waiting");
    scene.heals().await;
    let report = scene.close("F5 connection lost during COMMIT").await;
    assert_converged(&report, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f11_locked_tables_only_delay() {
    let mut scene = Scene::open().await;
    let rows = scene.stack.database().await.unwrap();
    for _ in 0..3 {
        let mut lock = rows.begin().await.unwrap();
        sqlx::query("LOCK TABLE messages")
            .execute(&mut *lock)
            .await
            .unwrap();
        scene.goes_on_for(SLOW).await;
        lock.rollback().await.unwrap();
        scene.goes_on_for(SLOW).await;
    }
    scene.heals().await;
    assert_converged(&scene.close("F11 LOCK TABLE 3 times 2 s").await, CONVERGED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-faults"]
async fn f11_a_paused_checkpointer_is_not_noticed() {
    let mut scene = Scene::open().await;
    let rows = scene.stack.database().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        .fetch_one(&rows)
        .await
        .unwrap();
    let pid = u32::try_from(pid).unwrap();
    signal(pid, Signal::STOP);
    scene.goes_on_for(AWAY * 3).await;
    signal(pid, Signal::CONT);
    scene.heals().await;
    assert_converged(&scene.close("F11 checkpointer SIGSTOP 12 s").await, CONVERGED);
}

/// Ends the service's connections that fit; returns how many.
async fn end_backends(rows: &PgPool, fits: &str) -> i64 {
    let query = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'parlance-persistence' AND {fits}"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(rows)
        .await
        .unwrap()
}

async fn standby(rows: &PgPool, name: &str) {
    let setting = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
    sqlx::query(sqlx::AssertSqlSafe(setting))
        .execute(rows)
        .await
        .unwrap();
    sqlx::query("SELECT pg_reload_conf()")
        .execute(rows)
        .await
        .unwrap();
}

fn signal(pid: u32, signal: Signal) {
    Identity::of(pid).unwrap().signal(signal);
}
