//! Answers to questions of gateways, on any replica. Reads from the primary only, so that what was confirmed
//! is seen. Authorisation is part of each statement: a stranger and a missing conversation get one answer.

mod arrivals;
mod conversations;
mod events;
mod journals;
mod keys;
mod messages;
mod page;
mod participants;
mod presence;
mod resolve;
mod rooms;
mod served;
mod threads;
mod users;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parlance_bus::request::query_name;
use parlance_bus::{Bus, IncomingQuery, trace};
use parlance_proto::v1::{self, ErrorCode, Query, Reply, query, reply};
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::database::{Database, KEY_CONNECTIONS};
use crate::error::without_content;
use crate::ingest::apply::no_conversation;
use crate::ingest::work::refuse;
use crate::liveness::Liveness;
use crate::presence::Presence;
use crate::store;

/// Pause before the subscription is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long questions that already arrived are still answered after the stop.
const DRAIN: Duration = Duration::from_millis(500);
/// How long gateways wait for an answer: a query that has waited longer for its turn is dropped.
const DEADLINE: Duration = Duration::from_secs(5);
/// Queries that wait for their turn; more are refused at once.
const MAX_WAITING: usize = 20_000;

/// What the answering needs.
#[derive(Clone)]
pub struct Queries {
    /// This replica's name, for `Pong`.
    pub replica: String,
    /// For questions and answers.
    pub bus: Bus,
    /// For everything else.
    pub database: Database,
    /// Questions answered at once.
    pub concurrency: usize,
    /// Participants of a conversation in one answer.
    pub inline_participants: usize,
    /// Takes in what gateways report.
    pub presence: Presence,
    /// Answers pings.
    pub liveness: Liveness,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum QueryError {
    /// The asker may know.
    Refused(v1::Error),
    /// The database failed.
    Database(sqlx::Error),
}

/// On whose behalf a question is answered.
pub type Viewer<'a> = Option<&'a str>;

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<v1::Error> for QueryError {
    fn from(error: v1::Error) -> Self {
        Self::Refused(error)
    }
}

impl Queries {
    /// Answers until `stop`, then what has arrived by then.
    ///
    /// # Errors
    /// The connection to the bus was closed for good.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut server = loop {
            match self.bus.serve_queries().await {
                Ok(server) => break server,
                Err(error) => {
                    tracing::warn!(%error, "cannot serve queries yet");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                }
            }
        };
        let room = Arc::new(Semaphore::new(self.concurrency));
        let keys = Arc::new(Semaphore::new(KEY_CONNECTIONS as usize));
        let answering = TaskTracker::new();
        let mut drained = None;
        loop {
            let end = async {
                match drained {
                    None => stop.cancelled().await,
                    Some(until) => tokio::time::sleep_until(until).await,
                }
            };
            let incoming = tokio::select! {
                incoming = server.next() => incoming,
                () = end => {
                    if drained.is_some() {
                        break;
                    }
                    if let Err(error) = server.stop().await {
                        tracing::debug!(%error, "not unsubscribed");
                    }
                    drained = Some(tokio::time::Instant::now() + DRAIN);
                    continue;
                }
            };
            let Some(incoming) = incoming else {
                anyhow::ensure!(stop.is_cancelled(), "the connection to NATS is closed for good");
                break;
            };
            if answering.len() > MAX_WAITING && !is_urgent(&incoming) {
                metrics::counter!("chat_persistence_queries_shed_total", "cause" => "queue").increment(1);
                answering.spawn(refuse_overload(incoming));
                continue;
            }
            answering.spawn(
                self.clone()
                    .take_turn(incoming, Arc::clone(&room), Arc::clone(&keys)),
            );
        }
        answering.close();
        answering.wait().await;
        Ok(())
    }

    /// Answers a query when it is its turn, unless nobody waits for the answer any more by then.
    async fn take_turn(self, incoming: IncomingQuery, room: Arc<Semaphore>, keys: Arc<Semaphore>) {
        let arrived = Instant::now();
        if is_urgent(&incoming) {
            return self.serve(incoming).await;
        }
        // First: those who use keys must not take the turns of those who do not while they wait for a connection.
        let _key_permit = match is_of_key(&incoming) {
            true => keys.acquire().await.ok(),
            false => None,
        };
        let Ok(_permit) = room.acquire().await else {
            return;
        };
        if arrived.elapsed() < DEADLINE {
            self.serve(incoming).await;
        } else {
            metrics::counter!("chat_persistence_queries_shed_total", "cause" => "deadline").increment(1);
        }
    }

    async fn serve(&self, incoming: IncomingQuery) {
        let started = Instant::now();
        let (name, answer) = match &incoming.query {
            Ok(Query {
                actor,
                body: Some(body),
            }) => {
                let name = query_name(body);
                let span = process_span(name, &incoming);
                (name, self.answer(actor.as_ref(), body).instrument(span).await)
            }
            _ => ("unreadable", Err(refuse("not a readable query").into())),
        };
        let body = answer.unwrap_or_else(|error| reply::Body::Error(told(name, error)));
        metrics::histogram!("chat_persistence_query_seconds", "name" => name)
            .record(started.elapsed().as_secs_f64());
        if let Err(error) = incoming.reply(&Reply { body: Some(body) }).await {
            tracing::debug!(%error, "no reply sent");
        }
    }

    /// The answer to one question.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn answer(
        &self,
        actor: Option<&v1::Actor>,
        body: &query::Body,
    ) -> Result<reply::Body, QueryError> {
        if let Some(actor) = actor {
            UserId::parse(actor.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
        }
        if let query::Body::ListControl(asked) = body {
            let page = self.bus.stored_control(asked.after_seq).await;
            return page.map(reply::Body::ControlPage).map_err(|error| {
                tracing::warn!(%error, "a gateway is not told what was revoked");
                away().into()
            });
        }
        let viewer: Viewer = actor.map(|actor| actor.user_id.as_str());
        match self.write(actor, viewer, body).await? {
            Some(written) => Ok(written),
            None => self.read(viewer, body).await,
        }
    }

    /// Answers what writes, or needs no database; `None` where the question only reads.
    async fn write(
        &self,
        actor: Option<&v1::Actor>,
        viewer: Viewer<'_>,
        body: &query::Body,
    ) -> Result<Option<reply::Body>, QueryError> {
        let database = &self.database;
        Ok(Some(match body {
            query::Body::ProvisionUser(provision) => {
                let actor = actor.ok_or_else(needs_actor)?;
                reply::Body::User(arrivals::provision(database, actor, provision.create).await?)
            }
            query::Body::Arrive(arrive) => reply::Body::Arrived(arrivals::arrive(database, arrive).await?),
            query::Body::SetName(set) => reply::Body::User(users::set_name(database, viewer, set).await?),
            query::Body::SetAgent(set) => reply::Body::User(users::set_agent(database, viewer, set).await?),
            query::Body::ReportPresence(report) => {
                reply::Body::PresenceReported(self.presence.report(report).await?)
            }
            query::Body::ReportServed(report) => {
                served::report(database, report).await?;
                reply::Body::ServedReported(v1::ServedReported {})
            }
            query::Body::ClaimChange(claim) => {
                reply::Body::ChangeClaim(keys::claim(database, required(viewer)?, claim).await?)
            }
            query::Body::SettleChange(settle) => {
                keys::settle(database, required(viewer)?, settle).await?;
                reply::Body::ChangeSettled(v1::ChangeSettled {})
            }
            query::Body::Ping(v1::Ping {}) if self.liveness.is_alive() => reply::Body::Pong(v1::Pong {
                replica: self.replica.clone(),
            }),
            query::Body::Ping(v1::Ping {}) => return Err(away().into()),
            _ => return Ok(None),
        }))
    }

    /// Answers what reads.
    async fn read(&self, viewer: Viewer<'_>, body: &query::Body) -> Result<reply::Body, QueryError> {
        let mut connection = self.database.reads.acquire().await?;
        let (c, inline) = (&mut *connection, self.inline_participants);
        Ok(match body {
            query::Body::ProvisionUser(_)
            | query::Body::Arrive(_)
            | query::Body::SetName(_)
            | query::Body::SetAgent(_)
            | query::Body::ReportPresence(_)
            | query::Body::ReportServed(_)
            | query::Body::ListControl(_)
            | query::Body::ClaimChange(_)
            | query::Body::SettleChange(_)
            | query::Body::Ping(_) => {
                return Err(needs_actor().into());
            }
            query::Body::GetPresence(q) => reply::Body::Presences(presence::get(c, viewer, q).await?),
            query::Body::ListPresenceChanges(q) => reply::Body::Presences(presence::changes(c, q).await?),
            query::Body::ListConversations(q) => {
                let viewer = required(viewer)?;
                let page = conversations::list(c, viewer, q, inline).await?;
                // Held while another one is awaited, it would be missing to those who only read.
                drop(connection);
                served::list(&self.database, viewer, &page).await?;
                reply::Body::Conversations(page)
            }
            query::Body::GetConversation(q) => {
                reply::Body::Conversation(conversations::get(c, required(viewer)?, q, inline).await?)
            }
            query::Body::ListMessages(q) => {
                let viewer = required(viewer)?;
                let page = messages::list(c, viewer, q).await?;
                served::page(&self.database, c, viewer, q, &page).await?;
                reply::Body::Messages(page)
            }
            query::Body::ListEvents(q) => reply::Body::Events(events::list(c, viewer, q).await?),
            query::Body::Sync(q) => reply::Body::Sync(events::sync(c, required(viewer)?, q).await?),
            query::Body::GetRoom(q) => reply::Body::Room(rooms::get(c, viewer, q).await?),
            query::Body::GetRooms(q) => reply::Body::Rooms(rooms::get_all(c, q).await?),
            query::Body::ViewConversations(q) => {
                reply::Body::ConversationViews(conversations::view(c, q, inline).await?)
            }
            query::Body::ListParticipants(q) => {
                reply::Body::Participants(participants::list(c, required(viewer)?, q).await?)
            }
            query::Body::FindMembers(q) => reply::Body::FoundMembers(participants::find(c, q).await?),
            query::Body::GetHeads(q) => reply::Body::Heads(rooms::heads(c, viewer, q).await?),
            query::Body::ListMemberships(q) => {
                reply::Body::Memberships(arrivals::memberships(c, viewer, q).await?)
            }
            query::Body::ListReceipts(q) => reply::Body::Receipts(rooms::receipts(c, viewer, q).await?),
            query::Body::ListMissedReceipts(q) => {
                reply::Body::MissedReceipts(rooms::missed_receipts(c, required(viewer)?, q).await?)
            }
            query::Body::ListRemovals(q) => {
                reply::Body::Removals(users::removals(c, required(viewer)?, q).await?)
            }
            query::Body::ListServed(q) => {
                reply::Body::ServedPositions(served::of_page(c, required(viewer)?, q).await?)
            }
            query::Body::GetListState(q) => reply::Body::ListState(rooms::list_state(c, q).await?),
            query::Body::Resolve(q) => reply::Body::Resolved(resolve::resolve(c, q).await?),
            query::Body::GetMessage(q) => reply::Body::Message(messages::get(c, required(viewer)?, q).await?),
            query::Body::ListEdits(q) => reply::Body::Edits(messages::edits(c, required(viewer)?, q).await?),
            query::Body::ListThreads(q) => {
                reply::Body::Threads(threads::list(c, required(viewer)?, q).await?)
            }
            query::Body::ListJournals(q) => {
                reply::Body::Conversations(conversations::journals(c, required(viewer)?, q, inline).await?)
            }
            query::Body::ListJournalVersions(q) => {
                reply::Body::JournalVersions(journals::versions(c, required(viewer)?, q).await?)
            }
            query::Body::ReadJournal(q) => {
                reply::Body::JournalDocument(journals::document(c, viewer, q).await?)
            }
            query::Body::ListJournalUpdates(q) => {
                reply::Body::JournalUpdates(journals::updates(c, viewer, q).await?)
            }
        })
    }
}

