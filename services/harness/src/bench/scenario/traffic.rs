//! Messages: one member of each room sends, all members receive. Fan-out, pairs and fixed rates are this with
//! other numbers.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::task::spawn_local;

use super::Stage;
use super::arrive::{Arrival, Join};
use crate::bench::checks::Stamp;
use crate::bench::client::Client;
use crate::bench::dialect::Dialect;
use crate::bench::figures::Figures;
use crate::bench::latency::Schedule;
use crate::bench::recorder::Recorder;

/// Longest wait for deliveries after the last message is acknowledged.
const DRAIN: Duration = Duration::from_secs(10);

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// In each room so many messages await their acknowledgement at any time.
    Window(u32),
    /// So many messages a second, the rooms taking turns, whether or not anything is acknowledged.
    PerSecond(u32),
}

/// Clients by index of their user.
pub type Clients = BTreeMap<u32, Rc<Client>>;

/// The clients of all users, for several tasks.
#[must_use]
pub fn shared(clients: Vec<Client>) -> Clients {
    (0..).zip(clients.into_iter().map(Rc::new)).collect()
}

/// The sender of one room.
#[derive(Debug)]
pub struct Sender {
    client: Rc<Client>,
    dialect: Dialect,
    recorder: Rc<Recorder>,
    room: u32,
    sent: Cell<u64>,
    unacknowledged: RefCell<HashSet<u64>>,
}

impl Sender {
    /// One for each room: its first member.
    #[must_use]
    pub fn of_all_rooms(stage: &Stage, clients: &Clients) -> Vec<Rc<Self>> {
        let rooms = (0..).zip(&stage.world.rooms);
        let sender = |(room, of): (u32, &crate::bench::world::Room)| {
            Rc::new(Self {
                client: Rc::clone(&clients[&of.members[0]]),
                dialect: stage.system.dialect,
                recorder: Rc::clone(&stage.recorder),
                room,
                sent: Cell::new(0),
                unacknowledged: RefCell::default(),
            })
        };
        rooms.map(sender).collect()
    }

    /// Sends the next message, due at that time; whether it was acknowledged.
    pub async fn send(&self, due: Instant) -> bool {
        let number = self.sent.get() + 1;
        self.sent.set(number);
        self.unacknowledged.borrow_mut().insert(number);
        let due = self.recorder.micros(due);
        let room = self.room;
        let content = Stamp { room, number, due }.content();
        let conversation = &self.recorder.rooms[room as usize].id;
        let message = self
            .dialect
            .send(conversation, &format!("{room}-{number}"), &content);
        let answer = self.client.request(message).await;
        match &answer {
            Ok(_) => {
                self.unacknowledged.borrow_mut().remove(&number);
                self.recorder.acked(due);
            }
            Err(reason) => self.recorder.failed(reason),
        }
        answer.is_ok()
    }

    /// How many messages of this room `client` lacks.
    #[must_use]
    pub fn lost(&self, client: &Client) -> u64 {
        client
            .stream(self.room)
            .lost(self.sent.get(), &self.unacknowledged.borrow())
    }
}

/// Messages that members still lack, over all rooms.
#[must_use]
pub fn lacking(stage: &Stage, senders: &[Rc<Sender>], clients: &Clients) -> u64 {
    let rooms = senders.iter().zip(&stage.world.rooms);
    rooms
        .flat_map(|(sender, room)| room.members.iter().map(move |member| (sender, *member)))
        .map(|(sender, member)| sender.lost(&clients[&member]))
        .sum()
}

/// Waits until no member lacks a message, and counts as lost what is not delivered in time.
pub async fn drain(stage: &Stage, senders: &[Rc<Sender>], clients: &Clients, within: Duration) {
    let end = Instant::now() + within;
    loop {
        let lacking = lacking(stage, senders, clients);
        if lacking == 0 || Instant::now() > end {
            stage.recorder.violations.borrow_mut().lost += lacking;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn measure(stage: &Stage, load: Load) -> anyhow::Result<Figures> {
    let arrival = Arrival {
        at_once: 64,
        join: Join::All,
        within: Duration::from_secs(stage.size(60, 300)),
    };
    let clients = shared(arrival.all(stage).await?);
    stage.settle().await;
    let senders = Sender::of_all_rooms(stage, &clients);
    let running = Rc::new(Cell::new(true));
    let traffic = spawn_local(run(load, senders.clone(), Rc::clone(&running)));

    tokio::time::sleep(Duration::from_secs(stage.size(1, 3))).await;
    stage.recorder.measuring.set(true);
    let meter = stage.meter()?;
    tokio::time::sleep(Duration::from_secs(stage.size(4, 8))).await;
    stage.recorder.measuring.set(false);
    let usage = meter.stop()?;
    running.set(false);
    traffic.await?;
    drain(stage, &senders, &clients, DRAIN).await;

    let (deliveries, acks) = (stage.recorder.deliveries.borrow(), stage.recorder.acks.borrow());
    let seconds = usage.elapsed.as_secs_f64();
    let mut figures = Figures::default();
    figures.higher("messages per second", acks.count() as f64 / seconds);
    figures.higher("deliveries per second", deliveries.count() as f64 / seconds);
    figures.usage("delivery", &usage, deliveries.count());
    let each = usage.total().as_secs_f64() * 1e6 / acks.count().max(1) as f64;
    figures.lower("CPU µs per message", each);
    figures.latencies("delivery", &deliveries, &[("p50", 0.5), ("p99", 0.99)]);
    figures.latencies("ack", &acks, &[("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)]);
    Ok(figures)
}

/// Sends while `running`, then waits for the requests in flight.
async fn run(load: Load, senders: Vec<Rc<Sender>>, running: Rc<Cell<bool>>) {
    match load {
        Load::Window(window) => {
            let keep_sending = |sender: Rc<Sender>| {
                let running = Rc::clone(&running);
                async move { while running.get() && sender.send(Instant::now()).await {} }
            };
            let windows = senders
                .iter()
                .flat_map(|sender| (0..window).map(move |_| Rc::clone(sender)));
            join_all(windows.map(keep_sending).map(spawn_local)).await;
        }
        Load::PerSecond(rate) => {
            let mut schedule = Schedule::new(Instant::now(), rate).run();
            let mut under_way = vec![];
            for sender in senders.iter().cycle() {
                let Some(due) = schedule.recv().await else { break };
                if !running.get() {
                    break;
                }
                let sender = Rc::clone(sender);
                under_way.push(spawn_local(async move { sender.send(due).await }));
            }
            join_all(under_way).await;
        }
    }
}
