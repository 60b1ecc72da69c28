//! From a connection to a session: who is it, and may it come in.
//!
//! Runs before the client is told that it is connected, so that no event can come before its handler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::header;
use parlance_proto::v1::{ErrorCode, User};
use parlance_proto::{ErrorCodeExt as _, UserId};
use serde::Deserialize;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::socket::DisconnectReason;
use tokio_util::sync::CancellationToken;

use super::admission::Ticket;
use super::connection::Connection;
use super::inbound::{self, Queue, QueueLimit};
use super::pid::{Returning, pid};
use super::returning;
use crate::actions::user::sender_kind;
use crate::auth::{self, AuthError, Identity};
use crate::backend::Arrival as Arriving;
use crate::clock::now;
use crate::delivery::users::{Emitted, Expected, Since, emitted_of};
use crate::dialect::native::Positions;
use crate::dialect::{self, Backlog, Dialect};
use crate::edge::refusals::Refused;
use crate::edge::socket::state::SocketState;
use crate::query::query_value;
use crate::session::page::Page;
use crate::session::{Opening, Session};

/// For so long a token that is not valid yet is waited for here; longer and the client is sent away to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Who was seen within this time may have a session that has not ended yet, or has just ended.
const SEEN_LATELY_MS: i64 = 75_000;
/// How long a connection takes to be closed.
const CLOSING: Duration = Duration::from_secs(1);

/// What a client presents at the handshake; everything else in it is ignored.
#[derive(Debug, Default, Deserialize)]
pub struct Credentials {
    token: Option<String>,
    dialect: Option<String>,
    /// How far it is: it joins these conversations and is told what happened since.
    since: Option<Positions>,
    /// What stock clients present of their own: the page that connects again.
    pid: Option<String>,
}

/// A session that waits for its client to be told.
#[derive(Clone)]
pub(super) struct Prepared {
    pub session: Arc<Session>,
    pub queue: Arc<Mutex<Option<Queue>>>,
    pub state: SocketState,
    /// Whether its first telling event decides what it speaks.
    pub learns: bool,
    /// Held until the session has arrived among the users.
    pub expected: Arc<Expected>,
    /// What the client says it has got.
    pub since: Option<Arc<Since>>,
    /// Its client was connected before, here or elsewhere.
    pub returns: bool,
    /// What its page was emitted before.
    pub emitted: Arc<Emitted>,
}

/// What a session takes along into the table of users.
struct Arrival {
    learns: bool,
    page: Page,
    returns: bool,
    is_settled: bool,
    expected: Expected,
    since: Option<Arc<Since>>,
    emitted: Emitted,
}

/// A client that is not let in. `Display` is what it reads in `connect_error`.
#[derive(Debug)]
pub struct Refusal {
    dialect: &'static dyn Dialect,
    cause: Cause,
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
enum Cause {
    /// The token is missing or does not hold.
    #[error("unauthenticated: {0}")]
    Token(#[from] AuthError),
    /// The token is in the query, where it is not looked for.
    #[error(
        "unauthenticated: no token was given: this server takes none from the query string; send it as auth.token"
    )]
    QueryToken,
    /// No user of that id.
    #[error("unauthenticated: unknown user")]
    UnknownUser,
    /// No dialect of that name.
    #[error("invalid: dialect is none of {}", dialect::names())]
    Dialect,
    /// The `auth` of the handshake is not an object with text fields.
    #[error("invalid: malformed auth")]
    Malformed,
    /// Stock clients give up after a `connect_error`, so the transport is closed instead and they come
    /// again.
    #[error("unavailable: try again")]
    Temporary,
}

impl Cause {
    /// For the limit of log lines.
    fn kind(&self) -> &'static str {
        match self {
            Self::Token(error) => error.code(),
            Self::QueryToken => "query_token",
            Self::UnknownUser => "unknown_user",
            Self::Dialect => "dialect",
            Self::Malformed => "malformed_auth",
            Self::Temporary => "unavailable",
        }
    }

    /// The setting that decides this.
    fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Token(error) => error.setting(),
            Self::QueryToken => Some("auth.query_token"),
            Self::UnknownUser => Some("auth.provision"),
            Self::Dialect | Self::Malformed | Self::Temporary => None,
        }
    }
}

impl Refusal {
    fn new(dialect: &'static dyn Dialect, cause: Cause) -> Self {
        Self { dialect, cause }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.dialect.refusal(&self.cause.to_string()))
    }
}

pub(super) async fn authenticate(
    state: &SocketState,
    socket: SocketRef,
    auth: TryData<Option<Credentials>>,
) -> Result<(), Refusal> {
    let mut ticket = Connection::of(&socket).take_ticket();
    let outcome = admit(state, &socket, auth, ticket.as_mut()).await;
    drop(ticket);
    let result = match &outcome {
        Ok(()) => "ok",
        Err(Refusal {
            cause: Cause::Temporary,
            ..
        }) => {
            close(state, &socket);
            // Until the connection is gone, so that the refusal below is not sent.
            tokio::time::sleep(CLOSING).await;
            "unavailable"
        }
        Err(refusal) => {
            state.gate.refusals.note(&Refused {
                kind: refusal.cause.kind(),
                value: None,
                reason: &refusal.cause,
                setting: refusal.cause.setting(),
            });
            "refused"
        }
    };
    metrics::counter!("chat_gateway_connects_total", "result" => result).increment(1);
    outcome
}

