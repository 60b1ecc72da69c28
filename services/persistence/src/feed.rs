//! The feed for other services, off the chat's path: which conversations' events may go to the stream `EVENTS`
//! directly, and how it catches up.
//!
//! The feed gets the events of a conversation in order, at least once. Directly, as they are committed, while it
//! stores them; where it does not, the position after which it lacks events stands in Postgres before their commands are
//! acknowledged, what follows goes to live subscribers only, and the catch-up publishes it from the database. The chat
//! never waits for the feed for longer than [`GRACE`].

mod catch_up;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_proto::ConversationId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::model::position::Position;
pub use catch_up::CatchUp;

/// Longest wait of a batch until the feed has what an earlier one sent of the same conversations. The answer mostly
/// came while the batch was committed.
pub const GRACE: Duration = Duration::from_millis(100);

/// No transaction lasts as long.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(120);

/// What this replica knows of the feed. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Feed(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_away: AtomicBool,
    /// Conversations with events of which it is not known yet whether the feed has them, or which a transaction that is
    /// under way may not know to be missing.
    unsettled: Mutex<HashMap<ConversationId, Unsettled>>,
}

#[derive(Debug, Clone)]
struct Unsettled {
    /// The feed has everything up to here.
    after: Position,
    settled: watch::Receiver<Settled>,
}

/// What became of events sent to the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Waiting,
    Stored,
    /// It may lack some of them, which the database knows since then.
    Behind(Instant),
}

/// Events on their way. Dropped without an outcome, they count as missing.
#[derive(Debug)]
#[must_use = "what is not settled counts as missing"]
pub struct Settlement {
    feed: Feed,
    conversations: Vec<ConversationId>,
    outcome: watch::Sender<Settled>,
}

impl Feed {
    /// Whether the next events of the conversation may go to the feed directly: it has all before them, as far as
    /// this process knows. `started`: what the database knew to be missing then is looked at elsewhere. Waits until
    /// `deadline` at most.
    pub async fn accepts(&self, conversation: ConversationId, started: Instant, deadline: Instant) -> bool {
        if self.is_away() {
            return false;
        }
        let Some(before) = self.unsettled().get(&conversation).cloned() else {
            return true;
        };
        let mut outcome = before.settled;
        let settled = outcome.wait_for(|settled| *settled != Settled::Waiting);
        match timeout_at(deadline, settled).await {
            Ok(Ok(settled)) => match *settled {
                Settled::Stored => true,
                Settled::Behind(known_at) => known_at < started,
                Settled::Waiting => false,
            },
            _ => false,
        }
    }

    /// Begins to send events of these conversations, each after a position and accepted or not. Returns with each up to
    /// where the feed surely has everything: with what was sent before and may still be missing, that is less.
    pub fn begin(&self, events: &[(ConversationId, Position, bool)]) -> (Settlement, Vec<Position>) {
        let (outcome, settled) = watch::channel(Settled::Waiting);
        let mut unsettled = self.unsettled();
        let mut reached = Vec::with_capacity(events.len());
        for &(conversation, after, is_accepted) in events {
            let before = unsettled.get(&conversation).filter(|before| {
                let settled = *before.settled.borrow();
                !is_accepted && settled != Settled::Stored
            });
            let after = before.map_or(after, |before| after.lower(before.after));
            reached.push(after);
            let settled = settled.clone();
            unsettled.insert(conversation, Unsettled { after, settled });
        }
        drop(unsettled);
        let settlement = Settlement {
            feed: self.clone(),
            conversations: events.iter().map(|event| event.0).collect(),
            outcome,
        };
        (settlement, reached)
    }

    /// Forgets what every transaction knows by now.
    pub fn forget(&self) {
        self.unsettled()
            .retain(|_, unsettled| match *unsettled.settled.borrow() {
                Settled::Behind(known_at) => known_at.elapsed() < LONGEST_TRANSACTION,
                _ => true,
            });
    }

    /// Whether the feed did not store what it was sent last.
    pub fn is_away(&self) -> bool {
        self.0.is_away.load(Ordering::Relaxed)
    }

    /// Notes whether the feed stores what it is sent.
    pub fn set_away(&self, is_away: bool) {
        if self.0.is_away.swap(is_away, Ordering::Relaxed) != is_away {
            if is_away {
                tracing::warn!(
                    "the stream EVENTS does not store events; the chat goes on, the feed will catch up"
                );
            } else {
                tracing::info!("the stream EVENTS stores events again");
            }
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, HashMap<ConversationId, Unsettled>> {
        self.0.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settlement {
    /// The feed has them all.
    pub fn stored(self) {
        self.outcome.send_replace(Settled::Stored);
    }

    /// The feed may lack some; the database knows which.
    pub fn behind(self) {
        self.outcome.send_replace(Settled::Behind(Instant::now()));
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.outcome.send_if_modified(|settled| {
            let waits = *settled == Settled::Waiting;
            if waits {
                *settled = Settled::Behind(Instant::now());
            }
            waits
        });
        if *self.outcome.borrow() != Settled::Stored {
            return;
        }
        let ours = self.outcome.subscribe();
        let mut unsettled = self.feed.unsettled();
        for conversation in &self.conversations {
            let latest = unsettled.get(conversation);
            if latest.is_some_and(|latest| latest.settled.same_channel(&ours)) {
                unsettled.remove(conversation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(last: char) -> ConversationId {
        format!("0190a6e0-0000-7000-8000-00000000000{last}")
            .parse()
            .unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + GRACE
    }

    fn at(seq: u64) -> Position {
        Position {
            seq,
            receipts: Position::NOTHING,
        }
    }

    /// A transaction that begins now asks.
    async fn accepts(feed: &Feed, conversation: ConversationId) -> bool {
        tokio::time::advance(Duration::from_millis(1)).await;
        feed.accepts(conversation, Instant::now(), soon()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_conversation_waits_for_its_own_events_only_and_not_for_long() {
        let feed = Feed::default();
        let (a, b) = (conversation('a'), conversation('b'));
        let (sent, reached) = feed.begin(&[(a, at(4), true)]);
        assert_eq!(reached, [at(4)]);
        assert!(accepts(&feed, b).await);
        let started = Instant::now();
        assert!(!feed.accepts(a, started, soon()).await);
        assert_eq!(started.elapsed(), GRACE);
        let (accepted, ()) = tokio::join!(accepts(&feed, a), async { sent.stored() });
        assert!(accepted && accepts(&feed, a).await);
        assert!(feed.unsettled().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_missing_events_does_not_go_to_the_feed_before_them() {
        let feed = Feed::default();
        let a = conversation('a');
        // The fate of 5 is not known when 6 comes: the feed may lack both.
        let (first, _) = feed.begin(&[(a, at(4), true)]);
        assert!(!accepts(&feed, a).await);
        let (second, reached) = feed.begin(&[(a, at(5), false)]);
        assert_eq!(reached, [at(4)]);
        let under_way = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        second.behind();
        first.stored();
        // A transaction that had begun does not know that the database knows.
        assert!(!feed.accepts(a, under_way, soon()).await);
        assert!(accepts(&feed, a).await);
        let (third, _) = feed.begin(&[(a, at(7), true)]);
        drop(third);
        assert!(
            !feed.accepts(a, under_way, soon()).await,
            "an outcome that nobody knows is none"
        );
        tokio::time::advance(LONGEST_TRANSACTION).await;
        feed.forget();
        assert!(feed.unsettled().is_empty());
        feed.set_away(true);
        assert!(!accepts(&feed, a).await);
    }
}
