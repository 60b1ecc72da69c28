//! Connect, token, join: how many a second, what each costs, and what a user's other conversations add.

use std::time::Duration;

use anyhow::ensure;

use super::Stage;
use super::arrive::{Arrival, Join, WARMING};
use crate::bench::figures::Figures;
use crate::bench::world::World;

pub fn world(conversations: u32, quick: bool) -> World {
    let users = if quick { 1_000 } else { 4_000 };
    World::pairs(WARMING + users, conversations)
}

pub async fn measure(stage: &Stage) -> anyhow::Result<Figures> {
    let arrival = Arrival {
        at_once: 32,
        join: Join::One,
        within: Duration::from_secs(stage.size(8, 30)),
    };
    let warm = arrival.run(stage, 0..WARMING).await?;
    stage.settle().await;
    stage.recorder.measuring.set(true);
    let meter = stage.meter()?;
    let arrived = arrival.run(stage, WARMING..stage.world.users).await?;
    let usage = meter.stop()?;
    drop(warm);

    let count = arrived.clients.len() as u64;
    ensure!(count > 0, "no client is in after {:?}", arrival.within);
    let mut figures = Figures::default();
    figures.higher(
        "connects per second",
        count as f64 / arrived.elapsed.as_secs_f64(),
    );
    figures.usage("connect", &usage, count);
    let latencies = stage.recorder.acks.borrow();
    figures.latencies("connect", &latencies, &[("p50", 0.5), ("p99", 0.99)]);
    Ok(figures)
}