async fn admit(
    state: &SocketState,
    socket: &SocketRef,
    TryData(auth): TryData<Option<Credentials>>,
    ticket: Option<&mut Ticket>,
) -> Result<(), Refusal> {
    let mut credentials = auth
        .map_err(|_| Refusal::new(dialect::DEFAULT, Cause::Malformed))?
        .unwrap_or_default();
    let (named, fallback) = asked_dialect(state, socket, &credentials)?;
    let refuse = |cause| Refusal::new(named.unwrap_or(fallback), cause);
    let identity = identify(state, socket, credentials.token.as_deref())
        .await
        .map_err(refuse)?;
    let dialects = &state.gate.dialects;
    let claimed = identity.dialect.as_deref().and_then(|name| dialects.named(name));
    let dialect = named.or(claimed).unwrap_or(fallback);
    let is_mapped = mapped_dialect(state, socket).is_some();
    let learns = dialects.learn && named.or(claimed).is_none() && !is_mapped;
    let since = match credentials
        .since
        .take()
        .map(|since| since.check(&state.core.limits))
    {
        Some(Ok(positions)) => Some(Arc::new(Since::new(positions))),
        Some(Err(_)) => return Err(refuse(Cause::Malformed)),
        None => None,
    };
    let returning = credentials.pid.as_deref().and_then(Returning::of);
    // Before anything is known of the user here: with the session before, what was counted for it ends.
    let is_settled = returning::settle(state, &identity.user_id, returning.as_ref(), socket).await;
    let delivers = since.is_none() && dialect.backlog() != Backlog::AtJoin;
    let expected = state.core.users.expect(&identity.user_id);
    let page = returning.as_ref().map(|returning| returning.page);
    let known = page.filter(|_| delivers);
    let arrival = Arriving {
        user_id: identity.user_id.to_string(),
        username: identity.username.clone().unwrap_or_default(),
        page: known.as_ref().map(ToString::to_string).unwrap_or_default(),
        // What was delivered must be known as it is now.
        memberships: delivers || !expected.is_loaded(),
    };
    // Refused tokens say nothing of the backend.
    if let Some(ticket) = ticket {
        ticket.begin();
    }
    match state.core.arrive(arrival).await {
        Ok((user, membership)) => {
            if user.has_blocks && state.core.users.read_blocks(&identity.user_id).await.is_err() {
                return Err(refuse(Cause::Temporary));
            }
            let mut found = None;
            if let Some(membership) = membership {
                found = emitted_of(&membership);
                state.core.users.load(&expected, membership).await;
            }
            if delivers && dialect.backlog() != Backlog::UntilMarked && was_seen_lately(&user) {
                state.core.users.settle(&identity.user_id).await;
            }
            let emitted = match known {
                Some(page) => emitted(state, &identity.user_id, page, found, is_settled).await,
                None => Emitted::default(),
            };
            prepare(
                state,
                socket,
                identity,
                &user,
                dialect,
                Arrival {
                    learns,
                    page: page.unwrap_or_else(Page::open),
                    returns: page.is_some(),
                    is_settled,
                    expected,
                    since,
                    emitted,
                },
            );
            Ok(())
        }
        Err(error) if error.code == ErrorCode::NotFound.name() => Err(refuse(Cause::UnknownUser)),
        Err(_) => Err(refuse(Cause::Temporary)),
    }
}

/// Whether the user may have a session that has not ended yet, or has just ended: nothing is known yet of one that has
/// just begun.
fn was_seen_lately(user: &User) -> bool {
    user.seen_at_ms == 0 || now().timestamp_millis() - user.seen_at_ms < SEEN_LATELY_MS
}

/// What a page that returns was emitted before; `found` is what was read of it a moment ago.
async fn emitted(
    state: &SocketState,
    user: &UserId,
    page: Page,
    found: Option<Emitted>,
    is_settled: bool,
) -> Emitted {
    let users = &state.core.users;
    let found = match found {
        Some(found) => found,
        None => users.emitted(user, page).await,
    };
    if is_settled {
        found
    } else {
        users.emitted_lately(user, page, found).await
    }
}

/// The dialect that the client names, if any, and the one of clients like it that name none.
fn asked_dialect(
    state: &SocketState,
    socket: &SocketRef,
    credentials: &Credentials,
) -> Result<(Option<&'static dyn Dialect>, &'static dyn Dialect), Refusal> {
    let dialects = &state.gate.dialects;
    let mapped = mapped_dialect(state, socket);
    // Both names were checked at start.
    let fallback = dialects.named(mapped.unwrap_or(&dialects.default));
    let fallback = fallback.unwrap_or(dialect::DEFAULT);
    let Some(name) = named_dialect(socket, credentials) else {
        return Ok((None, fallback));
    };
    match dialects.named(&name) {
        Some(named) => Ok((Some(named), fallback)),
        None => Err(Refusal::new(fallback, Cause::Dialect)),
    }
}

