//! Pushes that nobody acknowledged: kept for an operator, counted, and taken out of the stream.

use parlance_bus::Bus;
use parlance_bus::push::Fed;
use parlance_proto::v1::ErrorCode;
use serde::Deserialize;
use uuid::Uuid;

use super::Interrupted;
use crate::database::Database;
use crate::dead_letters;
use crate::store::dead_letters::DeadLetter;

/// What the server says of a message that it does not hand out any more.
#[derive(Deserialize)]
struct GivenUp {
    stream_seq: u64,
    deliveries: u64,
}

/// Parks the push that this is about.
pub(super) async fn park(bus: &Bus, database: &Database, word: &Fed) -> Result<(), Interrupted> {
    let Ok(given_up) = serde_json::from_slice::<GivenUp>(&word.payload) else {
        tracing::error!("NATS said something else than expected of a push; is it of another version?");
        word.ack().await;
        return Ok(());
    };
    let GivenUp {
        stream_seq,
        deliveries,
    } = given_up;
    // Too old by now, or parked by whoever did not live to acknowledge it.
    if let Some((subject, payload)) = bus.push_at(stream_seq).await? {
        let letter = DeadLetter {
            id: letter_id(stream_seq, &payload),
            partition: None,
            subject,
            command_id: None,
            payload: payload.to_vec(),
            code: ErrorCode::Unavailable,
            error: format!("no service acknowledged the push after {deliveries} attempts"),
        };
        dead_letters::park(database, &letter).await;
        bus.delete_push(stream_seq).await?;
        metrics::counter!("chat_push_parked_total").increment(1);
    }
    word.ack().await;
    Ok(())
}

/// The same for every repeat.
fn letter_id(stream_seq: u64, payload: &[u8]) -> Uuid {
    let mut name = format!("push {stream_seq}\n").into_bytes();
    name.extend_from_slice(payload);
    Uuid::new_v5(&Uuid::NAMESPACE_URL, &name)
}
