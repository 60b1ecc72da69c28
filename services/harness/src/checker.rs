//! Holds what clients did and saw against what the database holds, and reports every broken promise.
//!
//! Knows histories and tables only, nothing of how the services work, so that it cannot share their errors.

mod database;
mod delivery;
mod report;
mod storage;
mod timing;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::history::History;
pub use database::{ChangeRow, ConversationRows, Database, MessageRow};
pub use report::{Flaw, Invariant, Report, Violation};
pub use timing::{SAMPLE, Timing};

/// Checks a history against the database. Times count from the marks `fault` and `healed`, where there are.
#[must_use]
pub fn check(history: &History, database: &Database) -> Report {
    let mut violations = storage::check(history, database);
    violations.extend(delivery::check(history, database));
    Report {
        counts: report::Counts::of(history),
        timing: Timing::of(history, database),
        violations,
    }
}

/// Groups by key, keeping the order within a group.
fn grouped<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut groups = BTreeMap::<K, Vec<V>>::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}
