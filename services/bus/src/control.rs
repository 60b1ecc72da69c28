//! Orders to all gateways: live to those that run, and from the stream `CONTROL`, through persistence, to those that
//! begin later.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use parlance_proto::v1::{Control, ControlPage, StoredControl};
use prost::Message as _;
use tokio::time::Instant;
use tracing::Span;

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::publish::MAX_PAYLOAD;
use crate::streams::CONTROL;
use crate::subject;

/// Messages taken from the stream at once.
const PAGE: usize = 500;
/// What each adds to a message besides its subject and payload, at most.
const OVERHEAD: usize = 128;
/// How long the stream may take for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// An order as it came, not yet read.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where it was published.
    pub subject: String,
    /// The header `Content-Type`.
    pub content_type: Option<String>,
    /// As published.
    pub payload: Bytes,
    /// When the stream took it; `None` where it came live.
    pub stored_at: Option<SystemTime>,
}

impl From<StoredControl> for Order {
    fn from(stored: StoredControl) -> Self {
        let StoredControl {
            subject,
            content_type,
            payload,
            stored_at_ms,
        } = stored;
        let since = Duration::from_millis(stored_at_ms.try_into().unwrap_or_default());
        Self {
            subject,
            content_type: Some(content_type).filter(|kind| !kind.is_empty()),
            payload: payload.into(),
            stored_at: Some(SystemTime::UNIX_EPOCH + since),
        }
    }
}

impl Order {
    /// The payload as protobuf.
    ///
    /// # Errors
    /// It is none.
    pub fn control(&self) -> Result<Control, prost::DecodeError> {
        Control::decode(self.payload.clone())
    }
}

/// Orders as they are published. Dropping it unsubscribes.
pub struct Orders(Subscriber);

impl Orders {
    /// The next order; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Order> {
        let message = self.0.next().await?;
        Some(Order {
            subject: message.subject.to_string(),
            content_type: content_type(message.headers.as_ref()),
            payload: message.payload,
            stored_at: None,
        })
    }
}

impl Bus {
    /// Orders from now on.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_control(&self) -> Result<Orders, Error> {
        let subscriber = self.client.subscribe(subject::ALL_CONTROL).await;
        subscriber
            .map(Orders)
            .map_err(|e| Error::with(ErrorKind::Disconnected, "cannot subscribe", e))
    }

    /// The orders that the stream holds behind `after_seq`, oldest first, as many as fit one message. For persistence,
    /// which may read the stream, in the name of gateways, which may not.
    ///
    /// # Errors
    /// NATS is away or the stream does not exist.
    pub async fn stored_control(&self, after_seq: u64) -> Result<ControlPage, Error> {
        let failed = |e| Error::with(ErrorKind::Other, "cannot read the stream CONTROL", e);
        let stream = self
            .jetstream
            .get_stream_no_info(CONTROL)
            .await
            .map_err(|e| failed(e.into()))?;
        let consumer: PullConsumer = stream
            .create_consumer(pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: after_seq + 1,
                },
                ack_policy: AckPolicy::None,
                inactive_threshold: PATIENCE * 2,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await
            .map_err(|e| failed(e.into()))?;
        let mut page = ControlPage {
            last_seq: after_seq,
            more: consumer.cached_info().num_pending > 0,
            ..ControlPage::default()
        };
        if !page.more {
            return Ok(page);
        }
        let messages = consumer.fetch().max_messages(PAGE).messages().await;
        let mut messages = messages.map_err(|e| failed(e.into()))?;
        let mut bytes = 0;
        while let Ok(Some(message)) = tokio::time::timeout(PATIENCE, messages.next()).await {
            let message = message.map_err(failed)?;
            let info = message.info().map_err(failed)?;
            bytes += message.payload.len() + message.subject.len() + OVERHEAD;
            if bytes > MAX_PAYLOAD && !page.orders.is_empty() {
                break;
            }
            page.last_seq = info.stream_sequence;
            page.more = info.pending > 0;
            page.orders.push(StoredControl {
                subject: message.subject.to_string(),
                content_type: content_type(message.headers.as_ref()).unwrap_or_default(),
                payload: message.payload.to_vec(),
                stored_at_ms: since_1970_ms(info.published.into()),
            });
        }
        if page.orders.is_empty() {
            return Err(Error::new(
                ErrorKind::TimedOut,
                "the stream CONTROL brings nothing",
            ));
        }
        Ok(page)
    }

    /// Gives an order to all gateways and waits until the stream holds it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: surely not accepted, or it says nothing. [`ErrorKind::Unknown`]: perhaps.
    pub async fn publish_control(&self, control: &Control, deadline: Instant) -> Result<(), Error> {
        let Some(body) = &control.body else {
            return Err(Error::new(ErrorKind::Refused, "an order that says nothing"));
        };
        let payload = control.encode_to_vec().into();
        let subject = subject::control(body);
        self.hand_in(Span::current(), subject, HeaderMap::new(), payload, deadline)
            .await
    }
}

fn since_1970_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn content_type(headers: Option<&HeaderMap>) -> Option<String> {
    headers?
        .get("Content-Type")
        .map(|value| value.as_str().to_owned())
}
