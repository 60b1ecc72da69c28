//! What the sessions of one connection share: how many of them there are, and how much waits to be written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::wire::Wire;

/// What waits for the client of one connection, which the sessions of several namespaces may share.
#[derive(Default)]
pub struct SendQueue {
    sessions: AtomicUsize,
    meter: Mutex<Meter>,
}

/// A session's part in its connection; ends when dropped.
pub struct Occupancy(Arc<SendQueue>);

/// What was handed to the engine against what the kernel took over.
#[derive(Default)]
struct Meter {
    wire: Option<Arc<Wire>>,
    /// Bytes written before the first one metered.
    base: u64,
    queued: u64,
}

impl SendQueue {
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
        let send_queue = Arc::<SendQueue>::default();
        let (one, other) = (send_queue.occupy(), send_queue.occupy());
        drop(one);
        assert!(send_queue.is_occupied());
        drop(other);
        assert!(!send_queue.is_occupied());
    }
}
