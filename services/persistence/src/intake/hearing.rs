//! Whether services that say nothing are silent, or only not heard. Pure: no bus, no clock.
//!
//! Two ways to know: everything that services publish was heard at once for so long; or, while a backlog is being read, so much
//! of it was published after what the service said last, because the stream hands everything out in its order.

use std::time::Duration;

use tokio::time::Instant;

/// When nothing at all was published for longer, the bus was away, and nobody could be heard.
const GAP_MS: u64 = 1_000;
/// When so many messages wait, what services published is heard late.
const BEHIND: u64 = 256;

/// When a service was last heard of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// When we read it.
    at: Instant,
    /// What was newest then, as the stream counts.
    published_ms: u64,
}

/// What was heard of all services.
#[derive(Debug)]
pub(super) struct Hearing {
    /// Since when everything that services publish is heard at once.
    at_once_since: Instant,
    /// When the newest message that was read was published.
    newest_ms: u64,
    /// Since when there was no gap in what is published.
    gapless_from_ms: u64,
}

impl Hearing {
    /// Nothing is heard yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at_once_since: now,
            newest_ms: 0,
            gapless_from_ms: 0,
        }
    }

    /// A message was read that was published then, with so many behind it.
    pub(super) fn read(&mut self, published_ms: u64, pending: u64, now: Instant) {
        if pending > BEHIND {
            self.interrupted(now);
        }
        // A message that comes again is older.
        if published_ms > self.newest_ms {
            if published_ms - self.newest_ms > GAP_MS {
                self.gapless_from_ms = published_ms;
            }
            self.newest_ms = published_ms;
        }
    }

    /// What services publish is not heard at once at present.
    pub(super) fn interrupted(&mut self, now: Instant) {
        self.at_once_since = now;
    }

    /// A service is heard of.
    pub(super) fn heard(&self, now: Instant) -> Heard {
        Heard {
            at: now,
            published_ms: self.newest_ms,
        }
    }

    /// Whether it said nothing more for so long.
    pub(super) fn is_silent(&self, last: Heard, silence: Duration, now: Instant) -> bool {
        let heard_at_once = now.saturating_duration_since(self.at_once_since) >= silence;
        let read_ms = self
            .newest_ms
            .saturating_sub(last.published_ms.max(self.gapless_from_ms));
        let is_long = now.saturating_duration_since(last.at) >= silence;
        is_long && (heard_at_once || Duration::from_millis(read_ms) >= silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_service_is_silent_once_all_was_heard_at_once_for_so_long() {
        let now = Instant::now();
        let mut hearing = Hearing::new(now);
        let last = hearing.heard(now);
        assert!(!hearing.is_silent(last, SILENCE, now + SILENCE - SECOND));
        assert!(hearing.is_silent(last, SILENCE, now + SILENCE));
        hearing.interrupted(now + SECOND);
        assert!(!hearing.is_silent(last, SILENCE, now + SILENCE));
        assert!(hearing.is_silent(last, SILENCE, now + SILENCE + SECOND));
    }

    /// Reads a flood at so many milliseconds of what was published for each second that passes.
    fn flood(hearing: &mut Hearing, from: Instant, published: (u64, u64), of_each_second: u64) -> Instant {
        let mut now = from;
        for at in (published.0..=published.1).step_by(100) {
            now = from
                + SECOND * u32::try_from(at - published.0).unwrap() / u32::try_from(of_each_second).unwrap();
            hearing.read(at, BEHIND + 1, now);
        }
        now
    }

    #[test]
    fn the_flood_of_one_service_hides_no_silent_one() {
        let mut hearing = Hearing::new(Instant::now());
        let now = flood(&mut hearing, Instant::now(), (50_000, 60_000), 500);
        let last = hearing.heard(now);
        let now = flood(&mut hearing, now, (60_100, 69_900), 500);
        assert!(
            !hearing.is_silent(last, SILENCE, now),
            "its next may be what comes next"
        );
        let now = flood(&mut hearing, now, (70_000, 70_000), 500);
        assert!(hearing.is_silent(last, SILENCE, now));
        assert!(!hearing.is_silent(hearing.heard(now), SILENCE, now));
    }

    #[test]
    fn a_backlog_that_is_read_fast_leaves_time_to_be_heard() {
        let mut hearing = Hearing::new(Instant::now());
        let begun = flood(&mut hearing, Instant::now(), (50_000, 50_000), 1_000);
        let last = hearing.heard(begun);
        let now = flood(&mut hearing, begun, (50_000, 90_000), 20_000);
        assert!(!hearing.is_silent(last, SILENCE, now));
    }

    #[test]
    fn the_time_in_which_nothing_at_all_was_published_counts_for_nobody() {
        let mut hearing = Hearing::new(Instant::now());
        let now = flood(&mut hearing, Instant::now(), (50_000, 51_000), 1_000);
        let last = hearing.heard(now);
        let now = flood(&mut hearing, now + SILENCE * 6, (111_000, 112_000), 1_000);
        assert!(!hearing.is_silent(last, SILENCE, now));
        let now = flood(&mut hearing, now, (112_000, 121_000), 1_000);
        assert!(hearing.is_silent(last, SILENCE, now));
    }
}
