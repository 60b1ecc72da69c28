//! A lease at work: the task that pulls under it and what of it is in flight.

use std::time::Duration;

use parlance_runtime::tasks;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Leases;
use crate::ingest::pull::{self, Partition};
use crate::intake;

/// A lease and its task.
pub(super) struct Running {
    epoch: u64,
    stop: CancellationToken,
    in_flight: TaskTracker,
    task: JoinHandle<()>,
    leaving_since: Option<Instant>,
}

impl Running {
    /// Starts pulling a partition.
    pub(super) fn partition(leases: &Leases, partition: u16, epoch: u64, suspect: bool) -> Self {
        let (stop, in_flight) = (CancellationToken::new(), TaskTracker::new());
        let lease = Partition {
            partition,
            epoch,
            suspect,
            stop: stop.clone(),
            in_flight: in_flight.clone(),
        };
        let pull = pull::run(leases.bus.clone(), lease, leases.queue.clone());
        let task = tasks::spawn_at(&leases.runtime, "pull", pull);
        Self {
            epoch,
            stop,
            in_flight,
            task,
            leaving_since: None,
        }
    }

    /// Starts turning services' messages into commands.
    pub(super) fn intake(leases: &Leases, epoch: u64) -> Self {
        let stop = CancellationToken::new();
        let intake = intake::Intake {
            bus: leases.bus.clone(),
            database: leases.database.clone(),
            partitions: leases.partitions,
            limits: leases.intake_limits,
        };
        let task = tasks::spawn_at(&leases.runtime, "intake", intake.run(epoch, stop.clone()));
        Self {
            epoch,
            stop,
            in_flight: TaskTracker::new(),
            task,
            leaving_since: None,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends at once; what is in flight is not waited for.
    pub(super) fn stop(self) {
        self.stop.cancel();
    }

    /// Takes nothing more; what is in flight may end.
    pub(super) fn leave(&mut self) {
        self.stop.cancel();
        self.in_flight.close();
        self.leaving_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving_since.is_some()
    }

    /// Whether nothing is in flight any more, or it took longer than `patience`.
    pub(super) fn has_left(&self, patience: Duration) -> bool {
        let Some(since) = self.leaving_since else {
            return false;
        };
        (self.task.is_finished() && self.in_flight.is_empty()) || since.elapsed() >= patience
    }
}
