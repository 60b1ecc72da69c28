//! Admission control of queries: so many at once, so many that wait for their turn, and none that its asker has given up.
//!
//! A query whose turn would come too late is refused at once, with when it is worth asking again: whoever waits in
//! vain keeps a place that another would have made use of. Must not know what a query asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// Share of the budget that may be spent waiting: the rest is for the answer and its way back.
const WAITING_SHARE: u32 = 2;
/// Weight of the latest duration in the mean: the last few dozen count.
const WEIGHT: u32 = 32;
/// The shortest and longest time after which a refused asker is told to come again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The turns of one replica. Clones share them.
#[derive(Clone)]
pub(super) struct Turns(Arc<State>);

struct State {
    slots: Semaphore,
    concurrency: u32,
    most_waiting: usize,
    waiting: AtomicUsize,
    /// Mean of how long a slot is held, in microseconds.
    held: AtomicU64,
}

/// Why it is no query's turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its asker waits no more.
    Expired,
    /// As many wait as may.
    Full(Duration),
    /// Its turn would come too late.
    TooLate(Duration),
}

/// A slot while it is held.
pub(super) struct Turn<'a> {
    state: &'a State,
    since: Instant,
    _permit: SemaphorePermit<'a>,
}

/// A query while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Turns {
    /// So many at once, and so many more that wait.
    pub(super) fn new(concurrency: usize, most_waiting: usize) -> Self {
        Self(Arc::new(State {
            slots: Semaphore::new(concurrency),
            concurrency: u32::try_from(concurrency).unwrap_or(u32::MAX).max(1),
            most_waiting,
            waiting: AtomicUsize::new(0),
            held: AtomicU64::new(0),
        }))
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn take(&self, deadline: Instant) -> Result<Turn<'_>, Refusal> {
        let now = Instant::now();
        if deadline <= now {
            return Err(Refusal::Expired);
        }
        let state = &*self.0;
        let permit = match state.slots.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = state.queue(deadline - now)?;
                let acquired = timeout_at(deadline, state.slots.acquire()).await;
                acquired.ok().and_then(Result::ok).ok_or(Refusal::Expired)?
            }
        };
        let since = Instant::now();
        if deadline <= since {
            return Err(Refusal::Expired);
        }
        Ok(Turn {
            state,
            since,
            _permit: permit,
        })
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

impl State {
    /// A place among those that wait.
    fn queue(&self, budget: Duration) -> Result<Waiting<'_>, Refusal> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        let wait = self.wait(before);
        let again = wait.clamp(AGAIN.0, AGAIN.1);
        if before >= self.most_waiting {
            return Err(Refusal::Full(again));
        }
        if wait > budget / WAITING_SHARE {
            return Err(Refusal::TooLate(again));
        }
        Ok(waiting)
    }

    /// How long a query waits behind so many.
    fn wait(&self, before: usize) -> Duration {
        let held = Duration::from_micros(self.held.load(Ordering::Relaxed));
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        held.saturating_mul(before) / self.concurrency
    }

    fn was_held(&self, time: Duration) {
        let latest = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let next = |mean: u64| Some(mean - mean / u64::from(WEIGHT) + latest / u64::from(WEIGHT));
        // Only without a next value is there an error.
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.state.was_held(self.since.elapsed());
    }
}

/// Notices that the process stood still: what arrives at once afterwards was sent before.
#[derive(Debug, Default)]
pub(super) struct Standstill(Option<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    /// How long the process stood still last, and until when what arrives counts as sent before.
    still: Duration,
    until: Instant,
}

/// How often it is looked.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Pauses as long as this are a busy machine's.
const STILL: Duration = Duration::from_millis(700);
/// How long what was sent before still comes.
const BURST: Duration = Duration::from_millis(200);

impl Standstill {
    /// Looks now, at least every [`LOOK`]. How old what arrives now is at most, as far as is known.
    pub(super) fn look(&mut self, now: Instant) -> Duration {
        let last = self.0.get_or_insert(Seen {
            at: now,
            still: Duration::ZERO,
            until: now,
        });
        let pause = now.saturating_duration_since(last.at);
        last.at = now;
        if pause >= STILL {
            last.still = pause;
            last.until = now + BURST;
        }
        match now < last.until {
            true => last.still,
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const WORK: Duration = Duration::from_millis(100);

    fn after(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    /// Makes the mean one that is [`WORK`].
    async fn measured(turns: &Turns) {
        for _ in 0..1_000 {
            turns.0.was_held(WORK);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_query_gets_no_turn_whether_it_has_waited_or_not() {
        let turns = Turns::new(1, 10);
        let expired = turns.take(after(0)).await.map(drop);
        assert_eq!(expired, Err(Refusal::Expired));
        let first = turns.take(after(1_000)).await.unwrap();
        let second = turns.take(after(200)).await.map(drop);
        assert_eq!(second, Err(Refusal::Expired));
        assert_eq!(turns.waiting(), 0);
        drop(first);
        assert!(turns.take(after(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_may_wait_are_refused_at_once() {
        let turns = Turns::new(1, 2);
        let _held = turns.take(after(10_000)).await.unwrap();
        let begun = Instant::now();
        let waiting = (0..5).map(|_| async {
            let refused = turns.take(after(1_000)).await.map(drop).unwrap_err();
            (refused, begun.elapsed())
        });
        let refused = join_all(waiting).await;
        let at_once: Vec<_> = refused.iter().filter(|(_, after)| after.is_zero()).collect();
        assert_eq!(at_once.len(), 3);
        for (refusal, _) in at_once {
            assert_eq!(*refusal, Refusal::Full(AGAIN.0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_whose_turn_comes_too_late_is_refused_at_once() {
        let turns = Turns::new(2, 1_000);
        measured(&turns).await;
        let _held = (
            turns.take(after(60_000)).await.unwrap(),
            turns.take(after(60_000)).await.unwrap(),
        );
        // One slot is free every 50 ms, and half of 1,000 ms may be waited.
        let ask = |_| async {
            let begun = Instant::now();
            let outcome = turns.take(after(1_000)).await.map(drop).unwrap_err();
            (outcome, begun.elapsed())
        };
        let outcomes = join_all((0..30).map(ask)).await;
        let late: Vec<_> = outcomes.iter().filter(|(_, after)| after.is_zero()).collect();
        assert!((18..=20).contains(&late.len()), "{}", late.len());
        assert!(late.iter().all(|(one, _)| matches!(one, Refusal::TooLate(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_after_a_standstill_is_that_old() {
        let mut still = Standstill::default();
        assert_eq!(still.look(Instant::now()), Duration::ZERO);
        tokio::time::advance(LOOK).await;
        assert_eq!(still.look(Instant::now()), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(still.look(Instant::now()), Duration::from_secs(20));
        tokio::time::advance(LOOK).await;
        assert_eq!(still.look(Instant::now()), Duration::from_secs(20));
        tokio::time::advance(LOOK).await;
        assert_eq!(still.look(Instant::now()), Duration::ZERO);
    }
}
