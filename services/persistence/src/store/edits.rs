//! Earlier contents of messages.

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;

use super::{from_millis, millis, seq_from, seq_to};
use crate::model::state::Effects;

/// At most `limit` earlier contents of a message that were replaced after a seq, oldest first, with the seqs of the
/// edits that replaced them.
///
/// # Errors
/// Of the database.
pub async fn of(
    connection: &mut PgConnection,
    conversation: ConversationId,
    message_seq: u64,
    after: u64,
    limit: i64,
) -> Result<Vec<(u64, v1::Edit)>, sqlx::Error> {
    let rows: Vec<(i64, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT edit_seq, content, at FROM message_edits
         WHERE conversation_id = $1 AND message_seq = $2 AND edit_seq > $3 ORDER BY edit_seq LIMIT $4",
    )
    .bind(conversation.uuid())
    .bind(seq_to(message_seq))
    .bind(seq_to(after))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(seq, content, at)| {
            let at_ms = millis(at);
            Ok((seq_from(seq)?, v1::Edit { content, at_ms }))
        })
        .collect()
}

/// Keeps what was replaced, and empties what belongs to deleted messages.
///
/// # Errors
/// Of the database.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let edits = &effects.edits;
    if !edits.is_empty() {
        sqlx::query(
            "INSERT INTO message_edits (conversation_id, message_seq, edit_seq, content, at)
             SELECT conversation_id, message_seq, edit_seq, content, at
             FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::text[], $5::timestamptz[])
                  AS new (conversation_id, message_seq, edit_seq, content, at)",
        )
        .bind(
            edits
                .iter()
                .map(|edit| edit.conversation.uuid())
                .collect::<Vec<_>>(),
        )
        .bind(
            edits
                .iter()
                .map(|edit| seq_to(edit.message_seq))
                .collect::<Vec<_>>(),
        )
        .bind(edits.iter().map(|edit| seq_to(edit.edit_seq)).collect::<Vec<_>>())
        .bind(edits.iter().map(|edit| edit.content.as_str()).collect::<Vec<_>>())
        .bind(
            edits
                .iter()
                .map(|edit| from_millis(edit.at_ms))
                .collect::<Vec<_>>(),
        )
        .execute(&mut *connection)
        .await?;
    }
    if !effects.scrubbed.is_empty() {
        sqlx::query(
            "UPDATE message_edits e SET content = ''
             FROM unnest($1::uuid[], $2::int8[]) AS gone (conversation_id, message_seq)
             WHERE e.conversation_id = gone.conversation_id AND e.message_seq = gone.message_seq",
        )
        .bind(
            effects
                .scrubbed
                .iter()
                .map(|(id, _)| id.uuid())
                .collect::<Vec<_>>(),
        )
        .bind(
            effects
                .scrubbed
                .iter()
                .map(|(_, seq)| seq_to(*seq))
                .collect::<Vec<_>>(),
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}
