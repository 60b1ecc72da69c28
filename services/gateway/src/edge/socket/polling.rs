//! Polling sessions of this gateway: every request of theirs, wherever it arrived, is answered here, and their
//! upgrades to WebSocket begin here.
//!
//! The engine is asked last. Before it, packets are judged; beside it, a poll can be ended early: by a client that
//! tries to upgrade, and would wait for it, or that must be refused.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use moka::sync::Cache;
use parlance_proto::v1::ErrorCode;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::connection::Connection;
use super::engine::{Engine, post};
use super::engineio::Refusal;
use super::packets::{self, MessageLimit, PacketVerdict, Packets};
use crate::edge::refusals::Refused;
use crate::edge::socket::state::SocketState;
use crate::error::ClientError;
use crate::query::query_value;

/// For longer than any proxy keeps on trying, and than any session goes on without a request.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Sessions remembered at most: far more than a gateway takes connections.
const MAX_SESSIONS: u64 = 1_000_000;
/// A mark of so many digits or fewer is the time in seconds, and no mark: some clients poll more often.
const SECONDS_DIGITS: usize = 10;
/// What a poll is answered so that its client just asks again: the packet `noop`.
pub const NOOP: &str = "6";
/// Polls during an upgrade are held for this long, doubled each time, up to the maximum: a client that confirms its
/// upgrade waits for its last poll, and one whose upgrade hangs polls on.
const HELD: Duration = Duration::from_millis(100);
const MAX_HELD: Duration = Duration::from_secs(3);
/// How long the body of a request may take as a whole, however steadily its bytes come.
pub const BODY: Duration = Duration::from_secs(60);
/// How long what a client sends beyond the limit is discarded, so that it reads the answer.
const LINGER: Duration = Duration::from_secs(5);
/// Between packets in one body.
const SEPARATOR: u8 = 0x1e;

/// The polling sessions of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct Polling {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    state: SocketState,
    limit: MessageLimit,
    /// By the engine's id. Some may have ended: only the engine knows.
    known: Cache<String, Arc<PollingSession>>,
    hasher: RandomState,
}

/// A session that began with polling.
pub struct PollingSession {
    /// Outlives the transport.
    pub connection: Arc<Connection>,
    /// What stands for the mark of its last poll.
    last: Mutex<Option<u64>>,
    interrupt: watch::Sender<Interrupt>,
    /// A WebSocket wants to take over.
    upgrading: AtomicBool,
    /// Polls ended since it does.
    ended: AtomicU32,
}

/// Why polls are not held as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    None,
    /// An upgrade waits for the client to finish polling.
    Upgrade,
    /// The client uses another parser.
    OtherParser,
}

/// The right to upgrade a session, for one WebSocket at a time.
pub struct Upgrading {
    session: Arc<PollingSession>,
}

