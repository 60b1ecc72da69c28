//! Commands in, committed changes out: the loop every durable change of a conversation passes through.
//!
//! All partitions of this replica are merged into one stream of batches, because the cost of a commit is per
//! transaction; beside it is another one for what is costly, see [`lane`]. While the lease of a partition holds, none of its deliveries is ever skipped; when it is lost,
//! all of them are dropped unacknowledged and the next owner gets them in their first order.

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
use tracing::Instrument;

use crate::thread;
use batch::Limits;
use entry::{Entry, Job};
use lane::{Apartward, Core, Lane};

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
        let (apartward, end) = Apartward::new(core.apart.clone());
        let quick = Quick {
            lane: Lane::quick(core.clone(), apartward.clone()),
            apartward,
            partitions: self.partitions,
            limits: self.limits,
        };
        let (quick_hard, apart_hard) = (hard.clone(), hard);
        tokio::join!(
            quick.run(queue, quick_hard),
            thread::apart("apart", move || Lane::work_apart(core, end, apart_hard))
        );
    }
}

/// The lane of most commands.
struct Quick {
    lane: Lane,
    apartward: Apartward,
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
            let (entries, later) = self.apartward.sort_out(entries);
            let span = trace::commit(&entries);
            tokio::select! {
                () = self.lane.process(entries).instrument(span) => {}
                () = hard.cancelled() => return,
            }
            for entry in later {
                self.apartward.send(entry);
            }
        }
    }
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
