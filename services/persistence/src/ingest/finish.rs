//! The end of a command: once the feed has its events, its delivery is acknowledged. Runs beside the loop so
//! that the next batch need not wait.

use std::time::Duration;

use parlance_bus::{Bus, StreamSettings};
use parlance_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::announce::{Announced, Announcement};
use super::entry::Entry;
use crate::leases::Owned;

/// Parts of batches that may wait for the feed.
const QUEUE: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Patience for handing one command to the stream before it is tried anew.
const HAND_IN: Duration = Duration::from_secs(5);

/// The way to the finishing task.
pub struct Finisher(mpsc::Sender<(Vec<Entry>, Announced)>);

/// The finishing task.
pub struct Finishing {
    queue: mpsc::Receiver<(Vec<Entry>, Announced)>,
    bus: Bus,
    streams: StreamSettings,
    partitions: u16,
    owned: Owned,
}

impl Finisher {
    /// The task and the way to it.
    pub fn new(bus: Bus, streams: StreamSettings, partitions: u16, owned: Owned) -> (Self, Finishing) {
        let (tx, queue) = mpsc::channel(QUEUE);
        (
            Self(tx),
            Finishing {
                queue,
                bus,
                streams,
                partitions,
                owned,
            },
        )
    }

    /// Hands over a part whose answers are out.
    pub async fn finish(&self, part: Vec<Entry>, announced: Announced) {
        // A task that is gone means the process ends: what is not acknowledged comes again.
        let _ = self.0.send((part, announced)).await;
    }
}

impl Finishing {
    /// Works until every [`Finisher`] is gone and nothing is left, or `hard` is cancelled.
    pub async fn run(mut self, hard: CancellationToken) {
        loop {
            let next = tokio::select! {
                next = self.queue.recv() => next,
                () = hard.cancelled() => None,
            };
            let Some((part, announced)) = next else { return };
            tokio::select! {
                () = self.finish(part, announced) => {}
                () = hard.cancelled() => return,
            }
        }
    }

    async fn finish(&self, part: Vec<Entry>, announced: Announced) {
        let Announced {
            events,
            confirmed,
            then,
        } = announced;
        for announcement in events {
            if !self.stored(announcement, &part).await {
                return;
            }
        }
        for command in &then {
            if !self.handed_in(command, &part).await {
                return;
            }
        }
        if !confirmed {
            // Unacknowledged, the commands come again and are answered as repeats.
            return;
        }
        for entry in &part {
            if let Err(error) = entry.job.delivery.ack().await {
                tracing::debug!(%error, "not acknowledged; it comes again");
            }
        }
    }

    /// Hands in a command that another one led to. False when none of the part's partitions is ours any
    /// more: then the next owner does it.
    async fn handed_in(&self, command: &v1::Command, part: &[Entry]) -> bool {
        loop {
            let deadline = Instant::now() + HAND_IN;
            let Err(error) = self
                .bus
                .send_command(command, self.partitions, &command.id, deadline)
                .await
            else {
                return true;
            };
            if !self.ours(part) {
                return false;
            }
            tracing::warn!(%error, command = command.id, "a command that follows another waits for the stream");
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    fn ours(&self, part: &[Entry]) -> bool {
        part.iter()
            .any(|entry| self.owned.holds(entry.job.partition, entry.job.epoch))
    }

    /// Waits until the feed has the events, publishing them again as often as it takes. False when none of
    /// the part's partitions is ours any more: then the next owner publishes them.
    async fn stored(&self, announcement: Announcement, part: &[Entry]) -> bool {
        let Announcement { batch, stored } = announcement;
        let mut pending = stored;
        let mut pause = FIRST_PAUSE;
        loop {
            let first = pending.is_some();
            let result = match pending.take() {
                Some(stored) => stored.stored().await,
                None => match self.bus.publish_events(batch.clone()).await {
                    Ok(stored) => stored.stored().await,
                    Err(error) => Err(error),
                },
            };
            let Err(error) = result else { return true };
            if !self.ours(part) {
                return false;
            }
            if first {
                // Perhaps the answer was lost with a connection: whether the feed is there shows when asked again.
                tracing::debug!(%error, "events may not be in the feed; publishing again");
                continue;
            }
            tracing::warn!(%error, "the event feed does not answer; publishing again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // A stream that was deleted is made anew; a NATS that is away is noticed by the next attempt.
            if let Err(error) = self.bus.ensure_streams(&self.streams).await {
                tracing::debug!(%error, "streams not ensured");
            }
        }
    }
}
