//! What users were served: by events of their sessions, and by what they read.
//!
//! Rows are written in the order of their keys, so that writers do not block each other. A commit here need not be
//! durable, and only its own statement says so: what a crash of the database loses is served once more.

use std::collections::HashMap;
use std::time::Duration;

use chrono::TimeDelta;
use parlance_proto::{ConversationId, v1};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{from_millis, seq_from, seq_to};

/// Clients of a user whose positions are kept in a conversation: the latest ones.
const PAGES: i64 = 8;
/// How long before a client connects the history may have been read that it shows.
const BEFORE_CONNECT: TimeDelta = TimeDelta::seconds(60);

/// A user's position in a conversation.
#[derive(Debug, Clone)]
pub struct Position {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: String,
    /// Everything up to here.
    pub seq: u64,
}

/// A client's position in a conversation.
#[derive(Debug, Clone)]
pub struct ClientPosition {
    /// Its user's.
    pub position: Position,
    /// The client; empty where that is not known.
    pub page: String,
    /// When it joined, in Unix milliseconds.
    pub joined_at_ms: i64,
}

/// Clients were emitted everything up to these seqs; lower ones than before change nothing. A client that had not
/// joined before goes on from the history that was read before: that one is used up.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn reach(connection: &mut PgConnection, positions: &[ClientPosition]) -> Result<(), sqlx::Error> {
    if positions.is_empty() {
        return Ok(());
    }
    let (conversations, users, seqs) = columns(positions.iter().map(|one| &one.position));
    sqlx::query(
        "INSERT INTO served AS s (conversation_id, user_id, seq, pages, history_at)
         SELECT conversation_id, user_id, max(seq),
                coalesce(jsonb_object_agg(page, jsonb_build_array(seq, floor(extract(epoch FROM now()))))
                         FILTER (WHERE page <> ''), '{}'), max(joined_at)
         FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick,
              unnest($1::uuid[], $2::text[], $3::int8[], $4::text[], $5::timestamptz[])
              AS new (conversation_id, user_id, seq, page, joined_at)
         GROUP BY conversation_id, user_id ORDER BY conversation_id, user_id
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET
             seq = greatest(s.seq, excluded.seq),
             history_seq = CASE
                 WHEN excluded.history_at >= s.history_at
                      AND NOT s.pages ?& (SELECT coalesce(array_agg(page), '{}') FROM jsonb_object_keys(excluded.pages) AS page)
                 THEN NULL ELSE s.history_seq END,
             pages = (SELECT coalesce(jsonb_object_agg(page, jsonb_build_array(seq, at)), '{}')
                      FROM (SELECT page, max((entry ->> 0)::int8) AS seq, max((entry ->> 1)::int8) AS at
                            FROM (SELECT * FROM jsonb_each(s.pages)
                                  UNION ALL SELECT * FROM jsonb_each(excluded.pages)) AS each (page, entry)
                            GROUP BY page ORDER BY 3 DESC, 2 DESC LIMIT $6) AS latest)
         WHERE s.seq IS NULL OR s.seq < excluded.seq
            OR EXISTS (SELECT FROM jsonb_each(excluded.pages) AS new (page, entry)
                       WHERE coalesce((s.pages -> new.page ->> 0)::int8, -1) < (new.entry ->> 0)::int8)",
    )
    .bind(conversations)
    .bind(users)
    .bind(seqs)
    .bind(positions.iter().map(|one| one.page.as_str()).collect::<Vec<_>>())
    .bind(positions.iter().map(|one| from_millis(one.joined_at_ms)).collect::<Vec<_>>())
    .bind(PAGES)
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of history showed everything up to this seq, as it was read so long ago. Of two pages the one counts that was read
/// later, whichever is written last.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn show(
    connection: &mut PgConnection,
    position: &Position,
    age: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO served AS s (conversation_id, user_id, seq, history_seq, history_at)
         SELECT $1, $2, $3, $3, now() - make_interval(secs => $4) FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET
             seq = greatest(s.seq, excluded.seq),
             history_seq = CASE WHEN s.history_seq IS NOT NULL AND s.history_at > excluded.history_at
                           THEN s.history_seq ELSE excluded.history_seq END,
             history_at = CASE WHEN s.history_seq IS NOT NULL AND s.history_at > excluded.history_at
                          THEN s.history_at ELSE excluded.history_at END",
    )
    .bind(position.conversation.uuid())
    .bind(&position.user)
    .bind(seq_to(position.seq))
    .bind(age.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

/// Users were shown lists that count what is unread up to these seqs.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn list(connection: &mut PgConnection, positions: &[Position]) -> Result<(), sqlx::Error> {
    if positions.is_empty() {
        return Ok(());
    }
    let (conversations, users, seqs) = columns(positions.iter());
    sqlx::query(
        "INSERT INTO served AS s (conversation_id, user_id, listed_seq)
         SELECT conversation_id, user_id, max(seq)
         FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick,
              unnest($1::uuid[], $2::text[], $3::int8[]) AS new (conversation_id, user_id, seq)
         GROUP BY conversation_id, user_id ORDER BY conversation_id, user_id
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET listed_seq = excluded.listed_seq
         WHERE s.listed_seq < excluded.listed_seq",
    )
    .bind(conversations)
    .bind(users)
    .bind(seqs)
    .execute(connection)
    .await?;
    Ok(())
}

