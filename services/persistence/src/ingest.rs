//! Commands in, committed changes out: the loop every durable change of a conversation passes through.
//!
//! All partitions of this replica are merged into one stream of batches, because the cost of a commit is per
//! transaction; beside it are one for journals and one for what is costly, see [`lane`]. While the lease of a partition
//! holds, none of its deliveries is ever skipped; when it is lost, all of them are dropped unacknowledged and the next
//! owner gets them in their first order.

pub mod announce;
pub mod answer;
pub mod apply;
pub mod batch;
pub mod commit;
pub mod entry;
pub mod finish;
pub mod lane;
pub mod pull;
pub mod trace;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::thread;
use batch::Limits;
use entry::{Entry, Job};
use lane::{Core, Lane, Way, Ways};

/// What the loop needs.
pub struct Ingest {
    /// What carries commands out.
    pub core: Core,
    /// Partitions of the command stream.
    pub partitions: u16,
    /// Sizes of a batch.
    pub limits: Limits,
}

impl Ingest {
    /// Works until the queue is closed and empty, or `hard` is cancelled.
    pub async fn run(self, queue: mpsc::Receiver<Job>, hard: CancellationToken) {
        let core = Arc::new(self.core);
        let (apart, apart_end) = Way::new();
        let (journals, journals_end) = Way::new();
        let quick = Quick {
            lane: Lane::new(core.clone(), Some(apart.clone())),
            ways: Ways {
                journals: Some(journals),
                apart: apart.clone(),
            },
            partitions: self.partitions,
            limits: self.limits,
        };
        // Each ends when those before it have, and no way leads to it any more.
        tokio::join!(
            quick.run(queue, hard.clone()),
            thread::apart("journals", {
                let (core, hard) = (core.clone(), hard.clone());
                move || Lane::work_on_journals(core, journals_end, apart, hard)
            }),
            thread::apart("apart", move || Lane::work_apart(core, apart_end, hard))
        );
    }
}

/// The lane of most commands.
struct Quick {
    lane: Lane,
    ways: Ways,
    partitions: u16,
    limits: Limits,
}

impl Quick {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>, hard: CancellationToken) {
        let mut busy = false;
        let size = |job: &Job| job.delivery.payload.len();
        loop {
            let jobs = tokio::select! {
                jobs = batch::collect(&mut queue, &self.limits, busy, size) => jobs,
                () = hard.cancelled() => return,
            };
            if jobs.is_empty() {
                return;
            }
            busy = jobs.len() * 4 >= self.limits.max;
            metrics::histogram!("chat_persistence_batch_size").record(as_f64(jobs.len()));
            let entries = jobs
                .into_iter()
                .map(|job| Entry::read(job, self.partitions))
                .collect();
            if !self.lane.sort_and_process(&self.ways, entries, &hard).await {
                return;
            }
        }
    }
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
