//! Events from clients: one ordered, bounded queue per session instead of a task per event.
//!
//! The engine would run every handler as a task of its own and so reorder a client's events; it would
//! also drop unknown and malformed ones in silence. So one synchronous handler takes them all.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlance_proto::v1::ErrorCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::{FromMessageParts, MessageHandler, Value};
use socketioxide::socket::Socket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::session::Ack;
use crate::session::transports::Transports;
use crate::session::wire::Wire;

/// An event as it came.
pub struct Inbound {
    /// When it came.
    pub at: Instant,
    /// Where the answer goes.
    pub ack: Ack,
    /// Not taken apart yet.
    pub packet: Packet,
}

/// The packet of an event.
pub struct Packet(Value);

/// An event taken apart.
pub struct Event<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its first argument.
    pub payload: &'a RawValue,
}

/// How much of one client may wait.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimit {
    /// Events.
    pub events: usize,
    /// Bytes.
    pub bytes: usize,
}

/// The receiving end of a session's queue.
pub struct Queue {
    events: mpsc::UnboundedReceiver<Inbound>,
    load: Arc<Load>,
}

/// What waits. The channel itself is unbounded; this bounds it by no longer reading from the client.
struct Load {
    limit: QueueLimit,
    events: AtomicUsize,
    bytes: AtomicUsize,
    /// The connection that is not read from because too much waits here.
    paused: Mutex<Option<Arc<Wire>>>,
}

/// The sending end, as the engine's handler for every event.
pub struct Handler {
    events: mpsc::UnboundedSender<Inbound>,
    load: Arc<Load>,
    transports: Transports,
}

/// Tells our handler type apart from closures.
pub enum Ordered {}

/// A queue and the handler that fills it. `transports` knows the connection to stop reading from.
pub fn queue(limit: QueueLimit, transports: Transports) -> (Handler, Queue) {
    let (tx, rx) = mpsc::unbounded_channel();
    let load = Arc::new(Load {
        limit,
        events: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        paused: Mutex::default(),
    });
    let handler = Handler {
        events: tx,
        load: Arc::clone(&load),
        transports,
    };
    (handler, Queue { events: rx, load })
}

impl MessageHandler<LocalAdapter, Ordered> for Handler {
    fn call(&self, socket: Arc<Socket<LocalAdapter>>, mut packet: Value, ack: Option<i64>) {
        let events = self.load.events.fetch_add(1, Ordering::AcqRel) + 1;
        let bytes = self.load.bytes.fetch_add(packet.len(), Ordering::AcqRel) + packet.len();
        let limit = self.load.limit;
        if events >= limit.events || bytes >= limit.bytes {
            let socket = SocketRef::from(Arc::clone(&socket));
            self.load.pause(|| self.transports.wire_of(&socket));
        }
        let sender = ack.and_then(|_| AckSender::from_message_parts(&socket, &mut packet, &ack).ok());
        let inbound = Inbound {
            at: Instant::now(),
            ack: Ack::new(sender),
            packet: Packet(packet),
        };
        // The session may be gone; so is whoever could be answered.
        drop(self.events.send(inbound));
    }

    fn phantom(&self) -> PhantomData<Ordered> {
        PhantomData
    }
}

impl Queue {
    /// The next event; `None` when the socket is gone.
    pub async fn next(&mut self) -> Option<Inbound> {
        self.events.recv().await
    }

    /// An event is taken; the client may be read from again once enough are.
    pub fn taken(&self, inbound: &Inbound) {
        let events = self.load.events.fetch_sub(1, Ordering::AcqRel) - 1;
        let size = inbound.packet.0.len();
        let bytes = self.load.bytes.fetch_sub(size, Ordering::AcqRel) - size;
        let limit = self.load.limit;
        if events <= limit.events / 2 && bytes <= limit.bytes / 2 {
            self.load.resume();
        }
    }
}

impl Load {
    /// Stops reading from the client; other sessions of its connection wait too.
    fn pause(&self, find: impl FnOnce() -> Option<Arc<Wire>>) {
        let mut paused = lock(&self.paused);
        if paused.is_some() {
            return;
        }
        match find() {
            Some(wire) => {
                wire.pause();
                *paused = Some(wire);
            }
            // Polling: the size of a request bounds what can come beyond the limit.
            None => tracing::debug!("a polling client sends faster than it is served"),
        }
    }

    fn resume(&self) {
        if let Some(wire) = lock(&self.paused).take() {
            wire.resume();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Queue {
    fn drop(&mut self) {
        // The connection may have other sessions, and this client may come again on it.
        self.load.resume();
    }
}

impl Packet {
    /// Takes the event apart.
    ///
    /// # Errors
    /// It is not `["name", payload?, …]`, or binary.
    pub fn event(&self) -> Result<Event<'_>, ClientError> {
        let Value::Str(text, binary) = &self.0 else {
            return Err(ClientError::invalid("binary events are not supported"));
        };
        if binary.as_ref().is_some_and(|parts| !parts.is_empty()) {
            return Err(ClientError::invalid("binary attachments are not supported"));
        }
        let parts: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|_| ClientError::invalid("the event is not valid JSON"))?;
        let Some(name) = parts.first() else {
            return Err(ClientError::invalid("the event has no name"));
        };
        let name = <&str>::deserialize(*name)
            .map_err(|_| ClientError::new(ErrorCode::UnknownEvent, "unknown event"))?;
        let payload = parts.get(1).copied().unwrap_or(RawValue::NULL);
        Ok(Event { name, payload })
    }
}
