//! Memory of connections that idle.

use std::time::Duration;

use anyhow::ensure;

use super::Stage;
use super::arrive::{Arrival, Join};
use crate::bench::figures::Figures;
use crate::bench::processes::memory;
use crate::bench::world::World;
use crate::eventually;

/// Members of a room.
const MEMBERS: u32 = 20;
/// Both servers ask every 25 s.
const HEARTBEAT: Duration = Duration::from_secs(60);

pub fn world(rooms: bool, quick: bool) -> World {
    let users = if quick { 2_000 } else { 10_000 };
    if rooms {
        World::groups(users / MEMBERS, MEMBERS)
    } else {
        World::shared(users, 0)
    }
}

pub async fn measure(stage: &Stage) -> anyhow::Result<Figures> {
    let arrival = Arrival {
        at_once: 64,
        join: Join::All,
        within: Duration::from_secs(stage.size(60, 300)),
    };
    // Before the first client: what all clients share is part of what they cost.
    let before = memory(&stage.system.servers());
    let meter = stage.meter()?;
    let arrived = arrival.run(stage, 0..stage.world.users).await?;
    let count = arrived.clients.len() as u64;
    ensure!(count > 0, "no client is in after {:?}", arrival.within);
    let seen = stage.recorder.heartbeats.get();
    eventually(HEARTBEAT, "a heartbeat of every connection", || async {
        stage.recorder.heartbeats.get() >= seen + count
    })
    .await?;
    let usage = meter.stop()?;

    let now = usage.memory.get("gateway").copied().unwrap_or_default();
    let grown = now.saturating_sub(before.get("gateway").copied().unwrap_or_default());
    let all: u64 = usage.memory.values().sum();
    let mut figures = Figures::default();
    figures.lower("gateway KiB per connection", grown as f64 / count as f64);
    figures.lower("gateway, MiB", now as f64 / 1_024.0);
    figures.lower("all servers, MiB", all as f64 / 1_024.0);
    figures.higher("connections", count as f64);
    figures.usage("connection", &usage, count);
    Ok(figures)
}