impl Polling {
    /// Sessions of this engine; a request's body may be as large as `limit` says.
    pub fn new(engine: Engine, state: SocketState, limit: MessageLimit) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                state,
                limit,
                known: Cache::builder()
                    .time_to_idle(REMEMBERED)
                    .max_capacity(MAX_SESSIONS)
                    .build(),
                hasher: RandomState::new(),
            }),
        }
    }

    /// What all parts of the gateway share.
    pub fn state(&self) -> &SocketState {
        &self.inner.state
    }

    /// The engine's id of a session that a request names; `None` where this gateway did not issue it.
    pub fn verify<'a>(&self, session: &'a str) -> Option<&'a str> {
        self.inner.state.relay.ids().verify(session)
    }

    /// Begins a session: the id in the answer is the client's key to it.
    pub async fn open(&self, request: Request<Body>) -> Response<Body> {
        let connection = request.extensions().get().map(Arc::clone).unwrap_or_default();
        let Ok(response) = self.inner.engine.clone().oneshot(request).await;
        let (mut parts, body) = response.into_parts();
        let Ok(body) = axum::body::to_bytes(Body::new(body), usize::MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let Some((engine_id, mut open)) = opened(&body) else {
            return Response::from_parts(parts, Body::from(body));
        };
        open.insert(
            "sid".to_owned(),
            self.inner.state.relay.ids().issue(&engine_id).into(),
        );
        let body = format!("0{}", Value::from(open));
        let session = PollingSession {
            connection,
            last: Mutex::default(),
            interrupt: watch::Sender::new(Interrupt::None),
            upgrading: AtomicBool::new(false),
            ended: AtomicU32::new(0),
        };
        self.inner.known.insert(engine_id, Arc::new(session));
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        Response::from_parts(parts, Body::from(body))
    }

    /// Answers a request of a session of this gateway.
    pub async fn answer(&self, engine_id: &str, request: Request<Body>) -> Response<Body> {
        let Some(session) = self.inner.known.get(engine_id) else {
            return Refusal::UnknownSession.into_response();
        };
        match *request.method() {
            Method::GET => self.poll(engine_id, &session, request).await,
            Method::POST => self.post(engine_id, &session, request).await,
            _ => Refusal::BadRequest.into_response(),
        }
    }

    /// Ends a session whose client sent too much, or what does not fit.
    pub fn close(&self, engine_id: &str) {
        self.inner.state.transports.close_polling(engine_id.to_owned());
    }

    /// How large a request of the session may be, in bytes; 0 where this gateway does not know it.
    pub fn allowance(&self, engine_id: &str) -> usize {
        let session = self.inner.known.get(engine_id);
        session.map_or(0, |session| {
            session.connection.packets.allowance(self.inner.limit)
        })
    }

    /// Whether this gateway knows the session. It may have ended lately.
    pub fn knows(&self, engine_id: &str) -> bool {
        self.inner.known.contains_key(engine_id)
    }

    /// Begins an upgrade.
    ///
    /// # Errors
    /// There is no such session, it is no polling session any more, or another upgrade is under way.
    pub async fn begin_upgrade(&self, engine_id: &str) -> Result<Upgrading, Refusal> {
        let session = self.inner.known.get(engine_id).ok_or(Refusal::UnknownSession)?;
        // No packet at all: the engine only looks for the session.
        let request = post(engine_id, Body::empty()).ok_or(Refusal::BadRequest)?;
        let response = self.ask(request).await;
        if let Some(refusal) = response.extensions().get::<Refusal>() {
            return Err(*refusal);
        }
        if session.upgrading.swap(true, Ordering::AcqRel) {
            return Err(Refusal::BadRequest);
        }
        Ok(Upgrading { session })
    }

    async fn poll(
        &self,
        engine_id: &str,
        session: &PollingSession,
        request: Request<Body>,
    ) -> Response<Body> {
        let mark = mark_of(request.uri()).map(|mark| self.inner.hasher.hash_one(mark));
        // A proxy tries again where it got no answer, and what was in the answer is lost then.
        if mark.is_some() && session.last() == mark {
            self.close(engine_id);
            return Refusal::UnknownSession.into_response();
        }
        let transports = &self.inner.state.transports;
        transports.polls(engine_id);
        let response = tokio::select! {
            biased;
            response = self.ask(request) => introduced(&session.connection, response).await,
            packets = session.interrupted() => text(packets),
        };
        if response.status() == StatusCode::OK {
            *session.last.lock().unwrap_or_else(PoisonError::into_inner) = mark;
            transports.answered(engine_id);
        }
        response
    }

    async fn post(
        &self,
        engine_id: &str,
        session: &PollingSession,
        request: Request<Body>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let most = session.connection.packets.allowance(self.inner.limit);
        let body = match whole(body, most).await {
            Ok(body) => body,
            Err(response) => {
                if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    session.connection.packets.cut();
                    self.close(engine_id);
                }
                return response;
            }
        };
        let (body, verdict) = screen(&session.connection.packets, &body);
        let response = self.ask(Request::from_parts(head, Body::from(body))).await;
        match verdict {
            _ if response.status() != StatusCode::OK => {}
            PacketVerdict::Close(reason) => {
                tracing::debug!(reason, "closed a polling session");
                self.close(engine_id);
            }
            PacketVerdict::OtherParser => {
                note_other_parser(&self.inner.state);
                session.interrupt.send_replace(Interrupt::OtherParser);
            }
            PacketVerdict::Pass | PacketVerdict::Quote(_) => {}
        }
        response
    }

    /// Asks the engine. Its refusals become those of the reference server.
    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = self.inner.engine.clone().oneshot(request).await;
        let is_json = response.headers().get(header::CONTENT_TYPE);
        let is_json = is_json.is_some_and(|kind| kind == "application/json");
        if response.status() != StatusCode::BAD_REQUEST || !is_json {
            return response.map(Body::new);
        }
        let body = axum::body::to_bytes(Body::new(response.into_body()), usize::MAX).await;
        let refusal = Refusal::of_engine(&body.unwrap_or_default());
        let mut response = refusal.into_response();
        response.extensions_mut().insert(refusal);
        response
    }
}

