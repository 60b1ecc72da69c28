//! Anti-entropy: compares every followed conversation and connected user with the database, regularly and
//! after every loss the bus reports. This finds what no hole in a sequence can show: that the last event
//! is missing.

use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::v1::GetHeads;
use parlance_runtime::backoff::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rooms::{Begun, Rooms};
use super::users::Users;
use crate::backend::Backend;
use crate::ids::new_id;

/// Pauses before a comparison that got no answer is made again: after a restart of NATS this replica may be
/// back before persistence is.
const RETRIES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// Ids in one question; the answer stays well below a bus message.
const CHUNK: usize = 2_000;
/// How long after a room began it is compared once more.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Compares what is followed here. Cheap to clone.
#[derive(Clone)]
pub struct Repair {
    /// To notice losses.
    pub bus: Bus,
    /// To ask the database.
    pub backend: Backend,
    /// Followed conversations.
    pub rooms: Rooms,
    /// Connected users.
    pub users: Users,
}

/// Compares everything every `interval` and after losses, until `stop`.
///
/// # Errors
/// Never.
pub async fn run(repair: Repair, interval: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let mut link = repair.bus.link();
    let mut seen = *link.borrow_and_update();
    let mut pause = spread(interval);
    let mut backoff = Backoff::new(RETRIES.0, RETRIES.1);
    loop {
        let lost = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => false,
            changed = link.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                true
            }
        };
        let now = *link.borrow_and_update();
        if !now.connected {
            continue;
        }
        if now.slow_consumers != seen.slow_consumers {
            tracing::warn!("the bus dropped messages because this replica was too slow");
            metrics::counter!("chat_gateway_slow_consumers_total", "kind" => "bus")
                .increment(now.slow_consumers - seen.slow_consumers);
        }
        if lost && now.generation == seen.generation && now.slow_consumers == seen.slow_consumers {
            continue;
        }
        seen = now;
        let compared = repair.compare().await;
        pause = if compared {
            spread(interval)
        } else {
            backoff.next_pause()
        };
        if compared {
            backoff.reset();
        }
    }
}

impl Repair {
    /// False when a query got no reply.
    async fn compare(&self) -> bool {
        let mut answered = true;
        let conversations = self.rooms.followed();
        for chunk in conversations.chunks(CHUNK) {
            let request = GetHeads {
                conversation_ids: chunk.iter().map(ToString::to_string).collect(),
                user_ids: Vec::new(),
            };
            match self.backend.heads(None, request).await {
                Ok(heads) => self.rooms.check(&heads.epoch, heads.heads),
                Err(_) => answered = false,
            }
        }
        for chunk in self.users.connected().chunks(CHUNK) {
            let request = GetHeads {
                conversation_ids: Vec::new(),
                user_ids: chunk.to_vec(),
            };
            match self.backend.heads(None, request).await {
                Ok(heads) => self.users.check(heads.users),
                Err(_) => answered = false,
            }
        }
        answered
    }
}

/// Compares each room once more a moment after it began, many together and again until there is an answer, until `stop`:
/// interest spreads between the servers of a NATS cluster with delay. What happens in the rooms does not wait for it.
///
/// # Errors
/// Never.
pub async fn look_again(repair: Repair, mut begun: Begun, stop: CancellationToken) -> anyhow::Result<()> {
    let mut rooms = Vec::new();
    while let Some(1..) = stop.run_until_cancelled(begun.recv_many(&mut rooms, CHUNK)).await {
        // The last of them began last.
        let due = rooms.last().map(|(at, _)| *at + SECOND_LOOK);
        let due = due.unwrap_or_else(Instant::now);
        let ids: Vec<_> = rooms.drain(..).map(|(_, id)| id.to_string()).collect();
        let asked = async {
            tokio::time::sleep_until(due).await;
            let mut backoff = Backoff::new(RETRIES.0, RETRIES.1);
            loop {
                let request = GetHeads {
                    conversation_ids: ids.clone(),
                    user_ids: Vec::new(),
                };
                match repair.backend.heads(None, request).await {
                    Ok(heads) => break repair.rooms.check(&heads.epoch, heads.heads),
                    // The regular comparison finds what is missing.
                    Err(error) if !error.retry => break,
                    Err(_) => backoff.pause().await,
                }
            }
        };
        if stop.run_until_cancelled(asked).await.is_none() {
            break;
        }
    }
    Ok(())
}

/// Within a quarter around the interval, so that replicas do not ask in step.
fn spread(interval: Duration) -> Duration {
    let random = f64::from(u16::from_be_bytes([
        new_id().as_bytes()[14],
        new_id().as_bytes()[15],
    ])) / f64::from(u16::MAX);
    interval.mul_f64(0.875 + random / 4.0)
}
