//! Taking the deliveries of one partition, in order, for as long as its lease is ours.

use std::time::Duration;

use parlance_bus::{Bus, ErrorKind, Puller};
use parlance_runtime::backoff::Backoff;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entry::Job;

/// Deliveries taken at once.
const BATCH: usize = 256;
/// Pauses after failures of the bus; also how long an owner waits before it takes back a partition that a late predecessor
/// grabbed. The lease loop stops this task when the lease is really lost.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Patience for deleting our consumer: the next owner deletes it anyway.
const GIVE_UP: Duration = Duration::from_secs(1);

/// One partition under one lease.
pub struct Partition {
    /// Which.
    pub partition: u16,
    /// The lease's epoch.
    pub epoch: u64,
    /// Whether the last owner ended without giving it back: what it had in hand may be what ended it.
    pub suspect: bool,
    /// Cancelled when the lease is given up or lost.
    pub stop: CancellationToken,
    /// Counts deliveries that are not done with.
    pub in_flight: TaskTracker,
}

/// Pulls until stopped.
pub async fn run(bus: Bus, lease: Partition, queue: mpsc::Sender<Job>) {
    let stop = lease.stop.clone();
    let mut puller = None;
    tokio::select! {
        () = stop.cancelled() => {}
        () = pull(&bus, &lease, &queue, &mut puller) => {}
    }
    metrics::gauge!("chat_persistence_lag_messages", "partition" => lease.partition.to_string()).set(0.0);
    if let Some(puller) = puller
        && let Ok(Err(error)) = timeout(GIVE_UP, puller.give_up()).await
    {
        tracing::debug!(%error, partition = lease.partition, "consumer not deleted");
    }
}

/// Returns only when the queue is closed.
async fn pull(bus: &Bus, lease: &Partition, queue: &mpsc::Sender<Job>, slot: &mut Option<Puller>) {
    // Everything that waits at the takeover, as far as the last owner can have had it.
    let mut suspects = if lease.suspect { None } else { Some(0) };
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let lag = metrics::gauge!("chat_persistence_lag_messages", "partition" => lease.partition.to_string());
    loop {
        let puller = match slot {
            Some(puller) => puller,
            None => match bus.take_partition(lease.partition, lease.epoch).await {
                Ok(puller) => slot.insert(puller),
                Err(error) => {
                    tracing::warn!(%error, partition = lease.partition, "cannot take the partition yet");
                    backoff.pause().await;
                    continue;
                }
            },
        };
        match puller.next_batch(BATCH).await {
            Ok(deliveries) => {
                backoff.reset();
                if let Some(last) = deliveries.last() {
                    lag.set(f64::from(u32::try_from(last.pending).unwrap_or(u32::MAX)));
                }
                for delivery in deliveries {
                    let waiting = suspects.get_or_insert((delivery.pending + 1).min(Puller::MOST_IN_HAND));
                    let suspect = *waiting > 0;
                    *waiting = waiting.saturating_sub(1);
                    let token = lease.in_flight.token();
                    let job = Job {
                        delivery,
                        partition: lease.partition,
                        epoch: lease.epoch,
                        suspect,
                        token,
                    };
                    if queue.send(job).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, partition = lease.partition, "pull interrupted");
                if error.kind() == ErrorKind::Gone {
                    *slot = None;
                }
                backoff.pause().await;
            }
        }
    }
}
