//! What all clients of a run have seen together.
//!
//! One thread runs all clients, so cells suffice. Must not know scenarios.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use super::checks::Violations;
use super::latency::Latencies;
use super::world::Room;

/// Shared by all clients of a run.
#[derive(Debug)]
pub struct Recorder {
    /// Stamps count from here.
    pub began: Instant,
    /// The rooms of the run; stamps name them by index.
    pub rooms: Vec<Room>,
    /// Counted while set: after warming up, before stopping.
    pub measuring: Cell<bool>,
    /// Messages delivered while measuring.
    pub deliveries: RefCell<Latencies>,
    /// Requests acknowledged while measuring.
    pub acks: RefCell<Latencies>,
    /// Messages delivered at any time.
    pub delivered: Cell<u64>,
    /// Events of any kind.
    pub events: Cell<u64>,
    /// Heartbeats answered.
    pub heartbeats: Cell<u64>,
    /// Handshakes answered 503, each repeated later.
    pub refused: Cell<u64>,
    /// Clients that are where the scenario wants them.
    pub arrived: Cell<u64>,
    /// The first request or handshake that failed.
    pub failure: RefCell<Option<String>>,
    /// What must not happen.
    pub violations: RefCell<Violations>,
    /// Buffer that all clients read into, one after the other.
    pub scratch: RefCell<Vec<u8>>,
}

impl Recorder {
    /// An empty one.
    #[must_use]
    pub fn new(rooms: Vec<Room>) -> Self {
        Self {
            began: Instant::now(),
            rooms,
            measuring: Cell::new(false),
            deliveries: RefCell::default(),
            acks: RefCell::default(),
            delivered: Cell::new(0),
            events: Cell::new(0),
            heartbeats: Cell::new(0),
            refused: Cell::new(0),
            arrived: Cell::new(0),
            failure: RefCell::default(),
            violations: RefCell::default(),
            scratch: RefCell::new(vec![0; 64 * 1024]),
        }
    }

    /// Microseconds from the start of the run to `time`.
    #[must_use]
    pub fn micros(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Counts a delivery that was due then.
    pub fn delivered(&self, due: u64) {
        add(&self.delivered, 1);
        if self.measuring.get() {
            let latency = self.micros(Instant::now()).saturating_sub(due);
            self.deliveries.borrow_mut().record(latency);
        }
    }

    /// Counts a request or handshake that failed, and keeps the reason of the first.
    pub fn failed(&self, reason: &anyhow::Error) {
        self.violations.borrow_mut().failed += 1;
        self.failure
            .borrow_mut()
            .get_or_insert_with(|| format!("{reason:#}"));
    }

    /// Counts an acknowledgement of what was due then.
    pub fn acked(&self, due: u64) {
        if self.measuring.get() {
            let latency = self.micros(Instant::now()).saturating_sub(due);
            self.acks.borrow_mut().record(latency);
        }
    }
}

/// Adds to a counter.
pub fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}
