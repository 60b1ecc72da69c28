//! Sending: commands with an answer from the stream, everything else live.

use std::future::IntoFuture;
use std::time::Duration;

use async_nats::client::PublishErrorKind as ClientErrorKind;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use parlance_proto::v1::{
    Command, ConfirmationBatch, Ephemeral, EventBatch, Presence, SystemMessage, UserNotice,
};
use parlance_proto::{ConversationId, UserId};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::subject::System;
use crate::{subject, trace};

/// Largest payload of one message; NATS' own default limit is 1 MiB with headers.
pub const MAX_PAYLOAD: usize = 900 * 1024;

/// Header with a service's own id of its message. Not that of NATS, which a stream compares over all subjects: one id sent to
/// three users would reach one.
pub const MESSAGE_ID: &str = "Parlance-Message-Id";

/// Header with the inbox that gets the outcome of a service's message. The subject to reply to is taken already: there the
/// stream answers that it has the message.
pub const REPLY_TO: &str = "Parlance-Reply-To";

/// Header with the id that a caller of a gateway's internal route gave its message, where the gateway made another of it.
pub const CALLER_ID: &str = "Parlance-Caller-Id";

/// How long the feed may take to store events. Nobody waits for it but the finisher, and catching up is cheap.
const FEED_PATIENCE: Duration = Duration::from_secs(2);

/// A stream that does not exist: what expects to be stored there is refused by `EVENTS` and still reaches live
/// subscribers.
const NO_STREAM: &str = "NONE";

/// Events on their way into the stream `EVENTS`; live subscribers have them already.
#[must_use = "only `stored` proves that the feed has the events"]
pub struct StoredEvents {
    acks: Vec<PublishAckFuture>,
    deadline: Instant,
}

impl StoredEvents {
    /// Waits until the feed has them all.
    ///
    /// # Errors
    /// It is not known whether the feed has them.
    pub async fn stored(self) -> Result<(), Error> {
        for ack in self.acks {
            // The client counts its own patience from here on only: after an outage every answer that was lost
            // would be waited for in turn.
            timeout_at(self.deadline, ack.into_future())
                .await
                .map_err(|_| Error::new(ErrorKind::Unknown, "no answer from the feed"))?
                .map_err(|e| Error::with(ErrorKind::Unknown, "events not stored in the feed", e))?;
        }
        Ok(())
    }
}

impl Bus {
    /// Hands a command to the stream and waits until it is accepted. A missing answer is repeated with
    /// the same `dedup_id` until `deadline`, so a short loss of NATS is only a delay.
    ///
    /// `dedup_id` must be scoped to the sender: the stream compares it across all subjects.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: surely not accepted. [`ErrorKind::TooLarge`]: and never will be.
    /// [`ErrorKind::Unknown`]: perhaps.
    pub async fn send_command(
        &self,
        command: &Command,
        partitions: u16,
        dedup_id: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let conversation: ConversationId = command
            .conversation_id
            .parse()
            .map_err(|e| Error::with(ErrorKind::Refused, "command without conversation", e))?;
        let payload = Bytes::from(command.encode_to_vec());
        let subject = subject::command(conversation, partitions);
        let span = trace::sending("chat.cmd", "chat.cmd.{partition}.{conversation}", payload.len());
        self.hand_in(span, subject, identified(dedup_id), payload, deadline)
            .await
    }