/// The span of a question; none where the asker's trace is not recorded.
fn process_span(name: &'static str, incoming: &IncomingQuery) -> Span {
    if !trace::is_sampled(&incoming.context) {
        return Span::none();
    }
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = format!("process chat.qry.{name}"),
        otel.kind = "consumer",
        messaging.system = "nats",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.template = "chat.qry.{name}",
    );
    // Without a tracer there is no parent to set.
    let _ = span.set_parent(incoming.context.clone());
    span
}

/// The conversation somebody means, by UUID or by number.
async fn conversation_id(connection: &mut PgConnection, text: &str) -> Result<ConversationId, QueryError> {
    if let Ok(number) = text.parse::<i64>() {
        let found = store::conversations::by_number(connection, number).await?;
        return found.ok_or_else(|| no_conversation().into());
    }
    Ok(text
        .parse()
        .map_err(|error: parlance_proto::InvalidId| refuse(error.to_string()))?)
}

/// The counters of a conversation the viewer belongs to; without a viewer, of any.
async fn head(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    text: &str,
) -> Result<store::conversations::Head, QueryError> {
    let id = conversation_id(connection, text).await?;
    let head = store::conversations::heads(connection, &[id], viewer)
        .await?
        .pop();
    Ok(head.ok_or_else(no_conversation)?)
}

