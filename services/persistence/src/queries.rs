//! Answers to questions of gateways, on any replica. Reads from the primary only, so that what was confirmed
//! is seen. Authorisation is part of each statement: a stranger and a missing conversation get one answer.
//!
//! A query says how long its reply is waited for. What has expired is dropped, before and after it waits for its turn.
//! Connections are waited for, and read from, until the deadline; a statement that writes runs to its end once it has
//! begun. In the database no statement of a read begins after the deadline, and the one under way then may go on for as
//! long as the query had when it began.

mod arrivals;
mod bans;
mod blocks;
mod conversations;
mod events;
mod journals;
mod keys;
mod messages;
mod page;
mod participants;
mod presence;
mod reports;
mod resolve;
mod rooms;
mod served;
mod threads;
mod turns;
mod users;

use std::sync::Arc;
use std::time::Duration;

use parlance_bus::request::query_name;
use parlance_bus::{Bus, IncomingQuery, QueryServer, trace};
use parlance_proto::ids::SERVICE_PREFIX;
use parlance_proto::v1::{self, ErrorCode, Query, Reply, StreamState, query, reply};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::database::{Database, KEY_CONNECTIONS};
use crate::error::{QueryError, by, without_content};
use crate::liveness::Liveness;
use crate::model::refusals::{no_conversation, refuse};
use crate::presence::Presence;
use crate::store;
use served::Shown;
use turns::{Refusal, Standstill, Turns};

/// Pauses before the subscription is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How long questions that already arrived are still answered after the stop.
const DRAIN: Duration = Duration::from_millis(500);
/// Postgres ends a statement that was cancelled, or took too long, with this code.
const CANCELLED: &str = "57014";

/// What the answering needs.
#[derive(Clone)]
pub struct Queries {
    /// This replica's name, for `Pong`.
    pub replica: String,
    /// Partitions of the command stream, for `Pong`.
    pub partitions: u16,
    /// For questions and answers.
    pub bus: Bus,
    /// For everything else.
    pub database: Database,
    /// Questions answered at once.
    pub concurrency: usize,
    /// Questions that wait for their turn.
    pub waiting: usize,
    /// Participants of a conversation in one answer.
    pub inline_participants: usize,
    /// Users that one may block.
    pub user_blocks: u64,
    /// Takes in what gateways report.
    pub presence: Presence,
    /// Answers pings.
    pub liveness: Liveness,
}

/// On whose behalf a question is answered.
pub type Viewer<'a> = Option<&'a str>;

