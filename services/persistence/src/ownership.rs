//! Which leases this process believes to hold. Belief is enough to stop early; what a batch may commit is
//! decided by the rows inside its transaction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Partitions and the epochs they are held under. Clones share one table.
#[derive(Debug, Clone, Default)]
pub struct Owned(Arc<Mutex<BTreeMap<u16, u64>>>);

impl Owned {
    /// Whether the partition is held under this epoch.
    pub fn holds(&self, partition: u16, epoch: u64) -> bool {
        self.table().get(&partition) == Some(&epoch)
    }

    /// The partitions that are held.
    pub fn partitions(&self) -> Vec<u16> {
        self.table().keys().copied().collect()
    }

    /// Notes a lease.
    pub fn add(&self, partition: u16, epoch: u64) {
        self.table().insert(partition, epoch);
        self.count();
    }

    /// Forgets a lease.
    pub fn remove(&self, partition: u16) {
        self.table().remove(&partition);
        self.count();
    }

    fn count(&self) {
        let owned = u32::try_from(self.table().len()).unwrap_or(u32::MAX);
        metrics::gauge!("chat_persistence_partitions_owned").set(f64::from(owned));
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