impl PollingSession {
    fn last(&self) -> Option<u64> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves with what a poll is to be answered where it must not wait any longer.
    async fn interrupted(&self) -> String {
        let mut interrupt = self.interrupt.subscribe();
        loop {
            let now = *interrupt.borrow_and_update();
            let held = match now {
                Interrupt::None => None,
                Interrupt::Upgrade => Some(held(self.ended.load(Ordering::Relaxed))),
                // Once: a client that polls on is held until it is given up.
                Interrupt::OtherParser => {
                    self.interrupt.send_replace(Interrupt::None);
                    return packets::refusal_in_message_pack_over_polling();
                }
            };
            tokio::select! {
                // The sender lives as long as the session.
                _ = interrupt.changed() => {}
                () = tokio::time::sleep(held.unwrap_or_default()), if held.is_some() => {
                    self.ended.fetch_add(1, Ordering::Relaxed);
                    return NOOP.to_owned();
                }
            }
        }
    }
}

impl Upgrading {
    /// The session's state, for the WebSocket that takes over.
    pub fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.session.connection)
    }

    /// Whether the client uses another parser and has not read so while polling.
    pub fn is_refused(&self) -> bool {
        *self.session.interrupt.borrow() == Interrupt::OtherParser
    }

    /// Ends the poll that is held, and later ones soon: the client waits for its last one before it confirms.
    pub fn end_polls(&self) {
        self.session.ended.store(0, Ordering::Relaxed);
        self.session.interrupt.send_if_modified(|interrupt| {
            let may = *interrupt == Interrupt::None;
            if may {
                *interrupt = Interrupt::Upgrade;
            }
            may
        });
    }
}

impl Drop for Upgrading {
    fn drop(&mut self) {
        self.session.interrupt.send_if_modified(|interrupt| {
            let ends = *interrupt == Interrupt::Upgrade;
            if ends {
                *interrupt = Interrupt::None;
            }
            ends
        });
        self.session.upgrading.store(false, Ordering::Release);
    }
}

/// The body of a request.
///
/// # Errors
/// It is too large, takes longer than [`BODY`], or its client has gone.
pub async fn whole(mut body: Body, max: usize) -> Result<Bytes, Response<Body>> {
    let limited = Limited::new(&mut body, max);
    let collected = tokio::time::timeout(BODY, limited.collect()).await;
    match collected.map_err(|_| Refusal::BadRequest.into_response())? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(&mut body).await),
        Err(_) => Err(Refusal::BadRequest.into_response()),
    }
}

