//! What users were served: reports up to which seq the pages of each got the events of each conversation, so that a page
//! that returns, here or elsewhere, goes on from there, and others of its user are not served the same once more.
//!
//! Reports are coalesced by page and conversation and paced by how long each takes: however much is emitted, they cost
//! a fixed share of one connection. Only what pages got that are gone is not held up: they may be on their way back. What
//! cannot be reported yet waits; it grows with the sessions here and the conversations that each follows, not with what happens in them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_proto::v1::{ReportServed, ServedPosition};
use parlance_proto::{ConversationId, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::socket::page::Page;

/// Within this time it is known elsewhere what a session got.
pub const SETTLES: Duration = Duration::from_millis(150);
/// Positions in one report.
const REPORT_MAX: usize = 1_000;
/// Pause before a report that failed is sent again.
const RETRY: Duration = Duration::from_millis(300);
/// How much longer than a report the pause after it is.
const PAUSE_FACTOR: u32 = 3;
/// How long the last reports may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The served cursors that are to be reported. Cheap to clone.
#[derive(Clone)]
pub struct Served {
    backend: Backend,
    waiting: Arc<Mutex<HashMap<Key, Reached>>>,
    changed: Arc<Notify>,
    left: Arc<Notify>,
}

/// Who was served, and where.
type Key = (ConversationId, UserId, Page);

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
            waiting: Arc::default(),
            changed: Arc::default(),
            left: Arc::default(),
        }
    }

    /// A page of the user got this far.
    pub fn reached(&self, conversation: ConversationId, user: UserId, page: Page, reached: Reached) {
        self.put((conversation, user, page), reached);
        self.changed.notify_one();
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
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.report_all() => {}
            }
        }
        // The rooms learn of the sessions that end now.
        tokio::time::sleep(RETRY).await;
        drop(tokio::time::timeout(FAREWELL, self.report_all()).await);
        Ok(())
    }

    async fn report_all(&self) {
        loop {
            let taken = self.take();
            if taken.is_empty() {
                return;
            }
            let begun = Instant::now();
            let position = |((conversation, user, page), reached): &(Key, Reached)| ServedPosition {
                conversation_id: conversation.to_string(),
                user_id: user.to_string(),
                seq: reached.seq,
                page: page.to_string(),
                joined_at_ms: reached.joined_at_ms,
            };
            let report = ReportServed {
                positions: taken.iter().map(position).collect(),
            };
            if self.backend.report_served(None, report).await.is_ok() {
                tokio::select! {
                    () = tokio::time::sleep(begun.elapsed() * PAUSE_FACTOR) => {}
                    () = self.left.notified() => {}
                }
                continue;
            }
            for (key, reached) in taken {
                self.put(key, reached);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn put(&self, key: Key, reached: Reached) {
        let mut waiting = self.lock();
        let known = waiting.entry(key).or_insert(reached);
        if reached.seq > known.seq {
            *known = reached;
        }
    }

    fn take(&self) -> Vec<(Key, Reached)> {
        let mut waiting = self.lock();
        if waiting.len() <= REPORT_MAX {
            return waiting.drain().collect();
        }
        let some: Vec<_> = waiting.keys().take(REPORT_MAX).cloned().collect();
        some.into_iter()
            .filter_map(|key| {
                let reached = waiting.remove(&key)?;
                Some((key, reached))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Reached>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
