//! The connection of a client as its sessions see it: how much was written, and the switches that stop reading from it
//! and end it. Who accepts the connection reads and writes its stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use futures::task::AtomicWaker;

/// One connection as the rest of the gateway sees it.
#[derive(Debug)]
pub struct Wire {
    killed: AtomicBool,
    /// Sessions that ask not to be read from.
    paused: AtomicUsize,
    blocked: AtomicBool,
    reader: AtomicWaker,
    written: AtomicU64,
    open: Arc<AtomicUsize>,
}

/// Put into the extensions of every request of the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where the connection comes from.
    pub addr: SocketAddr,
    /// The connection.
    pub wire: Arc<Wire>,
}

impl Wire {
    /// A connection that has just been made; `open` counts it.
    pub fn new(open: Arc<AtomicUsize>) -> Self {
        let wire = Self {
            killed: AtomicBool::new(false),
            paused: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            written: AtomicU64::new(0),
            open,
        };
        wire.opened();
        wire
    }

    /// Ends the connection as if the client had gone; stock clients reconnect after that.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Stops reading, so that TCP slows the client down, until [`Wire::resume`] was called as often.
    pub fn pause(&self) {
        self.paused.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads on, unless another session is still to be waited for.
    pub fn resume(&self) {
        self.paused.fetch_sub(1, Ordering::AcqRel);
        self.reader.wake();
    }

    /// One more connection counts.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection less.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Whether any session asks not to be read from.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) > 0
    }

    /// Whom to wake once one of these two changes.
    pub fn register_reader(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    /// The kernel took over so many bytes.
    pub fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A write waits for the kernel, or does no longer.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether a write waits for the kernel: the client, or the way to it, takes no more for now.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Bytes the kernel has taken over so far, before they were encrypted.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}