    /// Hands a service's message to the stream and waits until it is accepted, as [`Bus::send_command`] does.
    /// `id` is the message's: the same id is the same message, for ever. `caller_id` is what it was made of, for people.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: surely not accepted. [`ErrorKind::Unknown`]: perhaps.
    pub async fn send_system(
        &self,
        target: &System,
        message: &SystemMessage,
        id: &str,
        caller_id: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let payload = Bytes::from(message.encode_to_vec());
        let span = trace::sending("chat.system", "chat.system.{target}", payload.len());
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, id);
        // Line breaks cannot stand in a header.
        if let Ok(caller_id) = caller_id.parse::<HeaderValue>() {
            headers.insert(CALLER_ID, caller_id);
        }
        self.hand_in(span, subject::system(target), headers, payload, deadline)
            .await
    }

    /// Publishes the outcome of a service's message to the inbox that the service named; at most once, and lost where
    /// nobody subscribes.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: outcomes do not go there. Others: the connection is away.
    pub async fn answer_service(
        &self,
        subject: &str,
        content_type: &str,
        payload: Bytes,
    ) -> Result<(), Error> {
        if !subject::is_service_reply(subject) {
            return Err(Error::new(ErrorKind::Refused, "no inbox of a service"));
        }
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", content_type);
        self.client
            .publish_with_headers(subject.to_owned(), headers, payload)
            .await
            .map_err(not_published)
    }

    /// Tells a service, as JSON, that a reader wants one of its messages to stream no further; lost where nobody subscribes.
    ///
    /// # Errors
    /// The connection is away.
    pub async fn request_stop(&self, service: &str, payload: Bytes) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/json");
        self.client
            .publish_with_headers(subject::stop(service), headers, payload)
            .await
            .map_err(not_published)
    }

    /// Publishes into a stream until it answers, again and again with the same headers. `span` is that of the sending.
    pub(crate) async fn hand_in(
        &self,
        span: Span,
        subject: String,
        mut headers: HeaderMap,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<(), Error> {
        let handed_in = async {
            if payload.len() > MAX_PAYLOAD {
                return Err(Error::new(ErrorKind::TooLarge, "message too large for the bus"));
            }
            trace::inject(&mut headers);

            // Until the first attempt has left us, nothing can have been accepted.
            let mut worst = ErrorKind::Refused;
            loop {
                if timeout_at(deadline, self.connected()).await.is_err() {
                    return Err(Error::new(worst, "NATS is away"));
                }
                let (subject, headers, payload) = (subject.clone(), headers.clone(), payload.clone());
                let sent = self.jetstream.publish_with_headers(subject, headers, payload);
                let accepted = async { sent.await?.into_future().await };
                let failure = match timeout_at(deadline, accepted).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(failure)) => not_accepted(failure),
                    Err(_) => return Err(Error::new(ErrorKind::Unknown, "no answer from the stream")),
                };
                if failure.kind() == ErrorKind::TooLarge {
                    return Err(failure);
                }
                if failure.kind() == ErrorKind::Unknown {
                    worst = ErrorKind::Unknown;
                }
                if Instant::now() + RETRY_PAUSE >= deadline {
                    return Err(failure.with_kind(worst));
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        let result = handed_in.instrument(span.clone()).await;
        if result.is_err() {
            trace::failed(&span);
        }
        result
    }

    /// Sends events to live subscribers at once and into the feed; all of one conversation, ascending.
    ///
    /// # Errors
    /// The connection is away, the batch has no conversation, or the feed owes so many answers that no more are
    /// waited for. Perhaps a part of the events was sent.
    pub async fn publish_events(&self, batch: EventBatch) -> Result<StoredEvents, Error> {
        let mut acks = Vec::new();
        let deadline = Instant::now() + FEED_PATIENCE;
        let Some(subject) = subject_of(&batch)? else {
            return Ok(StoredEvents { acks, deadline });
        };
        for part in split(batch.events, |events| EventBatch { events }) {
            let mut headers = HeaderMap::new();
            trace::inject(&mut headers);
            let ack = self
                .jetstream
                .publish_with_headers(subject.clone(), headers, part)
                .await
                .map_err(|e| Error::with(ErrorKind::Unknown, "events not published", e))?;
            acks.push(ack);
        }
        Ok(StoredEvents { acks, deadline })
    }

    /// Sends events to live subscribers only: the feed refuses them, because it lacks what comes before.
    ///
    /// # Errors
    /// The connection is away or the batch has no conversation.
    pub async fn publish_live(&self, batch: EventBatch) -> Result<(), Error> {
        let Some(subject) = subject_of(&batch)? else {
            return Ok(());
        };
        for part in split(batch.events, |events| EventBatch { events }) {
            let mut headers = HeaderMap::new();
            trace::inject(&mut headers);
            headers.insert(async_nats::header::NATS_EXPECTED_STREAM, NO_STREAM);
            self.client
                .publish_with_headers(subject.clone(), headers, part)
                .await
                .map_err(not_published)?;
        }
        Ok(())
    }

    /// Answers a gateway.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] and [`ErrorKind::Malformed`]: the same answer to that gateway can never be sent. Others:
    /// the connection is away.
    pub async fn confirm(&self, gateway: &str, batch: ConfirmationBatch) -> Result<(), Error> {
        let subject = subject::confirmations(gateway);
        let parts = split(batch.confirmations, |confirmations| ConfirmationBatch {
            confirmations,
        });
        for part in parts {
            self.publish(subject.clone(), part).await?;
        }
        Ok(())
    }

    /// Notifies users: those that the notice names, on all gateways.
    ///
    /// # Errors
    /// The connection is away or the notice names nobody.
    pub async fn notify(&self, notice: &UserNotice) -> Result<(), Error> {
        let subject = match notice.users.as_slice() {
            [] => UserId::parse(notice.user_id.as_str()).map(|user| subject::user(&user)),
            [first, ..] => UserId::parse(first.user_id.as_str()).map(|_| subject::SEVERAL_USERS.to_owned()),
        };
        let subject = subject.map_err(|e| Error::with(ErrorKind::Malformed, "notice without user", e))?;
        self.publish(subject, notice.encode_to_vec().into()).await
    }

    /// Tells everyone concerned how a user is seen now; may be lost.
    ///
    /// # Errors
    /// The connection is away or nobody is named.
    pub async fn publish_presence(&self, presence: &Presence) -> Result<(), Error> {
        let user = UserId::parse(presence.user_id.as_str())
            .map_err(|e| Error::with(ErrorKind::Malformed, "presence without user", e))?;
        self.publish(subject::presence(&user), presence.encode_to_vec().into())
            .await
    }

    /// Sends something that may be lost to everyone in a conversation.
    ///
    /// # Errors
    /// The connection is away.
    pub async fn publish_ephemeral(
        &self,
        conversation: ConversationId,
        ephemeral: &Ephemeral,
    ) -> Result<(), Error> {
        self.publish(subject::ephemeral(conversation), ephemeral.encode_to_vec().into())
            .await
    }

    async fn publish(&self, subject: String, payload: Bytes) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        trace::inject(&mut headers);
        let sent = if headers.is_empty() {
            self.client.publish(subject, payload).await
        } else {
            self.client.publish_with_headers(subject, headers, payload).await
        };
        sent.map_err(not_published)
    }
}

