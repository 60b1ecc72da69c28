//! What stands in the way of starting is said in one line.

use std::time::{Duration, Instant};

use parlance_persistence::startup;

use crate::database::{settings, with_database, with_empty_database};

#[tokio::test]
async fn a_missing_migration_is_named_and_migrating_twice_at_once_is_safe() {
    with_empty_database(async |url: String| {
        let settings = settings(&url);
        let mut one = startup::connect(&settings).await.unwrap();
        let mut two = startup::connect(&settings).await.unwrap();
        let refusal = startup::check_schema(&mut one).await.unwrap_err().to_string();
        assert!(
            refusal.contains("20260101000000_init") && refusal.contains("migrate"),
            "{refusal}"
        );
        let (first, second) = tokio::join!(startup::migrate(&mut one), startup::migrate(&mut two));
        first.unwrap();
        second.unwrap();
        startup::check_schema(&mut one).await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET checksum = 'x'")
            .execute(&mut one)
            .await
            .unwrap();
        let refusal = startup::check_schema(&mut one).await.unwrap_err().to_string();
        assert!(refusal.contains("differs"), "{refusal}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    with_database(async |db| {
        let mut connection = startup::connect(&db.settings).await.unwrap();
        startup::check_partitions(&mut connection, 1).await.unwrap();
        let refusal = startup::check_partitions(&mut connection, 2)
            .await
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("ingest.partitions is 2, but 1"), "{refusal}");
    })
    .await;
}

#[tokio::test]
async fn commits_that_may_be_lost_are_refused() {
    with_database(async |db| {
        let off = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
        sqlx::query(off).execute(&db.database.writes).await.unwrap();
        let refusal = startup::connect(&db.settings).await.unwrap_err().to_string();
        assert!(refusal.contains("synchronous_commit is off"), "{refusal}");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_in_time_without_its_password() {
    // Nobody listens on port 1.
    let mut gone = settings("postgres://someone:s3cret@127.0.0.1:1/parlance");
    gone.connect_timeout_ms = 500;
    let started = Instant::now();
    let refusal = startup::connect(&gone).await.unwrap_err().to_string();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(
        refusal.contains("127.0.0.1:1") && refusal.contains("DATABASE_URL"),
        "{refusal}"
    );
    assert!(
        !refusal.contains("s3cret") && !refusal.contains('\n'),
        "{refusal}"
    );
}
