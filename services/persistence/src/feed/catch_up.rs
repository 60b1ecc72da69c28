//! Publishes from the database what the feed lacks. One task per replica, for the partitions it owns; doing it twice is
//! harmless, because the feed is at least once and both publish in order.

use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, EventBatch, event};
use sqlx::{Acquire as _, PgConnection};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Feed;
use crate::database::Database;
use crate::error::without_content;
use crate::model::position::Position;
use crate::ownership::Owned;
use crate::payload_limit;
use crate::store::events;
use crate::store::feed::{self, Backlog, Lag};
use crate::store::stretch::Stretch;
use crate::store::{epoch, receipts};

/// How often a gap is looked for.
const EVERY: Duration = Duration::from_millis(500);
/// Conversations taken at once.
const CONVERSATIONS: i64 = 100;
/// Events read and published at once.
const PAGE: u64 = 64;
/// Events that may be left when the conversation is locked for the rest.
const TAIL: u64 = 32;
/// How long the feed may take for a page.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the feed may take for the rest: until then the conversation is locked.
const TAIL_PATIENCE: Duration = Duration::from_millis(200);

/// What the task needs.
pub struct CatchUp {
    /// For events.
    pub bus: Bus,
    /// For what the feed lacks.
    pub database: Database,
    /// Whose partitions these are.
    pub owned: Owned,
    /// What ingest knows of the feed.
    pub feed: Feed,
}

/// Why a gap stays open for now.
enum Failure {
    /// The feed does not store: the cause.
    Feed(String),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl CatchUp {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                result = self.round() => if let Err(error) = result {
                    let cause = without_content(&error);
                    tracing::warn!(cause, "cannot look for what the feed lacks; trying again");
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Closes the gaps of our partitions, the oldest first.
    async fn round(&self) -> Result<(), sqlx::Error> {
        let partitions: Vec<i32> = self.owned.partitions().into_iter().map(i32::from).collect();
        let mut connection = self.database.writes.acquire().await?;
        let gaps = if partitions.is_empty() {
            Vec::new()
        } else {
            feed::oldest(&mut connection, &partitions, CONVERSATIONS).await?
        };
        let lag = if gaps.is_empty() {
            Lag::default()
        } else {
            feed::lag(&mut connection, &partitions).await?
        };
        show(lag);
        self.feed.forget();
        if gaps.is_empty() {
            // The next events show whether the feed stores them.
            self.feed.set_away(false);
            return Ok(());
        }
        for gap in gaps {
            let conversation = gap.conversation;
            match self.close(&mut connection, gap).await {
                Ok(()) => self.feed.set_away(false),
                Err(Failure::Feed(cause)) => {
                    self.feed.set_away(true);
                    tracing::debug!(cause, "the feed does not store yet");
                    return Ok(());
                }
                Err(Failure::Database(error)) => {
                    let cause = without_content(&error);
                    tracing::error!(
                        cause,
                        %conversation,
                        "the feed lacks events of a conversation that cannot be read; trying again"
                    );
                    // A connection in doubt is not used for the next one.
                    connection = self.database.writes.acquire().await?;
                }
            }
        }
        Ok(())
    }

    /// Publishes what the feed lacks of a conversation. What follows goes to the feed directly from then on.
    async fn close(&self, connection: &mut PgConnection, mut gap: Backlog) -> Result<(), Failure> {
        let mut is_stored = false;
        loop {
            let Some(head) = feed::head(connection, gap.conversation, false).await? else {
                feed::close(connection, &gap).await?;
                return Ok(());
            };
            let from = within(gap.after, head);
            // Whether the feed stores at all is found out before anything is locked.
            let most = if is_stored { TAIL } else { 0 };
            // Durable events first: who follows them reads receipts as states.
            let through = if head.seq - from.seq > most {
                Position {
                    seq: head.seq.min(from.seq + PAGE),
                    ..from
                }
            } else if head.receipts - from.receipts > most {
                Position {
                    seq: from.seq,
                    ..head
                }
            } else {
                break;
            };
            let (events, reached) = read(connection, gap.conversation, from, through).await?;
            self.publish(events, PATIENCE).await?;
            is_stored = true;
            // What was not behind stays so: it may be moved back meanwhile.
            let to = Position {
                seq: if reached.seq > from.seq {
                    reached.seq
                } else {
                    gap.after.seq
                },
                receipts: if reached.receipts > from.receipts {
                    reached.receipts
                } else {
                    gap.after.receipts
                },
            };
            if !feed::advance(connection, &gap, to).await? {
                return Ok(());
            }
            gap.after = to;
        }
        // Under its lock nothing is added, and what is added next finds the gap closed.
        let mut tx = connection.begin().await?;
        if let Some(head) = feed::head(&mut tx, gap.conversation, true).await? {
            let from = within(gap.after, head);
            if head.seq - from.seq <= PAGE {
                let (events, reached) = read(&mut tx, gap.conversation, from, head).await?;
                if reached == head {
                    if !events.is_empty() {
                        self.publish(events, TAIL_PATIENCE).await?;
                    }
                    feed::close(&mut tx, &gap).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }

    async fn publish(&self, events: Vec<v1::Event>, patience: Duration) -> Result<(), Failure> {
        let events = events.into_iter().map(payload_limit::cut_event).collect();
        let stored = async {
            self.bus
                .publish_events(EventBatch { events })
                .await?
                .stored()
                .await
        };
        match timeout(patience, stored).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Feed(error.to_string())),
            Err(_) => Err(Failure::Feed("no answer in time".to_owned())),
        }
    }
}

/// Where to begin: what is not behind begins at the head.
fn within(after: Position, head: Position) -> Position {
    Position {
        seq: after.seq.min(head.seq),
        receipts: after.receipts.min(head.receipts),
    }
}

/// The events between two positions, and up to where they go: receipts come in pages.
async fn read(
    connection: &mut PgConnection,
    conversation: ConversationId,
    from: Position,
    through: Position,
) -> Result<(Vec<v1::Event>, Position), sqlx::Error> {
    let epoch = epoch::current(connection).await?;
    let stretch = Stretch {
        conversation,
        after: from.seq,
        through: through.seq,
    };
    let mut events = Vec::new();
    if through.seq > from.seq {
        let mut logs = events::of(connection, None, &epoch, &[stretch]).await?;
        events.append(&mut logs.remove(&conversation).unwrap_or_default());
    }
    let mut reached = through;
    if through.receipts > from.receipts {
        let mut changed = receipts::after(connection, &[(conversation, from.receipts)]).await?;
        let changed = changed.remove(&conversation).unwrap_or_default();
        if let (true, Some(last)) = (changed.len() >= receipts::MAX_AFTER, changed.last()) {
            reached.receipts = last.version;
        }
        events.extend(changed.into_iter().map(|receipt| v1::Event {
            conversation_id: conversation.to_string(),
            epoch: epoch.clone(),
            seq: 0,
            at_ms: receipt.at_ms,
            traceparent: String::new(),
            body: Some(event::Body::ReceiptUpdated(receipt)),
        }));
    }
    Ok((events, reached))
}

/// Shows how far the feed is behind in the partitions of this replica.
#[expect(clippy::cast_precision_loss, reason = "a chart needs no single conversations")]
fn show(lag: Lag) {
    metrics::gauge!("chat_persistence_feed_backlog_conversations").set(lag.conversations as f64);
    metrics::gauge!("chat_persistence_feed_lag_seconds").set(lag.seconds);
}