/// Those users of whom the asker may know: on behalf of a user, nobody else.
fn visible(viewer: Viewer<'_>, users: &[String]) -> Vec<String> {
    let visible = users
        .iter()
        .filter(|id| viewer.is_none_or(|viewer| viewer == *id));
    visible.cloned().collect()
}

fn required(viewer: Viewer<'_>) -> Result<&str, v1::Error> {
    viewer.ok_or_else(needs_actor)
}

fn needs_actor() -> v1::Error {
    refuse("the query needs an actor")
}

/// What must not wait behind other queries: gateways are given up, or refuse their clients, without an answer.
fn is_urgent(incoming: &IncomingQuery) -> bool {
    let body = incoming.query.as_ref().ok().and_then(|query| query.body.as_ref());
    matches!(body, Some(query::Body::Ping(_) | query::Body::ReportPresence(_)))
}

/// Whether it claims a change by an idempotency key, or ends one.
fn is_of_key(incoming: &IncomingQuery) -> bool {
    let body = incoming.query.as_ref().ok().and_then(|query| query.body.as_ref());
    matches!(
        body,
        Some(query::Body::ClaimChange(_) | query::Body::SettleChange(_))
    )
}

async fn refuse_overload(incoming: IncomingQuery) {
    let error = v1::Error::with(ErrorCode::Unavailable, "too many queries wait");
    let reply = Reply {
        body: Some(reply::Body::Error(error)),
    };
    if let Err(error) = incoming.reply(&reply).await {
        tracing::debug!(%error, "no reply sent");
    }
}

fn away() -> v1::Error {
    v1::Error::with(ErrorCode::Unavailable, "the database cannot answer now")
}

/// What the asker is told. The rest is for the log.
fn told(name: &'static str, error: QueryError) -> v1::Error {
    match error {
        QueryError::Refused(error) => error,
        QueryError::Database(error) => {
            tracing::warn!(query = name, cause = without_content(&error), "a query failed");
            away()
        }
    }
}
