//! Anti-entropy: compares every followed conversation and connected user with the database, regularly and
//! after every loss the bus reports. This finds what no hole in a sequence can show: that the last event
//! is missing.

use std::time::Duration;

use parlance_bus::{Bus, faults};
use parlance_proto::v1::GetHeads;
use parlance_runtime::backoff::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::Shared;
use crate::rooms::Begun;

/// Pause before a comparison that got no answer is made again: after a restart of NATS this replica may be
/// back before persistence is.
const RETRY: Duration = Duration::from_millis(500);
/// Ids in one question; the answer stays well below a bus message.
const CHUNK: usize = 2_000;
/// How long after a room began it is compared once more.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Longest pause before that is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// Runs until `stop`.
///
/// # Errors
/// Never.
pub async fn run(
    shared: Shared,
    bus: Bus,
    interval: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut link = bus.link();
    let mut seen = *link.borrow_and_update();
    let mut pause = spread(interval);
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
        let compared = compare(&shared).await;
        pause = if compared { spread(interval) } else { RETRY };
    }
}

/// False when a question got no answer.
async fn compare(shared: &Shared) -> bool {
    if faults::happens("no_heads_check") {
        return true;
    }
    let mut answered = true;
    let conversations = shared.rooms.followed();
    for chunk in conversations.chunks(CHUNK) {
        let request = GetHeads {
            conversation_ids: chunk.iter().map(ToString::to_string).collect(),
            user_ids: Vec::new(),
        };
        match shared.backend.heads(None, request).await {
            Ok(heads) => shared.rooms.check(&heads.epoch, heads.heads),
            Err(_) => answered = false,
        }
    }
    for chunk in shared.users.connected().chunks(CHUNK) {
        let request = GetHeads {
            conversation_ids: Vec::new(),
            user_ids: chunk.to_vec(),
        };
        match shared.backend.heads(None, request).await {
            Ok(heads) => shared.users.check(heads.users),
            Err(_) => answered = false,
        }
    }
    shared.limits.forget_idle();
    shared.addresses.forget_idle();
    answered
}

/// Compares each room once more a moment after it began, many together and again until there is an answer, until `stop`:
/// interest spreads between the servers of a NATS cluster with delay. What happens in the rooms does not wait for it.
///
/// # Errors
/// Never.
pub async fn look_again(shared: Shared, mut begun: Begun, stop: CancellationToken) -> anyhow::Result<()> {
    let mut rooms = Vec::new();
    while let Some(1..) = stop.run_until_cancelled(begun.recv_many(&mut rooms, CHUNK)).await {
        // The last of them began last.
        let due = rooms.last().map(|(at, _)| *at + SECOND_LOOK);
        let due = due.unwrap_or_else(Instant::now);
        let ids: Vec<_> = rooms.drain(..).map(|(_, id)| id.to_string()).collect();
        let asked = async {
            tokio::time::sleep_until(due).await;
            let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
            loop {
                let request = GetHeads {
                    conversation_ids: ids.clone(),
                    user_ids: Vec::new(),
                };
                match shared.backend.heads(None, request).await {
                    Ok(heads) => break shared.rooms.check(&heads.epoch, heads.heads),
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
        crate::commands::new_id().as_bytes()[14],
        crate::commands::new_id().as_bytes()[15],
    ])) / f64::from(u16::MAX);
    interval.mul_f64(0.875 + random / 4.0)
}
