//! The regular look at what nobody reports: gateways that fell silent, and graces that are over.
//!
//! A replica that could not have heard the gateways itself, because it, the database or NATS was away, judges
//! nobody until it has listened for as long as it grants them.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Presence, cause, sweep, tell};

/// Looks regularly.
pub struct Sweeper {
    /// The truth and the bus.
    pub presence: Presence,
    /// How often.
    pub every: Duration,
}

impl Sweeper {
    /// Runs until `stop`.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { presence, every } = self;
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let link = presence.bus.link();
        let mut generation = link.borrow().generation;
        // Since when gateways could be heard without an interruption, and the latest proof of it.
        let mut hearing_since = Instant::now();
        let mut heard = hearing_since;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            let state = *link.borrow();
            if !state.connected
                || state.generation != generation
                || now - heard > every + presence.limits.grace
            {
                generation = state.generation;
                hearing_since = now;
            }
            heard = now;
            if now - hearing_since < presence.limits.grace {
                continue;
            }
            let judge = now - hearing_since >= presence.limits.lease;
            let swept = async {
                let mut connection = presence.database.writes.acquire().await?;
                sweep(&mut connection, presence.limits, judge).await
            };
            match swept.await {
                Ok(changes) => tell(&presence.bus, &changes).await,
                Err(error) => {
                    tracing::debug!(cause = cause(&error), "presence is not swept");
                    hearing_since = Instant::now();
                }
            }
        }
    }
}