impl Queries {
    /// Answers until `stop`, then what has arrived by then.
    ///
    /// # Errors
    /// The connection to the bus was closed for good.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(mut server) = self.subscribed(&stop).await else {
            return Ok(());
        };
        let turns = Turns::new(self.concurrency, self.waiting);
        let mut standstill = Standstill::default();
        let mut look = tokio::time::interval(turns::LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
                _ = look.tick() => {
                    standstill.look(Instant::now());
                    gauge_waiting(&turns);
                    continue;
                }
                () = end => {
                    if drained.is_some() {
                        break;
                    }
                    if let Err(error) = server.stop().await {
                        tracing::debug!(%error, "not unsubscribed");
                    }
                    drained = Some(Instant::now() + DRAIN);
                    continue;
                }
            };
            let Some(incoming) = incoming else {
                anyhow::ensure!(stop.is_cancelled(), "the connection to NATS is closed for good");
                break;
            };
            let deadline = deadline(&incoming, standstill.look(Instant::now()));
            let turn = self
                .clone()
                .take_turn(incoming, deadline, turns.clone(), Arc::clone(&keys));
            tasks::spawn_on(&answering, "query", turn);
        }
        answering.close();
        answering.wait().await;
        Ok(())
    }

    /// Begins to be asked; `None` after the stop.
    async fn subscribed(&self, stop: &CancellationToken) -> Option<QueryServer> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            match self.bus.serve_queries(&self.replica).await {
                Ok(server) => return Some(server),
                Err(error) => tracing::warn!(%error, "cannot serve queries yet"),
            }
            if !backoff.pause_unless(stop).await {
                return None;
            }
        }
    }

    /// Answers a query when it is its turn, unless nobody waits for the answer any more by then.
    async fn take_turn(self, incoming: IncomingQuery, deadline: Instant, turns: Turns, keys: Arc<Semaphore>) {
        // First: those who use keys must not take the turns of those who do not while they wait for a connection.
        let _key = match is_of_key(&incoming) {
            true => timeout_at(deadline, keys.acquire()).await.ok(),
            false => None,
        };
        let refusal = if is_urgent(&incoming) {
            if Instant::now() < deadline {
                return self.serve(incoming, deadline).await;
            }
            Refusal::Expired
        } else {
            match turns.take(deadline).await {
                Ok(_turn) => return self.serve(incoming, deadline).await,
                Err(refusal) => refusal,
            }
        };
        let (cause, again) = match refusal {
            Refusal::Expired => ("deadline", None),
            Refusal::Full(again) => ("queue", Some(again)),
            Refusal::TooLate(again) => ("wait", Some(again)),
        };
        metrics::counter!("chat_persistence_queries_shed_total", "cause" => cause).increment(1);
        if let Some(again) = again {
            refuse_overload(incoming, again).await;
        }
    }

    async fn serve(&self, incoming: IncomingQuery, deadline: Instant) {
        let started = Instant::now();
        let (name, answer) = match &incoming.query {
            Some(Query {
                actor,
                body: Some(body),
                budget_ms: _,
            }) => {
                let name = query_name(body);
                let span = process_span(name, &incoming);
                let answer = self.answer_by(deadline, actor.as_ref(), body);
                (name, answer.instrument(span).await)
            }
            _ => {
                let refusal = refuse("not a readable query of this name");
                ("unreadable", Err(refusal.into()))
            }
        };
        let body = answer.unwrap_or_else(|error| reply::Body::Error(told(name, error)));
        metrics::histogram!("chat_persistence_query_seconds", "name" => name)
            .record(started.elapsed().as_secs_f64());
        if let Err(error) = incoming.reply(&Reply { body: Some(body) }).await {
            tracing::debug!(%error, "no reply sent");
        }
    }

    /// The answer to one question, however long it takes up to the limit of the database.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn answer(
        &self,
        actor: Option<&v1::Actor>,
        body: &query::Body,
    ) -> Result<reply::Body, QueryError> {
        let deadline = Instant::now() + self.database.read_timeout;
        self.answer_by(deadline, actor, body).await
    }

    /// The answer to one question. All but a statement that writes ends at the deadline.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn answer_by(
        &self,
        deadline: Instant,
        actor: Option<&v1::Actor>,
        body: &query::Body,
    ) -> Result<reply::Body, QueryError> {
        if let Some(actor) = actor {
            UserId::parse(actor.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
        }
        if let query::Body::ListControl(asked) = body {
            let page = by(deadline, async {
                Ok::<_, QueryError>(self.bus.stored_control(asked.after_seq).await)
            });
            let page = page.await?;
            return page.map(reply::Body::ControlPage).map_err(|error| {
                tracing::warn!(%error, "a gateway is not told what was revoked");
                away().into()
            });
        }
        let viewer: Viewer = actor.map(|actor| actor.user_id.as_str());
        if let query::Body::StopStream(stop) = body {
            return self.request_stop(viewer, stop, deadline).await;
        }
        if let Some(written) = self.write(actor, viewer, body, deadline).await? {
            return Ok(written);
        }
        let reading = self.read(viewer, body, deadline);
        let (answer, shown) = by(deadline, reading).await?;
        // Before the answer: who joins after it must not be served the page once more.
        served::keep(&self.database, &shown, deadline).await?;
        Ok(answer)
    }

    /// Asks the service of a message that streams to end it.
    async fn request_stop(
        &self,
        viewer: Viewer<'_>,
        stop: &v1::StopStream,
        deadline: Instant,
    ) -> Result<reply::Body, QueryError> {
        let viewer = required(viewer)?;
        let named = query::Body::GetMessage(v1::GetMessage {
            conversation_id: stop.conversation_id.clone(),
            message_id: stop.message_id.clone(),
        });
        let (answer, _) = by(deadline, self.read(Some(viewer), &named, deadline)).await?;
        let reply::Body::Message(message) = answer else {
            return Err(no_conversation().into());
        };
        let sender = message.sender.as_ref().map_or("", |sender| sender.id.as_str());
        let service = sender.strip_prefix(SERVICE_PREFIX);
        let Some(service) = service.filter(|_| message.stream() == StreamState::Open) else {
            let refusal = v1::Error::with(
                ErrorCode::Conflict,
                "the message does not stream, or not any more",
            );
            return Err(refusal.into());
        };
        let asked = serde_json::json!({
            "conversation_id": message.conversation_id, "message_id": message.id, "user_id": viewer,
        });
        let published = self.bus.request_stop(service, asked.to_string().into()).await;
        published.map_err(|error| {
            tracing::warn!(%error, "a service is not asked to stop");
            away()
        })?;
        Ok(reply::Body::StreamStopRequested(v1::StreamStopRequested {}))
    }

    /// Answers what writes, or needs no database; `None` where the question only reads. After the deadline nothing is
    /// written that has not begun.
    async fn write(
        &self,
        actor: Option<&v1::Actor>,
        viewer: Viewer<'_>,
        body: &query::Body,
        deadline: Instant,
    ) -> Result<Option<reply::Body>, QueryError> {
        let database = &self.database;
        Ok(Some(match body {
            query::Body::ProvisionUser(provision) => {
                let actor = actor.ok_or_else(needs_actor)?;
                let provisioned = arrivals::provision(database, actor, provision.create, deadline);
                reply::Body::User(provisioned.await?)
            }
            query::Body::Arrive(arrive) => {
                reply::Body::Arrived(arrivals::arrive(database, arrive, deadline).await?)
            }
            query::Body::SetName(set) => {
                reply::Body::User(users::set_name(database, viewer, set, deadline).await?)
            }
            query::Body::SetAgent(set) => {
                reply::Body::User(users::set_agent(database, viewer, set, deadline).await?)
            }
            query::Body::SetBlock(set) => {
                let set = blocks::set(
                    database,
                    &self.bus,
                    required(viewer)?,
                    set,
                    self.user_blocks,
                    deadline,
                );
                reply::Body::BlockSet(set.await?)
            }
            query::Body::ResolveReport(resolve) => {
                reply::Body::ReportResolved(reports::resolve(database, viewer, resolve, deadline).await?)
            }
            query::Body::ReportPresence(report) => {
                reply::Body::PresenceReported(self.presence.report(report, deadline).await?)
            }
            query::Body::ReportServed(report) => {
                served::report(database, report, deadline).await?;
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
                partitions: self.partitions.into(),
            }),
            query::Body::Ping(v1::Ping {}) => return Err(away().into()),
            _ => return Ok(None),
        }))
    }

    /// Answers what reads, and says what that shows. To be cut at the deadline: the database soon gives up the statement that
    /// is under way, and the connection is free again.
    async fn read(
        &self,
        viewer: Viewer<'_>,
        body: &query::Body,
        deadline: Instant,
    ) -> Result<(reply::Body, Shown), QueryError> {
        // The connection goes back before another one is awaited: it would be missing to those who only read.
        let mut reading = self.database.reading().await?;
        match self.database.read_only_for(deadline) {
            None => self.look_up(&mut reading.connection, viewer, body).await,
            Some(begin) => {
                let mut transaction = reading.begin_with(begin).await?;
                let found = self.look_up(&mut transaction, viewer, body).await?;
                transaction.commit().await?;
                Ok(found)
            }
        }
    }

    /// What is read, and what that shows.
    async fn look_up(
        &self,
        c: &mut PgConnection,
        viewer: Viewer<'_>,
        body: &query::Body,
    ) -> Result<(reply::Body, Shown), QueryError> {
        let since = Instant::now();
        let answer = self.select(c, viewer, body).await?;
        let shown = match (body, &answer) {
            (query::Body::ListMessages(q), reply::Body::Messages(page)) => {
                served::by_page(c, required(viewer)?, q, page, since).await?
            }
            (query::Body::ListConversations(_), reply::Body::Conversations(page)) => {
                served::by_list(required(viewer)?, page)
            }
            _ => Shown::Nothing,
        };
        Ok((answer, shown))
    }

    async fn select(
        &self,
        c: &mut PgConnection,
        viewer: Viewer<'_>,
        body: &query::Body,
    ) -> Result<reply::Body, QueryError> {
        let (inline, me) = (self.inline_participants, || required(viewer));
        Ok(match body {
            query::Body::ListConversations(q) => {
                reply::Body::Conversations(conversations::list(c, me()?, q, inline).await?)
            }
            query::Body::GetConversation(q) => {
                reply::Body::Conversation(conversations::get(c, me()?, q, inline).await?)
            }
            query::Body::ListMessages(q) => reply::Body::Messages(messages::list(c, me()?, q).await?),
            query::Body::ListEvents(q) => reply::Body::Events(events::list(c, viewer, q).await?),
            query::Body::Sync(q) => reply::Body::Sync(events::sync(c, me()?, q).await?),
            query::Body::ListReports(q) => reply::Body::Reports(reports::list(c, viewer, q).await?),
            query::Body::ListBans(q) => reply::Body::Bans(bans::list(c, me()?, q).await?),
            query::Body::ListBlocks(q) => reply::Body::Blocks(blocks::list(c, me()?, q).await?),
            query::Body::CountUnread(v1::CountUnread {}) => {
                reply::Body::UnreadTotal(store::mutes::unread_total(c, me()?).await?)
            }
            query::Body::ListParticipants(q) => {
                reply::Body::Participants(participants::list(c, me()?, q).await?)
            }
            query::Body::ListMemberships(q) => {
                reply::Body::Memberships(arrivals::memberships(c, viewer, q).await?)
            }
            query::Body::ListReceipts(q) => reply::Body::Receipts(rooms::receipts(c, viewer, q).await?),
            query::Body::ListMissedReceipts(q) => {
                reply::Body::MissedReceipts(rooms::missed_receipts(c, me()?, q).await?)
            }
            query::Body::ListRemovals(q) => reply::Body::Removals(users::removals(c, me()?, q).await?),
            query::Body::ListServed(q) => reply::Body::ServedPositions(served::of_page(c, me()?, q).await?),
            query::Body::GetMessage(q) => reply::Body::Message(messages::get(c, me()?, q).await?),
            query::Body::ListEdits(q) => reply::Body::Edits(messages::edits(c, me()?, q).await?),
            query::Body::ListThreads(q) => reply::Body::Threads(threads::list(c, me()?, q).await?),
            query::Body::ListJournals(q) => {
                reply::Body::Conversations(conversations::journals(c, me()?, q, inline).await?)
            }
            query::Body::ListJournalVersions(q) => {
                reply::Body::JournalVersions(journals::versions(c, me()?, q).await?)
            }
            query::Body::ReadJournal(q) => {
                reply::Body::JournalDocument(journals::document(c, viewer, q).await?)
            }
            query::Body::ListJournalUpdates(q) => {
                reply::Body::JournalUpdates(journals::updates(c, viewer, q).await?)
            }
            asked => return together(c, viewer, asked, inline).await,
        })
    }
}

