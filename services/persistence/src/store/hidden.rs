//! What users do not want to see any more.

use std::collections::HashSet;

use parlance_proto::ConversationId;
use sqlx::PgConnection;

use super::{seq_from, seq_to};
use crate::ingest::state::Effects;

/// The places of those messages that the viewer hid, among these.
///
/// # Errors
/// Of the database.
pub async fn among(
    connection: &mut PgConnection,
    conversation: ConversationId,
    viewer: &str,
    seqs: &[u64],
) -> Result<HashSet<u64>, sqlx::Error> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT message_seq FROM hidden_messages
         WHERE conversation_id = $1 AND user_id = $2 AND message_seq = ANY($3)",
    )
    .bind(conversation.uuid())
    .bind(viewer)
    .bind(seqs.iter().map(|&seq| seq_to(seq)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(seq_from).collect()
}

/// Hides messages; again is harmless.
///
/// # Errors
/// Of the database.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let hidden = &effects.hidden;
    if hidden.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO hidden_messages (conversation_id, user_id, message_seq)
         SELECT conversation_id, user_id, message_seq
         FROM unnest($1::uuid[], $2::text[], $3::int8[]) AS new (conversation_id, user_id, message_seq)
         ON CONFLICT DO NOTHING",
    )
    .bind(hidden.iter().map(|(id, _, _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        hidden
            .iter()
            .map(|(_, user, _)| user.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(hidden.iter().map(|(_, _, seq)| seq_to(*seq)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
