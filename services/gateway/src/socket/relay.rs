//! Polling requests of clients that reached another gateway than the one that owns their session, so that no
//! load balancer needs sticky sessions.
//!
//! A session begun by polling has its owner's name in its id. Whoever gets a request with another's name hands it
//! to the owner over NATS (`asking`) and the owner's engine answers it (`serving`); a WebSocket is carried there
//! directly (`carrying`). What may have been lost on the way ends the session: its client comes again and catches
//! up, which is better than a gap nobody sees.
//!
//! Must not know what the packets say.

mod asking;
mod carrying;
mod serving;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, Uri, header};
use moka::sync::Cache;
use parlance_bus::Bus;
use parlance_proto::v1::{RelayPart, relay};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::tls::Certificate;
pub use asking::Foreign;
pub use carrying::own_address;

/// How long another gateway may take to say that it has got something.
const RECEIPT: Duration = Duration::from_secs(5);
/// The length of the engine's own ids.
const ENGINE_ID: usize = 16;
/// The length of a gateway's name in session ids: a UUID without hyphens.
const OWNER: usize = 32;
/// For longer than any proxy keeps on trying.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Far from what NATS keeps for a slow reader before it cuts that off.
const KIBIBYTES: usize = 16 * 1024;
const UPGRADES: usize = 128;
/// A mark of so many digits or fewer is the time in seconds, and no mark: some clients poll more often.
const SECONDS_DIGITS: usize = 10;

/// Relays requests to other gateways, and theirs to the engine. Cheap to clone.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    max_body: usize,
    /// Where other gateways reach this one; empty for nowhere.
    address: String,
    /// What every gateway shows; none without TLS.
    certificate: Option<Certificate>,
    next: AtomicU64,
    /// Requests of clients here for sessions elsewhere, by number.
    asked: Mutex<HashMap<u64, asking::Asked>>,
    /// Requests of clients elsewhere for sessions here, by their gateway and its number.
    served: Mutex<HashMap<(String, u64), serving::Served>>,
    carried: carrying::Carried,
    /// Sessions here that have polled, each with what stands for the mark of its last poll.
    polls: Cache<String, Option<u64>>,
    hasher: RandomState,
    /// Upgrades that may be on their way to owners at once.
    upgrades: Semaphore,
    /// Kibibytes of requests that may be on their way to owners at once.
    bytes: Semaphore,
    /// Cancelled when waiting requests shall end.
    closing: CancellationToken,
}

/// A request for what there is to tell.
#[derive(Debug)]
pub struct Poll {
    /// What clients mark each of theirs with, to get around caches.
    mark: Option<String>,
}

/// The session a request names.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The id as the engine knows it.
    pub engine_id: &'a str,
    /// The part that says who owns it.
    owner: &'a str,
}

impl Relay {
    /// Relays by this connection, in the name of this gateway. `max_body` bounds a request's body; `address` is
    /// where other gateways reach this one, or empty.
    /// With a `certificate` the others speak TLS, and show the same one.
    pub fn new(bus: Bus, max_body: usize, address: String, certificate: Option<Certificate>) -> Self {
        Self {
            inner: Arc::new(Inner {
                bus,
                max_body,
                address,
                certificate,
                next: AtomicU64::new(1),
                asked: Mutex::default(),
                served: Mutex::default(),
                carried: Mutex::default(),
                polls: Cache::builder()
                    .time_to_live(REMEMBERED)
                    .max_capacity(1_000_000)
                    .build(),
                hasher: RandomState::new(),
                upgrades: Semaphore::new(UPGRADES),
                bytes: Semaphore::new(KIBIBYTES),
                closing: CancellationToken::new(),
            }),
        }
    }

    /// Whether this gateway owns the session.
    pub fn owns(&self, session: &Named<'_>) -> bool {
        session.owner == self.name()
    }

    /// Puts the name of this gateway into the id that the engine has just given a client. Anything but such an
    /// answer stays as it is.
    pub async fn tag(&self, answer: Response<Body>) -> Response<Body> {
        if answer.status() != StatusCode::OK {
            return answer;
        }
        let (mut parts, body) = answer.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let body = self.tagged(&body).unwrap_or(body);
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        Response::from_parts(parts, Body::from(body))
    }

