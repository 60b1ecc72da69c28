//! The only way in: every change of a conversation, by socket or REST, leaves here as a command, and its
//! outcome comes back here as a confirmation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_bus::{Bus, faults};
use parlance_proto::v1::{Actor, Command, Confirmation, EditJournal, ErrorCode, command, confirmation};
use parlance_proto::{ConversationId, ErrorCodeExt as _};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::actions::idempotency::{Attempt, Change};
use crate::backend::Backend;
use crate::clock::now;
use crate::delivery::rooms::Rooms;
use crate::dialect::Answer;
use crate::error::ClientError;
use crate::ids::new_id;
use crate::session::{Ack, Request, Session};
use crate::signals;

/// What a command led to.
pub type Outcome = Result<Confirmed, ClientError>;

/// The good outcome.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The command had been carried out before.
    pub repeated: bool,
    /// What it led to.
    pub answer: Answer,
}

/// Sends commands and waits for their confirmations. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    bus: Bus,
    backend: Backend,
    partitions: u16,
    timeout: Duration,
    rooms: Rooms,
    pending: Arc<Mutex<Pending>>,
}

/// What follows an outcome.
pub type Then = Box<dyn FnOnce(&Outcome) + Send + Sync>;

/// Who waits for a confirmation.
pub enum Waiter {
    /// An event of a socket.
    Socket {
        /// Whose.
        session: Arc<Session>,
        /// Its ack.
        ack: Ack,
        /// Its name.
        event: &'static str,
        /// What the client calls it.
        tag: Option<String>,
        /// It names messages without their conversation.
        alone: bool,
        /// What else the outcome decides.
        then: Option<Then>,
        /// Where the answer is kept, for an event with an idempotency key.
        attempt: Option<Box<Attempt>>,
    },
    /// A task.
    Task(oneshot::Sender<Outcome>),
}

#[derive(Default)]
struct Pending {
    /// By the command's id. Two attempts at one change send the same.
    waiters: HashMap<String, Vec<PendingCommand>>,
    /// In the order in which commands were sent, which is nearly that of their deadlines.
    deadlines: VecDeque<(Instant, String, u64)>,
    /// The number of the latest that waits.
    latest: u64,
}

struct PendingCommand {
    number: u64,
    waiter: Waiter,
    change: Change,
    /// Of what was asked: it ends with the answer.
    span: Span,
}

impl Commands {
    /// `timeout` is how long an outcome may take until it is called unknown.
    pub fn new(bus: Bus, backend: Backend, rooms: Rooms, partitions: u16, timeout: Duration) -> Self {
        Self {
            bus,
            backend,
            rooms,
            partitions,
            timeout,
            pending: Arc::default(),
        }
    }

    /// Sends a command and returns once it is accepted or has failed; either way the waiter is told.
    /// `since` is when the client asked. Commands of one client are sent one after the other, so that a
    /// retried first cannot land after the second.
    pub async fn submit(
        &self,
        actor: Actor,
        change: &Change,
        conversation: ConversationId,
        body: command::Body,
        since: Instant,
        waiter: Waiter,
    ) {
        let deadline = since + self.timeout;
        let command = Command {
            id: change.command(conversation, &body).to_string(),
            reply_to: self.bus.name().to_owned(),
            actor: Some(actor),
            conversation_id: conversation.to_string(),
            issued_at_ms: now().timestamp_millis(),
            service: None,
            body: Some(body),
        };
        let number = self.register(&command.id, change.clone(), deadline, waiter);
        faults::crash_at("before_publish");
        // A command that comes again must reach persistence to be answered.
        let fresh = change.is_keyed().then(|| new_id().to_string());
        // Never the client's own id: a second request with that id must reach persistence too.
        let dedup_id = fresh.as_deref().unwrap_or(&command.id);
        let sent = if self.backend.misfiles() {
            let message = "the service is misconfigured at the moment; nothing was stored";
            Err(ClientError::new(ErrorCode::Unavailable, message))
        } else {
            let bus = &self.bus;
            let sent = bus.send_command(&command, self.partitions, dedup_id, deadline);
            sent.await.map_err(|error| {
                tracing::warn!(command = %command.id, %error, "a command was not accepted");
                ClientError::from_send(&error)
            })
        };
        faults::crash_at("after_publish");
        if let Err(error) = sent {
            let waiting = self.lock().remove(&command.id, number);
            self.complete(waiting, &Err(error));
        }
    }

