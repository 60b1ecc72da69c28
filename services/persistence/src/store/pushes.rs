//! Who is to be reached otherwise than by a connection.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::seq_to;

/// A message to look recipients up for.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where.
    pub conversation: Uuid,
    /// Which.
    pub seq: u64,
    /// By whom.
    pub sender: String,
}

/// Somebody a message is for who neither got nor read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub user_id: String,
    /// The latest report of a gateway at which the user has a connection; `None` without one.
    pub heard_at: Option<DateTime<Utc>>,
}

/// Those each message is for, by its place in `messages`, in the order of their ids.
///
/// # Errors
/// Of the database.
pub async fn recipients(
    connection: &mut PgConnection,
    messages: &[Sent],
) -> Result<HashMap<usize, Vec<Recipient>>, sqlx::Error> {
    let rows: Vec<(i64, String, Option<DateTime<Utc>>)> = sqlx::query_as(
        "SELECT asked.place, p.user_id,
                (SELECT max(g.renewed_at) FROM sessions s JOIN gateways g ON g.instance = s.gateway
                 WHERE s.user_id = p.user_id) AS heard_at
         FROM unnest($1::uuid[], $2::int8[], $3::text[]) WITH ORDINALITY
              AS asked (conversation_id, seq, sender, place)
         JOIN participants p ON p.conversation_id = asked.conversation_id
         WHERE p.left_seq IS NULL AND p.user_id <> asked.sender AND p.joined_seq < asked.seq
           AND p.delivered_seq < asked.seq AND NOT p.read_seqs @> asked.seq
         ORDER BY asked.place, p.user_id",
    )
    .bind(messages.iter().map(|one| one.conversation).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| seq_to(one.seq)).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| one.sender.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut all: HashMap<usize, Vec<Recipient>> = HashMap::new();
    for (place, user_id, heard_at) in rows {
        // Counted from 1.
        let place = usize::try_from(place - 1).unwrap_or_default();
        all.entry(place)
            .or_default()
            .push(Recipient { user_id, heard_at });
    }
    Ok(all)
}

/// Of those users who have a connection: the latest report of a gateway that has one.
///
/// # Errors
/// Of the database.
pub async fn heard(
    connection: &mut PgConnection,
    users: Vec<String>,
) -> Result<HashMap<String, DateTime<Utc>>, sqlx::Error> {
    let rows: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT s.user_id, max(g.renewed_at) FROM sessions s JOIN gateways g ON g.instance = s.gateway
         WHERE s.user_id = ANY($1) GROUP BY s.user_id",
    )
    .bind(users)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// A conversation's kind, number and title.
pub type Named = (i16, i64, String);

/// What conversations are called.
///
/// # Errors
/// Of the database.
pub async fn names(
    connection: &mut PgConnection,
    conversations: &[Uuid],
) -> Result<HashMap<Uuid, Named>, sqlx::Error> {
    let rows: Vec<(Uuid, i16, i64, String)> = sqlx::query_as(
        "SELECT conversation_id, kind, number, title FROM conversations
         WHERE conversation_id = ANY($1) AND deleted_at IS NULL",
    )
    .bind(conversations)
    .fetch_all(connection)
    .await?;
    let named = |(id, kind, number, title)| (id, (kind, number, title));
    Ok(rows.into_iter().map(named).collect())
}
