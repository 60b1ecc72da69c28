//! The transaction of a batch: leases, locks, rules, rows, commit. All or nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parlance_bus::faults;
use parlance_proto::{ConversationId, v1};
use sqlx::{Acquire, PgConnection};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::answer::{Answer, ReadBack};
use super::apply::apply;
use crate::database::Held;
use crate::error::BatchError;
use crate::model::position::Position;
use crate::model::state::Bounds;
use crate::model::work::Work;
use crate::store::kept::KeptJournals;
use crate::store::{attempts, batch, writes};

/// A batch that was committed.
#[derive(Debug, Default)]
pub struct Committed {
    /// One per command, in their order.
    pub answers: Vec<Answer>,
    /// Those of its conversations of which the feed lacks events, and after which position, as the database knew after
    /// `started`.
    pub behind: HashMap<ConversationId, Position>,
    /// When the transaction began; `None` if there was none.
    pub started: Option<Instant>,
}

/// What is carried out in one transaction.
pub struct Batch<'a> {
    /// This replica, as leases name it.
    pub owner: &'a str,
    /// Partitions and epochs it is carried out under.
    pub leases: &'a [(u16, u64)],
    /// In their order.
    pub works: &'a [&'a Work],
    /// How large what users make may become.
    pub bounds: Bounds,
    /// Journals that were just written.
    pub kept_journals: &'a KeptJournals,
    /// Whether attempts at the commands are counted.
    pub is_apart: bool,
}

/// Carries out the commands under their leases.
///
/// # Errors
/// Nothing was committed, or with [`BatchError::TimedOut`] and lost connections perhaps: the same commands
/// may be given again.
pub async fn commit(held: &mut Held, batch: &Batch<'_>, patience: Duration) -> Result<Committed, BatchError> {
    let connection = timeout(patience, held.get())
        .await
        .map_err(|_| BatchError::TimedOut)??;
    match timeout(patience, transaction(connection, batch)).await {
        Ok(Ok(committed)) => Ok(committed),
        Ok(Err(error)) => {
            if !matches!(error, BatchError::LeaseLost(_)) {
                held.discard();
            }
            Err(error)
        }
        Err(_) => {
            held.abandon().await;
            Err(BatchError::TimedOut)
        }
    }
}

/// The outcome of a single command that is not carried out.
pub fn rejected(error: v1::Error) -> Committed {
    Committed {
        answers: vec![Answer::rejected(error)],
        ..Committed::default()
    }
}

async fn transaction(connection: &mut PgConnection, batch: &Batch<'_>) -> Result<Committed, BatchError> {
    let &Batch {
        owner,
        leases,
        works,
        bounds,
        kept_journals,
        is_apart,
    } = batch;
    let started = Some(Instant::now());
    let mut tx = connection.begin().await?;
    let check = batch::check_leases(&mut tx, owner, leases).await?;
    let lost: BTreeSet<u16> = leases
        .iter()
        .map(|lease| lease.0)
        .filter(|partition| !check.held.contains(partition))
        .collect();
    if !lost.is_empty() {
        tx.rollback().await?;
        return Err(BatchError::LeaseLost(lost.into_iter().collect()));
    }
    let mut loaded = batch::load(&mut tx, check, works, bounds, kept_journals).await?;
    let mut effects = apply(&mut loaded, works.iter().copied());
    writes::write(&mut tx, &loaded, &effects).await?;
    let read_back = ReadBack::read(&mut tx, &loaded, works, &mut effects).await?;
    let outcomes = std::mem::take(&mut effects.outcomes);
    let answers = works
        .iter()
        .zip(outcomes)
        .map(|(work, outcome)| read_back.answer(&loaded, work, outcome))
        .collect();
    if is_apart {
        let ids: Vec<Uuid> = works.iter().map(|work| work.id.uuid()).collect();
        attempts::forget(&mut tx, &ids).await?;
    }
    faults::crash_at("before_commit");
    tx.commit().await?;
    faults::crash_at("after_commit");
    let behind = std::mem::take(&mut loaded.feed_behind);
    kept_journals.put(loaded);
    Ok(Committed {
        answers,
        behind,
        started,
    })
}