/// Where the events of one conversation are published; `None` for no events.
fn subject_of(batch: &EventBatch) -> Result<Option<String>, Error> {
    let Some(first) = batch.events.first() else {
        return Ok(None);
    };
    let conversation: ConversationId = first
        .conversation_id
        .parse()
        .map_err(|e| Error::with(ErrorKind::Malformed, "event without conversation", e))?;
    Ok(Some(subject::events(conversation)))
}

fn not_accepted(error: PublishError) -> Error {
    let kind = match error.kind() {
        // The stream or the server said no.
        PublishErrorKind::MaxPayloadExceeded => ErrorKind::TooLarge,
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::MaxAckPending
        | PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence => ErrorKind::Refused,
        PublishErrorKind::Other => refusal_or_unknown(&error),
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => ErrorKind::Unknown,
    };
    Error::with(kind, "not accepted by the stream", error)
}

fn not_published(error: async_nats::PublishError) -> Error {
    let kind = match error.kind() {
        ClientErrorKind::MaxPayloadExceeded => ErrorKind::TooLarge,
        ClientErrorKind::InvalidSubject => ErrorKind::Malformed,
        ClientErrorKind::Send => ErrorKind::Disconnected,
    };
    Error::with(kind, "not published", error)
}

/// Headers with an id by which the stream knows a repeat.
fn identified(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
    headers
}

/// Pause before a command is offered again, long enough for a restarting server to breathe.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A server that answered has not stored the message; anything else under `Other` may have.
fn refusal_or_unknown(error: &PublishError) -> ErrorKind {
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>()) {
        Some(_) => ErrorKind::Refused,
        None => ErrorKind::Unknown,
    }
}

/// Encodes items into as few payloads as fit the limit.
fn split<T: prost::Message, B: prost::Message>(items: Vec<T>, wrap: impl Fn(Vec<T>) -> B) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut size = 0;
    for item in items {
        // Tag and length of a nested message take at most 11 bytes.
        let len = item.encoded_len() + 11;
        if size + len > MAX_PAYLOAD && !part.is_empty() {
            parts.push(wrap(std::mem::take(&mut part)).encode_to_vec().into());
            size = 0;
        }
        size += len;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(wrap(part).encode_to_vec().into());
    }
    parts
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::Event;

    use super::*;

    #[test]
    fn a_large_batch_is_split_and_nothing_is_lost() {
        let events: Vec<Event> = (1..=40)
            .map(|seq| Event {
                seq,
                conversation_id: "x".repeat(100_000),
                ..Event::default()
            })
            .collect();
        let parts = split(events, |events| EventBatch { events });
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= MAX_PAYLOAD));
        let seqs: Vec<u64> = parts
            .iter()
            .flat_map(|part| EventBatch::decode(part.clone()).unwrap().events)
            .map(|event| event.seq)
            .collect();
        assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
    }
}
