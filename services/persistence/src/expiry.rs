//! Forgets processed commands that cannot be redelivered any more, and idempotency keys with their answers. Every replica
//! does it; each takes rows that no other holds.

use std::time::Duration;

use parlance_bus::Bus;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::without_content;
use crate::store::{keys, processed};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(10);
/// Commands, or keys, forgotten by one statement.
const BATCH: i64 = 5_000;
/// By how much the clocks of NATS and of the database may differ.
const SKEW_MS: i64 = 300_000;

/// What the task needs.
pub(crate) struct Expiry {
    bus: Bus,
    database: Database,
    /// How long commands are remembered at least: NATS may come back with what it had some time ago.
    age: Duration,
}

impl Expiry {
    pub(crate) fn new(bus: &Bus, database: &Database, remember_minutes: u64) -> Self {
        Self {
            bus: bus.clone(),
            database: database.clone(),
            age: Duration::from_secs(remember_minutes * 60),
        }
    }

    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = self.round() => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn round(&self) {
        if let Err(error) = forget_keys(&self.database).await {
            let cause = without_content(&error);
            tracing::warn!(cause, "idempotency keys are not forgotten; trying again");
        }
        let oldest = match self.bus.oldest_command().await {
            Ok(oldest) => oldest,
            Err(error) => {
                tracing::debug!(%error, "not known how old the waiting commands are; nothing is forgotten");
                return;
            }
        };
        if let Err(error) = self.forget(oldest).await {
            let cause = without_content(&error);
            tracing::warn!(cause, "processed commands are not forgotten; trying again");
        }
    }

    async fn forget(&self, oldest_ms: Option<i64>) -> Result<(), sqlx::Error> {
        let before = oldest_ms.map(|oldest| oldest.saturating_sub(SKEW_MS));
        loop {
            let mut connection = self.database.writes.acquire().await?;
            let forgotten = processed::forget(&mut connection, self.age, before, BATCH).await?;
            if forgotten < BATCH.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// Forgets keys that are an hour old, with their answers.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub async fn forget_keys(database: &Database) -> Result<(), sqlx::Error> {
    let most = BATCH.unsigned_abs();
    loop {
        let mut connection = database.keys.acquire().await?;
        let forgotten = keys::forget(&mut connection, BATCH).await?;
        if forgotten < most {
            return keys::forget_usage(&mut connection).await;
        }
    }
}
