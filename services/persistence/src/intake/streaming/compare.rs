//! Streams as the database has them: those that wait are compared with it, and open ones are found there that are not known
//! here.

use std::collections::{HashMap, VecDeque};

use parlance_bus::Delivery;
use parlance_proto::UserId;
use parlance_proto::v1::StreamState;
use tokio::time::{Duration, Instant};

use super::{MOST, Open, Streaming};
use crate::error::without_content;
use crate::intake::acknowledge;
use crate::intake::published::Step;
use crate::intake::stream::Phase;
use crate::model::processed::CommandKey;
use crate::store::processed;
use crate::store::streams::{self, Key, Stored};

/// How often open ones are looked for that are not known here.
const RELOAD: Duration = Duration::from_secs(5);

impl Streaming<'_> {
    /// Compares those that wait with the database. Returns the steps that waited for that, in order.
    pub(super) async fn look(&mut self) -> VecDeque<(Step, Delivery)> {
        self.looked_at = Instant::now();
        let waiting = self.streams.iter().filter(|(_, stream)| stream.is_waiting());
        let keys: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        let mut ready = VecDeque::new();
        let seen = async {
            let stored = self.stored(&keys).await?;
            let starts = self.refused_starts(&keys, &stored).await?;
            Ok::<_, sqlx::Error>((stored, starts))
        };
        let seen = seen.await;
        self.is_compared = seen.is_ok();
        let (stored, refused) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                let cause = without_content(&error);
                tracing::debug!(cause, "streams are not compared with the database");
                return ready;
            }
        };
        for key in keys {
            ready.extend(self.compare(key, stored.get(&key), refused.contains(&key)).await);
        }
        self.count_in_hand();
        ready
    }

    async fn compare(
        &mut self,
        key: Key,
        stored: Option<&Stored>,
        is_refused: bool,
    ) -> VecDeque<(Step, Delivery)> {
        let Some(stream) = self.streams.get_mut(&key) else {
            return VecDeque::new();
        };
        let is_open = stored.is_some_and(|stored| stored.state == StreamState::Open && !stored.deleted);
        if let Some(stored) = stored.filter(|_| is_open) {
            stream.seq = stored.seq;
            let mut done = stream.stored(stored.bytes);
            let mut ready = VecDeque::new();
            if stream.phase == Phase::Starting {
                stream.phase = Phase::Open;
                stream.pending = None;
                done.extend(stream.step.take());
                ready = std::mem::take(&mut stream.waiting);
            }
            for delivery in &done {
                acknowledge(delivery).await;
            }
            return ready;
        }
        if stored.is_none() && stream.phase == Phase::Starting && !is_refused {
            return VecDeque::new();
        }
        // It has ended, was refused, or is gone.
        if let Some(stored) = stored {
            count_ended(stored);
        }
        let (done, waiting) = match self.streams.remove(&key) {
            Some(stream) => stream.end(),
            None => return VecDeque::new(),
        };
        for delivery in &done {
            acknowledge(delivery).await;
        }
        waiting
    }

    /// Those of the streams that begin whose message was refused.
    async fn refused_starts(
        &self,
        keys: &[Key],
        stored: &HashMap<Key, Stored>,
    ) -> Result<Vec<Key>, sqlx::Error> {
        let mut starts: HashMap<CommandKey, Key> = HashMap::new();
        for key in keys.iter().filter(|key| !stored.contains_key(key)) {
            let command = self.streams.get(key).and_then(|stream| stream.pending.as_ref());
            if let Some(id) = command.and_then(|(command, ..)| command.id.parse().ok()) {
                starts.insert((key.0, id), *key);
            }
        }
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let commands: Vec<CommandKey> = starts.keys().copied().collect();
        let mut connection = self.intake.database.reads.acquire().await?;
        let outcomes = processed::among(&mut connection, &commands).await?;
        let refused = outcomes
            .into_iter()
            .filter(|(_, processed)| processed.refusal.is_some());
        Ok(refused.filter_map(|(id, _)| starts.get(&id).copied()).collect())
    }

    pub(super) async fn stored(&self, keys: &[Key]) -> Result<HashMap<Key, Stored>, sqlx::Error> {
        let mut connection = self.intake.database.reads.acquire().await?;
        streams::look(&mut connection, keys).await
    }

    /// Finds open streams that are not known here: those of the owner before. Whether the database said.
    pub(super) async fn reload(&mut self) -> bool {
        self.reload_at = Instant::now() + RELOAD;
        let limit = i64::try_from(MOST).unwrap_or(i64::MAX);
        let found = async {
            let mut connection = self.intake.database.reads.acquire().await?;
            let found = streams::open(&mut connection, limit).await?;
            let gone: Vec<Key> = found
                .iter()
                .filter(|(_, stored)| stored.deleted)
                .map(|(key, _)| *key)
                .collect();
            if !gone.is_empty() {
                let mut connection = self.intake.database.writes.acquire().await?;
                streams::forget(&mut connection, &gone).await?;
            }
            Ok::<_, sqlx::Error>(found)
        };
        match found.await {
            Ok(found) => {
                for (key, stored) in found.iter().filter(|(_, stored)| !stored.deleted) {
                    if !self.streams.contains_key(key) {
                        self.put(*key, stored);
                    }
                }
                true
            }
            Err(error) => {
                let cause = without_content(&error);
                tracing::debug!(cause, "open streams are not read");
                false
            }
        }
    }

    pub(super) fn put(&mut self, key: Key, stored: &Stored) {
        let Ok(sender) = UserId::parse(stored.sender_id.as_str()) else {
            return;
        };
        let limits = &self.intake.limits;
        let now = Instant::now();
        let alive = self.hearing.heard(now);
        let mut stream = Open::new(sender, Phase::Open, stored.bytes, &limits.streams, alive, now);
        stream.seq = stored.seq;
        stream.allow(limits.content_bytes);
        self.streams.insert(key, stream);
    }
}

/// Counts one that has ended.
fn count_ended(stored: &Stored) {
    let outcome = match stored.state {
        _ if stored.deleted && stored.state == StreamState::Open => "deleted",
        StreamState::Finished => "finished",
        StreamState::Cancelled => "cancelled",
        StreamState::Interrupted => "interrupted",
        StreamState::Open | StreamState::Unspecified => return,
    };
    metrics::counter!("chat_persistence_streams_ended_total", "outcome" => outcome).increment(1);
}
