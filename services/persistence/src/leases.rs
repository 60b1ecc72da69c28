//! Who works which partition: heartbeats, renewal, fair shares, takeover and handing over.
//!
//! Owns the life of the pulling tasks. All times that decide between replicas are the database's; this
//! process' own clock only makes it give up earlier. Runs on a thread of its own with its own connection: no load on the
//! service may delay a renewal. Must not look into commands.

mod running;
pub mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parlance_bus::Bus;
use parlance_runtime::health::Condition;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::database::{Database, Held};
use crate::error::without_content;
use crate::ingest::entry::Job;
use crate::ownership::Owned;
use crate::store::leases::{self as store, Lease, Taken};
use running::Running;
use share::{Plan, plan};

/// The lease on the messages of other services, beside those of the partitions.
const INTAKE: i32 = -1;
/// Longest wait for deliveries in flight before their partition is handed over without them; they come
/// again as repeats.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often the end of a hand-over is looked for, by who gives and by who takes.
const HAND_OVER_STEP: Duration = Duration::from_millis(50);

/// What the lease loop needs.
pub struct Leases {
    /// This replica's name.
    pub owner: String,
    /// Partitions of the command stream.
    pub partitions: u16,
    /// How large messages of services may be.
    pub intake_limits: crate::intake::Limits,
    /// How long a silent replica keeps its partitions.
    pub ttl: Duration,
    /// For pulling.
    pub bus: Bus,
    /// For the lease rows.
    pub database: Database,
    /// What this process believes to hold.
    pub owned: Owned,
    /// To the ingest loop; closed when this loop ends.
    pub queue: mpsc::Sender<Job>,
    /// Of the tasks that pull: this loop has a thread of its own, which nothing may starve.
    pub runtime: Handle,
    /// Whether this replica may turn services' messages into commands.
    pub intake: bool,
    /// Ready while the database answers.
    pub database_condition: Condition,
    /// Ready while heartbeats succeed.
    pub leases_condition: Condition,
}

/// The state of the loop.
struct Loop {
    leases: Leases,
    connection: Held,
    running: BTreeMap<i32, Running>,
    /// When the database last confirmed our leases, by our own clock and before we asked.
    renewed_at: Instant,
    /// Replicas that lived at the last exchange.
    live: usize,
    /// Until then others may be about to give partitions back that are missing here.
    waits_until: Option<Instant>,
}

/// What one exchange with the database told.
struct Exchange {
    live: usize,
    kept: Vec<Lease>,
}

impl Leases {
    /// Owns and works partitions until `stop`, then hands all of them over.
    pub async fn run(self, stop: CancellationToken) {
        let connection = self.database.held();
        let period = self.ttl / 3;
        let mut state = Loop {
            leases: self,
            connection,
            running: BTreeMap::new(),
            renewed_at: Instant::now(),
            live: 0,
            waits_until: None,
        };
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut steps = interval(HAND_OVER_STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => state.tick().await,
                _ = steps.tick(), if state.is_handing_over() || state.is_waiting() => {
                    state.hand_over().await;
                    state.take_over().await;
                }
            }
        }
        state.leave().await;
    }
}

impl Loop {
    async fn tick(&mut self) {
        let asked_at = Instant::now();
        let patience = self.leases.ttl / 2;
        let known = self.known_leases();
        let result = timeout(patience, exchange(&mut self.connection, &self.leases, &known)).await;
        match result {
            Ok(Ok(exchange)) => {
                self.renewed_at = asked_at;
                self.leases.database_condition.set_ready();
                self.leases.leases_condition.set_ready();
                self.drop_all_but(&exchange.kept);
                self.balance(exchange.live).await;
            }
            failure => {
                let cause = match failure {
                    Ok(Err(error)) => without_content(&error),
                    _ => "no answer in time".to_owned(),
                };
                self.connection.discard();
                tracing::warn!(cause, "cannot renew the leases");
                self.leases.database_condition.set_unready(cause.clone());
                self.leases
                    .leases_condition
                    .set_unready("the last renewal failed");
                if self.renewed_at.elapsed() >= self.leases.ttl {
                    // Others may own them by now.
                    self.drop_all_but(&[]);
                }
            }
        }
    }

    fn known_leases(&self) -> Vec<Lease> {
        self.running
            .iter()
            .map(|(&id, running)| (id, running.epoch()))
            .collect()
    }

    /// Stops working on what is lost, without finishing it.
    fn drop_all_but(&mut self, kept: &[Lease]) {
        let kept: BTreeSet<Lease> = kept.iter().copied().collect();
        let lost: Vec<i32> = self
            .known_leases()
            .into_iter()
            .filter(|lease| !kept.contains(lease))
            .map(|lease| lease.0)
            .collect();
        if lost.is_empty() {
            return;
        }
        tracing::warn!(partitions = ?lost, "lost leases");
        for id in lost {
            if let Some(running) = self.running.remove(&id) {
                running.stop();
            }
            if let Ok(partition) = u16::try_from(id) {
                self.leases.owned.remove(partition);
            }
        }
    }

    /// Moves towards the fair share.
    async fn balance(&mut self, live: usize) {
        if live != self.live {
            self.live = live;
            // The others notice within a tick, and then finish what they have taken in.
            self.waits_until = Some(Instant::now() + self.leases.ttl / 3 + HAND_OVER);
        }
        let working = self.working();
        match plan(usize::from(self.leases.partitions), live, working.len()) {
            Plan::Release(count) => {
                tracing::info!(count, live, "handing partitions over to other replicas");
                for id in working.iter().rev().take(count) {
                    if let Some(running) = self.running.get_mut(id) {
                        running.leave();
                    }
                }
            }
            Plan::Take(0) => {}
            Plan::Take(count) => {
                let ids: Vec<i32> = (0..i32::from(self.leases.partitions)).collect();
                self.take(&ids, count).await;
            }
        }
        if self.leases.intake && !self.running.contains_key(&INTAKE) {
            self.take(&[INTAKE], 1).await;
        }
    }

