//! A reconnect storm: one of two gateways is killed with half of the clients, each misses messages, and all come back
//! to the other one as stock clients do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;

use super::Stage;
use super::arrive::{Arrival, Join};
use super::traffic::{Clients, Sender, drain, shared};
use crate::bench::checks::Stamp;
use crate::bench::client::{Client, Refusal};
use crate::bench::dialect::Dialect;
use crate::bench::figures::Figures;
use crate::bench::latency::Latencies;
use crate::bench::recorder::add;
use crate::bench::world::{Contender, World};

/// Members of a group, half of them on each gateway.
const MEMBERS: u32 = 10;
/// Messages that each client misses.
const MISSED: u64 = 20;
/// The stock client waits for one second, more or less, and longer after a refusal.
const FIRST_DELAY: Duration = Duration::from_millis(1_000);
const LONGEST_DELAY: Duration = Duration::from_millis(5_000);

pub fn world(quick: bool) -> World {
    let users = if quick { 1_000 } else { 10_000 };
    World::groups(users / MEMBERS, MEMBERS)
}

/// What a client remembers while it is away.
struct Absent {
    user: u32,
    token: String,
    since: String,
}

pub async fn measure(stage: &Stage) -> anyhow::Result<Figures> {
    let arrival = Arrival {
        at_once: 64,
        join: Join::All,
        within: Duration::from_secs(stage.size(60, 300)),
    };
    let mut clients = shared(arrival.all(stage).await?);
    stage.settle().await;
    // Users arrive at the gateways in turn; the first member of each room, who sends, is at the second gateway.
    let absent = absent(stage, &clients).await?;
    let survivor = stage.system.addresses()?[1];
    stage.system.gateways()[0].kill();
    // No task has run since: these clients are dropped before they see their connections closed.
    for absent in &absent {
        clients.remove(&absent.user);
    }
    let began = Instant::now();
    let meter = stage.meter()?;
    let senders = Sender::of_all_rooms(stage, &clients);
    let missed = join_all(senders.iter().map(|sender| async {
        for _ in 0..MISSED {
            sender.send(Instant::now()).await;
        }
    }));
    let back = RefCell::new(BTreeMap::new());
    let mut connected = Latencies::default();
    let returning = join_all(absent.iter().map(|absent| async {
        match reconnect(stage, survivor, absent).await {
            Ok(client) => {
                let client = (Rc::new(client), began.elapsed());
                back.borrow_mut().insert(absent.user, client);
            }
            Err(reason) => stage.recorder.failed(&reason),
        }
    }));
    let within = Duration::from_secs(stage.size(40, 120));
    let in_time = tokio::time::timeout(within, async { tokio::join!(missed, returning) }).await;
    let back = back.into_inner();
    let count = back.len();
    for (user, (client, after)) in back {
        connected.record(u64::try_from(after.as_micros())?);
        clients.insert(user, client);
    }
    // Before all are back, what they lack is not lost.
    if in_time.is_ok() && count == absent.len() {
        drain(stage, &senders, &clients, within.saturating_sub(began.elapsed())).await;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let usage = meter.stop()?;

    let mut figures = Figures::default();
    figures.higher(&format!("clients back, of {}", absent.len()), count as f64);
    figures.lower("seconds until all have caught up, or given up", elapsed);
    figures.lower("refusals", stage.recorder.refused.get() as f64);
    figures.usage("returned client", &usage, count as u64);
    figures.latencies("back", &connected, &[("p50", 0.5), ("p99", 0.99)]);
    Ok(figures)
}

/// The clients of the first gateway, with the position each holds.
async fn absent(stage: &Stage, clients: &Clients) -> anyhow::Result<Vec<Absent>> {
    let dialect = stage.system.dialect;
    let mut absent = vec![];
    for user in (1..stage.world.users).step_by(2) {
        let room = stage.rooms_of[user as usize][0];
        let conversation = &stage.world.rooms[room as usize].id;
        let since = match dialect {
            Dialect::Chats => String::new(),
            Dialect::Native => {
                let ack = clients[&user].request(dialect.join(conversation)).await?;
                let ack: Value = serde_json::from_str(&ack)?;
                let joined = &ack["conversation"];
                let (epoch, seq) = (&joined["epoch"], &joined["head_seq"]);
                format!(r#"{{"{conversation}":{{"epoch":{epoch},"seq":{seq}}}}}"#)
            }
        };
        let token = stage.system.token(&World::user(user))?;
        absent.push(Absent { user, token, since });
    }
    Ok(absent)
}

/// Comes back as the stock client does, joins, and fetches what the server does not emit by itself.
async fn reconnect(stage: &Stage, address: SocketAddr, absent: &Absent) -> anyhow::Result<Client> {
    let dialect = stage.system.dialect;
    let rooms = &stage.rooms_of[absent.user as usize];
    let id = (absent.token.as_str(), absent.since.as_str());
    // Spread evenly over half of the delay to one and a half, as the random factor of the stock client does.
    let spread = 0.5 + f64::from(absent.user % 1_000) / 1_000.0;
    let mut delay = FIRST_DELAY;
    let client = loop {
        tokio::time::sleep(delay.mul_f64(spread)).await;
        match Client::connect(address, dialect, id, rooms.iter().copied(), &stage.recorder).await {
            Ok(client) => break client,
            Err(Refusal::Busy) => add(&stage.recorder.refused, 1),
            Err(Refusal::Failed(reason)) => stage.recorder.failed(&reason),
        }
        delay = (delay * 2).min(LONGEST_DELAY);
    };
    let conversation = &stage.world.rooms[rooms[0] as usize].id;
    client.request(dialect.join(conversation)).await?;
    if stage.system.contender == Contender::Node {
        fetch(stage, address, absent, &client).await?;
    }
    Ok(client)
}

/// The stock stack emits nothing that was missed: its clients read the latest page of the history.
async fn fetch(stage: &Stage, address: SocketAddr, absent: &Absent, client: &Client) -> anyhow::Result<()> {
    let room = stage.rooms_of[absent.user as usize][0];
    let conversation = &stage.world.rooms[room as usize].id;
    let url = format!("http://{address}/api/messages/{conversation}?limit=50");
    let answer = stage.http.get(url).bearer_auth(&absent.token).send().await?;
    let messages: Vec<Value> = answer.error_for_status()?.json().await?;
    for message in messages.iter().rev() {
        let found = Stamp::find(&message.to_string());
        found.into_iter().for_each(|stamp| client.fetched(stamp));
    }
    Ok(())
}
