//! Taking work from a stream in order, as the only taker.
//!
//! A queue of work is owned under an epoch. Taking it deletes every other consumer of the queue and makes
//! one named after the epoch: this hands over everything unacknowledged in its first order, where shared
//! or pinned consumers were seen to reorder. The same is done after every reconnect, because what was
//! sent into a dead connection would else come back after what followed it.

use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Message};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use opentelemetry::Context;
use tokio::sync::watch;

use crate::connection::{Bus, Link};
use crate::error::{Error, ErrorKind};
use crate::publish::{CALLER_ID, MESSAGE_ID, REPLY_TO};
use crate::streams::{COMMANDS, SYSTEM};
use crate::{subject, trace};

/// Longer than any batch should take; a redelivered copy is only a repeat, so this is no correctness limit.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// How long an abandoned consumer stays: long enough for any restart of its owner.
const INACTIVE: Duration = Duration::from_secs(3600);

/// One message of a queue. Unless acknowledged it comes again.
pub struct Delivery {
    /// Where it was published.
    pub subject: String,
    /// As published.
    pub payload: Bytes,
    /// The header `Nats-Msg-Id`.
    pub message_id: Option<String>,
    /// The header `Parlance-Message-Id`: a service's own id of its message.
    pub own_id: Option<String>,
    /// The header `Parlance-Caller-Id`: what a gateway made the id of.
    pub caller_id: Option<String>,
    /// The header `Parlance-Reply-To`: where the service wants the outcome.
    pub reply_to: Option<String>,
    /// The first of ours and `Content-Type` that stands there more than once, in whatever spelling.
    pub doubled: Option<&'static str>,
    /// The header `Content-Type`.
    pub content_type: Option<String>,
    /// The emitter's trace context.
    pub context: Context,
    /// Messages of the queue behind this one when it was handed out.
    pub pending: u64,
    /// Its place in the queue, each time it comes.
    pub place: u64,
    /// When the server took it, as it counts: milliseconds since 1970.
    pub published_ms: u64,
    message: Message,
}

impl Delivery {
    /// Removes the message from the queue. A lost acknowledgement costs a redelivery.
    ///
    /// # Errors
    /// The connection is away.
    pub async fn ack(&self) -> Result<(), Error> {
        self.message
            .ack()
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "not acknowledged", e))
    }
}

/// An owned queue of work.
pub struct Puller {
    bus: Bus,
    stream: &'static str,
    /// Consumers of this queue start with it.
    prefix: String,
    name: String,
    filter: String,
    link: watch::Receiver<Link>,
    generation: u64,
    messages: pull::Stream,
    next_sequence: u64,
    /// The consumer must be made anew before anything more is taken from it.
    broken: bool,
}

impl Bus {
    /// Makes this process the only taker of a partition's commands.
    ///
    /// # Errors
    /// NATS is away or the stream does not exist.
    pub async fn take_partition(&self, partition: u16, epoch: u64) -> Result<Puller, Error> {
        let prefix = format!("p{partition}-");
        let filter = subject::partition_filter(partition);
        Puller::take(self, COMMANDS, prefix, epoch, filter).await
    }

    /// Makes this process the only taker of other services' messages.
    ///
    /// # Errors
    /// NATS is away or the stream does not exist.
    pub async fn take_system(&self, epoch: u64) -> Result<Puller, Error> {
        let filter = subject::ALL_SYSTEM.to_owned();
        Puller::take(self, SYSTEM, "intake-".to_owned(), epoch, filter).await
    }
}

impl Puller {
    /// Messages of a queue that are handed out and not yet acknowledged, at most.
    pub const MOST_IN_HAND: u64 = 4_000;

    async fn take(
        bus: &Bus,
        stream: &'static str,
        prefix: String,
        epoch: u64,
        filter: String,
    ) -> Result<Self, Error> {
        let link = bus.link();
        let generation = link.borrow().generation;
        let name = format!("{prefix}e{epoch}");
        let handle = stream_handle(bus, stream).await?;
        delete_consumers(&handle, |other| other.starts_with(&prefix)).await?;
        let messages = open(&handle, &name, &filter).await?;
        Ok(Self {
            bus: bus.clone(),
            stream,
            prefix,
            name,
            filter,
            link,
            generation,
            messages,
            next_sequence: 1,
            broken: false,
        })
    }

