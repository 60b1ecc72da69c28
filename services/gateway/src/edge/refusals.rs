//! One log line for each kind of refusal, at a bounded rate: what was refused, why, and which setting decides it.
//!
//! Refusals cost nothing to cause, so they must not fill a log. Must not be handed tokens or content.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Lines of one kind that may come at once.
const BURST: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// After those, one line of a kind in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest part of a value that is shown, in characters.
const SHOWN: usize = 100;

/// Writes refusals down.
pub struct Refusals {
    /// By kind; kinds are names in the code, so there are few.
    lines: DefaultKeyedRateLimiter<&'static str>,
    withheld: AtomicU64,
}

/// A client that was refused.
#[derive(Debug)]
pub struct Refused<'a, R> {
    /// What was refused: a closed list of names.
    pub kind: &'static str,
    /// The value that was refused, where it is no secret.
    pub value: Option<&'a str>,
    /// Why, as the client reads it.
    pub reason: R,
    /// The setting to change; none where no setting would accept it.
    pub setting: Option<&'static str>,
}

impl Default for Refusals {
    fn default() -> Self {
        let quota = Quota::with_period(PAUSE).unwrap_or_else(|| Quota::per_minute(BURST));
        Self {
            lines: RateLimiter::keyed(quota.allow_burst(BURST)),
            withheld: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// Writes one line, unless there were enough of this kind.
    pub fn note<R: Display>(&self, refused: &Refused<'_, R>) {
        if self.lines.check_key(&refused.kind).is_err() {
            self.withheld.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let withheld = self.withheld.swap(0, Ordering::Relaxed);
        let value: Option<String> = refused.value.map(|value| value.chars().take(SHOWN).collect());
        tracing::info!(
            refused = refused.kind,
            value,
            reason = %refused.reason,
            setting = refused.setting,
            withheld,
            "refused a client"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_are_limited_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        let note = |kind| {
            refusals.note(&Refused {
                kind,
                value: Some("https://evil.example"),
                reason: "not listed",
                setting: Some("cors.origins"),
            });
        };
        for _ in 0..BURST.get() + 7 {
            note("origin");
        }
        assert_eq!(refusals.withheld.load(Ordering::Relaxed), 7);
        // Another kind has its own allowance, and says how many lines are missing.
        note("token");
        assert_eq!(refusals.withheld.load(Ordering::Relaxed), 0);
    }
}
