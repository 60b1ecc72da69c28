//! All messages that stream at a time. Text goes to readers as chunks at once, and to the database by commands, once a second
//! for each message: so every write takes the ordinary path, in order with whatever else happens to the message.
//!
//! What a service published is acknowledged when its text is stored. After a takeover the database says where each message is,
//! and the stream SYSTEM has everything behind that again.

mod compare;
mod outcome;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures::StreamExt as _;
use parlance_bus::Delivery;
use parlance_proto::v1::{
    self, Command, Ephemeral, ErrorCode, StreamState, StreamStep, SystemAccepted, ephemeral, system_reply,
};
use parlance_runtime::backoff::Backoff;
use tokio::time::Instant;

use super::hearing::Hearing;
use super::published::{Step, origin};
use super::stream::{Phase, Placed, Stream};
use super::{Intake, PAUSES, RefusedMessage, acknowledge, command};
use crate::error::without_content;
use crate::report::Report;
use crate::store::streams::Key;
use outcome::{MOST_IN_HAND, StepOutcome, ended, has_room, no_room};

/// How often streams are looked after.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Streams open at a time.
const MOST: usize = 10_000;
/// Commands handed in at a time.
const TOGETHER: usize = 16;
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
        self.count_in_hand();
    }

    /// What services publish may not be heard at present.
    pub(super) fn interrupted(&mut self) {
        self.hearing.interrupted(Instant::now());
    }

    fn count_in_hand(&mut self) {
        self.in_hand = self.streams.values().map(Stream::in_hand).sum();
    }

    /// Carries out a step. Returns what is refused: it, or others that waited before it.
    pub(super) async fn take(&mut self, step: Step, delivery: Delivery) -> Vec<RefusedMessage> {
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

    async fn carry_out(&mut self, steps: VecDeque<(Step, Delivery)>) -> Vec<RefusedMessage> {
        let mut refused = Vec::new();
        for (step, delivery) in steps {
            refused.extend(self.one(step, delivery).await);
        }
        refused
    }

    async fn one(&mut self, step: Step, delivery: Delivery) -> Option<RefusedMessage> {
        let now = Instant::now();
        if !self.streams.contains_key(&step.key)
            && let Some(outcome) = self.unknown(&step).await
        {
            return self.reply(step, delivery, outcome).await;
        }
        let has_room = has_room(self.streams.get(&step.key), self.in_hand, &step, delivery.place);
        let Some(stream) = self.streams.get_mut(&step.key) else {
            if !has_room {
                return self.reply(step, delivery, no_room(None)).await;
            }
            return self.start(step, delivery).await;
        };
        stream.alive = self.hearing.heard(now);
        if !has_room {
            let next = stream.accepted();
            return self.reply(step, delivery, no_room(Some(next))).await;
        }
        if stream.phase != Phase::Open {
            stream.wait(step, delivery);
            self.in_hand += 1;
            return None;
        }
        match outcome::of(stream, &step, &self.intake.limits, now) {
            StepOutcome::Later => self.end(step, delivery).await,
            outcome => self.reply(step, delivery, outcome).await,
        }
    }

    /// What becomes of a step of a message that does not stream as far as is known here; `None` where it begins to, or is
    /// known now.
    async fn unknown(&mut self, step: &Step) -> Option<StepOutcome> {
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
                    Some(StepOutcome::Refused(refusal, None))
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
    fn too_many(&self, step: &Step) -> Option<StepOutcome> {
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
        Some(StepOutcome::Refused(refusal, None))
    }

    /// Hands in the message; the reply comes from there.
    async fn start(&mut self, step: Step, delivery: Delivery) -> Option<RefusedMessage> {
        let Step {
            key,
            sender,
            text,
            start,
            origin,
            ..
        } = step;
        if let Err(refusal) = self.intake.hand_in_all(&start, delivery.place).await {
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
    async fn end(&mut self, step: Step, delivery: Delivery) -> Option<RefusedMessage> {
        let state = match step.kind {
            StreamStep::Finish => StreamState::Finished,
            _ => StreamState::Cancelled,
        };
        let stream = self.streams.get_mut(&step.key)?;
        stream.step = Some(delivery);
        self.in_hand += 1;
        let mut command = command::end(step.key, &stream.sender, stream.rest(), state);
        command.service = Some(step.origin);
        begin_end(stream, command.clone());
        self.hand_in(vec![(command, 0)]).await;
        None
    }

    /// Replies, and acknowledges what is done.
    async fn reply(
        &mut self,
        step: Step,
        delivery: Delivery,
        outcome: StepOutcome,
    ) -> Option<RefusedMessage> {
        let Step {
            key, origin, text, ..
        } = step;
        match outcome {
            StepOutcome::Later => {}
            StepOutcome::Refused(refusal, next) => {
                metrics::counter!("chat_persistence_stream_steps_refused_total").increment(1);
                let outcome = system_reply::Outcome::Refused(refusal);
                return Some((delivery, Report::step(origin, outcome, next)));
            }
            StepOutcome::Accepted { seq, repeated, next } => {
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
        self.count_in_hand();
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
                commands.push((command::append(*key, &stream.sender, write), attempt));
            }
            commands.extend(stream.overdue(now));
        }
        self.hand_in(commands).await;
    }

    async fn hand_in(&self, commands: Vec<(Command, u32)>) {
        futures::stream::iter(commands)
            .for_each_concurrent(TOGETHER, |(command, attempt)| async move {
                let dedup_id = format!("{}-stream-{attempt}", command.id);
                if let Err(refusal) = self.intake.hand_in(&command, &dedup_id).await {
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
                let command = command::end(*key, &stream.sender, stream.rest(), StreamState::Interrupted);
                begin_end(stream, command.clone());
                commands.push((command, 0));
            }
        }
        self.hand_in(commands).await;
    }
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        metrics::gauge!("chat_persistence_open_streams").set(0.0);
    }
}

fn begin_end(stream: &mut Open, command: Command) {
    stream.phase = Phase::Ending;
    stream.pending = Some((command, Instant::now(), 0));
}
