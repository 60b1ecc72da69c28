//! All messages that stream at a time. Text goes to readers as chunks at once, and to the database by commands, once a second
//! for each message: so every write takes the ordinary path, in order with whatever else happens to the message.
//!
//! What a service published is acknowledged when its text is stored. After a takeover the database says where each message is,
//! and the stream SYSTEM has everything behind that again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures::StreamExt as _;
use parlance_bus::Delivery;
use parlance_proto::UserId;
use parlance_proto::v1::{
    self, Command, Ephemeral, ErrorCode, SenderKind, StreamState, StreamStep, SystemAccepted, command,
    ephemeral, system_reply,
};
use parlance_runtime::backoff::Backoff;
use tokio::time::Instant;

use super::hearing::Hearing;
use super::stream::{MOST_STEPS, Phase, Placed, Stream, Write};
use super::{Intake, PAUSES, Refused, Step, acknowledge, new_command, origin};
use crate::error::without_content;
use crate::model::processed::CommandKey;
use crate::model::refusals::refuse;
use crate::report::Report;
use crate::store::processed;
use crate::store::streams::{self, Key, Stored};

/// How often streams are looked after.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How often open ones are looked for that are not known here.
const RELOAD: Duration = Duration::from_secs(5);
/// Streams open at a time.
const MOST: usize = 10_000;
/// Commands handed in at a time.
const TOGETHER: usize = 16;
/// Steps of all streams in hand: less than the bus hands out unacknowledged, so that whole messages always come through.
const MOST_IN_HAND: usize = 2_000;
/// Shortest time between two comparisons that steps ask for.
const LOOK: Duration = Duration::from_millis(20);
/// When nothing was taken from the stream for so long, silent services are not to blame.
const BLOCKED: Duration = Duration::from_secs(2);

type Open = Stream<Delivery, Step>;

impl Placed for Delivery {
    fn place(&self) -> u64 {
        self.place
    }
}

/// The messages that stream.
pub(super) struct Streaming<'a> {
    intake: &'a Intake,
    streams: HashMap<Key, Open>,
    hearing: Hearing,
    /// Steps of all streams in hand, at least.
    in_hand: usize,
    /// When we last got to listen.
    listened_at: Instant,
    looked_at: Instant,
    /// Of the connection.
    generation: u64,
    reload_at: Instant,
    /// The last comparison with the database succeeded.
    is_compared: bool,
}

/// What becomes of a step.
enum Answer {
    /// As for every step that finds things as it wants them.
    Accepted { seq: u64, repeated: bool, next: u64 },
    /// Nothing changes.
    Refused(v1::Error, Option<u64>),
    /// By the command that it was handed in as.
    Later,
}

impl<'a> Streaming<'a> {
    /// The streams as the database has them.
    pub(super) async fn begin(intake: &'a Intake) -> Self {
        let now = Instant::now();
        let mut streaming = Self {
            intake,
            streams: HashMap::new(),
            hearing: Hearing::new(now),
            in_hand: 0,
            listened_at: now,
            looked_at: now,
            generation: intake.bus.link().borrow().generation,
            reload_at: now,
            is_compared: false,
        };
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !streaming.reload().await {
            backoff.pause().await;
        }
        streaming
    }

    /// A batch was taken from the stream.
    pub(super) fn heard(&mut self, batch: &[Delivery]) {
        let now = Instant::now();
        let pending = batch.last().map_or(0, |last| last.pending);
        for delivery in batch {
            self.hearing.read(delivery.published_ms, pending, now);
        }
        self.count();
    }

    /// What services publish may not be heard at present.
    pub(super) fn interrupted(&mut self) {
        self.hearing.interrupted(Instant::now());
    }

    fn count(&mut self) {
        self.in_hand = self.streams.values().map(Stream::in_hand).sum();
    }

