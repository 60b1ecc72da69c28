//! The transaction of a batch: leases, locks, rules, rows, commit. All or nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use parlance_bus::faults;
use sqlx::{Acquire, PgConnection};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::timeout;

use super::answer::{Answer, ReadBack};
use super::apply::apply;
use super::work::{Action, Work};
use crate::database::Held;
use crate::error::BatchError;
use crate::store::{batch, writes};

/// Carries out the commands under the given leases. One answer per command, in their order.
///
/// # Errors
/// Nothing was committed, or with [`BatchError::TimedOut`] and lost connections perhaps: the same commands
/// may be given again.
pub async fn commit(
    held: &mut Held,
    owner: &str,
    leases: &[(u16, u64)],
    works: &[&Work],
    patience: Duration,
) -> Result<Vec<Answer>, BatchError> {
    let connection = timeout(patience, held.get())
        .await
        .map_err(|_| BatchError::TimedOut)??;
    match timeout(patience, transaction(connection, owner, leases, works)).await {
        Ok(Ok(answers)) => Ok(answers),
        Ok(Err(error)) => {
            if !matches!(error, BatchError::LeaseLost(_)) {
                held.discard();
            }
            Err(error)
        }
        Err(_) => {
            held.discard();
            Err(BatchError::TimedOut)
        }
    }
}

async fn transaction(
    connection: &mut PgConnection,
    owner: &str,
    leases: &[(u16, u64)],
    works: &[&Work],
) -> Result<Vec<Answer>, BatchError> {
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
    let mut loaded = batch::load(&mut tx, check, works).await?;
    let mut effects = if works
        .iter()
        .any(|work| matches!(work.action, Action::EditJournal(_)))
    {
        beside_other_tasks(|| apply(&mut loaded, works.iter().copied()))
    } else {
        apply(&mut loaded, works.iter().copied())
    };
    writes::write(&mut tx, &loaded, &effects).await?;
    let read_back = ReadBack::read(&mut tx, &loaded, works, &mut effects).await?;
    let outcomes = std::mem::take(&mut effects.outcomes);
    let answers = works
        .iter()
        .zip(outcomes)
        .map(|(work, outcome)| read_back.answer(&loaded, work, outcome))
        .collect();
    faults::crash_at("before_commit");
    tx.commit().await?;
    faults::crash_at("after_commit");
    Ok(answers)
}

/// Computes for a while. The other tasks of this thread, such as the renewal of leases, go on in another one.
fn beside_other_tasks<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        // Of tests: there is no other thread.
        _ => work(),
    }
}