/// What gateways ask for all whom they serve: rooms, presence, and what many clients need at once.
async fn together(
    c: &mut PgConnection,
    viewer: Viewer<'_>,
    body: &query::Body,
    inline: usize,
) -> Result<reply::Body, QueryError> {
    Ok(match body {
        query::Body::GetPresence(q) => reply::Body::Presences(presence::get(c, viewer, q).await?),
        query::Body::ListPresenceChanges(q) => reply::Body::Presences(presence::changes(c, q).await?),
        query::Body::GetRoom(q) => reply::Body::Room(rooms::get(c, viewer, q).await?),
        query::Body::GetRooms(q) => reply::Body::Rooms(rooms::get_all(c, q).await?),
        query::Body::ViewConversations(q) => {
            reply::Body::ConversationViews(conversations::view(c, q, inline).await?)
        }
        query::Body::CatchUp(q) => reply::Body::CaughtUp(events::catch_up(c, q).await?),
        query::Body::FindMembers(q) => reply::Body::FoundMembers(participants::find(c, q).await?),
        query::Body::GetHeads(q) => reply::Body::Heads(rooms::heads(c, viewer, q).await?),
        query::Body::FindMissedReceipts(q) => {
            reply::Body::FoundMissedReceipts(rooms::find_missed_receipts(c, q).await?)
        }
        query::Body::FindRemovals(q) => reply::Body::FoundRemovals(users::find_removals(c, q).await?),
        query::Body::GetListState(q) => reply::Body::ListState(rooms::list_state(c, q).await?),
        query::Body::Resolve(q) => reply::Body::Resolved(resolve::resolve(c, q).await?),
        _ => return Err(needs_actor().into()),
    })
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
    let body = incoming.query.as_ref().and_then(|query| query.body.as_ref());
    matches!(body, Some(query::Body::Ping(_) | query::Body::ReportPresence(_)))
}