    /// Whether this is the poll before once more: a proxy tries again where it got no answer, and what was in the
    /// answer is lost then.
    pub fn is_repeated(&self, engine_id: &str, poll: Option<&Poll>) -> bool {
        let Some(Poll { mark: Some(mark) }) = poll else {
            return false;
        };
        let last = self.inner.polls.get(engine_id).flatten();
        last.is_some_and(|last| last == self.inner.hasher.hash_one(mark))
    }

    /// The engine has answered a poll of a session that it knows.
    pub fn answered(&self, engine_id: &str, poll: Option<Poll>) {
        if let Some(Poll { mark }) = poll {
            let mark = mark.map(|mark| self.inner.hasher.hash_one(mark));
            self.inner.polls.insert(engine_id.to_owned(), mark);
        }
    }

    /// Answers what waits for other gateways, so that the clients ask elsewhere.
    pub fn close(&self) {
        self.inner.closing.cancel();
        for (_, wire) in self.carried() {
            wire.kill();
        }
    }

    /// This gateway in session ids.
    fn name(&self) -> &str {
        let name = self.inner.bus.name();
        name.strip_prefix("gw-").unwrap_or(name)
    }

    /// The engine's open packet, with the name.
    fn tagged(&self, body: &[u8]) -> Option<Bytes> {
        let mut open: Map<String, Value> = serde_json::from_slice(body.strip_prefix(b"0")?).ok()?;
        let id = open.get("sid")?.as_str()?;
        let id = format!("{id}.{}", self.name());
        open.insert("sid".to_owned(), id.into());
        Some(format!("0{}", Value::from(open)).into())
    }
}

impl Poll {
    /// The poll that a request is, if it is one.
    pub fn of(method: &Method, uri: &Uri) -> Option<Self> {
        if method != Method::GET || query_value(uri, "transport=") != Some("polling") {
            return None;
        }
        let is_time =
            |mark: &&str| mark.len() <= SECONDS_DIGITS && mark.bytes().all(|byte| byte.is_ascii_digit());
        let mark = query_value(uri, "t=").filter(|mark| !is_time(mark));
        Some(Self {
            mark: mark.map(str::to_owned),
        })
    }
}

impl<'a> Named<'a> {
    /// The session of a request; `None` where it names none, or nothing that we have given out.
    pub fn of(uri: &'a Uri) -> Option<Self> {
        let (engine_id, owner) = query_value(uri, "sid=")?.split_once('.')?;
        let is_engines = engine_id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        let is_owners = owner
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let fits = engine_id.len() == ENGINE_ID && owner.len() == OWNER;
        (fits && is_engines && is_owners).then_some(Self { engine_id, owner })
    }

    /// The request's URI as the engine understands it.
    pub fn engine_uri(&self, uri: &Uri) -> Option<Uri> {
        let query = query_without_session(uri);
        format!("{}?{query}&sid={}", uri.path(), self.engine_id)
            .parse()
            .ok()
    }
}

/// The answer to a request of a session that is no more: stock clients connect anew.
pub fn unknown_session() -> Response<Body> {
    bad_request(r#"{"code":1,"message":"Session ID unknown"}"#)
}

/// The answer to a WebSocket that cannot reach its session: stock clients go on polling.
pub fn no_upgrade() -> Response<Body> {
    bad_request(r#"{"code":3,"message":"Bad request"}"#)
}

/// The value of the first parameter with this prefix.
pub fn query_value<'a>(uri: &'a Uri, prefix: &str) -> Option<&'a str> {
    let mut parts = uri.query()?.split('&');
    parts.find_map(|part| part.strip_prefix(prefix))
}

fn bad_request(body: &'static str) -> Response<Body> {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::BAD_REQUEST, kind, body).into_response()
}

fn query_without_session(uri: &Uri) -> String {
    let parts = uri.query().unwrap_or_default().split('&');
    let others: Vec<_> = parts.filter(|part| !part.starts_with("sid=")).collect();
    others.join("&")
}

