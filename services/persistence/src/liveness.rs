//! Whether this replica reaches its database, found out beside all queries: the answer to a ping waits for none of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::without_content;
use crate::store::epoch;

/// Pause between two probes.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the latest answer of the database counts: a probe that takes its time is no failure yet.
const COUNTS: Duration = Duration::from_secs(3);

/// What the latest probe found. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Liveness(Arc<Mutex<Option<Instant>>>);

impl Liveness {
    /// Whether the database answered lately.
    pub fn is_alive(&self) -> bool {
        let answered_at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answered_at.is_some_and(|at| at.elapsed() < COUNTS)
    }

    /// Asks the database now and then until `stop`, over a connection of its own.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, database: Database, stop: CancellationToken) -> anyhow::Result<()> {
        let mut held = database.held();
        loop {
            let probe = async { epoch::current(held.get().await?).await };
            let found = match timeout(PATIENCE, probe).await {
                Ok(Ok(_)) => Some(Instant::now()),
                Ok(Err(error)) => {
                    tracing::debug!(
                        cause = without_content(&error),
                        "the database does not answer a probe"
                    );
                    None
                }
                Err(_) => None,
            };
            if found.is_none() {
                held.discard();
            }
            self.note(found);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    fn note(&self, found: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_the_database_counts_for_a_while_and_a_failure_at_once() {
        let liveness = Liveness::default();
        assert!(!liveness.is_alive());
        liveness.note(Some(Instant::now()));
        tokio::time::advance(COUNTS - Duration::from_millis(1)).await;
        assert!(liveness.is_alive());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!liveness.is_alive());
        liveness.note(Some(Instant::now()));
        liveness.note(None);
        assert!(!liveness.is_alive());
    }
}