/// Whether it claims a change by an idempotency key, or ends one.
fn is_of_key(incoming: &IncomingQuery) -> bool {
    let body = incoming.query.as_ref().and_then(|query| query.body.as_ref());
    matches!(
        body,
        Some(query::Body::ClaimChange(_) | query::Body::SettleChange(_))
    )
}

/// When nobody waits for the reply any more. What arrives may have been on its way for `age`.
fn deadline(incoming: &IncomingQuery, age: Duration) -> Instant {
    Instant::from_std(incoming.arrived) + incoming.budget().saturating_sub(age)
}

async fn refuse_overload(incoming: IncomingQuery, again: Duration) {
    let error = v1::Error {
        retry_after_ms: u32::try_from(again.as_millis()).unwrap_or(u32::MAX),
        ..v1::Error::with(ErrorCode::Unavailable, "too many queries wait")
    };
    let reply = Reply {
        body: Some(reply::Body::Error(error)),
    };
    if let Err(error) = incoming.reply(&reply).await {
        tracing::debug!(%error, "no reply sent");
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody waits in such numbers")]
fn gauge_waiting(turns: &Turns) {
    metrics::gauge!("chat_persistence_queries_waiting").set(turns.waiting() as f64);
}

fn away() -> v1::Error {
    v1::Error::with(ErrorCode::Unavailable, "the database cannot answer now")
}

/// What the asker is told. The rest is for the log.
fn told(name: &'static str, error: QueryError) -> v1::Error {
    match error {
        QueryError::Refused(error) => error,
        QueryError::Expired => cut(name),
        QueryError::Database(error) if is_cancelled(&error) => cut(name),
        QueryError::Database(error) => {
            tracing::warn!(query = name, cause = without_content(&error), "a query failed");
            away()
        }
    }
}

/// A read that has reached its deadline.
fn cut(name: &'static str) -> v1::Error {
    tracing::debug!(query = name, "a query was given up at its deadline");
    metrics::counter!("chat_persistence_queries_shed_total", "cause" => "cut").increment(1);
    v1::Error::with(ErrorCode::Unavailable, "the database did not answer in time")
}

fn is_cancelled(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == CANCELLED)
}
