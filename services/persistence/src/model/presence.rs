//! When a change of a user's sessions becomes a change of how the user is seen. Pure.
//!
//! Whoever becomes more present is told at once. Whoever becomes less present is told when the latest closing of
//! a session is a grace ago, so that neither a reconnect nor a rolling update is seen; without such a closing
//! the user asked for it, and is told at once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use parlance_proto::v1::PresenceStatus;

/// What was told of a user, and what is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Told last.
    pub told: PresenceStatus,
    /// The best of the sessions on gateways that count as alive; `None` without a session.
    pub best: Option<PresenceStatus>,
    /// When the latest session closed in which the user was to be seen.
    pub closed_at: Option<DateTime<Utc>>,
    /// When the present status was told.
    pub changed_at: Option<DateTime<Utc>>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// What was told is so.
    Keep,
    /// Look again then.
    Wait(DateTime<Utc>),
    /// Tell this, with when the user was last seen.
    Tell(PresenceStatus, DateTime<Utc>),
}

/// Decides at a moment.
pub fn decide(seen: &Seen, now: DateTime<Utc>, grace: Duration) -> Decision {
    let is = seen.best.unwrap_or(PresenceStatus::Offline);
    if rank(is) == rank(seen.told) {
        return Decision::Keep;
    }
    if rank(is) > rank(seen.told) {
        return Decision::Tell(is, now);
    }
    let until = seen.closed_at.map(|closed_at| closed_at + grace);
    match until {
        Some(until) if until > now => Decision::Wait(until),
        _ if is == PresenceStatus::Offline && seen.best.is_none() => {
            let last_seen = seen.closed_at.max(seen.changed_at).unwrap_or(now);
            Decision::Tell(is, last_seen.min(now))
        }
        _ => Decision::Tell(is, now),
    }
}

fn rank(status: PresenceStatus) -> u8 {
    match status {
        PresenceStatus::Online => 2,
        PresenceStatus::Away => 1,
        PresenceStatus::Offline | PresenceStatus::Unspecified => 0,
    }
}

#[cfg(test)]
mod tests {
    use PresenceStatus::{Away, Offline, Online};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    /// Decides at 100 what was told at 10.
    fn decided(told: PresenceStatus, best: Option<PresenceStatus>, closed_at: Option<i64>) -> Decision {
        let seen = Seen {
            told,
            best,
            closed_at: closed_at.map(at),
            changed_at: Some(at(10)),
        };
        decide(&seen, at(100), GRACE)
    }

    #[test]
    fn every_transition_is_one_line_of_this_table() {
        let now = at(100);
        for (told, best, closed_at, expected) in [
            // Nothing changed.
            (Online, Some(Online), None, Decision::Keep),
            (Away, Some(Away), Some(99), Decision::Keep),
            (Offline, None, Some(99), Decision::Keep),
            (Offline, Some(Offline), None, Decision::Keep),
            // More present: at once, whatever closed a moment ago.
            (Offline, Some(Online), Some(99), Decision::Tell(Online, now)),
            (Offline, Some(Away), None, Decision::Tell(Away, now)),
            (Away, Some(Online), Some(100), Decision::Tell(Online, now)),
            // Less present because the user says so: at once.
            (Online, Some(Offline), None, Decision::Tell(Offline, now)),
            (Online, Some(Away), Some(50), Decision::Tell(Away, now)),
            (Away, Some(Offline), Some(50), Decision::Tell(Offline, now)),
            // Less present because a session closed: not before the grace is over.
            (Online, None, Some(100), Decision::Wait(at(105))),
            (Online, None, Some(96), Decision::Wait(at(101))),
            (Online, Some(Away), Some(96), Decision::Wait(at(101))),
            (Online, Some(Offline), Some(96), Decision::Wait(at(101))),
            (Online, None, Some(95), Decision::Tell(Offline, at(95))),
            (Away, None, Some(90), Decision::Tell(Offline, at(90))),
            // Sessions were lost without a word: seen at least when told to be online.
            (Online, None, None, Decision::Tell(Offline, at(10))),
            (Online, None, Some(5), Decision::Tell(Offline, at(10))),
        ] {
            let decision = decided(told, best, closed_at);
            assert_eq!(decision, expected, "{told:?} {best:?} {closed_at:?}");
        }
    }
}
