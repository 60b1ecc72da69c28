//! What users do not want to see any more.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{seq_from, seq_to};
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

/// Messages of a conversation, for one of its users.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    /// Where.
    pub conversation: Uuid,
    /// To whom.
    pub viewer: &'a str,
    /// The first and the last of them, by their seqs.
    pub between: (u64, u64),
}

/// What of these their viewers hid: the place among those asked about, and the seq of the message.
///
/// # Errors
/// Of the database.
pub async fn of_each(
    connection: &mut PgConnection,
    shown: &[Shown<'_>],
) -> Result<Vec<(usize, u64)>, sqlx::Error> {
    if shown.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT asked.place, h.message_seq
         FROM unnest($1::uuid[], $2::text[], $3::int8[], $4::int8[]) WITH ORDINALITY
              AS asked (conversation_id, user_id, first, last, place)
         CROSS JOIN LATERAL
              (SELECT x.message_seq FROM hidden_messages x
               WHERE x.conversation_id = asked.conversation_id AND x.user_id = asked.user_id
                 AND x.message_seq BETWEEN asked.first AND asked.last OFFSET 0) AS h",
    )
    .bind(shown.iter().map(|one| one.conversation).collect::<Vec<_>>())
    .bind(shown.iter().map(|one| one.viewer).collect::<Vec<_>>())
    .bind(shown.iter().map(|one| seq_to(one.between.0)).collect::<Vec<_>>())
    .bind(shown.iter().map(|one| seq_to(one.between.1)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        // Counted from 1.
        .map(|(place, seq)| Ok((usize::try_from(place - 1).unwrap_or(usize::MAX), seq_from(seq)?)))
        .collect()
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
