//! Turns for what takes a core and much memory for long, such as comparing two whole texts.
//!
//! A user has one at a time, however many requests and sessions ask, and all users together no more than half of the
//! cores: a user who sends text after text waits for himself. Nobody waits longer than two seconds for a turn, or for a core.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use parlance_proto::UserId;
use parlance_proto::v1::ErrorCode;
use parlance_runtime::tasks;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::error::ClientError;
use crate::slots::{Slot, Slots};

/// How long a turn, or a core for it, is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The turns of all users, and how many compute at once.
pub struct Turns {
    users: Slots,
    cores: Arc<Semaphore>,
}

/// The turn of a user. What it computes goes on where nobody waits for it any more, and the turn with it.
pub struct Turn {
    slot: Arc<Slot>,
    cores: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2);
        Self {
            users: Slots::new(NonZeroUsize::MIN),
            cores: Arc::new(Semaphore::new(cores)),
        }
    }
}

impl Turns {
    /// The user's turn, as soon as what he asked for before has ended.
    ///
    /// # Errors
    /// It has not ended for a while.
    pub async fn turn(&self, user: UserId) -> Result<Turn, ClientError> {
        let slot = timeout(PATIENCE, self.users.wait(user)).await;
        let earlier = "your earlier changes of journals are not computed yet; send fewer at once";
        let slot = slot.map_err(|_| ClientError::new(ErrorCode::RateLimited, earlier))??;
        Ok(Turn {
            slot: Arc::new(slot),
            cores: Arc::clone(&self.cores),
        })
    }
}

impl Turn {
    /// Computes beside the runtime.
    ///
    /// # Errors
    /// No core was free for a while, or `work` panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ClientError> {
        let core = timeout(PATIENCE, Arc::clone(&self.cores).acquire_owned()).await;
        let busy = "many journals are being changed; try again";
        let core = core.map_err(|_| ClientError::new(ErrorCode::Unavailable, busy))?;
        let core = core.map_err(|_| ClientError::internal())?;
        let held = (Arc::clone(&self.slot), core);
        let done = tasks::blocking("journal", move || {
            let _held = held;
            work()
        });
        done.await.map_err(|_| ClientError::internal())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_user_waits_for_himself_also_where_he_has_gone_and_nobody_else_does() {
        let turns = Turns::default();
        let user = |id: &str| UserId::parse(id).unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let turn = turns.turn(user("mallory")).await.ok().unwrap();
        let mut computed = Box::pin(turn.compute(move || ended.recv()));
        assert!(futures::poll!(&mut computed).is_pending());
        drop(computed);
        drop(turn);
        assert!(turns.turn(user("alice")).await.is_ok());
        let refused = turns.turn(user("mallory")).await.err().unwrap();
        assert_eq!((refused.code, refused.retry), ("rate_limited", true));
        end.send(()).unwrap();
        assert!(turns.turn(user("mallory")).await.is_ok());
    }
}