    /// Carries out a step. Returns what is refused: it, or others that waited before it.
    pub(super) async fn take(&mut self, step: Step, delivery: Delivery) -> Vec<Refused> {
        let mut refused = Vec::new();
        if self
            .streams
            .get(&step.key)
            .is_some_and(|stream| stream.phase != Phase::Open)
            && self.looked_at.elapsed() >= LOOK
        {
            // Its start may be stored by now.
            let ready = self.look().await;
            refused.extend(self.carry_out(ready).await);
        }
        refused.extend(self.carry_out(VecDeque::from([(step, delivery)])).await);
        refused
    }

    async fn carry_out(&mut self, steps: VecDeque<(Step, Delivery)>) -> Vec<Refused> {
        let mut refused = Vec::new();
        for (step, delivery) in steps {
            refused.extend(self.one(step, delivery).await);
        }
        refused
    }

    async fn one(&mut self, step: Step, delivery: Delivery) -> Option<Refused> {
        let now = Instant::now();
        if !self.streams.contains_key(&step.key)
            && let Some(answer) = self.unknown(&step).await
        {
            return self.answer(step, delivery, answer).await;
        }
        let has_room = has_room(self.streams.get(&step.key), self.in_hand, &step, delivery.place);
        let Some(stream) = self.streams.get_mut(&step.key) else {
            if !has_room {
                return self.answer(step, delivery, no_room(None)).await;
            }
            return self.start(step, delivery).await;
        };
        stream.alive = self.hearing.heard(now);
        if !has_room {
            let next = stream.accepted();
            return self.answer(step, delivery, no_room(Some(next))).await;
        }
        if stream.phase != Phase::Open {
            stream.wait(step, delivery);
            self.in_hand += 1;
            return None;
        }
        let limits = &self.intake.limits;
        let take = |stream: &mut Open, offset: u64, text: &str| {
            stream.take(offset, text, limits.content_bytes, &limits.streams, now)
        };
        let seq = stream.seq;
        let answer = match (step.kind, step.offset) {
            (StreamStep::Start, _) => Answer::Accepted {
                seq,
                repeated: true,
                next: stream.accepted(),
            },
            (StreamStep::Append | StreamStep::Finish, None) if !step.text.is_empty() => {
                Answer::Refused(refuse("offset is missing"), Some(stream.accepted()))
            }
            (StreamStep::Append, offset) => match take(stream, offset.unwrap_or_default(), &step.text) {
                // Only a sign of life, wherever it says to be.
                _ if step.text.is_empty() => Answer::Accepted {
                    seq,
                    repeated: false,
                    next: stream.accepted(),
                },
                Ok(repeated) => Answer::Accepted {
                    seq,
                    repeated,
                    next: stream.accepted(),
                },
                Err(refusal) => Answer::Refused(refusal, Some(stream.accepted())),
            },
            (StreamStep::Finish, offset) => {
                let offset = offset.unwrap_or_else(|| stream.accepted());
                match take(stream, offset, &step.text) {
                    Err(refusal) => Answer::Refused(refusal, Some(stream.accepted())),
                    Ok(_) if stream.accepted() == 0 => Answer::Refused(refuse("content is empty"), Some(0)),
                    Ok(_) => Answer::Later,
                }
            }
            (StreamStep::Cancel | StreamStep::Unspecified, _) => Answer::Later,
        };
        match answer {
            Answer::Later => self.end(step, delivery).await,
            answer => self.answer(step, delivery, answer).await,
        }
    }

