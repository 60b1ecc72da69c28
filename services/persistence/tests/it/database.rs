//! A database for one test.

use std::future::Future;

use parlance_harness::{Stack, environment};
use parlance_persistence::database::{Database, DatabaseSettings, Held};
use parlance_persistence::ingest::answer::Answer;
use parlance_persistence::ingest::commit::{Batch, commit};
use parlance_persistence::model::journal::Limits;
use parlance_persistence::model::state::Bounds;
use parlance_persistence::model::work::Work;
use parlance_persistence::store::kept::KeptJournals;
use parlance_persistence::store::leases;
use parlance_persistence::{error::BatchError, startup};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(60);
/// As in `defaults.toml`.
pub(crate) const LIMITS: Limits = Limits {
    text_bytes: 384 * 1024,
    update_bytes: 448 * 1024,
    document_bytes: 4 * 1024 * 1024,
    work: 2_000_000,
};
const BOUNDS: Bounds = Bounds {
    journals: LIMITS,
    inline_participants: 100,
    group_members: 10_000,
    user_conversations: 20_000,
    group_bans: 10_000,
    user_reports: 100,
};
const OWNER: &str = "this replica";

/// A migrated database in which this process owns partition 0.
pub(crate) struct TestDatabase {
    pub(crate) settings: DatabaseSettings,
    pub(crate) database: Database,
    held: Held,
    lease: (u16, u64),
    kept: KeptJournals,
    pub(crate) bounds: Bounds,
}

/// Runs `test` on a fresh database; drops it whether the test succeeds or not.
pub(crate) async fn with_database<F, Fut>(test: F)
where
    F: FnOnce(TestDatabase) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    with_empty_database(async |url: String| {
        let settings = settings(&url);
        let mut connection = startup::connect(&settings).await.unwrap();
        startup::migrate(&mut connection).await.unwrap();
        let database = Database::new(&settings).unwrap();
        let mut held = database.held();
        let lease = own(held.get().await.unwrap(), OWNER).await;
        tokio::spawn(test(TestDatabase {
            settings,
            database,
            held,
            lease,
            kept: KeptJournals::default(),
            bounds: BOUNDS,
        }))
        .await
    })
    .await;
}

/// The same without tables.
pub(crate) async fn with_empty_database<T>(test: T)
where
    T: AsyncFnOnce(String) -> Result<(), tokio::task::JoinError>,
{
    let started;
    let server = match environment::variable("DATABASE_URL") {
        Some(url) => url,
        None => {
            started = Stack::builder().servers_only().start().await.unwrap();
            started.database_url().to_owned()
        }
    };
    let name = format!("test_{}", environment::random_hex());
    let mut connection = PgConnection::connect(&server).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let (address, _) = server.rsplit_once('/').unwrap();
    let result = test(format!("{address}/{name}")).await;
    let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    sqlx::query(drop).execute(&mut connection).await.unwrap();
    if let Err(failure) = result {
        std::panic::resume_unwind(failure.into_panic());
    }
}

pub(crate) fn settings(url: &str) -> DatabaseSettings {
    DatabaseSettings {
        url: url.to_owned().into(),
        max_connections: 4,
        connect_timeout_ms: 5_000,
        read_timeout_ms: 5_000,
        write_timeout_ms: 10_000,
    }
}

async fn own(connection: &mut PgConnection, owner: &str) -> (u16, u64) {
    startup::check_partitions(connection, 1).await.unwrap();
    let taken = leases::take(connection, owner, &[0], 1, TTL)
        .await
        .unwrap()
        .leases;
    (0, taken[0].1)
}

impl TestDatabase {
    /// Commits the commands as one batch.
    pub(crate) async fn try_commit(&mut self, works: &[Work]) -> Result<Vec<Answer>, BatchError> {
        let works: Vec<&Work> = works.iter().collect();
        let batch = Batch {
            owner: OWNER,
            leases: &[self.lease],
            works: &works,
            bounds: self.bounds,
            kept_journals: &self.kept,
            is_apart: false,
        };
        commit(&mut self.held, &batch, Duration::from_secs(10))
            .await
            .map(|committed| committed.answers)
    }

    /// Commits the commands as one batch, which must succeed.
    pub(crate) async fn commit(&mut self, works: &[Work]) -> Vec<Answer> {
        self.try_commit(works).await.unwrap()
    }

    /// As another replica would, which has worked on nothing yet.
    pub(crate) async fn commit_elsewhere(&mut self, works: &[Work]) -> Vec<Answer> {
        let kept = std::mem::take(&mut self.kept);
        let answers = self.commit(works).await;
        self.kept = kept;
        answers
    }

    /// Someone else takes the partition.
    pub(crate) async fn lose_the_lease(&mut self) {
        let mut connection = self.database.writes.acquire().await.unwrap();
        let lease = (i32::from(self.lease.0), self.lease.1);
        leases::release(&mut connection, OWNER, &[lease]).await.unwrap();
        assert_eq!(
            leases::take(&mut connection, "another", &[0], 1, TTL)
                .await
                .unwrap()
                .leases
                .len(),
            1
        );
    }

    /// One number out of the database.
    pub(crate) async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar(sql)
            .fetch_one(&self.database.writes)
            .await
            .unwrap()
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.database.writes)
            .await
            .unwrap()
    }
}
