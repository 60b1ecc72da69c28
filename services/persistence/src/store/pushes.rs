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
    /// When.
    pub sent_at: DateTime<Utc>,
}

/// Somebody a message is for who neither got nor read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub user_id: String,
    /// The latest report of a gateway at which the user has a connection; `None` without one.
    pub heard_at: Option<DateTime<Utc>>,
}

/// Those each message is for who perhaps got it by no connection, by its place in `messages`, in the order of their ids:
/// those whose gateway was heard of since the message did. Each member's connections are looked up once, however many
/// messages of the conversation are asked about.
///
/// # Errors
/// Of the database.
pub async fn recipients(
    connection: &mut PgConnection,
    messages: &[Sent],
) -> Result<HashMap<usize, Vec<Recipient>>, sqlx::Error> {
    let rows: Vec<(i64, String, Option<DateTime<Utc>>)> = sqlx::query_as(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::timestamptz[]) WITH ORDINALITY
                           AS asked (conversation_id, seq, sender, sent_at, place)),
         members AS MATERIALIZED (
             SELECT p.conversation_id, p.user_id, p.joined_seq, p.delivered_seq, p.read_seqs, s.heard_at
             FROM (SELECT conversation_id, max(seq) AS seq FROM asked GROUP BY conversation_id) AS latest
             CROSS JOIN LATERAL (SELECT * FROM participants x
                                 WHERE x.conversation_id = latest.conversation_id AND x.left_seq IS NULL
                                   AND x.delivered_seq < latest.seq OFFSET 0) AS p
             CROSS JOIN LATERAL (SELECT max(g.renewed_at) AS heard_at
                                 FROM sessions s JOIN gateways g ON g.instance = s.gateway
                                 WHERE s.user_id = p.user_id) AS s)
         SELECT asked.place, m.user_id, m.heard_at
         FROM asked JOIN members m ON m.conversation_id = asked.conversation_id
         WHERE m.user_id <> asked.sender AND m.joined_seq < asked.seq AND m.delivered_seq < asked.seq
           AND (m.heard_at IS NULL OR m.heard_at < asked.sent_at) AND NOT m.read_seqs @> asked.seq
         ORDER BY asked.place, m.user_id",
    )
    .bind(messages.iter().map(|one| one.conversation).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| seq_to(one.seq)).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| one.sender.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| one.sent_at).collect::<Vec<_>>())
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
