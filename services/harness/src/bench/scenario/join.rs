//! Whole groups come: how long until every member is in.

use std::time::Duration;

use super::Stage;
use super::arrive::{Arrival, Join, WARMING};
use crate::bench::figures::Figures;
use crate::bench::world::World;

pub fn world(groups: u32, members: u32) -> World {
    World::groups(groups, members).and(&World::groups(WARMING / 2, 2))
}

pub async fn measure(stage: &Stage) -> anyhow::Result<Figures> {
    let arrival = Arrival {
        at_once: 64,
        join: Join::All,
        within: Duration::from_secs(stage.size(30, 120)),
    };
    let members = stage.world.users - WARMING;
    let warm = arrival.run(stage, members..stage.world.users).await?;
    stage.settle().await;
    stage.recorder.measuring.set(true);
    let meter = stage.meter()?;
    let arrived = arrival.run(stage, 0..members).await?;
    let usage = meter.stop()?;
    drop(warm);

    let count = arrived.clients.len() as u64;
    let mut figures = Figures::default();
    figures.higher(&format!("clients in, of {members}"), count as f64);
    figures.lower(
        "seconds until all are in, or given up",
        arrived.elapsed.as_secs_f64(),
    );
    figures.usage("client", &usage, count);
    let latencies = stage.recorder.acks.borrow();
    figures.latencies("join", &latencies, &[("p50", 0.5), ("p99", 0.99)]);
    Ok(figures)
}
