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
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;
use parlance_bus::Bus;
use parlance_proto::v1::{RelayPart, relay};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::packets::MessageLimit;
use super::session_id::SessionIds;
use super::tls::Certificate;
pub use asking::Foreign;
pub use carrying::own_address;

/// How long another gateway may take to say that it has got something.
const RECEIPT: Duration = Duration::from_secs(5);
/// Far from what NATS keeps for a slow reader before it cuts that off.
const KIBIBYTES: usize = 16 * 1024;
const UPGRADES: usize = 128;

/// Relays requests to other gateways, and theirs to the engine. Cheap to clone.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    ids: SessionIds,
    limit: MessageLimit,
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
    /// Upgrades that may be on their way to owners at once.
    upgrades: Semaphore,
    /// Kibibytes of requests that may be on their way to owners at once.
    bytes: Semaphore,
    /// Cancelled when waiting requests shall end.
    closing: CancellationToken,
}

impl Relay {
    /// Relays by this connection, in the name of this gateway. `limit` bounds a request's body; `address` is
    /// where other gateways reach this one, or empty.
    /// With a `certificate` the others speak TLS, and show the same one.
    ///
    /// # Errors
    /// See [`SessionIds::new`].
    pub fn new(
        bus: Bus,
        limit: MessageLimit,
        address: String,
        certificate: Option<Certificate>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                ids: SessionIds::new(bus.name())?,
                bus,
                limit,
                address,
                certificate,
                next: AtomicU64::new(1),
                asked: Mutex::default(),
                served: Mutex::default(),
                carried: Mutex::default(),
                upgrades: Semaphore::new(UPGRADES),
                bytes: Semaphore::new(KIBIBYTES),
                closing: CancellationToken::new(),
            }),
        })
    }

    /// The ids of sessions that begin here.
    pub fn ids(&self) -> &SessionIds {
        &self.inner.ids
    }

    /// Answers what waits for other gateways, so that the clients ask elsewhere.
    pub fn close(&self) {
        self.inner.closing.cancel();
        for (_, wire) in self.carried() {
            wire.kill();
        }
    }
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
