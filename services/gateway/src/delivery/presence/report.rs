//! The lease of this replica: reports what changed and that it lives, and closes its clients' connections when
//! others have given them up, so that they come again where they are seen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::v1::{Lease, PresenceReported, ReportPresence};
use parlance_runtime::backoff::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Presences;
use crate::backend::Backend;
use crate::ids::new_id;
use crate::session::sessions::Sessions;

/// Pauses before a report that got no answer is sent again; the longest leaves time for several within the lease.
const RETRIES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(1_200));
/// How long NATS itself may take to answer.
const PROBE: Duration = Duration::from_secs(1);
/// How long the last report may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often this process looks whether it was stopped.
const WATCH: Duration = Duration::from_millis(250);
/// The lease until persistence has said how long it is.
const LEASE: Duration = Duration::from_secs(10);

/// Reports. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    /// What to report.
    pub presences: Presences,
    /// The way to persistence.
    pub backend: Backend,
    /// To tell a cut from a persistence that is away.
    pub bus: Bus,
    /// Whose connections to close.
    pub sessions: Sessions,
    /// How often the lease is renewed.
    pub renew: Duration,
    /// How long changes are gathered.
    pub gather: Duration,
    /// As persistence says.
    pub lease: Arc<Mutex<Duration>>,
}

impl Reporter {
    /// Reports for these sessions.
    pub fn new(
        presences: Presences,
        (backend, bus): (Backend, Bus),
        sessions: Sessions,
        (renew, gather): (Duration, Duration),
    ) -> Self {
        Self {
            presences,
            backend,
            bus,
            sessions,
            renew,
            gather,
            lease: Arc::new(Mutex::new(LEASE)),
        }
    }

    /// Reports until `stop`, then says good-bye.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut renew_at = Instant::now();
        // Since when NATS was surely not reached.
        let mut cut_since: Option<Instant> = None;
        let mut backoff = Backoff::new(RETRIES.0, RETRIES.1);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.presences.changed.notified() => tokio::time::sleep(self.gather).await,
                () = tokio::time::sleep_until(renew_at) => {}
            }
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => break,
                answered = self.report_all() => {
                    let connected = answered || self.reaches_nats().await;
                    cut_since = if connected { None } else { Some(cut_since.unwrap_or(began)) };
                    let pause = if answered { self.renew } else { backoff.next_pause() };
                    renew_at = Instant::now() + pause;
                    if answered {
                        backoff.reset();
                    }
                }
            }
            if cut_since.is_some_and(|since| since.elapsed() >= self.lease()) {
                cut_since = None;
                self.lapse("NATS was out of reach");
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Notices that the whole process stood still for longer than the lease.
    pub async fn watch(self, stop: CancellationToken) {
        let mut tick = interval(WATCH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if last.elapsed() >= self.lease() {
                self.lapse("the process stood still");
            }
            last = Instant::now();
        }
    }

    /// Reports until there is nothing more to tell. False without an answer.
    async fn report_all(&self) -> bool {
        loop {
            let report = self.ledger().report(std::time::Instant::now());
            let Ok(reported) = self.backend.report_presence(None, report.clone()).await else {
                return false;
            };
            self.answered(&report, &reported);
            if !self.ledger().has_news() {
                return true;
            }
        }
    }

    fn answered(&self, report: &ReportPresence, reported: &PresenceReported) {
        if reported.lease_ms > 0 {
            let lease = Duration::from_millis(u64::from(reported.lease_ms));
            *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        }
        let mut ledger = self.ledger();
        if !ledger.is_of_this_life(report) {
            return;
        }
        match reported.lease() {
            Lease::Held | Lease::Unspecified => {
                ledger.taken_in(report);
            }
            Lease::Unknown => {
                tracing::warn!("the database does not know who is connected here; telling it anew");
                ledger.begin_anew(new_id());
            }
            Lease::Lost => {
                drop(ledger);
                self.lapse("it was given up");
            }
        }
    }

    /// Others show this replica's users as gone: they must come again.
    fn lapse(&self, cause: &'static str) {
        let abandoned = self.ledger().abandon(new_id());
        let sessions = self.sessions.all();
        tracing::warn!(
            cause,
            sessions = abandoned,
            "the lease of this replica ran out; closing all connections"
        );
        metrics::counter!("chat_gateway_lease_lapses_total").increment(1);
        for session in sessions {
            session.close_transport();
        }
    }

    async fn reaches_nats(&self) -> bool {
        self.bus.link().borrow().connected && self.bus.answers(PROBE).await
    }

    async fn leave(&self) {
        // What is unanswered first: it has the number that the last report would take.
        let left = async {
            self.report_all().await;
            let report = ReportPresence {
                leaving: true,
                ..self.ledger().report(std::time::Instant::now())
            };
            self.backend.report_presence(None, report).await
        };
        if !matches!(timeout(FAREWELL, left).await, Ok(Ok(_))) {
            tracing::debug!("left without telling who was connected; the lease expires by itself");
        }
    }

    fn lease(&self) -> Duration {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, super::Ledger> {
        self.presences.lock()
    }
}
