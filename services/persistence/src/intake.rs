//! Messages of other services become commands. One replica at a time does this, under a lease of its own;
//! doing it twice is harmless, because every id is derived from the service's own `Parlance-Message-Id`.
//!
//! Whatever becomes of a message is reported to its sender: here where it can be no command, else after the commit.
//!
//! | module | owns |
//! | --- | --- |
//! | `published` | what a message stands for, or why it is refused |
//! | `json` | messages written as JSON |
//! | `command` | the commands that messages stand for |
//! | `streaming` | messages whose text streams, all together |
//! | [`stream`], `hearing` | one of them; whether its service is silent |

mod command;
mod hearing;
mod json;
mod published;
pub(crate) mod stream;
mod streaming;

use std::time::Duration;

use parlance_bus::{Bus, Delivery, ErrorKind, Puller};
use parlance_proto::v1::{self, Command, ErrorCode, ServiceOrigin};
use parlance_runtime::backoff::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::database::Database;
use crate::report::{self, Report};
pub use published::Limits;
pub(crate) use published::replayed;
use published::{Taken, is_step, origin, taken};
use streaming::{Streaming, TICK};

const BATCH: usize = 64;
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Patience for handing one command to the stream before it is tried anew.
const HAND_IN: Duration = Duration::from_secs(10);
const GIVE_UP: Duration = Duration::from_secs(1);
/// Payloads of refused messages that are parked together.
const REFUSED_BYTES: usize = 4 << 20;

/// What the intake needs.
pub(crate) struct Intake {
    pub(crate) bus: Bus,
    pub(crate) database: Database,
    pub(crate) partitions: u16,
    pub(crate) limits: Limits,
}

/// A message that is refused, to be acknowledged once the report is settled.
type RefusedMessage = (Delivery, Report);

impl Intake {
    /// Works until `stop`.
    pub(crate) async fn run(self, epoch: u64, stop: CancellationToken) {
        let mut puller = None;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work(epoch, &mut puller) => {}
        }
        if let Some(puller) = puller
            && let Ok(Err(error)) = timeout(GIVE_UP, puller.give_up()).await
        {
            tracing::debug!(%error, "intake consumer not deleted");
        }
    }

    async fn work(&self, epoch: u64, slot: &mut Option<Puller>) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut streaming = Streaming::begin(self).await;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let puller = match slot {
                Some(puller) => puller,
                None => match self.bus.take_system(epoch).await {
                    Ok(puller) => slot.insert(puller),
                    Err(error) => {
                        tracing::warn!(%error, "cannot take services' messages yet");
                        backoff.pause().await;
                        continue;
                    }
                },
            };
            // Not dropped for a tick: making the consumer anew takes longer than one.
            let batch = {
                let mut next = std::pin::pin!(puller.next_batch(BATCH));
                loop {
                    tokio::select! {
                        batch = &mut next => break batch,
                        _ = tick.tick() => streaming.tick().await,
                    }
                }
            };
            match batch {
                Ok(deliveries) => {
                    backoff.reset();
                    streaming.heard(&deliveries);
                    self.take_all_in(deliveries, &mut streaming).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "intake interrupted");
                    streaming.interrupted();
                    if error.kind() == ErrorKind::Gone {
                        *slot = None;
                    }
                    backoff.pause().await;
                }
            }
        }
    }

    /// Takes messages in by their order.
    async fn take_all_in(&self, deliveries: Vec<Delivery>, streaming: &mut Streaming<'_>) {
        let mut refused = Vec::new();
        let mut bytes = 0;
        for delivery in deliveries {
            let span = process_span(&delivery);
            bytes += delivery.payload.len();
            refused.extend(self.take_in(delivery, streaming).instrument(span).await);
            if bytes >= REFUSED_BYTES {
                self.settle(&mut refused).await;
                bytes = 0;
            }
        }
        self.settle(&mut refused).await;
    }

    /// Turns one message into commands, for as long as it takes: the next one must not overtake it. What is refused, with
    /// the report of that; anything else is acknowledged, or kept by the stream it belongs to.
    async fn take_in(&self, delivery: Delivery, streaming: &mut Streaming<'_>) -> Vec<RefusedMessage> {
        let refusal = match taken(&delivery, &self.limits) {
            Ok(Taken::Step(step)) => return streaming.take(*step, delivery).await,
            Ok(Taken::Commands(commands)) => match self.hand_in_all(&commands, delivery.place).await {
                Ok(()) => {
                    acknowledge(&delivery).await;
                    return Vec::new();
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        let origin = ServiceOrigin {
            stream: is_step(&delivery),
            ..origin(&delivery)
        };
        let report = Report::refusal(origin, refusal, delivery.payload.to_vec());
        vec![(delivery, report)]
    }

    /// Settles what was refused together, and acknowledges it after that.
    async fn settle(&self, refused: &mut Vec<RefusedMessage>) {
        let (deliveries, reports): (Vec<_>, Vec<_>) = std::mem::take(refused).into_iter().unzip();
        // A lease that is lost ends the task, and this with it.
        if report::settle(&reports, &self.database, &self.bus, || true).await {
            for delivery in &deliveries {
                acknowledge(delivery).await;
            }
        }
    }

    /// Hands in what a message stands for. What is refused for ever is no reason to hold up what follows. `place` is that of
    /// the message in its stream: a service that publishes it again is replied to again.
    async fn hand_in_all(&self, commands: &[Command], place: u64) -> Result<(), v1::Error> {
        for command in commands {
            self.hand_in(command, &format!("{}-{place}", command.id)).await?;
        }
        Ok(())
    }

    /// Hands in a command. The stream takes one of this `dedup_id` only.
    async fn hand_in(&self, command: &Command, dedup_id: &str) -> Result<(), v1::Error> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let deadline = Instant::now() + HAND_IN;
            match self
                .bus
                .send_command(command, self.partitions, dedup_id, deadline)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::TooLarge => {
                    let message = "its command is larger than the bus takes";
                    return Err(v1::Error::with(ErrorCode::TooLarge, message));
                }
                Err(error) => {
                    tracing::warn!(%error, command = command.id, "a service's message waits for the stream");
                    backoff.pause().await;
                }
            }
        }
    }
}

async fn acknowledge(delivery: &Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::debug!(%error, "not acknowledged; it comes again");
    }
}

/// The span of a service's message. It begins a trace where the service has none.
fn process_span(delivery: &Delivery) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "process chat.system",
        otel.kind = "consumer",
        messaging.system = "nats",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.template = "chat.system.{target}",
    );
    // Without a tracer there is no parent to set.
    let _ = span.set_parent(delivery.context.clone());
    span
}