    /// Waits for work and returns what is there, at most `max`, in order. Cancel-safe: dropping the
    /// future loses nothing that was not returned.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]: someone else took the queue. Others may be tried again.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, Error> {
        loop {
            if self.broken {
                self.reopen().await?;
            }
            let message = tokio::select! {
                biased;
                () = changed(&mut self.link, self.generation) => None,
                message = self.messages.next() => message,
            };
            let mut batch = Vec::new();
            self.push(&mut batch, message);
            while !self.broken && batch.len() < max {
                match self.messages.next().now_or_never() {
                    Some(message) => self.push(&mut batch, message),
                    None => break,
                }
            }
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// Gives the queue up. What is unacknowledged goes to the next taker.
    ///
    /// # Errors
    /// NATS is away; the next taker deletes the consumer then.
    pub async fn give_up(self) -> Result<(), Error> {
        let handle = stream_handle(&self.bus, self.stream).await?;
        delete_consumers(&handle, |other| other == self.name).await
    }

    /// Keeps a message that follows the one before it. Anything else marks the consumer as broken: what
    /// was lost comes again in order from a fresh one, and what we have is only a repeat then.
    fn push(&mut self, batch: &mut Vec<Delivery>, message: Option<Result<Message, pull::MessagesError>>) {
        let Some(Ok(message)) = message else {
            tracing::debug!(consumer = %self.name, "pull interrupted");
            self.broken = true;
            return;
        };
        let numbers = message.info().map(|info| {
            let published: SystemTime = info.published.into();
            (
                info.consumer_sequence,
                info.pending,
                info.stream_sequence,
                published,
            )
        });
        let Ok((sequence, pending, place, published)) = numbers else {
            self.broken = true;
            return;
        };
        let since_1970 = published
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if sequence != self.next_sequence {
            tracing::warn!(consumer = %self.name, "messages were lost on the way; taking them again");
            self.broken = true;
            return;
        }
        self.next_sequence += 1;
        let header = |name: &str| header(message.headers.as_ref(), name);
        batch.push(Delivery {
            subject: message.subject.to_string(),
            message_id: header("Nats-Msg-Id"),
            own_id: header(MESSAGE_ID),
            caller_id: header(CALLER_ID),
            reply_to: header(REPLY_TO),
            doubled: doubled(message.headers.as_ref()),
            content_type: header("Content-Type"),
            context: trace::extract(message.headers.as_ref()),
            payload: message.payload.clone(),
            pending,
            place,
            published_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            message,
        });
    }

    async fn reopen(&mut self) -> Result<(), Error> {
        self.bus.connected().await;
        let generation = self.link.borrow_and_update().generation;
        let handle = stream_handle(&self.bus, self.stream).await?;
        let names = consumer_names(&handle).await?;
        let taken = |other: &String| other.starts_with(&self.prefix) && *other != self.name;
        if names.iter().any(taken) {
            return Err(Error::new(ErrorKind::Gone, "the queue was taken by another"));
        }
        delete_consumers(&handle, |other| other == self.name).await?;
        self.messages = open(&handle, &self.name, &self.filter).await?;
        self.next_sequence = 1;
        self.generation = generation;
        self.broken = false;
        Ok(())
    }
}

/// A header in whatever case it is written: client libraries differ.
fn header(headers: Option<&HeaderMap>, name: &str) -> Option<String> {
    let mut all = headers?.iter();
    let (_, values) = all.find(|(found, _)| {
        let found: &str = found.as_ref();
        found.eq_ignore_ascii_case(name)
    })?;
    values.first().map(|value| value.as_str().to_owned())
}

/// The first of the headers that mean something here which has more than one value: which one counts would depend on chance.
fn doubled(headers: Option<&HeaderMap>) -> Option<&'static str> {
    let headers = headers?;
    [MESSAGE_ID, REPLY_TO, "Content-Type"].into_iter().find(|name| {
        let same = headers.iter().filter(|(found, _)| {
            let found: &str = found.as_ref();
            found.eq_ignore_ascii_case(name)
        });
        same.map(|(_, values)| values.len()).sum::<usize>() > 1
    })
}

/// Completes when the connection is another than that of `generation`.
async fn changed(link: &mut watch::Receiver<Link>, generation: u64) {
    let other = |link: &Link| link.connected && link.generation != generation;
    if link.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn stream_handle(bus: &Bus, stream: &str) -> Result<jetstream::stream::Stream<()>, Error> {
    bus.jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(|e| Error::with(ErrorKind::Other, "cannot reach the stream", e))
}

async fn consumer_names(stream: &jetstream::stream::Stream<()>) -> Result<Vec<String>, Error> {
    stream
        .consumer_names()
        .try_collect()
        .await
        .map_err(|e| Error::with(ErrorKind::Other, "cannot list consumers", e))
}

async fn delete_consumers(
    stream: &jetstream::stream::Stream<()>,
    which: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    for name in consumer_names(stream).await? {
        if which(&name) {
            // Already gone is what we want.
            if let Err(error) = stream.delete_consumer(&name).await {
                tracing::debug!(consumer = %name, %error, "consumer not deleted");
            }
        }
    }
    Ok(())
}

async fn open(
    stream: &jetstream::stream::Stream<()>,
    name: &str,
    filter: &str,
) -> Result<pull::Stream, Error> {
    let consumer: PullConsumer = stream
        .create_consumer(pull::Config {
            durable_name: Some(name.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            filter_subject: filter.to_owned(),
            max_ack_pending: i64::try_from(Puller::MOST_IN_HAND).unwrap_or(i64::MAX),
            inactive_threshold: INACTIVE,
            ..pull::Config::default()
        })
        .await
        .map_err(|e| Error::with(ErrorKind::Other, "cannot make the consumer", e))?;
    consumer
        .stream()
        .max_messages_per_batch(500)
        .heartbeat(Duration::from_secs(5))
        .expires(Duration::from_secs(30))
        .messages()
        .await
        .map_err(|e| Error::with(ErrorKind::Other, "cannot pull", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.insert("parlance-message-id", "order-1");
        assert_eq!(header(Some(&headers), MESSAGE_ID), Some("order-1".to_owned()));
        assert_eq!(header(Some(&headers), REPLY_TO), None);
        assert_eq!(header(None, REPLY_TO), None);
        assert_eq!(doubled(Some(&headers)), None);
        headers.insert(MESSAGE_ID, "order-2");
        assert_eq!(doubled(Some(&headers)), Some(MESSAGE_ID));
    }
}