/// What the client says itself: in `auth`, else in the query of the handshake.
fn named_dialect(socket: &SocketRef, credentials: &Credentials) -> Option<String> {
    credentials.dialect.clone().or_else(|| {
        let query = socket.req_parts().uri.query()?;
        let named = query.split('&').find_map(|part| part.strip_prefix("dialect="));
        named.map(str::to_owned)
    })
}

/// What is configured for the web page's origin.
fn mapped_dialect<'a>(state: &'a SocketState, socket: &SocketRef) -> Option<&'a String> {
    let origin = socket.req_parts().headers.get(header::ORIGIN)?;
    state.gate.dialects.origins.get(origin.to_str().ok()?)
}

async fn identify(state: &SocketState, socket: &SocketRef, token: Option<&str>) -> Result<Identity, Cause> {
    let first = socket.req_parts();
    let from_header = || auth::bearer(first.headers.get(header::AUTHORIZATION)?.to_str().ok()?);
    let Some(token) = token.or_else(from_header) else {
        let in_query = |name| query_value(&first.uri, name).is_some();
        return Err(if in_query("token=") || in_query("access_token=") {
            Cause::QueryToken
        } else {
            AuthError::Missing.into()
        });
    };
    let mut outcome = state.core.auth.authenticate(token).await;
    // Closing the transport would take the sessions of other namespaces along.
    if let Err(AuthError::Early(seconds)) = outcome
        && (seconds <= LONGEST_WAIT.as_secs() || Connection::of(socket).send_queue.is_occupied())
    {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        outcome = state.core.auth.authenticate(token).await;
    }
    outcome.map_err(|error| {
        if error.is_retryable() {
            Cause::Temporary
        } else {
            error.into()
        }
    })
}

fn prepare(
    state: &SocketState,
    socket: &SocketRef,
    identity: Identity,
    user: &User,
    dialect: &'static dyn Dialect,
    arrival: Arrival,
) {
    let closed = CancellationToken::new();
    let doubtful = Arc::<AtomicBool>::default();
    let limit = QueueLimit {
        events: state.max_waiting_events,
        bytes: state.max_waiting_bytes,
    };
    let (handler, queue) = inbound::queue(limit, state.transports.clone());
    let kind = sender_kind(&identity, user);
    let connection = Connection::of(socket);
    let opening = Opening {
        page: arrival.page,
        is_settled: arrival.is_settled,
        is_assumed: arrival.learns,
        kind,
        hidden: arrival.expected.hidden(),
        user: identity.user_id,
        username: user.username.clone(),
        number: user.number,
        dialect,
        seen_at_ms: user.seen_at_ms,
        grant: identity.grant,
        since: SystemTime::from(now()),
        closed: closed.clone(),
        doubtful: Arc::clone(&doubtful),
        send_queue: Arc::clone(&connection.send_queue),
    };
    let session = Session::new(
        opening,
        socket.clone(),
        state.transports.clone(),
        state.max_backlog_bytes,
    );
    connection.packets.join(socket.ns());
    let pid = pid(arrival.page, state.relay.ids().owner());
    connection.introductions.expect(socket.ns(), pid);
    socket.on_fallback::<_, inbound::Ordered>(handler);
    socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
        metrics::counter!("chat_gateway_disconnects_total", "reason" => reason_name(reason)).increment(1);
        if !matches!(
            reason,
            DisconnectReason::ClientNSDisconnect | DisconnectReason::TransportClose
        ) || connection.packets.is_cut()
        {
            doubtful.store(true, Ordering::Relaxed);
        }
        // A client that leaves by itself may have come again by now.
        if matches!(reason, DisconnectReason::ServerNSDisconnect) {
            connection.packets.leave(socket.ns());
        }
        closed.cancel();
    });
    socket.extensions.insert(Prepared {
        session: Arc::new(session),
        queue: Arc::new(Mutex::new(Some(queue))),
        state: state.clone(),
        learns: arrival.learns,
        expected: Arc::new(arrival.expected),
        since: arrival.since,
        returns: arrival.returns,
        emitted: Arc::new(arrival.emitted),
    });
}

fn close(state: &SocketState, socket: &SocketRef) {
    match socket.transport_type() {
        socketioxide::TransportType::Websocket => {
            if let Some(wire) = state.transports.wire_of(socket) {
                wire.kill();
            }
        }
        socketioxide::TransportType::Polling => state.transports.close_polling(socket.id.to_string()),
    }
}

fn reason_name(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::MultipleHttpPollingError => "multiple_polling",
        DisconnectReason::PacketParsingError => "malformed_packet",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::HeartbeatTimeout => "heartbeat_timeout",
        DisconnectReason::ClientNSDisconnect => "client",
        DisconnectReason::ServerNSDisconnect => "server",
        DisconnectReason::ClosingServer => "closing",
    }
}
