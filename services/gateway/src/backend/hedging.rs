//! When a query that has no answer yet is asked once more, and how often that may happen at all.
//!
//! What is asked again because it is slow makes what is slow slower, so all repeats share one budget: each request pays in a
//! tenth, each repeat takes one out, whatever its cause. Of that no kind of query may hedge more than its own tenth. Must not
//! know the bus.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one request adds to a budget, in thousandths of a repeat.
const SHARE: u32 = 100;
/// One repeat.
const REPEAT: u32 = 1_000;
/// Hedges that a kind of query may have left over: not so many that all who wait for one lock get one.
const HEDGES: u32 = 2 * REPEAT;
/// Hedges that a kind of query begins with.
const FIRST_HEDGES: u32 = REPEAT;
/// Repeats that may be left over, of all kinds and causes together: some of what a replica has in hand that stops.
const REPEATS: u32 = 20 * REPEAT;
/// Those to begin with.
const FIRST_REPEATS: u32 = 10 * REPEAT;
/// Durations that count.
const RECENT: usize = 64;
/// Durations from which on there is something to go by.
const ENOUGH: usize = 16;
/// The least time before a query is asked once more.
const SOONEST: Duration = Duration::from_millis(50);
/// The most, and what holds before there is anything to go by.
const LATEST: Duration = Duration::from_millis(1_500);
const UNKNOWN: Duration = Duration::from_millis(400);

/// The budgets of a gateway. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Hedging(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    kinds: HashMap<&'static str, Kind>,
    repeats: Budget,
}

/// Repeats that may still happen.
#[derive(Debug)]
struct Budget {
    left: u32,
    most: u32,
}

#[derive(Debug)]
struct Kind {
    hedges: Budget,
    durations: Vec<Duration>,
    next: usize,
    delay: Duration,
}

impl Budget {
    fn pay_in(&mut self) {
        self.left = (self.left + SHARE).min(self.most);
    }

    fn has_one(&self) -> bool {
        self.left >= REPEAT
    }

    fn take_out(&mut self) -> bool {
        let left = self.left.checked_sub(REPEAT);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            hedges: Budget {
                left: FIRST_HEDGES,
                most: HEDGES,
            },
            durations: Vec::new(),
            next: 0,
            delay: UNKNOWN,
        }
    }
}

impl Kind {
    fn took(&mut self, duration: Duration) {
        if self.durations.len() < RECENT {
            self.durations.push(duration);
        } else {
            self.durations[self.next] = duration;
        }
        self.next = (self.next + 1) % RECENT;
        // Sorting is worth it now and then only.
        if self.durations.len() >= ENOUGH && self.next.is_multiple_of(ENOUGH) {
            let mut sorted = self.durations.clone();
            sorted.sort_unstable();
            let p95 = sorted[sorted.len() * 95 / 100];
            self.delay = p95.clamp(SOONEST, LATEST);
        }
    }
}

impl Default for Hedging {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            kinds: HashMap::new(),
            repeats: Budget {
                left: FIRST_REPEATS,
                most: REPEATS,
            },
        })))
    }
}

impl Hedging {
    /// A query is asked. Returns how long its answer may take before it is asked once more.
    pub(super) fn asked(&self, kind: &'static str) -> Duration {
        let mut state = self.lock();
        state.repeats.pay_in();
        let kind = state.kinds.entry(kind).or_default();
        kind.hedges.pay_in();
        kind.delay
    }

    /// An answer took so long.
    pub(super) fn took(&self, kind: &'static str, duration: Duration) {
        self.lock().kinds.entry(kind).or_default().took(duration);
    }

    /// Whether a query of this kind may be asked once more although the first may be answered yet.
    pub(super) fn may_hedge(&self, kind: &'static str) -> bool {
        let mut state = self.lock();
        let State { kinds, repeats } = &mut *state;
        let hedges = &mut kinds.entry(kind).or_default().hedges;
        hedges.has_one() && repeats.take_out() && hedges.take_out()
    }

    /// Whether a query may be asked once more that is hardly answered any more.
    pub(super) fn may_replace(&self) -> bool {
        self.lock().repeats.take_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_tenth_of_the_queries_of_a_kind_is_hedged() {
        let hedging = Hedging::default();
        let mut hedges = 0;
        for _ in 0..1_000 {
            hedging.asked("get_room");
            hedges += u32::from(hedging.may_hedge("get_room"));
        }
        assert_eq!(hedges, 101);
        // The budget of one kind is not that of another.
        hedging.asked("list_messages");
        assert!(hedging.may_hedge("list_messages") && !hedging.may_hedge("list_messages"));
    }

    #[test]
    fn a_quiet_time_saves_up_no_more_than_a_few_hedges() {
        let hedging = Hedging::default();
        for _ in 0..10_000 {
            hedging.asked("get_room");
        }
        let hedges = (0..100).filter(|_| hedging.may_hedge("get_room")).count();
        assert_eq!(hedges, 2);
        let replaced = (0..1_000).filter(|_| hedging.may_replace()).count();
        assert_eq!(replaced, 18);
    }

    #[test]
    fn all_repeats_together_are_a_tenth_of_all_queries() {
        const KINDS: [&str; 4] = ["get_room", "list_messages", "get_heads", "arrive"];
        let hedging = Hedging::default();
        let mut repeats = 0;
        for _ in 0..250 {
            for kind in KINDS {
                hedging.asked(kind);
                repeats += u32::from(hedging.may_hedge(kind)) + u32::from(hedging.may_replace());
            }
        }
        // And what there was to begin with.
        assert_eq!(repeats, 110);
    }

    #[test]
    fn a_hedge_comes_after_what_nearly_all_answers_took_and_not_at_once() {
        let hedging = Hedging::default();
        assert_eq!(hedging.asked("get_room"), UNKNOWN);
        let take = |millis: u64, count: u64| {
            for one in 0..count {
                hedging.took("get_room", Duration::from_millis(millis + one));
            }
            hedging.asked("get_room")
        };
        assert_eq!(take(1, 64), Duration::from_millis(61).max(SOONEST));
        assert_eq!(take(1, 16), SOONEST.max(Duration::from_millis(61)));
        assert!(take(200, 64) >= Duration::from_millis(255));
        assert_eq!(take(10_000, 64), LATEST);
        for _ in 0..64 {
            hedging.took("get_room", Duration::from_millis(1));
        }
        assert_eq!(hedging.asked("get_room"), SOONEST);
    }
}
