//! Who is to be reached otherwise than by a connection.

use std::collections::{BTreeMap, HashMap};

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

/// Where to go on in a list of recipients; the default is before the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct After {
    /// Counted from 1.
    place: i64,
    user_id: String,
}

/// A part of those messages are to be pushed to.
#[derive(Debug, Default)]
pub struct Recipients {
    /// By the places of the messages among those asked about, ascending, in the order of their ids.
    pub recipients: BTreeMap<usize, Vec<String>>,
    /// Where more come; `None` where these are the last.
    pub next: Option<After>,
}

/// Those each message is for who neither got nor read it, have no connection and did not mute the conversation, at most
/// `limit` at once. Each member's connections are looked up once, however many messages of the conversation are asked
/// about.
///
/// # Errors
/// Of the database.
pub async fn recipients(
    connection: &mut PgConnection,
    messages: &[Sent],
    after: &After,
    limit: i64,
) -> Result<Recipients, sqlx::Error> {
    // One session of each is looked up by its user: a plan made while nobody was connected would else read all sessions, once
    // for each member.
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::uuid[], $2::int8[], $3::text[]) WITH ORDINALITY
                           AS asked (conversation_id, seq, sender, place)),
         absent AS MATERIALIZED (
             SELECT p.conversation_id, p.user_id, p.joined_seq, p.delivered_seq, p.read_seqs
             FROM (SELECT conversation_id, max(seq) AS seq FROM asked GROUP BY conversation_id) AS latest
             CROSS JOIN LATERAL (SELECT * FROM participants x
                                 WHERE x.conversation_id = latest.conversation_id AND x.left_seq IS NULL
                                   AND x.delivered_seq < latest.seq
                                   AND coalesce(x.muted_until, '-infinity') <= now() OFFSET 0) AS p
             WHERE (SELECT s.session FROM sessions s WHERE s.user_id = p.user_id LIMIT 1) IS NULL)
         SELECT asked.place, m.user_id
         FROM asked JOIN absent m ON m.conversation_id = asked.conversation_id
         WHERE m.user_id <> asked.sender AND m.joined_seq < asked.seq AND m.delivered_seq < asked.seq
           AND NOT m.read_seqs @> asked.seq AND (asked.place, m.user_id) > ($4, $5)
         ORDER BY asked.place, m.user_id LIMIT $6",
    )
    .bind(messages.iter().map(|one| one.conversation).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| seq_to(one.seq)).collect::<Vec<_>>())
    .bind(messages.iter().map(|one| one.sender.as_str()).collect::<Vec<_>>())
    .bind(after.place)
    .bind(&after.user_id)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|found| found >= limit);
    let last = rows.last().filter(|_| is_full);
    let next = last.map(|(place, user_id)| After {
        place: *place,
        user_id: user_id.clone(),
    });
    let mut recipients: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (place, user_id) in rows {
        let place = usize::try_from(place - 1).unwrap_or_default();
        recipients.entry(place).or_default().push(user_id);
    }
    Ok(Recipients { recipients, next })
}

/// After this moment every gateway was heard of that is not given up: its clients were emitted what was committed before.
///
/// # Errors
/// Of the database.
pub async fn all_heard_at(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    // The mark of this life of the table is later than all times.
    sqlx::query_scalar(
        "SELECT coalesce(min(renewed_at), now()) FROM gateways WHERE lost_at IS NULL AND isfinite(renewed_at)",
    )
    .fetch_one(connection)
    .await
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
