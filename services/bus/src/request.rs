//! Queries of gateways and replies of persistence.
//!
//! A query goes to any replica, by the queue group, or to one by its name. It carries how long its reply is waited for.

use std::time::{Duration, Instant};

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
/// Header of a reply to a query that any replica could answer: the name of the one that did.
const REPLICA: &str = "Chat-Replica";
/// How long a reply is waited for where the query does not say.
const BUDGET: Duration = Duration::from_secs(5);

/// The stream of questions this replica is to answer.
pub struct QueryServer {
    bus: Bus,
    name: String,
    /// Queries to this replica.
    own: Subscriber,
    /// Its share of queries to any.
    shared: Subscriber,
}

/// A reply and who sent it.
#[derive(Debug)]
pub struct Answered {
    /// The reply.
    pub reply: Reply,
    /// The replica, where it was not named by the query and says so.
    pub replica: Option<String>,
}

/// One question and the way to answer it.
pub struct IncomingQuery {
    /// The query; none where it cannot be read, or came under the name of another: NATS checks who may ask what by names.
    pub query: Option<Query>,
    /// The asker's trace context.
    pub context: Context,
    /// When it arrived.
    pub arrived: Instant,
    bus: Bus,
    reply: Option<async_nats::Subject>,
    /// This replica, where the query names none.
    replica: Option<String>,
}

impl Bus {
    /// Asks this persistence replica; without a name, any.
    ///
    /// # Errors
    /// [`ErrorKind::NoResponders`], [`ErrorKind::TimedOut`] or [`ErrorKind::Malformed`]. An error of the
    /// answerer is a [`Reply`].
    pub async fn query(
        &self,
        query: &Query,
        replica: Option<&str>,
        timeout: Duration,
    ) -> Result<Answered, Error> {
        let name = query.body.as_ref().map_or("none", query_name);
        let span = trace::asking(name);
        let subject = subject::query(name, replica);
        let answer = self
            .question(query, subject, timeout)
            .instrument(span.clone())
            .await;
        if answer.is_err() {
            trace::failed(&span);
        }
        answer
    }

    async fn question(&self, query: &Query, subject: String, timeout: Duration) -> Result<Answered, Error> {
        let mut headers = HeaderMap::new();
        trace::inject(&mut headers);
        let message = self
            .ask(subject, headers, within(query, timeout).into(), timeout)
            .await?;
        let replica = message.headers.as_ref().and_then(|headers| headers.get(REPLICA));
        Ok(Answered {
            replica: replica.map(|name| name.as_str().to_owned()),
            reply: Reply::decode(message.payload)
                .map_err(|e| Error::with(ErrorKind::Malformed, "unreadable reply", e))?,
        })
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

    /// Begins to answer questions, those to the replica of this name and a share of those to any.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn serve_queries(&self, name: &str) -> Result<QueryServer, Error> {
        let closed = |e| Error::with(ErrorKind::Disconnected, "cannot serve queries", e);
        let own = self
            .client
            .subscribe(subject::queries_to(name))
            .await
            .map_err(closed)?;
        let shared = self
            .client
            .queue_subscribe(subject::ALL_QUERIES, QUEUE_GROUP.to_owned())
            .await
            .map_err(closed)?;
        Ok(QueryServer {
            bus: self.clone(),
            name: name.to_owned(),
            own,
            shared,
        })
    }
}

/// The query with how long its reply is waited for.
fn within(query: &Query, timeout: Duration) -> Vec<u8> {
    let budget = Query {
        budget_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
        ..Query::default()
    };
    // Of a field that occurs twice the last counts, so the query need not be copied.
    let mut encoded = query.encode_to_vec();
    encoded.extend(budget.encode_to_vec());
    encoded
}

impl QueryServer {
    /// The next question; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<IncomingQuery> {
        let own = (&mut self.own).map(|message| (message, false));
        let shared = (&mut self.shared).map(|message| (message, true));
        let (message, is_shared) = futures::stream::select(own, shared).next().await?;
        let query = Query::decode(message.payload).ok();
        Some(IncomingQuery {
            context: trace::extract(message.headers.as_ref()),
            arrived: Instant::now(),
            query: query.filter(|query| is_named(&message.subject, query)),
            bus: self.bus.clone(),
            reply: subject::inbox(message.reply),
            replica: is_shared.then(|| self.name.clone()),
        })
    }

    /// Lets others answer; what was received already can still be taken with [`QueryServer::next`].
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn stop(&mut self) -> Result<(), Error> {
        let closed = |e| Error::with(ErrorKind::Disconnected, "cannot unsubscribe", e);
        let (own, shared) = futures::join!(self.own.unsubscribe(), self.shared.unsubscribe());
        own.and(shared).map_err(closed)
    }
}

impl IncomingQuery {
    /// How long the reply is waited for, from when the query arrived.
    pub fn budget(&self) -> Duration {
        let given = self.query.as_ref().map_or(0, |query| query.budget_ms);
        match given {
            0 => BUDGET,
            given => Duration::from_millis(u64::from(given)),
        }
    }

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
        let client = &self.bus.client;
        let sent = match self.replica {
            Some(name) => {
                let mut headers = HeaderMap::new();
                headers.insert(REPLICA, name);
                client
                    .publish_with_headers(subject, headers, payload.into())
                    .await
            }
            None => client.publish(subject, payload.into()).await,
        };
        sent.map_err(|e| Error::with(ErrorKind::Disconnected, "reply not sent", e))
    }
}

/// Whether a query came on the subject of its name.
fn is_named(subject: &str, query: &Query) -> bool {
    let name = query.body.as_ref().map(query_name);
    name.is_some() && subject.split('.').nth(2) == name
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
        query::Body::CountUnread(_) => "count_unread",
        query::Body::SetBlock(_) => "set_block",
        query::Body::ListBlocks(_) => "list_blocks",
        query::Body::ListBans(_) => "list_bans",
        query::Body::ListReports(_) => "list_reports",
        query::Body::ResolveReport(_) => "resolve_report",
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
        query::Body::CatchUp(_) => "catch_up",
        query::Body::FindRemovals(_) => "find_removals",
        query::Body::FindMissedReceipts(_) => "find_missed_receipts",
        query::Body::ClaimChange(_) => "claim_change",
        query::Body::SettleChange(_) => "settle_change",
        query::Body::StopStream(_) => "stop_stream",
    }
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::Ping;

    use super::*;

    #[test]
    fn a_query_under_the_name_of_another_is_none() {
        let ping = Query {
            body: Some(query::Body::Ping(Ping {})),
            ..Query::default()
        };
        for subject in ["chat.qry.ping", "chat.qry.ping.persistence-1"] {
            assert!(is_named(subject, &ping), "{subject}");
        }
        for subject in ["chat.qry.list_reports", "chat.qry.list_reports.ping", "chat.qry"] {
            assert!(!is_named(subject, &ping), "{subject}");
            assert!(!is_named(subject, &Query::default()), "{subject}");
        }
    }

    #[test]
    fn a_query_carries_how_long_its_reply_is_waited_for() {
        let query = Query {
            budget_ms: 9,
            body: Some(query::Body::Ping(Ping {})),
            ..Query::default()
        };
        for (timeout, budget_ms) in [(1_500, 1_500), (0, 1)] {
            let encoded = within(&query, Duration::from_millis(timeout));
            let expected = Query {
                budget_ms,
                ..query.clone()
            };
            assert_eq!(Query::decode(encoded.as_slice()).unwrap(), expected);
        }
    }
}