    /// Sends a command and waits for its outcome.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn execute(
        &self,
        actor: Actor,
        change: &Change,
        conversation: ConversationId,
        body: command::Body,
    ) -> Outcome {
        let (tx, rx) = oneshot::channel();
        let waiter = Waiter::Task(tx);
        self.submit(actor, change, conversation, body, Instant::now(), waiter)
            .await;
        rx.await.unwrap_or_else(|_| Err(ClientError::unknown()))
    }

    /// How the edit of a journal was answered that an earlier attempt at a change sent; `None` where it was not processed
    /// before what asks for it. An attempt that is taken over sends nothing any more: its deadline is over.
    pub async fn resumed_edit(
        &self,
        actor: Actor,
        change: &Change,
        journal: ConversationId,
    ) -> Option<Result<Answer, ClientError>> {
        let asks = command::Body::EditJournal(EditJournal::default());
        match self.execute(actor, change, journal, asks).await {
            Err(error) if error.code == ErrorCode::Conflict.name() => None,
            outcome => Some(outcome.map(|confirmed| confirmed.answer)),
        }
    }

    /// Receives confirmations until `stop`.
    ///
    /// # Errors
    /// The subscription cannot be made.
    pub async fn receive(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut confirmations = self.bus.subscribe_confirmations(self.bus.name()).await?;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => self.expire(),
                batch = confirmations.next() => {
                    let Some(batch) = batch else { anyhow::bail!("the connection to NATS is closed") };
                    for confirmation in batch.confirmations {
                        self.resolve(confirmation);
                    }
                }
            }
        }
    }

    fn register(&self, id: &str, change: Change, deadline: Instant, waiter: Waiter) -> u64 {
        let mut pending = self.lock();
        pending.latest += 1;
        let number = pending.latest;
        let waiting = PendingCommand {
            number,
            waiter,
            change,
            span: Span::current(),
        };
        pending.waiters.entry(id.to_owned()).or_default().push(waiting);
        // One that came earlier but is sent later expires late, never early.
        pending.deadlines.push_back((deadline, id.to_owned(), number));
        number
    }

    fn resolve(&self, confirmation: Confirmation) {
        let waiting = self.lock().waiters.remove(&confirmation.command_id);
        let outcome = outcome(confirmation);
        for waiting in waiting.into_iter().flatten() {
            if outcome.is_err() {
                waiting.change.note_refusal();
            }
            self.complete(Some(waiting), &outcome);
        }
    }

    /// Without a waiter it came after the deadline, and the client was told that the outcome is unknown.
    fn complete(&self, waiting: Option<PendingCommand>, outcome: &Outcome) {
        if let Some(PendingCommand {
            waiter, change, span, ..
        }) = waiting
        {
            if outcome.is_err() {
                span.record("otel.status_code", "ERROR");
            }
            let outcome = outcome.clone().map_err(|error| change.failure(error));
            span.in_scope(|| waiter.tell(&self.rooms, outcome));
        }
    }

    fn expire(&self) {
        let waiting = u32::try_from(self.lock().waiters.len()).unwrap_or(u32::MAX);
        metrics::gauge!("chat_gateway_inflight_commands").set(f64::from(waiting));
        let now = Instant::now();
        loop {
            let waiting = {
                let mut pending = self.lock();
                match pending.deadlines.front() {
                    Some((deadline, ..)) if *deadline <= now => {}
                    _ => return,
                }
                let expired = pending.deadlines.pop_front();
                expired.and_then(|(_, id, number)| pending.remove(&id, number))
            };
            self.complete(waiting, &Err(ClientError::unknown()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// The one of this number that waits for this command.
    fn remove(&mut self, id: &str, number: u64) -> Option<PendingCommand> {
        let waiting = self.waiters.get_mut(id)?;
        let place = waiting.iter().position(|waiting| waiting.number == number)?;
        let removed = waiting.swap_remove(place);
        if waiting.is_empty() {
            self.waiters.remove(id);
        }
        Some(removed)
    }
}

impl Waiter {
    fn tell(self, rooms: &Rooms, outcome: Outcome) {
        signals::count_command(outcome.as_ref().err());
        match self {
            Self::Socket {
                session,
                ack,
                event,
                tag,
                alone,
                then,
                attempt,
            } => {
                if let Some(then) = then {
                    then(&outcome);
                }
                let outcome = if alone {
                    outcome.map_err(ClientError::of_message_alone)
                } else {
                    outcome
                };
                let outcome = outcome.as_ref().map(|confirmed| &confirmed.answer);
                let place = outcome.ok().and_then(|answer| rooms.place_of(answer));
                if let Some(attempt) = attempt {
                    attempt.settle_event(session.dialect(), outcome, place.as_deref());
                }
                let request = Request {
                    ack,
                    event,
                    tag: tag.as_deref(),
                };
                session.answer(request, outcome, place.as_deref());
            }
            // Whoever asked has gone.
            Self::Task(sender) => drop(sender.send(outcome)),
        }
    }
}

fn outcome(confirmation: Confirmation) -> Outcome {
    let answer = match confirmation.result {
        Some(confirmation::Result::Error(error)) => return Err(error.into()),
        Some(confirmation::Result::Message(message)) => Answer::Message(message),
        Some(confirmation::Result::Conversation(conversation)) => Answer::Conversation(conversation),
        Some(confirmation::Result::Receipt(receipt)) => Answer::Receipt(receipt),
        Some(confirmation::Result::Thread(thread)) => Answer::Thread(thread),
        Some(confirmation::Result::Journal(journal)) => Answer::Journal(journal, None),
        None => Answer::Done,
    };
    Ok(Confirmed {
        repeated: confirmation.repeated,
        answer,
    })
}