/// Reads on for a moment: a client that is still sending would not read the answer.
pub async fn discard(rest: &mut Body) {
    let read = async { while rest.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    drop(tokio::time::timeout(LINGER, read).await);
}

/// The answer to a request whose body is too large, once its client reads it.
pub async fn too_large(rest: &mut Body) -> Response<Body> {
    discard(rest).await;
    ClientError::new(ErrorCode::TooLarge, "the request is larger than maxPayload").into_response()
}

/// A client's request as the engine understands it.
pub fn for_engine(mut request: Request<Body>, engine_id: &str) -> Option<Request<Body>> {
    let parts = request.uri().query().unwrap_or_default().split('&');
    let others: Vec<_> = parts.filter(|part| !part.starts_with("sid=")).collect();
    let uri = format!("/socket.io/?{}&sid={engine_id}", others.join("&"));
    *request.uri_mut() = uri.parse().ok()?;
    Some(request)
}

/// Writes down that a client uses another parser.
pub fn note_other_parser(state: &SocketState) {
    state.gate.refusals.note(&Refused {
        kind: "parser",
        value: None,
        reason: packets::OTHER_PARSER,
        setting: None,
    });
}

/// How long a poll is held after so many were ended for the sake of one upgrade.
fn held(ended: u32) -> Duration {
    match ended {
        0 => Duration::ZERO,
        _ => HELD.saturating_mul(1 << (ended - 1).min(16)).min(MAX_HELD),
    }
}

/// What clients mark each poll with, to get around caches.
fn mark_of(uri: &Uri) -> Option<&str> {
    let is_time =
        |mark: &&str| mark.len() <= SECONDS_DIGITS && mark.bytes().all(|byte| byte.is_ascii_digit());
    query_value(uri, "t=").filter(|mark| !is_time(mark))
}

/// The packets that the engine takes, and the verdict on the first that it does not, or on the last.
fn screen(sent: &Packets, body: &[u8]) -> (Vec<u8>, PacketVerdict) {
    let mut passed = Vec::with_capacity(body.len());
    for packet in body.split(|byte| *byte == SEPARATOR) {
        let verdict = sent.judge_text(packet, true);
        if matches!(verdict, PacketVerdict::Close(_) | PacketVerdict::OtherParser) {
            return (passed, verdict);
        }
        if !passed.is_empty() {
            passed.push(SEPARATOR);
        }
        if let PacketVerdict::Quote(name) = verdict {
            passed.extend_from_slice(&packet[..name.start]);
            passed.push(b'"');
            passed.extend_from_slice(&packet[name.clone()]);
            passed.push(b'"');
            passed.extend_from_slice(&packet[name.end..]);
        } else {
            passed.extend_from_slice(packet);
        }
    }
    (passed, PacketVerdict::Pass)
}

/// The engine's open packet and the id in it.
fn opened(body: &[u8]) -> Option<(String, Map<String, Value>)> {
    let open: Map<String, Value> = serde_json::from_slice(body.strip_prefix(b"0")?).ok()?;
    let id = open.get("sid")?.as_str()?.to_owned();
    Some((id, open))
}

/// The answer to a poll, with the pages in it that its CONNECT packets introduce.
async fn introduced(connection: &Connection, response: Response<Body>) -> Response<Body> {
    if !connection.introductions.is_any() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let packets = body.split(|byte| *byte == SEPARATOR);
    let packets: Vec<_> = packets
        .map(|packet| {
            connection
                .introductions
                .complete(packet)
                .unwrap_or_else(|| packet.to_vec())
        })
        .collect();
    let body = packets.join(&SEPARATOR);
    if parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    Response::from_parts(parts, Body::from(body))
}

fn text(packets: String) -> Response<Body> {
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=UTF-8")];
    (kind, packets).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_gets_its_own_id_and_every_other_parameter() {
        let request = Request::get("/ws?EIO=4&sid=abc.def&transport=polling&t=abc");
        let request = for_engine(request.body(Body::empty()).unwrap(), "engine").unwrap();
        assert_eq!(
            request.uri(),
            "/socket.io/?EIO=4&transport=polling&t=abc&sid=engine"
        );
    }

    #[test]
    fn seconds_are_no_mark() {
        let mark = |t: &str| {
            let uri: Uri = format!("/socket.io/?transport=polling&t={t}").parse().unwrap();
            mark_of(&uri).map(str::to_owned)
        };
        assert_eq!(mark("1700000000"), None);
        assert_eq!(mark(""), None);
        for real in ["1700000000123", "1700000000.5", "k3f9x", "PXk1a2b.0"] {
            assert_eq!(mark(real).as_deref(), Some(real));
        }
    }

    #[test]
    fn a_hanging_upgrade_costs_few_polls() {
        let mut total = Duration::ZERO;
        let mut polls = 0;
        while total < Duration::from_secs(10) {
            total += held(polls);
            polls += 1;
        }
        assert!(polls <= 10, "{polls} polls");
        assert_eq!(held(0), Duration::ZERO);
        assert_eq!(held(u32::MAX), MAX_HELD);
    }

    #[test]
    fn packets_pass_up_to_the_first_that_does_not_fit() {
        let connection = Packets::default();
        connection.join("/");
        let screened = |body: &str| {
            let (passed, verdict) = screen(&connection, body.as_bytes());
            (String::from_utf8(passed).unwrap(), verdict)
        };
        let all = "3\u{1e}42[\"event\",{}]\u{1e}430[]";
        assert_eq!(screened(all), (all.to_owned(), PacketVerdict::Pass));
        let (passed, verdict) = screened("42[5,1]\u{1e}3");
        assert_eq!(
            (passed.as_str(), verdict),
            ("42[\"5\",1]\u{1e}3", PacketVerdict::Pass)
        );
        let (passed, verdict) = screened("3\u{1e}42/other,[\"event\"]\u{1e}42[\"event\"]");
        assert_eq!(passed, "3");
        assert!(matches!(verdict, PacketVerdict::Close(_)));
        assert_eq!(screened("bgaR0eXBl").1, PacketVerdict::OtherParser);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_end_while_an_upgrade_waits_and_are_held_again_after_it() {
        let session = Arc::new(PollingSession {
            connection: Arc::default(),
            last: Mutex::default(),
            interrupt: watch::Sender::new(Interrupt::None),
            upgrading: AtomicBool::new(true),
            ended: AtomicU32::new(0),
        });
        let upgrading = Upgrading {
            session: Arc::clone(&session),
        };
        let minute = Duration::from_secs(60);
        let held = || tokio::time::timeout(minute, session.interrupted());
        assert!(held().await.is_err());
        upgrading.end_polls();
        assert_eq!(held().await.unwrap(), NOOP);
        assert_eq!(held().await.unwrap(), NOOP);
        drop(upgrading);
        assert!(held().await.is_err());
        assert!(!session.upgrading.load(Ordering::Relaxed));
    }
}
