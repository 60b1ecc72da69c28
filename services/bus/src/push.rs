//! The way of a push: from the feed of events to whoever looks for recipients, and from there to the service that
//! reaches their devices. What that service does not acknowledge in time comes again, a few times; then the server
//! says so, and that is kept in a stream too.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Message};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use parlance_proto::ConversationId;
use parlance_proto::v1::Push;
use prost::Message as _;

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::streams::EVENTS;
use crate::subject;

/// Pushes that wait for the service that carries them out.
pub const PUSH: &str = "PUSH";
/// Word of pushes that were given up.
pub const PUSH_PARKED: &str = "PUSH_PARKED";
/// The consumer of [`PUSH`] for the service that carries them out.
pub const PUSH_CONSUMER: &str = "push";

/// Where the server says that a push was given up.
const GIVEN_UP: &str = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.PUSH.push";
/// The consumer of the events in which recipients are looked for; shared by all replicas.
pub const SOURCE: &str = "push-source";
/// The consumer of [`PUSH_PARKED`]; shared by all replicas.
const PARKING: &str = "parking";
/// How long one of ours may take; a redelivered copy is only a repeat.
const ACK_WAIT: Duration = Duration::from_secs(20);
/// Handed out and not yet acknowledged, over all replicas.
const MAX_UNACKED: i64 = 4_000;
/// Most bytes of [`PUSH_PARKED`]; servers set aside what a stream may take.
const PARKED_BYTES: i64 = 64 << 20;
/// How long a push with the same id is known to be a repeat.
const REPEATS: Duration = Duration::from_secs(600);

/// Sizes and patience.
#[derive(Debug, Clone)]
pub struct PushSettings {
    /// Copies of each stream in a NATS cluster.
    pub replicas: usize,
    /// Bytes of waiting pushes; beyond it the oldest are dropped.
    pub max_bytes: i64,
    /// Age of waiting pushes; beyond it they are dropped.
    pub max_age: Duration,
    /// How often a push is handed out.
    pub attempts: u32,
    /// Until it is handed out for the second time; doubled each time after.
    pub backoff: Duration,
}

/// Messages of a shared consumer, in no order that matters.
pub struct Feed {
    messages: pull::Stream,
}

/// One of them. Unless acknowledged it comes again.
pub struct Fed {
    /// As published.
    pub payload: Bytes,
    message: Message,
}

impl Bus {
    /// Creates the streams and consumers of pushes where they are missing, and adjusts what differs.
    ///
    /// # Errors
    /// NATS is away, or the account may not do this.
    pub async fn ensure_push(&self, settings: &PushSettings) -> Result<(), Error> {
        let failed = |e| Error::with(ErrorKind::Other, "cannot ensure the streams of pushes", e);
        for config in configs(settings) {
            self.jetstream
                .create_or_update_stream(config)
                .await
                .map_err(failed)?;
        }
        let (ack_wait, backoff) = waits(settings);
        let pushing = pull::Config {
            description: Some("For the service that carries pushes out".to_owned()),
            ack_wait,
            backoff,
            max_deliver: i64::from(settings.attempts),
            ..shared(PUSH_CONSUMER, subject::ALL_PUSH)
        };
        let source = pull::Config {
            // What was sent before anybody looked is no news.
            deliver_policy: DeliverPolicy::New,
            ..shared(SOURCE, subject::ALL_EVENTS)
        };
        for (stream, config) in [
            (EVENTS, source),
            (PUSH, pushing),
            (PUSH_PARKED, shared(PARKING, GIVEN_UP)),
        ] {
            self.consumer(stream, config).await?;
        }
        Ok(())
    }

    /// Committed events, each taken by one of all replicas.
    ///
    /// # Errors
    /// NATS is away or the consumer was not made.
    pub async fn events_to_push(&self) -> Result<Feed, Error> {
        let source = pull::Config {
            deliver_policy: DeliverPolicy::New,
            ..shared(SOURCE, subject::ALL_EVENTS)
        };
        Feed::open(&self.consumer(EVENTS, source).await?).await
    }

    /// Word of pushes that were given up, as the server writes it: JSON with the `stream_seq` of the push.
    ///
    /// # Errors
    /// NATS is away or the consumer was not made.
    pub async fn given_up_pushes(&self) -> Result<Feed, Error> {
        Feed::open(&self.consumer(PUSH_PARKED, shared(PARKING, GIVEN_UP)).await?).await
    }

    /// What waits for the service that carries pushes out; it must acknowledge each in time.
    ///
    /// # Errors
    /// NATS is away or persistence has not made the consumer yet.
    pub async fn pushes(&self) -> Result<Feed, Error> {
        let consumer: PullConsumer = self
            .stream(PUSH)
            .await?
            .get_consumer(PUSH_CONSUMER)
            .await
            .map_err(|e| Error::with(ErrorKind::Other, "there is no consumer of pushes", e))?;
        Feed::open(&consumer).await
    }

