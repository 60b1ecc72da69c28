//! Latencies and the schedule they are measured against.
//!
//! At a fixed rate a request is due at its time whether or not earlier ones are answered, and its latency counts
//! from then: a server that stalls is charged for everything that was due meanwhile (no coordinated omission).

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc;

/// Longest latency that is distinguished, in microseconds.
const LONGEST: u64 = 600_000_000;

/// A histogram of latencies, in microseconds.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are valid"))
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, microseconds: u64) {
        self.0.saturating_record(microseconds.max(1));
    }

    /// Milliseconds within which the share `quantile` lies; none if nothing was counted.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile) as f64 / 1_000.0)
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// When each request of a fixed rate is due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Instant,
    interval: Duration,
}

impl Schedule {
    /// So many a second, the first at `start`.
    #[must_use]
    pub fn new(start: Instant, per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { start, interval }
    }

    /// When the request `index`, counted from 0, is due; whatever became of the others.
    #[must_use]
    pub fn due(&self, index: u32) -> Instant {
        self.start + self.interval * index
    }

    /// Yields the due time of each request as soon as it has come, until the receiver is dropped.
    ///
    /// A thread of its own: timers of the runtime are a millisecond coarse.
    #[must_use]
    pub fn run(self) -> mpsc::UnboundedReceiver<Instant> {
        let (due, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut index = 0;
            loop {
                let next = self.due(index);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                if due.send(next).is_err() {
                    return;
                }
                index += 1;
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_wait_for_anything() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 500);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(500), start + Duration::from_secs(1));
        assert_eq!(schedule.due(1) - schedule.due(0), Duration::from_millis(2));
    }

    #[test]
    fn a_stalled_server_is_charged_for_all_that_was_due_meanwhile() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1_000);
        let mut latencies = Latencies::default();
        // Nothing is answered in the first of ten seconds, then everything at once.
        for index in 0..10_000 {
            let due = schedule.due(index);
            let answered = due.max(start + Duration::from_secs(1));
            latencies.record(u64::try_from((answered - due).as_micros()).unwrap());
        }
        assert_eq!(latencies.count(), 10_000);
        let p95 = latencies.quantile(0.95).unwrap();
        assert!((490.0..=510.0).contains(&p95), "{p95}");
        assert!(latencies.quantile(0.5).unwrap() < 1.0);
    }

    #[tokio::test]
    async fn requests_that_were_due_during_a_pause_carry_their_own_times() {
        let start = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let schedule = Schedule::new(start, 100);
        let mut due = schedule.run();
        for index in 0..100 {
            assert_eq!(due.recv().await, Some(schedule.due(index)));
        }
    }
}
