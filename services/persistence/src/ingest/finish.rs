//! The end of a command: once the feed has its events, or the database knows that it lacks them, its delivery is
//! acknowledged. Runs beside the loop: no batch waits for the feed.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parlance_bus::{Bus, ErrorKind};
use parlance_proto::v1;
use parlance_runtime::backoff::Backoff;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::announce::{Announced, Announcement};
use super::entry::Entry;
use crate::database::Database;
use crate::error::without_content;
use crate::feed::Feed;
use crate::ownership::Owned;
use crate::report;
use crate::store::feed::{self, Backlog};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Patience for handing one command to the stream before it is tried anew.
const HAND_IN: Duration = Duration::from_secs(5);

type Part = (Vec<Entry>, Announced);

/// The way to the finishing task. Unbounded, because what is on it is bounded by what the stream hands out
/// unacknowledged.
#[derive(Clone)]
pub struct Finisher(mpsc::UnboundedSender<Part>);

/// The finishing task.
pub struct Finishing {
    queue: mpsc::UnboundedReceiver<Part>,
    end: End,
}

/// What ends commands.
struct End {
    bus: Bus,
    database: Database,
    partitions: u16,
    owned: Owned,
    feed: Feed,
}

impl Finisher {
    /// The task and the way to it.
    pub fn new(bus: Bus, database: Database, partitions: u16, owned: Owned, feed: Feed) -> (Self, Finishing) {
        let (tx, queue) = mpsc::unbounded_channel();
        let end = End {
            bus,
            database,
            partitions,
            owned,
            feed,
        };
        (Self(tx), Finishing { queue, end })
    }

    /// Hands over a part whose answers are out.
    pub fn finish(&self, part: Vec<Entry>, announced: Announced) {
        // A task that is gone means the process ends: what is not acknowledged comes again.
        let _ = self.0.send((part, announced));
    }
}

impl Finishing {
    /// Works until every [`Finisher`] is gone and nothing is left, or `hard` is cancelled.
    pub async fn run(mut self, hard: CancellationToken) {
        let mut ends = FuturesUnordered::new();
        let mut open = true;
        while open || !ends.is_empty() {
            tokio::select! {
                next = self.queue.recv(), if open => match next {
                    Some((part, announced)) => ends.push(self.end.finish(part, announced)),
                    None => open = false,
                },
                Some(()) = ends.next() => {}
                () = hard.cancelled() => return,
            }
        }
    }
}

impl End {
    async fn finish(&self, part: Vec<Entry>, announced: Announced) {
        let Announced {
            events,
            settlement,
            confirmed,
            reports,
            then,
        } = announced;
        let missing = self.missing(events).await;
        if missing.is_empty() {
            settlement.stored();
        } else {
            if !self.recorded(&missing, &part).await {
                return;
            }
            settlement.behind();
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
        if !report::settle(&reports, &self.database, &self.bus, || self.ours(&part)).await {
            return;
        }
        for entry in &part {
            if let Err(error) = entry.job.delivery.ack().await {
                tracing::debug!(%error, "not acknowledged; it comes again");
            }
        }
    }

    /// What of these events the feed may lack.
    async fn missing(&self, events: Vec<Announcement>) -> Vec<(u16, Backlog)> {
        let mut missing = Vec::new();
        for Announcement {
            partition,
            backlog,
            sent,
        } in events
        {
            // What an earlier batch still waited for is no sign of an outage.
            if let Some(sent) = sent {
                let Err(error) = sent.stored().await else {
                    continue;
                };
                tracing::debug!(%error, conversation = %backlog.conversation, "the feed is to catch up");
                self.feed.set_away(true);
            }
            missing.push((partition, backlog));
        }
        missing
    }

    /// Notes what the feed lacks, for as long as it takes. False when none of the part's partitions is ours any more:
    /// then the next owner answers the commands again, and sends their events.
    async fn recorded(&self, missing: &[(u16, Backlog)], part: &[Entry]) -> bool {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let recorded = async {
                let mut connection = self.database.writes.acquire().await?;
                feed::record(&mut connection, missing).await
            };
            let Err(error) = recorded.await else { return true };
            if !self.ours(part) {
                return false;
            }
            let cause = without_content(&error);
            tracing::warn!(cause, "what the feed lacks is not noted; trying again");
            backoff.pause().await;
        }
    }

    /// Hands in a command that another one led to. False when none of the part's partitions is ours any
    /// more: then the next owner does it.
    async fn handed_in(&self, command: &v1::Command, part: &[Entry]) -> bool {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let deadline = Instant::now() + HAND_IN;
            let Err(error) = self
                .bus
                .send_command(command, self.partitions, &command.id, deadline)
                .await
            else {
                return true;
            };
            if matches!(error.kind(), ErrorKind::TooLarge) {
                metrics::counter!("chat_persistence_oversized_total", "what" => "command").increment(1);
                tracing::error!(%error, command = command.id, "left out a command that follows another");
                return true;
            }
            if !self.ours(part) {
                return false;
            }
            tracing::warn!(%error, command = command.id, "a command that follows another waits for the stream");
            backoff.pause().await;
        }
    }

    fn ours(&self, part: &[Entry]) -> bool {
        part.iter()
            .any(|entry| self.owned.holds(entry.job.partition, entry.job.epoch))
    }
}