    /// What becomes of a step of a message that does not stream as far as is known here; `None` where it begins to, or is
    /// known now.
    async fn unknown(&mut self, step: &Step) -> Option<Answer> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let stored = loop {
            match self.stored(&[step.key]).await {
                Ok(mut found) => break found.remove(&step.key),
                Err(error) => {
                    let cause = without_content(&error);
                    tracing::warn!(cause, "a step of a stream waits for the database");
                    backoff.pause().await;
                }
            }
        };
        let Some(stored) = stored else {
            return match step.kind {
                StreamStep::Start => self.too_many(step),
                _ => {
                    let refusal = v1::Error::with(ErrorCode::NotFound, "there is no such message");
                    Some(Answer::Refused(refusal, None))
                }
            };
        };
        match stored.state {
            StreamState::Open if !stored.deleted => {
                self.put(step.key, &stored);
                None
            }
            _ => Some(ended(step, &stored)),
        }
    }

    /// The refusal of one stream more, where there are enough.
    fn too_many(&self, step: &Step) -> Option<Answer> {
        let limits = &self.intake.limits.streams;
        let count = |which: &dyn Fn(&Key, &Open) -> bool| {
            self.streams
                .iter()
                .filter(|(key, stream)| which(key, stream))
                .count()
        };
        let what = if self.streams.len() >= MOST {
            "messages stream"
        } else if count(&|_, stream| stream.sender == step.sender) >= limits.per_service {
            "messages of the service stream"
        } else if count(&|key, _| key.0 == step.key.0) >= limits.per_conversation {
            "messages stream in the conversation"
        } else {
            return None;
        };
        let message = format!("as many {what} as may at a time");
        let refusal = v1::Error::with(ErrorCode::RateLimited, message);
        Some(Answer::Refused(refusal, None))
    }

    /// Hands in the message; the reply comes from there.
    async fn start(&mut self, step: Step, delivery: Delivery) -> Option<Refused> {
        let Step {
            key,
            sender,
            text,
            start,
            origin,
            ..
        } = step;
        if let Err(refusal) = self.intake.all_handed_in(&start, delivery.place).await {
            return Some((delivery, Report::refusal(origin, refusal, Vec::new())));
        }
        let limits = &self.intake.limits.streams;
        let now = Instant::now();
        let alive = self.hearing.heard(now);
        let mut stream = Open::new(sender, Phase::Starting, text.len() as u64, limits, alive, now);
        let send = start.into_iter().last();
        stream.pending = send.map(|command| (command, now, 0));
        stream.step = Some(delivery);
        self.streams.insert(key, stream);
        self.in_hand += 1;
        None
    }

    /// Hands in the end with the rest of the text; the reply comes from there.
    async fn end(&mut self, step: Step, delivery: Delivery) -> Option<Refused> {
        let state = match step.kind {
            StreamStep::Finish => StreamState::Finished,
            _ => StreamState::Cancelled,
        };
        let stream = self.streams.get_mut(&step.key)?;
        stream.step = Some(delivery);
        self.in_hand += 1;
        let mut command = end_command(step.key, stream, state);
        command.service = Some(step.origin);
        begin_end(stream, command.clone());
        self.hand_in(vec![(command, 0)]).await;
        None
    }

    /// Replies, and acknowledges what is done.
    async fn answer(&mut self, step: Step, delivery: Delivery, answer: Answer) -> Option<Refused> {
        let Step {
            key, origin, text, ..
        } = step;
        match answer {
            Answer::Later => {}
            Answer::Refused(refusal, next) => {
                metrics::counter!("chat_persistence_stream_steps_refused_total").increment(1);
                let outcome = system_reply::Outcome::Refused(refusal);
                return Some((delivery, Report::step(origin, outcome, next)));
            }
            Answer::Accepted { seq, repeated, next } => {
                let accepted = SystemAccepted {
                    conversation_id: key.0.to_string(),
                    message_id: key.1.to_string(),
                    seq,
                    repeated,
                };
                let outcome = system_reply::Outcome::Accepted(accepted);
                let report = Report::step(origin, outcome, Some(next));
                let held = match self.streams.get_mut(&key) {
                    Some(stream) if !text.is_empty() => stream.keep(next, delivery),
                    _ => Some(delivery),
                };
                self.in_hand += usize::from(held.is_none());
                report.answer(&self.intake.bus).await;
                if let Some(delivery) = held {
                    acknowledge(&delivery).await;
                }
            }
        }
        None
    }

    /// Looks after all of them.
    pub(super) async fn tick(&mut self) {
        let now = Instant::now();
        let link = *self.intake.bus.link().borrow();
        let was_blocked = now.saturating_duration_since(self.listened_at) > BLOCKED;
        self.count();
        let is_full = self.in_hand >= MOST_IN_HAND;
        if !link.connected || link.generation != self.generation || was_blocked || is_full {
            self.generation = link.generation;
            self.interrupted();
        }
        self.listened_at = now;
        if self.streams.values().any(Stream::is_waiting) {
            let ready = self.look().await;
            let mut refused = self.carry_out(ready).await;
            self.intake.settle(&mut refused).await;
        }
        self.publish(now).await;
        self.give_up_stuck(now).await;
        self.write(now).await;
        self.give_up_silent(now).await;
        if now >= self.reload_at {
            self.reload().await;
        }
        metrics::gauge!("chat_persistence_open_streams")
            .set(f64::from(u32::try_from(self.streams.len()).unwrap_or(u32::MAX)));
    }

    /// Shows readers what is new.
    async fn publish(&mut self, now: Instant) {
        for (key, stream) in &mut self.streams {
            let Some(chunk) = stream.chunk(now) else {
                continue;
            };
            let ephemeral = Ephemeral {
                conversation_id: key.0.to_string(),
                body: Some(ephemeral::Body::MessageChunk(v1::MessageChunk {
                    message_id: key.1.to_string(),
                    seq: stream.seq,
                    offset: chunk.offset,
                    text: chunk.text,
                })),
            };
            if let Err(error) = self.intake.bus.publish_ephemeral(key.0, &ephemeral).await {
                tracing::debug!(%error, "a chunk is not published; the next after a write has its text");
            }
        }
    }

    /// Hands in what is to be stored, and what got lost.
    async fn write(&mut self, now: Instant) {
        let mut commands = Vec::new();
        for (key, stream) in &mut self.streams {
            if let Some(write) = stream.write(now) {
                let attempt = write.attempt;
                commands.push((append_command(*key, &stream.sender, write), attempt));
            }
            commands.extend(stream.overdue(now));
        }
        self.hand_in(commands).await;
    }

    async fn hand_in(&self, commands: Vec<(Command, u32)>) {
        futures::stream::iter(commands)
            .for_each_concurrent(TOGETHER, |(command, attempt)| async move {
                let dedup_id = format!("{}-stream-{attempt}", command.id);
                if let Err(refusal) = self.intake.hand_in_as(&command, &dedup_id).await {
                    tracing::error!(cause = refusal.message, "text of a stream cannot be handed in");
                }
            })
            .await;
    }

    /// Gives up those that neither begin nor end, so that they hold nothing for ever. One that is open in the database is found
    /// again there.
    async fn give_up_stuck(&mut self, now: Instant) {
        if !self.is_compared {
            return;
        }
        let stuck = self.streams.iter().filter(|(_, stream)| stream.is_stuck(now));
        let stuck: Vec<Key> = stuck.map(|(key, _)| *key).collect();
        let mut refused = Vec::new();
        for key in stuck {
            let Some(stream) = self.streams.remove(&key) else {
                continue;
            };
            tracing::error!(conversation_id = %key.0, message_id = %key.1, "a stream neither begins nor ends; it is given up");
            let (first, waiting) = stream.give_up();
            let first = first.map(|delivery| (origin(&delivery), delivery));
            let waiting = waiting
                .into_iter()
                .map(|(step, delivery)| (step.origin, delivery));
            for (origin, delivery) in first.into_iter().chain(waiting) {
                metrics::counter!("chat_persistence_stream_steps_refused_total").increment(1);
                let origin = v1::ServiceOrigin {
                    stream: true,
                    ..origin
                };
                let message = "whether it is stored is not known; try again";
                let refusal = v1::Error::with(ErrorCode::Unknown, message);
                let outcome = system_reply::Outcome::Refused(refusal);
                refused.push((delivery, Report::step(origin, outcome, None)));
            }
        }
        self.intake.settle(&mut refused).await;
    }

    /// Ends those whose services were silent for too long while they could be heard.
    async fn give_up_silent(&mut self, now: Instant) {
        let silence = self.intake.limits.streams.silence;
        let mut commands = Vec::new();
        for (key, stream) in &mut self.streams {
            if stream.phase == Phase::Open && self.hearing.is_silent(stream.alive, silence, now) {
                let command = end_command(*key, stream, StreamState::Interrupted);
                begin_end(stream, command.clone());
                commands.push((command, 0));
            }
        }
        self.hand_in(commands).await;
    }

    /// Compares those that wait with the database. Returns the steps that waited for that, in order.
    async fn look(&mut self) -> VecDeque<(Step, Delivery)> {
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
        self.count();
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
            count(stored);
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

    async fn stored(&self, keys: &[Key]) -> Result<HashMap<Key, Stored>, sqlx::Error> {
        let mut connection = self.intake.database.reads.acquire().await?;
        streams::look(&mut connection, keys).await
    }

    /// Finds open streams that are not known here: those of the owner before. Whether the database said.
    async fn reload(&mut self) -> bool {
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

    fn put(&mut self, key: Key, stored: &Stored) {
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

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        metrics::gauge!("chat_persistence_open_streams").set(0.0);
    }
}

/// Whether a step may be kept until it is stored. `stream` is where it belongs, unless it begins one.
fn has_room<D: Placed>(stream: Option<&Stream<D, Step>>, in_hand: usize, step: &Step, place: u64) -> bool {
    let all_full = in_hand >= MOST_IN_HAND;
    let Some(stream) = stream else {
        return !all_full;
    };
    let is_open = stream.phase == Phase::Open;
    let ends = matches!(step.kind, StreamStep::Finish | StreamStep::Cancel);
    // A sign of life need not be kept.
    let is_kept = !is_open || ends || !step.text.is_empty();
    // The end of a stream is one step, and the way to have room again.
    let is_full = stream.in_hand() >= MOST_STEPS && !(is_open && ends);
    !is_kept || !(all_full || is_full) || stream.has(place)
}

/// The refusal of a step of which too many are kept.
fn no_room(next: Option<u64>) -> Answer {
    let message = "too many steps are not stored yet; try again with the same offset";
    let refusal = v1::Error::with(ErrorCode::RateLimited, message);
    Answer::Refused(refusal, next)
}

fn begin_end(stream: &mut Open, command: Command) {
    stream.phase = Phase::Ending;
    stream.pending = Some((command, Instant::now(), 0));
}

/// The same for the same text.
fn append_command(key: Key, sender: &UserId, write: Write) -> Command {
    let Write { offset, text, .. } = write;
    let name = format!("append:{}:{offset}:{}", key.1, text.len());
    let body = command::Body::AppendText(v1::AppendText {
        message_id: key.1.to_string(),
        offset,
        text,
    });
    new_command(key.0, sender, &actor(sender), &name, body)
}

fn end_command(key: Key, stream: &Open, state: StreamState) -> Command {
    let Write { offset, text, .. } = stream.rest();
    let name = format!("end:{}:{}", key.1, state.as_str_name());
    let body = command::Body::EndStream(v1::EndStream {
        message_id: key.1.to_string(),
        offset,
        text,
        state: state.into(),
    });
    new_command(key.0, &stream.sender, &actor(&stream.sender), &name, body)
}

fn actor(sender: &UserId) -> v1::Actor {
    v1::Actor {
        user_id: sender.to_string(),
        username: String::new(),
        kind: SenderKind::System.into(),
    }
}

/// What becomes of a step of a message that does not stream any more, or never did.
fn ended(step: &Step, stored: &Stored) -> Answer {
    let bytes = stored.bytes;
    // Without where to go on: nowhere.
    let conflict = |message: &str| Answer::Refused(v1::Error::with(ErrorCode::Conflict, message), None);
    let is_wanted = match step.kind {
        _ if stored.state == StreamState::Unspecified => false,
        StreamStep::Start => true,
        StreamStep::Append => {
            let end = step
                .offset
                .unwrap_or(u64::MAX)
                .saturating_add(step.text.len() as u64);
            !step.text.is_empty() && end <= bytes
        }
        StreamStep::Finish => stored.state == StreamState::Finished,
        StreamStep::Cancel | StreamStep::Unspecified => stored.state == StreamState::Cancelled,
    };
    if is_wanted {
        return Answer::Accepted {
            seq: stored.seq,
            repeated: true,
            next: bytes,
        };
    }
    match stored.state {
        _ if stored.deleted => conflict("the message was deleted"),
        StreamState::Unspecified => conflict("the message was sent whole"),
        StreamState::Cancelled => conflict("the message was cancelled"),
        StreamState::Interrupted => {
            conflict("the message was interrupted: nothing was heard of its service for too long")
        }
        StreamState::Finished | StreamState::Open => conflict("the message is finished"),
    }
}

fn count(stored: &Stored) {
    let outcome = match stored.state {
        _ if stored.deleted && stored.state == StreamState::Open => "deleted",
        StreamState::Finished => "finished",
        StreamState::Cancelled => "cancelled",
        StreamState::Interrupted => "interrupted",
        StreamState::Open | StreamState::Unspecified => return,
    };
    metrics::counter!("chat_persistence_streams_ended_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use parlance_proto::{ConversationId, MessageId};

    use super::*;
    use crate::intake::stream::Limits;

    struct Published(u64);

    impl Placed for Published {
        fn place(&self) -> u64 {
            self.0
        }
    }

    type Test = Stream<Published, Step>;

    fn stream(phase: Phase) -> Test {
        let now = Instant::now();
        let alive = Hearing::new(now).heard(now);
        let sender = UserId::of_service("bot").unwrap();
        Test::new(sender, phase, 0, &Limits::DEFAULT, alive, now)
    }

    fn step(kind: StreamStep, text: &str) -> Step {
        let sender = UserId::of_service("bot").unwrap();
        let conversation = ConversationId::direct(&sender, &UserId::parse("bob").unwrap());
        Step {
            kind,
            key: (conversation, MessageId::of_service(conversation, &sender, "m1")),
            sender,
            offset: Some(0),
            text: text.to_owned(),
            start: Vec::new(),
            origin: v1::ServiceOrigin::default(),
        }
    }

    #[test]
    fn one_stream_keeps_so_many_steps_and_may_always_end() {
        let mut open = stream(Phase::Open);
        let mut starting = stream(Phase::Starting);
        let append = step(StreamStep::Append, "x");
        for place in 0..MOST_STEPS as u64 {
            assert!(has_room(Some(&open), 0, &append, 1_000));
            assert!(has_room(Some(&starting), 0, &append, 1_000));
            open.keep(1, Published(place));
            starting.wait(step(StreamStep::Append, "x"), Published(place));
        }
        assert!(!has_room(Some(&open), 0, &append, 1_000));
        assert!(!has_room(Some(&starting), 0, &append, 1_000));
        assert!(has_room(Some(&open), 0, &append, 5), "it is kept already");
        assert!(has_room(Some(&open), 0, &step(StreamStep::Append, ""), 1_000));
        assert!(!has_room(
            Some(&starting),
            0,
            &step(StreamStep::Append, ""),
            1_000
        ));
        assert!(has_room(Some(&open), 0, &step(StreamStep::Finish, ""), 1_000));
        assert!(has_room(Some(&open), 0, &step(StreamStep::Cancel, ""), 1_000));
        assert!(!has_room(
            Some(&starting),
            0,
            &step(StreamStep::Finish, ""),
            1_000
        ));
    }

    #[test]
    fn all_streams_keep_less_than_the_bus_hands_out() {
        assert!(MOST_IN_HAND as u64 * 2 <= parlance_bus::Puller::MOST_IN_HAND);
        let open = stream(Phase::Open);
        for (kind, text, is_kept) in [
            (StreamStep::Start, "x", true),
            (StreamStep::Append, "x", true),
            (StreamStep::Finish, "", true),
            (StreamStep::Cancel, "", true),
            (StreamStep::Append, "", false),
            (StreamStep::Start, "", false),
        ] {
            let step = step(kind, text);
            assert!(has_room(Some(&open), MOST_IN_HAND - 1, &step, 1));
            assert_eq!(has_room(Some(&open), MOST_IN_HAND, &step, 1), !is_kept);
        }
        let start = step(StreamStep::Start, "");
        assert!(has_room::<Published>(None, MOST_IN_HAND - 1, &start, 1));
        assert!(!has_room::<Published>(None, MOST_IN_HAND, &start, 1));
    }
}
