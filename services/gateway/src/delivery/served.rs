//! What users were served: reports up to which seq the pages of each got the events of each conversation, so that a page
//! that returns, here or elsewhere, goes on from there, and others of its user are not served the same once more.
//!
//! Reports are coalesced by page and conversation and paced by how long each takes: however much is emitted, they cost
//! a fixed share of one connection. Only what pages got that are gone is not held up: they may be on their way back. What
//! cannot be reported yet waits; it grows with the sessions here and the conversations that each follows, not with what happens in them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_proto::v1::{ReportServed, ServedPosition};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::backoff::Backoff;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::session::page::Page;

/// Within this time it is known elsewhere what a session got.
pub const SETTLES: Duration = Duration::from_millis(150);
/// Positions in one report.
const REPORT_MAX: usize = 1_000;
/// Pauses before a report that failed is sent again.
const RETRIES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));
/// How long after the stop rooms learn of the sessions that end with it.
const LEARN: Duration = Duration::from_millis(300);
/// How much longer than a report the pause after it is.
const PAUSE_FACTOR: u32 = 3;
/// How long the last reports may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The served cursors that are to be reported. Cheap to clone.
#[derive(Clone)]
pub struct Served {
    backend: Backend,
    unstored: Arc<Mutex<Unstored>>,
    changed: Arc<Notify>,
    left: Arc<Notify>,
    /// Changes with every report that was stored.
    stored: watch::Sender<()>,
}

/// A user's page.
type Key = (UserId, Page);
/// What is reported: whose, where and how far.
type Position = (Key, ConversationId, Reached);

/// What is not stored yet.
#[derive(Default)]
struct Unstored {
    waiting: HashMap<Key, HashMap<ConversationId, Reached>>,
    /// Whose report is under way.
    reporting: HashSet<Key>,
}

/// The position of a page in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// It got everything up to this seq.
    pub seq: u64,
    /// When it joined, in Unix milliseconds.
    pub joined_at_ms: i64,
}

impl Served {
    /// Nothing to report.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            unstored: Arc::default(),
            changed: Arc::default(),
            left: Arc::default(),
            stored: watch::Sender::default(),
        }
    }

    /// A page of the user got this far.
    pub fn reached(&self, conversation: ConversationId, user: UserId, page: Page, reached: Reached) {
        self.lock().put((user, page), conversation, reached);
        self.changed.notify_one();
    }

    /// Waits until it is stored how far the page is known here to have got.
    pub async fn stored(&self, user: &UserId, page: Page) {
        let key = (user.clone(), page);
        let mut stored = self.stored.subscribe();
        while self.lock().has(&key) {
            self.left();
            // The sender lives as long as this does.
            drop(stored.changed().await);
        }
    }

    /// A page is gone: what is known of it is not held up any longer.
    pub fn left(&self) {
        self.left.notify_one();
    }

    /// Reports until `stop`, and then what is left.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
            }
            self.report_all(&stop).await;
        }
        // The rooms learn of the sessions that end now.
        tokio::time::sleep(LEARN).await;
        let never = CancellationToken::new();
        drop(tokio::time::timeout(FAREWELL, self.report_all(&never)).await);
        Ok(())
    }

    /// Reports until nothing is left, or until `stop`; never leaves a report half done.
    async fn report_all(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(RETRIES.0, RETRIES.1);
        while !stop.is_cancelled() {
            let taken = self.lock().take();
            if taken.is_empty() {
                return;
            }
            let begun = Instant::now();
            let position = |((user, page), conversation, reached): &Position| ServedPosition {
                conversation_id: conversation.to_string(),
                user_id: user.to_string(),
                seq: reached.seq,
                page: page.to_string(),
                joined_at_ms: reached.joined_at_ms,
            };
            let report = ReportServed {
                positions: taken.iter().map(position).collect(),
            };
            let is_stored = self.backend.report_served(None, report).await.is_ok();
            {
                let mut unstored = self.lock();
                unstored.reporting.clear();
                for (key, conversation, reached) in taken.into_iter().filter(|_| !is_stored) {
                    unstored.put(key, conversation, reached);
                }
            }
            if is_stored {
                backoff.reset();
                self.stored.send_replace(());
                tokio::select! {
                    () = tokio::time::sleep(begun.elapsed() * PAUSE_FACTOR) => {}
                    () = self.left.notified() => {}
                    () = stop.cancelled() => {}
                }
            } else {
                backoff.pause_unless(stop).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unstored> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unstored {
    fn put(&mut self, key: Key, conversation: ConversationId, reached: Reached) {
        let known = self.waiting.entry(key).or_default();
        let known = known.entry(conversation).or_insert(reached);
        if reached.seq > known.seq {
            *known = reached;
        }
    }

    /// What goes into the next report.
    fn take(&mut self) -> Vec<Position> {
        let mut taken = Vec::new();
        let keys: Vec<_> = self.waiting.keys().take(REPORT_MAX).cloned().collect();
        for key in keys {
            if taken.len() == REPORT_MAX {
                break;
            }
            let mut own = self.waiting.remove(&key).unwrap_or_default();
            let some: Vec<_> = own.keys().take(REPORT_MAX - taken.len()).copied().collect();
            for conversation in some {
                if let Some(reached) = own.remove(&conversation) {
                    taken.push((key.clone(), conversation, reached));
                }
            }
            self.reporting.insert(key.clone());
            if !own.is_empty() {
                self.waiting.insert(key, own);
            }
        }
        taken
    }

    fn has(&self, key: &Key) -> bool {
        self.waiting.contains_key(key) || self.reporting.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::new_id;

    #[test]
    fn each_report_is_bounded_and_a_page_is_unstored_until_all_of_it_is() {
        let mut unstored = Unstored::default();
        let key = (UserId::parse("alice".to_owned()).unwrap(), Page::open());
        let conversations: Vec<_> = (0..REPORT_MAX + 5)
            .map(|_| ConversationId::from_uuid(new_id()))
            .collect();
        for (seq, conversation) in (1..).zip(&conversations) {
            for seq in [seq, seq - 1] {
                unstored.put(key.clone(), *conversation, Reached { seq, joined_at_ms: 0 });
            }
        }
        let mut reported = HashMap::new();
        for expected in [REPORT_MAX, 5, 0] {
            let taken = unstored.take();
            assert_eq!(taken.len(), expected);
            assert_eq!(unstored.has(&key), expected > 0);
            reported.extend(
                taken
                    .into_iter()
                    .map(|(_, conversation, reached)| (conversation, reached.seq)),
            );
            unstored.reporting.clear();
        }
        for (seq, conversation) in (1..).zip(&conversations) {
            assert_eq!(reported[conversation], seq);
        }
    }
}