fn columns<'a>(positions: impl Iterator<Item = &'a Position> + Clone) -> (Vec<Uuid>, Vec<&'a str>, Vec<i64>) {
    (
        positions.clone().map(|one| one.conversation.uuid()).collect(),
        positions.clone().map(|one| one.user.as_str()).collect(),
        positions.map(|one| seq_to(one.seq)).collect(),
    )
}

/// Up to where a user was served.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of(
    connection: &mut PgConnection,
    conversation: ConversationId,
    user: &str,
) -> Result<Option<i64>, sqlx::Error> {
    let seq: Option<Option<i64>> =
        sqlx::query_scalar("SELECT seq FROM served WHERE conversation_id = $1 AND user_id = $2")
            .bind(conversation.uuid())
            .bind(user)
            .fetch_optional(connection)
            .await?;
    Ok(seq.flatten())
}

/// A client that joins a conversation.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its place among those who are asked for.
    pub place: usize,
    /// Where.
    pub conversation: ConversationId,
    /// Whose client.
    pub user: String,
    /// Which client.
    pub page: String,
    /// When it connected, in Unix milliseconds.
    pub connected_at_ms: i64,
}

/// From where on clients that join are to be served, by the place of each: the history that was read since it connected,
/// or for one that never joined just before; else what it was emitted itself; else what its user was served. None where
/// the user was served nothing.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of_clients(
    connection: &mut PgConnection,
    joining: &[Joining],
) -> Result<HashMap<usize, v1::Served>, sqlx::Error> {
    if joining.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(i64, Option<i64>, bool)> = sqlx::query_as(
        "SELECT place, coalesce(greatest(own, shown), seq), own IS NOT NULL OR shown IS NOT NULL
         FROM (SELECT a.place, s.seq, (s.pages -> a.page ->> 0)::int8 AS own,
                      CASE WHEN s.history_at >= CASE WHEN s.pages ? a.page THEN a.connected_at ELSE a.looked_at END
                           THEN s.history_seq END AS shown
               FROM unnest($1::int8[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
                    AS a (place, conversation_id, user_id, page, connected_at, looked_at)
               CROSS JOIN LATERAL (SELECT * FROM served x WHERE x.conversation_id = a.conversation_id
                                   AND x.user_id = a.user_id LIMIT 1) AS s) AS known",
    )
    .bind(joining.iter().map(|one| i64::try_from(one.place).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(joining.iter().map(|one| one.conversation.uuid()).collect::<Vec<_>>())
    .bind(joining.iter().map(|one| one.user.as_str()).collect::<Vec<_>>())
    .bind(joining.iter().map(|one| one.page.as_str()).collect::<Vec<_>>())
    .bind(joining.iter().map(|one| from_millis(one.connected_at_ms)).collect::<Vec<_>>())
    .bind(
        joining
            .iter()
            .map(|one| from_millis(one.connected_at_ms) - BEFORE_CONNECT)
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let mut served = HashMap::with_capacity(rows.len());
    for (place, seq, exact) in rows {
        if let (Ok(place), Some(seq)) = (usize::try_from(place), seq) {
            let seq = seq_from(seq)?;
            served.insert(place, v1::Served { seq, exact });
        }
    }
    Ok(served)
}

/// Up to where a client was emitted the conversations of its user: of those with greater ids than `after`, at most `max`.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of_page(
    connection: &mut PgConnection,
    user: &str,
    page: &str,
    after: Uuid,
    max: i64,
) -> Result<Vec<Position>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT s.conversation_id, (s.pages -> $2 ->> 0)::int8
         FROM participants p
         CROSS JOIN LATERAL (SELECT * FROM served x WHERE x.conversation_id = p.conversation_id
                             AND x.user_id = p.user_id LIMIT 1) AS s
         WHERE p.user_id = $1 AND p.left_seq IS NULL AND s.pages ? $2 AND p.conversation_id > $3
         ORDER BY p.conversation_id LIMIT $4",
    )
    .bind(user)
    .bind(page)
    .bind(after)
    .bind(max)
    .fetch_all(connection)
    .await?;
    let position = |(id, seq)| {
        Ok(Position {
            conversation: ConversationId::from_uuid(id),
            user: user.to_owned(),
            seq: seq_from(seq)?,
        })
    };
    rows.into_iter().map(position).collect()
}
