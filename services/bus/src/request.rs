//! Questions and answers between gateways and persistence.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use opentelemetry::Context;
use parlance_proto::v1::{Error as ClientError, ErrorCode, Query, Reply, query, reply};
use prost::Message as _;
use tracing::Instrument as _;

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::publish::MAX_PAYLOAD;
use crate::{subject, trace};

/// The queue group all persistence replicas answer in.
const QUEUE_GROUP: &str = "persistence";

/// The stream of questions this replica is to answer.
pub struct QueryServer {
    bus: Bus,
    subscriber: Subscriber,
}

/// One question and the way to answer it.
pub struct IncomingQuery {
    /// The question, or why it cannot be read.
    pub query: Result<Query, prost::DecodeError>,
    /// The asker's trace context.
    pub context: Context,
    bus: Bus,
    reply: Option<async_nats::Subject>,
}

impl Bus {
    /// Asks any persistence replica.
    ///
    /// # Errors
    /// [`ErrorKind::NoResponders`], [`ErrorKind::TimedOut`] or [`ErrorKind::Malformed`]. An error of the
    /// answerer is a [`Reply`].
    pub async fn query(&self, query: &Query, timeout: Duration) -> Result<Reply, Error> {
        let name = query.body.as_ref().map_or("none", query_name);
        let span = trace::asking(name);
        let answer = self.question(query, name, timeout).instrument(span.clone()).await;
        if answer.is_err() {
            trace::failed(&span);
        }
        answer
    }

    async fn question(&self, query: &Query, name: &'static str, timeout: Duration) -> Result<Reply, Error> {
        let mut headers = HeaderMap::new();
        trace::inject(&mut headers);
        let message = self
            .ask(
                subject::query(name),
                headers,
                query.encode_to_vec().into(),
                timeout,
            )
            .await?;
        Reply::decode(message.payload).map_err(|e| Error::with(ErrorKind::Malformed, "unreadable reply", e))
    }

    /// Asks whoever listens to a subject.
    ///
    /// # Errors
    /// [`ErrorKind::NoResponders`] or [`ErrorKind::TimedOut`].
    pub(crate) async fn ask(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, Error> {
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(timeout));
        // The client's own timeout starts only once the request has left its queue.
        let sent = self.client.send_request(subject, request);
        tokio::time::timeout(timeout, sent)
            .await
            .map_err(|_| Error::new(ErrorKind::TimedOut, "no answer"))?
            .map_err(|e| {
                let kind = match e.kind() {
                    RequestErrorKind::TimedOut => ErrorKind::TimedOut,
                    RequestErrorKind::NoResponders => ErrorKind::NoResponders,
                    _ => ErrorKind::Other,
                };
                Error::with(kind, "not answered", e)
            })
    }

    /// Begins to answer questions, together with all other replicas.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn serve_queries(&self) -> Result<QueryServer, Error> {
        let subscriber = self
            .client
            .queue_subscribe(subject::ALL_QUERIES, QUEUE_GROUP.to_owned())
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "cannot serve queries", e))?;
        Ok(QueryServer {
            bus: self.clone(),
            subscriber,
        })
    }
}

impl QueryServer {
    /// The next question; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<IncomingQuery> {
        let message = self.subscriber.next().await?;
        Some(IncomingQuery {
            context: trace::extract(message.headers.as_ref()),
            query: Query::decode(message.payload),
            bus: self.bus.clone(),
            reply: subject::inbox(message.reply),
        })
    }

    /// Lets others answer; what was received already can still be taken with [`QueryServer::next`].
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.subscriber
            .unsubscribe()
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "cannot unsubscribe", e))
    }
}

impl IncomingQuery {
    /// Answers. A reply that does not fit one message becomes an error the asker can read.
    ///
    /// # Errors
    /// The connection is away.
    pub async fn reply(self, answer: &Reply) -> Result<(), Error> {
        let Some(subject) = self.reply else {
            return Ok(());
        };
        let mut payload = answer.encode_to_vec();
        if payload.len() > MAX_PAYLOAD {
            tracing::error!(
                bytes = payload.len(),
                "a reply is too large for the bus; ask for less"
            );
            let error = ClientError::with(ErrorCode::TooLarge, "the answer is too large: ask for less");
            payload = Reply {
                body: Some(reply::Body::Error(error)),
            }
            .encode_to_vec();
        }
        self.bus
            .client
            .publish(subject, payload.into())
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "reply not sent", e))
    }
}

/// The last token of the subject a question travels on; also its name in metrics.
pub fn query_name(body: &query::Body) -> &'static str {
    match body {
        query::Body::ProvisionUser(_) => "provision_user",
        query::Body::SetName(_) => "set_name",
        query::Body::SetAgent(_) => "set_agent",
        query::Body::ListConversations(_) => "list_conversations",
        query::Body::GetConversation(_) => "get_conversation",
        query::Body::ListMessages(_) => "list_messages",
        query::Body::ListEvents(_) => "list_events",
        query::Body::Sync(_) => "sync",
        query::Body::GetRoom(_) => "get_room",
        query::Body::GetHeads(_) => "get_heads",
        query::Body::ListMemberships(_) => "list_memberships",
        query::Body::ListReceipts(_) => "list_receipts",
        query::Body::ListMissedReceipts(_) => "list_missed_receipts",
        query::Body::ListRemovals(_) => "list_removals",
        query::Body::GetListState(_) => "get_list_state",
        query::Body::ListServed(_) => "list_served",
        query::Body::ReportServed(_) => "report_served",
        query::Body::Ping(_) => "ping",
        query::Body::Resolve(_) => "resolve",
        query::Body::GetMessage(_) => "get_message",
        query::Body::ListThreads(_) => "list_threads",
        query::Body::ListJournals(_) => "list_journals",
        query::Body::ListJournalVersions(_) => "list_journal_versions",
        query::Body::ReadJournal(_) => "read_journal",
        query::Body::ListJournalUpdates(_) => "list_journal_updates",
        query::Body::ListEdits(_) => "list_edits",
        query::Body::ReportPresence(_) => "report_presence",
        query::Body::GetPresence(_) => "get_presence",
        query::Body::ListPresenceChanges(_) => "list_presence_changes",
        query::Body::Arrive(_) => "arrive",
        query::Body::GetRooms(_) => "get_rooms",
        query::Body::ViewConversations(_) => "view_conversations",
        query::Body::ListControl(_) => "list_control",
        query::Body::ListParticipants(_) => "list_participants",
        query::Body::FindMembers(_) => "find_members",
        query::Body::ClaimChange(_) => "claim_change",
        query::Body::SettleChange(_) => "settle_change",
    }
}
