//! What users do not want to see any more.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::seq_to;
use crate::model::state::Effects;

/// Those of these messages that the viewer hid, by conversation and seq.
///
/// # Errors
/// Of the database.
pub async fn among(
    connection: &mut PgConnection,
    viewer: &str,
    places: &[(Uuid, i64)],
) -> Result<HashSet<(Uuid, i64)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT h.conversation_id, h.message_seq
         FROM unnest($2::uuid[], $3::int8[]) AS asked (conversation_id, message_seq)
         CROSS JOIN LATERAL
              (SELECT x.conversation_id, x.message_seq FROM hidden_messages x
               WHERE x.conversation_id = asked.conversation_id AND x.user_id = $1
                 AND x.message_seq = asked.message_seq LIMIT 1) AS h",
    )
    .bind(viewer)
    .bind(places.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(places.iter().map(|(_, seq)| *seq).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
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
