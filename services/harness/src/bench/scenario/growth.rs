//! Growth: what a connect, a join, a list, a message and a receipt cost as groups, lists and histories grow. One request
//! at a time, so that cost is not hidden by batches.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;

use super::Stage;
use super::arrive::{Arrival, Join};
use crate::bench::client::Client;
use crate::bench::dialect::Dialect;
use crate::bench::figures::Figures;
use crate::bench::latency::Latencies;
use crate::bench::world::World;

/// Members of a group that are connected.
const ONLINE: u32 = 20;
/// Rooms that a history is spread over.
const ROOMS: u32 = 10;

/// What grows.
#[derive(Clone, Copy, Debug)]
pub enum Grown {
    /// Members of one group.
    Members(u32),
    /// Conversations of each user.
    Conversations(u32),
    /// Messages stored in all.
    Messages(u32),
}

pub fn world(grown: Grown) -> World {
    match grown {
        Grown::Members(members) => World::groups(1, members),
        Grown::Conversations(conversations) => World::shared(ONLINE, conversations),
        Grown::Messages(messages) => World::shared(ONLINE, ROOMS).history(messages / ROOMS),
    }
}

pub async fn measure(stage: &Stage) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let arrival = Arrival {
        at_once: 1,
        join: Join::One,
        within: Duration::from_secs(60),
    };
    let arrived = arrival.run(stage, 0..1).await?;
    ensure!(!arrived.clients.is_empty(), "no client is in after a minute");
    stage.recorder.measuring.set(true);
    let meter = stage.meter()?;
    let arrived = arrival.run(stage, 1..ONLINE).await?;
    let usage = meter.stop()?;
    stage.recorder.measuring.set(false);
    ensure!(!arrived.clients.is_empty(), "no client is in after a minute");
    figures.usage("connect and join", &usage, arrived.clients.len() as u64);
    figures.latencies(
        "connect and join",
        &stage.recorder.acks.borrow(),
        &[("p99", 0.99)],
    );
    stage.settle().await;

    let count = stage.size(50, 200);
    let (user, client) = &arrived.clients[0];
    let token = stage.system.token(&World::user(*user))?;
    let url = format!(
        "http://{}/api/conversations?limit=50",
        stage.system.addresses()?[0]
    );
    repeat(stage, &mut figures, "list", count, || async {
        let answer = stage.http.get(&url).bearer_auth(&token).send().await?;
        answer.error_for_status()?.bytes().await?;
        Ok(())
    })
    .await?;
    let sent = RefCell::new(vec![]);
    let room = &stage.world.rooms[0].id;
    repeat(stage, &mut figures, "send", count, || async {
        let number = sent.borrow().len();
        let id = send(stage.system.dialect, client, room, number).await?;
        sent.borrow_mut().push(id);
        Ok(())
    })
    .await?;
    let reader = &arrived.clients[1].1;
    let unread = RefCell::new(sent.borrow().clone());
    repeat(stage, &mut figures, "receipt", count, || async {
        let message = unread.borrow_mut().pop().unwrap_or_default();
        reader
            .request(stage.system.dialect.read(room, &message))
            .await
            .map(drop)
    })
    .await?;
    Ok(figures)
}

async fn send(dialect: Dialect, client: &Client, room: &str, number: usize) -> anyhow::Result<String> {
    let ack = client
        .request(dialect.send(room, &format!("grown-{number}"), "a message of the present"))
        .await?;
    let ack: Value = serde_json::from_str(&ack)?;
    Ok(ack["message"]["id"].as_str().unwrap_or_default().to_owned())
}

/// Runs one request after the other.
async fn repeat<F: Future<Output = anyhow::Result<()>>>(
    stage: &Stage,
    figures: &mut Figures,
    name: &str,
    count: u32,
    request: impl Fn() -> F,
) -> anyhow::Result<()> {
    let mut latencies = Latencies::default();
    let meter = stage.meter()?;
    for _ in 0..count {
        let began = Instant::now();
        request().await?;
        latencies.record(u64::try_from(began.elapsed().as_micros())?);
    }
    let usage = meter.stop()?;
    figures.usage(name, &usage, u64::from(count));
    figures.latencies(name, &latencies, &[("p50", 0.5), ("p99", 0.99)]);
    Ok(())
}
