//! What persistence knows of this replica's sessions, and what it must still be told. No clock but what it is
//! given, no bus.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use parlance_proto::UserId;
use parlance_proto::v1::{PresenceStatus, ReportPresence, SessionReport};
use uuid::Uuid;

/// Sessions in one report.
const REPORT_MAX: usize = 2_000;

/// One life of this replica towards persistence.
#[derive(Debug)]
pub(super) struct Ledger {
    gateway: Uuid,
    /// Of the latest report that was taken in.
    number: u64,
    open: HashMap<u64, Open>,
    /// Open sessions of which something is to be told.
    changed: BTreeSet<u64>,
    /// Sessions that were told of and are gone.
    closed: BTreeMap<u64, Closed>,
    /// Stays the same until it is answered: a repeat must not say more than the first.
    sent: Option<Sent>,
}

#[derive(Debug)]
struct Open {
    user: UserId,
    status: PresenceStatus,
    /// Persistence may know of it.
    told: bool,
}

#[derive(Debug, Clone)]
struct Sent {
    open: Vec<SessionReport>,
    closed: Vec<(u64, Closed)>,
}

#[derive(Debug, Clone)]
struct Closed {
    user: UserId,
    at: Instant,
    /// See `SessionReport`.
    shown_at_ms: i64,
}

impl Ledger {
    /// A life without sessions.
    pub(super) fn new(gateway: Uuid) -> Self {
        Self {
            gateway,
            number: 0,
            open: HashMap::new(),
            changed: BTreeSet::new(),
            closed: BTreeMap::new(),
            sent: None,
        }
    }

    pub(super) fn opened(&mut self, session: u64, user: &UserId) {
        let open = Open {
            user: user.clone(),
            status: PresenceStatus::Online,
            told: false,
        };
        self.open.insert(session, open);
        self.changed.insert(session);
    }

    pub(super) fn set(&mut self, session: u64, status: PresenceStatus) {
        if let Some(open) = self.open.get_mut(&session)
            && open.status != status
        {
            open.status = status;
            self.changed.insert(session);
        }
    }

    pub(super) fn closed(&mut self, session: u64, shown_at_ms: i64) {
        self.closed_at(session, Instant::now(), shown_at_ms);
    }

    fn closed_at(&mut self, session: u64, at: Instant, shown_at_ms: i64) {
        self.changed.remove(&session);
        if let Some(Open { user, told: true, .. }) = self.open.remove(&session) {
            let closed = Closed {
                user,
                at,
                shown_at_ms,
            };
            self.closed.insert(session, closed);
        }
    }