    /// The partitions that are worked and stay.
    fn working(&self) -> Vec<i32> {
        let stays = |(id, running): &(&i32, &Running)| **id != INTAKE && !running.is_leaving();
        self.running.iter().filter(stays).map(|(id, _)| *id).collect()
    }

    /// Whether partitions are missing here that others may be about to give back.
    fn is_waiting(&self) -> bool {
        self.waits_until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes what others have given back since the last tick: until then nobody works it.
    async fn take_over(&mut self) {
        if !self.is_waiting() {
            return;
        }
        match plan(
            usize::from(self.leases.partitions),
            self.live,
            self.working().len(),
        ) {
            Plan::Take(count) if count > 0 => {
                let ids: Vec<i32> = (0..i32::from(self.leases.partitions)).collect();
                self.take(&ids, count).await;
            }
            _ => self.waits_until = None,
        }
    }

    async fn take(&mut self, ids: &[i32], count: usize) {
        let Leases { owner, ttl, .. } = &self.leases;
        let taken = timeout(*ttl / 2, async {
            let connection = self.connection.get().await?;
            store::take(connection, owner, ids, count, *ttl).await
        });
        let taken = match taken.await {
            Ok(Ok(taken)) => taken,
            failure => {
                self.connection.discard();
                // The next tick tries again.
                self.waits_until = None;
                if let Ok(Err(error)) = failure {
                    tracing::warn!(cause = without_content(&error), "cannot take partitions");
                }
                return;
            }
        };
        let Taken {
            leases: taken,
            abandoned,
        } = taken;
        if taken.is_empty() {
            return;
        }
        let partitions: Vec<i32> = taken.iter().map(|lease| lease.0).collect();
        tracing::info!(?partitions, "took partitions");
        for (id, epoch) in taken {
            let running = match u16::try_from(id) {
                Ok(partition) => {
                    metrics::counter!("chat_persistence_takeovers_total").increment(1);
                    self.leases.owned.add(partition, epoch);
                    Running::partition(&self.leases, partition, epoch, abandoned.contains(&id))
                }
                Err(_) => Running::intake(&self.leases, epoch),
            };
            if let Some(earlier) = self.running.insert(id, running) {
                earlier.stop();
            }
        }
    }

    fn is_handing_over(&self) -> bool {
        self.running.values().any(Running::is_leaving)
    }

    /// Gives back what has finished its deliveries, or did not in time.
    async fn hand_over(&mut self) {
        let done: Vec<Lease> = self
            .running
            .iter()
            .filter(|(_, running)| running.has_left(HAND_OVER))
            .map(|(&id, running)| (id, running.epoch()))
            .collect();
        if done.is_empty() {
            return;
        }
        for (id, _) in &done {
            self.running.remove(id);
            if let Ok(partition) = u16::try_from(*id) {
                self.leases.owned.remove(partition);
            }
        }
        let Leases { owner, ttl, .. } = &self.leases;
        let released = timeout(*ttl / 2, async {
            let connection = self.connection.get().await?;
            store::release(connection, owner, &done).await
        });
        // Not given back means that it expires.
        if !matches!(released.await, Ok(Ok(()))) {
            self.connection.discard();
        }
    }

    /// Says good-bye and hands everything over.
    async fn leave(mut self) {
        self.say_good_bye().await;
        if self.live > 1 {
            // The others notice within a tick and then take at once what is given back. Working on until then
            // keeps messages from waiting.
            tokio::time::sleep(self.leases.ttl / 3).await;
        }
        for running in self.running.values_mut() {
            running.leave();
        }
        let deadline = Instant::now() + HAND_OVER + self.leases.ttl;
        while self.is_handing_over() && Instant::now() < deadline {
            // Still ours until handed over, also when that takes longer than the lease.
            if self.renewed_at.elapsed() > self.leases.ttl / 3 {
                let known = self.known_leases();
                let Leases { owner, ttl, .. } = &self.leases;
                let renewal = timeout(*ttl / 2, async {
                    let connection = self.connection.get().await?;
                    store::renew(connection, owner, &known, *ttl).await
                });
                if matches!(renewal.await, Ok(Ok(_))) {
                    self.renewed_at = Instant::now();
                } else {
                    self.connection.discard();
                    break;
                }
            }
            self.hand_over().await;
            tokio::time::sleep(HAND_OVER_STEP).await;
        }
        self.leases.leases_condition.set_unready("stopped");
    }

    async fn say_good_bye(&mut self) {
        let left = timeout(self.leases.ttl / 2, async {
            let connection = self.connection.get().await?;
            store::leave(connection, &self.leases.owner).await
        });
        if !matches!(left.await, Ok(Ok(()))) {
            self.connection.discard();
            tracing::warn!(
                "leaving without telling the database; others notice when this replica has expired"
            );
        }
    }
}

/// Heartbeat and renewal.
async fn exchange(connection: &mut Held, leases: &Leases, known: &[Lease]) -> Result<Exchange, sqlx::Error> {
    let connection = connection.get().await?;
    let live = store::heartbeat(connection, &leases.owner, leases.ttl).await?;
    let kept = store::renew(connection, &leases.owner, known, leases.ttl).await?;
    Ok(Exchange {
        live: usize::try_from(live).unwrap_or(1),
        kept,
    })
}
