//! A message that streams: an agent appends to it at a fixed rate, and all other members of a group see it grow.
//!
//! At Parlance the agent is a service on the bus, whose readers are shown what came meanwhile in one chunk; a part is acknowledged
//! when the stream SYSTEM has it. At the peer, which has no such thing, it is a client whose parts are passed on one by one, and
//! the whole text is stored when it ends: what stock servers do.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use parlance_bus::Bus;
use parlance_bus::subject::System as Target;
use parlance_proto::v1::{SenderKind, StreamStep, SystemMessage};
use tokio::sync::mpsc::UnboundedReceiver;

use super::Stage;
use super::arrive::{Arrival, Join};
use super::traffic::{Clients, shared};
use crate::bench::checks::part;
use crate::bench::client::Client;
use crate::bench::dialect::Dialect;
use crate::bench::figures::Figures;
use crate::bench::latency::Schedule;
use crate::bench::world::{Contender, World};
use crate::environment::random_hex;

/// Parts in a second.
const RATE: u32 = 50;
/// Longest wait until a part is acknowledged, and for the whole text at all readers.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn world(readers: u32) -> World {
    // The first member is the peer's agent.
    World::groups(1, readers + 1)
}

pub async fn measure(stage: &Stage) -> anyhow::Result<Figures> {
    let arrival = Arrival {
        at_once: 64,
        join: Join::All,
        within: Duration::from_secs(60),
    };
    let mut clients = shared(arrival.all(stage).await?);
    if stage.system.contender == Contender::Parlance {
        clients.remove(&0);
    }
    stage.settle().await;
    let mut agent = Agent::begins(stage, &clients).await?;
    let mut schedule = Schedule::new(Instant::now(), RATE).run();
    agent
        .appends(stage, &mut schedule, RATE * stage.size(1, 3))
        .await?;
    stage.recorder.measuring.set(true);
    let meter = stage.meter()?;
    let parts = RATE * stage.size(4, 8);
    agent.appends(stage, &mut schedule, parts).await?;
    stage.recorder.measuring.set(false);
    let usage = meter.stop()?;
    agent.finishes().await?;
    lacking(stage, &clients, &agent.text).await;

    let (deliveries, acks) = (stage.recorder.deliveries.borrow(), stage.recorder.acks.borrow());
    let mut figures = Figures::default();
    figures.higher("parts per second", f64::from(parts) / usage.elapsed.as_secs_f64());
    figures.usage("part", &usage, u64::from(parts));
    figures.latencies("text", &deliveries, &[("p50", 0.5), ("p99", 0.99)]);
    figures.latencies("ack", &acks, &[("p50", 0.5), ("p99", 0.99)]);
    Ok(figures)
}

/// Counts as lost what readers still lack of the text after a while.
async fn lacking(stage: &Stage, clients: &Clients, text: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let readers = clients.iter().filter(|(user, _)| **user != 0);
        let lacking = readers.filter(|(_, reader)| reader.text() != text).count();
        if lacking == 0 || Instant::now() > end {
            stage.recorder.violations.borrow_mut().lost += lacking as u64;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What writes the message.
struct Agent {
    voice: Voice,
    conversation: String,
    text: String,
}

enum Voice {
    Service { bus: Box<Bus>, id: String },
    Client(Rc<Client>),
}

impl Agent {
    async fn begins(stage: &Stage, clients: &Clients) -> anyhow::Result<Self> {
        let voice = match stage.system.contender {
            Contender::Parlance => {
                let shows = stage.system.dialect == Dialect::Native;
                ensure!(shows, "only clients of the dialect native are shown parts");
                let id = random_hex();
                let bus = Box::new(stage.system.bus().await?);
                Voice::Service { bus, id }
            }
            Contender::Node => Voice::Client(Rc::clone(&clients[&0])),
        };
        let agent = Self {
            voice,
            conversation: stage.world.rooms[0].id.clone(),
            text: String::new(),
        };
        agent.step(StreamStep::Start, "").await?;
        Ok(agent)
    }

    /// Appends so many parts, each when it is due.
    async fn appends(
        &mut self,
        stage: &Stage,
        schedule: &mut UnboundedReceiver<Instant>,
        parts: u32,
    ) -> anyhow::Result<()> {
        for _ in 0..parts {
            let due = schedule.recv().await.context("the schedule has ended")?;
            let due = stage.recorder.micros(due);
            let text = part(due);
            self.step(StreamStep::Append, &text).await?;
            self.text += &text;
            stage.recorder.acked(due);
        }
        Ok(())
    }

    async fn finishes(&self) -> anyhow::Result<()> {
        self.step(StreamStep::Finish, "").await
    }

    async fn step(&self, step: StreamStep, content: &str) -> anyhow::Result<()> {
        let offset = self.text.len() as u64;
        match &self.voice {
            Voice::Service { bus, id } => {
                let message = SystemMessage {
                    sender_id: "bench".to_owned(),
                    sender_name: "Bench".to_owned(),
                    sender_kind: SenderKind::Agent.into(),
                    content: content.to_owned(),
                    stream: step.into(),
                    offset: Some(offset).filter(|_| step == StreamStep::Append),
                    ..SystemMessage::default()
                };
                let target = Target::Conversation(self.conversation.parse()?);
                let deadline = tokio::time::Instant::now() + PATIENCE;
                bus.send_system(&target, &message, id, "", deadline).await?;
            }
            Voice::Client(client) => {
                let chat = &self.conversation;
                let request = match step {
                    StreamStep::Append => (
                        "message:append",
                        format!(r#"{{"chatId":"{chat}","offset":{offset},"text":"{content}"}}"#),
                    ),
                    StreamStep::Finish => Dialect::Chats.send(chat, "stream", &self.text),
                    _ => return Ok(()),
                };
                client.request(request).await?;
            }
        }
        Ok(())
    }
}