    /// Whether there is more to say than that this replica lives.
    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty() || !self.closed.is_empty()
    }

    /// The next report, or the unanswered one again.
    pub(super) fn report(&mut self, now: Instant) -> ReportPresence {
        let number = self.number + 1;
        let sent = match self.sent.take() {
            Some(sent) => sent,
            None => self.gather(),
        };
        let closed = sent.closed.iter().map(|(session, closed)| SessionReport {
            session: *session,
            user_id: closed.user.to_string(),
            closed: true,
            closed_ms_ago: u32::try_from((now - closed.at).as_millis()).unwrap_or(u32::MAX),
            shown_at_ms: closed.shown_at_ms,
            ..SessionReport::default()
        });
        let sessions = sent.open.iter().cloned().chain(closed).collect();
        self.sent = Some(sent);
        ReportPresence {
            gateway: self.gateway.to_string(),
            number,
            sessions,
            leaving: false,
        }
    }

    fn gather(&mut self) -> Sent {
        let mut sent = Sent {
            open: Vec::new(),
            closed: Vec::new(),
        };
        while sent.open.len() < REPORT_MAX
            && let Some(session) = self.changed.pop_first()
        {
            if let Some(open) = self.open.get_mut(&session) {
                open.told = true;
                sent.open.push(SessionReport {
                    session,
                    user_id: open.user.to_string(),
                    status: open.status.into(),
                    ..SessionReport::default()
                });
            }
        }
        while sent.open.len() + sent.closed.len() < REPORT_MAX
            && let Some(closed) = self.closed.pop_first()
        {
            sent.closed.push(closed);
        }
        sent
    }

    /// A report was taken in. False where it is of an earlier life.
    pub(super) fn taken_in(&mut self, report: &ReportPresence) -> bool {
        let ours = self.is_of_this_life(report);
        if ours {
            self.number = report.number;
            self.sent = None;
        }
        ours
    }

    /// Whether a report is of this life.
    pub(super) fn is_of_this_life(&self, report: &ReportPresence) -> bool {
        report.gateway == self.gateway.to_string()
    }

    /// Another life with the same sessions, all of which are to be told.
    pub(super) fn begin_anew(&mut self, gateway: Uuid) {
        let mut open = std::mem::take(&mut self.open);
        for one in open.values_mut() {
            one.told = false;
        }
        *self = Self {
            changed: open.keys().copied().collect(),
            open,
            ..Self::new(gateway)
        };
    }

    /// Another life without the sessions of this one, which others have given up. How many those are.
    pub(super) fn abandon(&mut self, gateway: Uuid) -> usize {
        let sessions = self.open.len();
        *self = Self::new(gateway);
        sessions
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn ledger() -> Ledger {
        Ledger::new(Uuid::from_u128(1))
    }

    /// `session user status` of each, `-` where closed.
    fn said(report: &ReportPresence) -> Vec<String> {
        let one = |one: &SessionReport| {
            let status = if one.closed {
                "-"
            } else {
                one.status().as_str_name()
            };
            format!(
                "{} {} {}",
                one.session,
                one.user_id,
                status.trim_start_matches("PRESENCE_STATUS_")
            )
        };
        report.sessions.iter().map(one).collect()
    }

    #[test]
    fn an_unanswered_report_is_repeated_and_later_news_wait_for_the_next() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.opened(1, &user("alice"));
        let first = ledger.report(now);
        assert_eq!((first.number, said(&first)), (1, vec!["1 alice ONLINE".into()]));
        ledger.set(1, PresenceStatus::Away);
        ledger.opened(2, &user("bob"));
        assert_eq!(ledger.report(now), first);
        assert!(ledger.taken_in(&first));
        let second = ledger.report(now);
        assert_eq!(second.number, 2);
        assert_eq!(said(&second), ["1 alice AWAY", "2 bob ONLINE"]);
        ledger.taken_in(&second);
        assert!(!ledger.has_news() && ledger.report(now).sessions.is_empty());
    }

    #[test]
    fn a_session_that_was_perhaps_told_is_closed_with_its_age_and_any_other_is_forgotten() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.opened(1, &user("alice"));
        let first = ledger.report(now);
        ledger.closed_at(1, now, 0);
        ledger.opened(2, &user("bob"));
        ledger.closed_at(2, now, 7);
        ledger.taken_in(&first);
        let second = ledger.report(now + Duration::from_secs(2));
        assert_eq!(said(&second), ["1 alice -"]);
        assert_eq!(second.sessions[0].closed_ms_ago, 2_000);
    }

    #[test]
    fn a_new_life_tells_everything_again_and_ignores_answers_to_the_old_one() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.opened(1, &user("alice"));
        let old = ledger.report(now);
        ledger.taken_in(&old);
        let old = ledger.report(now);
        ledger.begin_anew(Uuid::from_u128(2));
        assert!(!ledger.taken_in(&old));
        let new = ledger.report(now);
        assert_eq!((new.number, said(&new)), (1, vec!["1 alice ONLINE".into()]));
        assert_ne!(new.gateway, old.gateway);
        assert_eq!(ledger.abandon(Uuid::from_u128(3)), 1);
        ledger.closed_at(1, now, 0);
        ledger.set(1, PresenceStatus::Away);
        assert!(!ledger.has_news());
    }

    #[test]
    fn many_sessions_are_told_in_several_reports() {
        let mut ledger = ledger();
        for session in 0..4_500 {
            ledger.opened(session, &user("alice"));
        }
        let mut sizes = Vec::new();
        while ledger.has_news() {
            let report = ledger.report(Instant::now());
            sizes.push(report.sessions.len());
            ledger.taken_in(&report);
        }
        assert_eq!(sizes, [2_000, 2_000, 500]);
    }
}
