//! What users were served: reports up to which seq their sessions got the events of each conversation, so that no
//! other connection of theirs, here or elsewhere, is served the same once more.
//!
//! Reports are coalesced by user and conversation and paced by how long each takes: however much is emitted, they cost
//! a fixed share of one connection. What cannot be reported yet waits; it grows with the places followed here, not
//! with what happens in them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_proto::v1::{ReportServed, ServedPosition};
use parlance_proto::{ConversationId, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;

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
    waiting: Arc<Mutex<HashMap<(ConversationId, UserId), u64>>>,
    changed: Arc<Notify>,
}

impl Served {
    /// Nothing to report.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            waiting: Arc::default(),
            changed: Arc::default(),
        }
    }

    /// A session of the user got everything up to this seq.
    pub fn reached(&self, conversation: ConversationId, user: UserId, seq: u64) {
        self.put(conversation, user, seq);
        self.changed.notify_one();
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
            let position = |((conversation, user), seq): &((ConversationId, UserId), u64)| ServedPosition {
                conversation_id: conversation.to_string(),
                user_id: user.to_string(),
                seq: *seq,
            };
            let report = ReportServed {
                positions: taken.iter().map(position).collect(),
            };
            if self.backend.report_served(None, report).await.is_ok() {
                tokio::time::sleep(begun.elapsed() * PAUSE_FACTOR).await;
                continue;
            }
            for ((conversation, user), seq) in taken {
                self.put(conversation, user, seq);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn put(&self, conversation: ConversationId, user: UserId, seq: u64) {
        let mut waiting = self.lock();
        let known = waiting.entry((conversation, user)).or_default();
        *known = seq.max(*known);
    }

    fn take(&self) -> Vec<((ConversationId, UserId), u64)> {
        let mut waiting = self.lock();
        if waiting.len() <= REPORT_MAX {
            return waiting.drain().collect();
        }
        let some: Vec<_> = waiting.keys().take(REPORT_MAX).cloned().collect();
        some.into_iter()
            .filter_map(|key| {
                let seq = waiting.remove(&key)?;
                Some((key, seq))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(ConversationId, UserId), u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
