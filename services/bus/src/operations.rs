//! Questions and orders of operators: to every gateway, to one, or to one persistence replica.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::Subscriber;
use futures::StreamExt;
use futures::stream::{SelectAll, select_all};
use parlance_proto::v1::{Error as ClientError, ErrorCode, Ops, OpsReply, ops, ops_reply};
use prost::Message as _;
use tokio::time::Instant;

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::publish::MAX_PAYLOAD;
use crate::subject::{self, Audience};

/// The queue group of the persistence replicas.
const QUEUE_GROUP: &str = "operations";
/// Once one has answered, how long the next may take where nobody knows how many there are.
const LULL: Duration = Duration::from_millis(700);

/// What operators ask of this process.
pub struct OpsServer {
    bus: Bus,
    incoming: SelectAll<Subscriber>,
}

/// One question and the way to answer it.
pub struct IncomingOps {
    /// The question, or why it cannot be read.
    pub ops: Result<Ops, prost::DecodeError>,
    bus: Bus,
    reply: Option<async_nats::Subject>,
}

impl Bus {
    /// Begins to answer what gateways are asked, all of them or this one.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn serve_gateway_operations(&self) -> Result<OpsServer, Error> {
        let mine = subject::operations(&Audience::Gateway(self.name().to_owned()));
        let all = subject::operations(&Audience::Gateways);
        let incoming = [
            self.client.subscribe(all).await.map_err(closed)?,
            self.client.subscribe(mine).await.map_err(closed)?,
        ];
        Ok(OpsServer {
            bus: self.clone(),
            incoming: select_all(incoming),
        })
    }

    /// Begins to answer what persistence is asked, together with the other replicas.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn serve_persistence_operations(&self) -> Result<OpsServer, Error> {
        let subject = subject::operations(&Audience::Persistence);
        let subscriber = self
            .client
            .queue_subscribe(subject, QUEUE_GROUP.to_owned())
            .await
            .map_err(closed)?;
        Ok(OpsServer {
            bus: self.clone(),
            incoming: select_all([subscriber]),
        })
    }

    /// Asks, and gathers answers until `expected` have come or `patience` is over. Without a number to expect, a
    /// lull after the last answer is the end.
    ///
    /// # Errors
    /// [`ErrorKind::NoResponders`]: nobody listens. [`ErrorKind::TimedOut`]: nobody answered.
    pub async fn operate(
        &self,
        audience: &Audience,
        body: ops::Body,
        expected: Option<usize>,
        patience: Duration,
    ) -> Result<Vec<OpsReply>, Error> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(closed)?;
        let payload = Ops { body: Some(body) }.encode_to_vec();
        self.client
            .publish_with_reply(subject::operations(audience), inbox, payload.into())
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "not asked", e))?;
        let deadline = Instant::now() + patience;
        let mut gathered = Vec::new();
        while expected.is_none_or(|expected| gathered.len() < expected) {
            let until = match (expected, gathered.is_empty()) {
                (None, false) => deadline.min(Instant::now() + LULL),
                _ => deadline,
            };
            let Ok(Some(message)) = tokio::time::timeout_at(until, answers.next()).await else {
                break;
            };
            if message.status == Some(StatusCode::NO_RESPONDERS) {
                return Err(Error::new(ErrorKind::NoResponders, "nobody listens"));
            }
            let reply = OpsReply::decode(message.payload)
                .map_err(|e| Error::with(ErrorKind::Malformed, "unreadable answer", e))?;
            gathered.push(reply);
        }
        if gathered.is_empty() {
            return Err(Error::new(ErrorKind::TimedOut, "nobody answered in time"));
        }
        gathered.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(gathered)
    }
}

impl OpsServer {
    /// The next question; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<IncomingOps> {
        let message = self.incoming.next().await?;
        Some(IncomingOps {
            ops: Ops::decode(message.payload),
            bus: self.bus.clone(),
            reply: subject::inbox(message.reply),
        })
    }
}

impl IncomingOps {
    /// Answers. An answer that does not fit one message becomes an error the operator can read.
    ///
    /// # Errors
    /// The connection is away.
    pub async fn reply(self, version: &str, body: ops_reply::Body) -> Result<(), Error> {
        let Some(subject) = self.reply else {
            return Ok(());
        };
        let mut answer = OpsReply {
            instance: self.bus.name().to_owned(),
            version: version.to_owned(),
            body: Some(body),
        };
        if answer.encoded_len() > MAX_PAYLOAD {
            let error = ClientError::with(ErrorCode::TooLarge, "the answer is too large: ask for less");
            answer.body = Some(ops_reply::Body::Error(error));
        }
        self.bus
            .client
            .publish(subject, answer.encode_to_vec().into())
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "answer not sent", e))
    }
}

fn closed(error: async_nats::client::SubscribeError) -> Error {
    Error::with(ErrorKind::Disconnected, "cannot subscribe", error)
}
