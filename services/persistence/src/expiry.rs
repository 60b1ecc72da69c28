//! Forgets processed commands that cannot be redelivered any more, idempotency keys with their answers, settled reports
//! of messages, and dead letters beyond what is kept of them. Every replica does it; each takes rows that no other holds.

use std::time::Duration;

use parlance_bus::Bus;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::without_content;
use crate::store::dead_letters::{self, Kept};
use crate::store::{keys, processed, reports};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(10);
/// In which of its rounds it looks for dead letters: there is no index for what it asks.
const LETTERS_EVERY: u8 = 6;
/// Dead letters, or reports, forgotten by one statement; each may have a large payload.
const LETTERS_BATCH: i64 = 1_000;
/// Commands, or keys, forgotten by one statement.
const BATCH: i64 = 5_000;
/// By how much the clocks of NATS and of the database may differ.
const SKEW_MS: i64 = 300_000;

/// What the task needs.
pub(crate) struct Expiry {
    /// Knows how old the waiting commands are.
    pub(crate) bus: Bus,
    /// Where all of it is.
    pub(crate) database: Database,
    /// How long commands are remembered at least: NATS may come back with what it had some time ago.
    pub(crate) age: Duration,
    /// Of dead letters.
    pub(crate) letters: Kept,
    /// How many days settled reports of messages are kept.
    pub(crate) report_days: i32,
}

impl Expiry {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(EVERY);
        let mut letters = 0_u8;
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            letters = (letters + 1) % LETTERS_EVERY;
            tokio::select! {
                () = self.round(letters == 0) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn round(&self, with_letters: bool) {
        if let Err(error) = forget_keys(&self.database).await {
            let cause = without_content(&error);
            tracing::warn!(cause, "idempotency keys are not forgotten; trying again");
        }
        if with_letters && let Err(error) = self.forget_letters().await {
            let cause = without_content(&error);
            tracing::warn!(cause, "dead letters are not forgotten; trying again");
        }
        if with_letters && let Err(error) = forget_reports(&self.database, self.report_days).await {
            let cause = without_content(&error);
            tracing::warn!(cause, "settled reports are not deleted; trying again");
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

    async fn forget_letters(&self) -> Result<(), sqlx::Error> {
        for of_commands in [true, false] {
            loop {
                let mut connection = self.database.writes.acquire().await?;
                let forgotten =
                    dead_letters::forget(&mut connection, of_commands, self.letters, LETTERS_BATCH).await?;
                if forgotten > 0 {
                    tracing::warn!(
                        forgotten,
                        of_commands,
                        "dead letters beyond what is kept are deleted"
                    );
                }
                if forgotten < LETTERS_BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Deletes reports of messages that were settled so many days ago.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub async fn forget_reports(database: &Database, days: i32) -> Result<(), sqlx::Error> {
    loop {
        let mut connection = database.writes.acquire().await?;
        if reports::forget(&mut connection, days, LETTERS_BATCH).await? < LETTERS_BATCH.unsigned_abs() {
            return Ok(());
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