/// Cuts a body so that each piece fits a message; an empty one is one empty piece.
fn parts(body: &Bytes) -> impl Iterator<Item = RelayPart> + '_ {
    let size = parlance_bus::relay::MAX_PART;
    let count = body.len().div_ceil(size).max(1);
    (0..count).map(move |index| {
        let end = body.len().min((index + 1) * size);
        RelayPart {
            data: body.slice(index * size..end).to_vec(),
            more: index + 1 < count,
        }
    })
}

/// A body that comes in parts.
#[derive(Default)]
struct Gathered {
    data: BytesMut,
}

impl Gathered {
    /// The whole body once the last part is here.
    fn add(&mut self, part: RelayPart) -> Option<Bytes> {
        self.data.extend_from_slice(&part.data);
        (!part.more).then(|| self.data.split().freeze())
    }
}

/// What is sent to another gateway about a request.
fn about(gateway: &str, request_id: u64, body: relay::Body) -> parlance_proto::v1::Relay {
    parlance_proto::v1::Relay {
        gateway: gateway.to_owned(),
        request_id,
        body: Some(body),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(result: &'static str) {
    metrics::counter!("chat_gateway_relayed_total", "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER_NAME: &str = "0190a6e0000070008000000000000001";

    fn uri(sid: &str) -> Uri {
        format!("/socket.io/?EIO=4&sid={sid}&transport=polling&t=abc")
            .parse()
            .unwrap()
    }

    #[test]
    fn a_session_id_names_its_owner_or_nobody() {
        let good = uri(&format!("abcdefghijklm-_1.{OWNER_NAME}"));
        let named = Named::of(&good).unwrap();
        assert_eq!((named.engine_id, named.owner), ("abcdefghijklm-_1", OWNER_NAME));
        for bad in [
            "abcdefghijklm-_1",
            "abcdefghijklm-_1.",
            "abcdefghijklm-_1.*",
            "abcdefghijklm-_1.0190a6e00000700080000000000000.*",
            "abcdefghijklm-_1.0190A6E0000070008000000000000001",
            "abc.0190a6e0000070008000000000000001",
            "abcdefghijklm.*1.0190a6e0000070008000000000000001",
        ] {
            assert_eq!(Named::of(&uri(bad)), None, "{bad}");
        }
    }

    #[test]
    fn the_engine_gets_its_own_id_and_every_other_parameter() {
        let uri = uri(&format!("abcdefghijklm-_1.{OWNER_NAME}"));
        let own = Named::of(&uri).unwrap().engine_uri(&uri).unwrap();
        assert_eq!(
            own,
            "/socket.io/?EIO=4&transport=polling&t=abc&sid=abcdefghijklm-_1"
        );
    }

    #[test]
    fn seconds_are_no_mark() {
        let mark = |t: &str| {
            let uri = format!("/socket.io/?transport=polling&t={t}").parse().unwrap();
            Poll::of(&Method::GET, &uri).unwrap().mark
        };
        assert_eq!(mark("1700000000"), None);
        assert_eq!(mark(""), None);
        for real in ["1700000000123", "1700000000.5", "k3f9x", "PXk1a2b.0"] {
            assert_eq!(mark(real).as_deref(), Some(real));
        }
        let uri = "/socket.io/?transport=websocket&t=a".parse().unwrap();
        assert!(Poll::of(&Method::GET, &uri).is_none());
    }

    #[test]
    fn a_body_of_any_size_arrives_whole() {
        let size = parlance_bus::relay::MAX_PART;
        for length in [0, 1, size, size + 1, 3 * size] {
            let body: Bytes = (0..length).map(|i| i.to_le_bytes()[0]).collect();
            let mut gathered = Gathered::default();
            let mut pieces = parts(&body).peekable();
            let whole = loop {
                let part = pieces.next().unwrap();
                assert_eq!(part.more, pieces.peek().is_some(), "{length}");
                if let Some(whole) = gathered.add(part) {
                    break whole;
                }
            };
            assert_eq!(whole, body);
        }
    }
}