    /// Hands a push over. A repeat with the same `id` is no second one.
    ///
    /// # Errors
    /// It is not known whether the stream has it: publish it again.
    pub async fn publish_push(
        &self,
        conversation: ConversationId,
        push: &Push,
        id: &str,
    ) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let stored = self
            .jetstream
            .publish_with_headers(subject::push(conversation), headers, push.encode_to_vec().into())
            .await;
        let ack = match stored {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        ack.map(drop)
            .map_err(|e| Error::with(ErrorKind::Unknown, "push not stored", e))
    }

    /// The subject and payload of a push in the stream; `None` where it is there no more.
    ///
    /// # Errors
    /// NATS is away.
    pub async fn push_at(&self, sequence: u64) -> Result<Option<(String, Bytes)>, Error> {
        use jetstream::stream::LastRawMessageErrorKind;
        match self.stream(PUSH).await?.get_raw_message(sequence).await {
            Ok(message) => Ok(Some((message.subject.to_string(), message.payload))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Error::with(ErrorKind::Other, "cannot read a push", error)),
        }
    }

    /// Takes a push out of the stream.
    ///
    /// # Errors
    /// NATS is away.
    pub async fn delete_push(&self, sequence: u64) -> Result<(), Error> {
        let deleted = self.stream(PUSH).await?.delete_message(sequence).await;
        deleted
            .map(drop)
            .map_err(|e| Error::with(ErrorKind::Other, "cannot delete a push", e))
    }

    async fn stream(&self, name: &str) -> Result<jetstream::stream::Stream<()>, Error> {
        self.jetstream
            .get_stream_no_info(name)
            .await
            .map_err(|e| Error::with(ErrorKind::Other, "cannot reach the stream", e))
    }

    async fn consumer(&self, stream: &str, config: pull::Config) -> Result<PullConsumer, Error> {
        self.stream(stream)
            .await?
            .create_consumer(config)
            .await
            .map_err(|e| Error::with(ErrorKind::Other, "cannot make the consumer", e))
    }
}

impl Feed {
    async fn open(consumer: &PullConsumer) -> Result<Self, Error> {
        let messages = consumer
            .stream()
            .max_messages_per_batch(100)
            .heartbeat(Duration::from_secs(5))
            .expires(Duration::from_secs(30))
            .messages()
            .await
            .map_err(|e| Error::with(ErrorKind::Other, "cannot pull", e))?;
        Ok(Self { messages })
    }

    /// Waits for messages and returns what is there, at most `max`. Cancel-safe.
    ///
    /// # Errors
    /// The pull was interrupted: open it anew.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Fed>, Error> {
        let mut batch = Vec::new();
        let mut next = Some(self.messages.next().await);
        while let Some(message) = next {
            match message {
                Some(Ok(message)) => batch.push(Fed {
                    payload: message.payload.clone(),
                    message,
                }),
                Some(Err(error)) if batch.is_empty() => {
                    return Err(Error::with(ErrorKind::Other, "pull interrupted", error));
                }
                None if batch.is_empty() => return Err(Error::new(ErrorKind::Gone, "the pull ended")),
                _ => break,
            }
            next = if batch.len() < max {
                self.messages.next().now_or_never()
            } else {
                None
            };
        }
        Ok(batch)
    }
}

impl Fed {
    /// The payload as a push.
    ///
    /// # Errors
    /// It is none.
    pub fn push(&self) -> Result<Push, prost::DecodeError> {
        Push::decode(self.payload.clone())
    }

    /// It need not come again.
    pub async fn ack(&self) {
        if let Err(error) = self.message.ack().await {
            tracing::debug!(%error, "not acknowledged; it comes again");
        }
    }
}

fn shared(name: &str, filter: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(name.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        filter_subject: filter.to_owned(),
        max_ack_pending: MAX_UNACKED,
        ..pull::Config::default()
    }
}

/// How long the first attempt may take, and all of them but the last, which takes as long as the one before.
fn waits(settings: &PushSettings) -> (Duration, Vec<Duration>) {
    let doubled =
        (0..settings.attempts.saturating_sub(1)).map(|n| settings.backoff * 2_u32.saturating_pow(n));
    (settings.backoff, doubled.collect())
}

fn configs(settings: &PushSettings) -> [Config; 2] {
    let stream = |name: &str, subjects: &str, description: &str| Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        description: Some(description.to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_bytes: settings.max_bytes,
        max_age: settings.max_age,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        duplicate_window: REPEATS.min(settings.max_age),
        ..Config::default()
    };
    [
        stream(
            PUSH,
            subject::ALL_PUSH,
            "Messages for users who are not connected",
        ),
        Config {
            retention: RetentionPolicy::WorkQueue,
            max_bytes: settings.max_bytes.min(PARKED_BYTES),
            ..stream(PUSH_PARKED, GIVEN_UP, "Word of pushes that were given up")
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_attempt_to_attempt() {
        let settings = |attempts| PushSettings {
            replicas: 1,
            max_bytes: 1,
            max_age: REPEATS,
            attempts,
            backoff: Duration::from_secs(2),
        };
        let seconds = |attempts| -> Vec<u64> {
            let (_, waits) = waits(&settings(attempts));
            waits.iter().map(Duration::as_secs).collect()
        };
        assert_eq!(seconds(1), [0; 0]);
        assert_eq!(seconds(3), [2, 4]);
        assert_eq!(seconds(5), [2, 4, 8, 16]);
    }
}
