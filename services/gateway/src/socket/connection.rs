//! One connection of a client, which the sessions of several namespaces may share: how many of them there are, and
//! how much waits to be written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use socketioxide::extract::SocketRef;

use super::admission::{Ticket, TicketHolder};
use super::listener::Wire;
use super::packets::Packets;
use super::page::Introductions;

/// What the sessions of one connection share. Put into the extensions of the request that opens it, which the
/// engine keeps for the life of the connection.
#[derive(Default)]
pub struct Connection {
    /// What its client has sent.
    pub packets: Packets,
    /// The pages its client is to learn of.
    pub introductions: Introductions,
    /// Held until its first session has begun.
    pub ticket: TicketHolder,
    sessions: AtomicUsize,
    meter: Mutex<Meter>,
}

/// A session's part in its connection; ends when dropped.
pub struct Occupancy(Arc<Connection>);

/// What was handed to the engine against what the kernel took over.
#[derive(Default)]
struct Meter {
    wire: Option<Arc<Wire>>,
    /// Bytes written before the first one metered.
    base: u64,
    queued: u64,
}

impl Connection {
    /// The connection under a socket.
    pub fn of(socket: &SocketRef) -> Arc<Self> {
        let shared = socket.req_parts().extensions.get::<Arc<Self>>();
        shared.map(Arc::clone).unwrap_or_default()
    }

    /// The ticket of the client, where its session is the first here: it is on its way in no longer once that is dropped.
    pub fn take_ticket(&self) -> Option<Ticket> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts one more session.
    pub fn occupy(self: &Arc<Self>) -> Occupancy {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Occupancy(Arc::clone(self))
    }

    /// Whether any session is left.
    pub fn is_occupied(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) > 0
    }

    /// The WebSocket, once `find` finds it.
    pub fn wire(&self, find: impl FnOnce() -> Option<Arc<Wire>>) -> Option<Arc<Wire>> {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.wire(find)
    }

    /// Adds a packet and returns the bytes that wait for the client; 0 while polling, where the number
    /// of packets is the limit.
    pub fn meter(&self, bytes: usize, find: impl FnOnce() -> Option<Arc<Wire>>) -> u64 {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wire) = meter.wire(find) else {
            return 0;
        };
        if bytes > 0 {
            // A server's frame header takes 2, 4 or 10 bytes.
            let header = match bytes {
                0..=125 => 2,
                126..=65_535 => 4,
                _ => 10,
            };
            meter.queued += (bytes + header) as u64;
        }
        let taken = wire.written().saturating_sub(meter.base);
        if taken > meter.queued {
            // Heartbeats are not metered; forget them.
            meter.base += taken - meter.queued;
        }
        meter.queued.saturating_sub(taken)
    }
}

impl Meter {
    fn wire(&mut self, find: impl FnOnce() -> Option<Arc<Wire>>) -> Option<Arc<Wire>> {
        if self.wire.is_none() {
            self.wire = find();
            self.base = self.wire.as_ref().map_or(0, |wire| wire.written());
        }
        self.wire.clone()
    }
}

impl Drop for Occupancy {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_occupied_until_its_last_session_leaves() {
        let connection = Arc::<Connection>::default();
        let (one, other) = (connection.occupy(), connection.occupy());
        drop(one);
        assert!(connection.is_occupied());
        drop(other);
        assert!(!connection.is_occupied());
    }
}
