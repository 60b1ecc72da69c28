//! What the feed `EVENTS` lacks: per conversation, up to where it surely has everything.

use std::collections::HashMap;

use parlance_proto::ConversationId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{seq_from, seq_to};
use crate::model::position::Position;

/// A conversation of which the feed lacks events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Which.
    pub conversation: ConversationId,
    /// The feed has everything up to here.
    pub after: Position,
}

/// How far the feed is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lag {
    /// Conversations of which it lacks events.
    pub conversations: i64,
    /// Age of the oldest gap.
    pub seconds: f64,
}

/// Which of these conversations the feed lacks events of. To be asked under their locks: what the feed gets directly
/// must come after what it lacks.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<ConversationId, Position>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "SELECT conversation_id, after_seq, after_receipts FROM feed_backlog WHERE conversation_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, seq, receipts)| Ok((ConversationId::from_uuid(id), position(seq, receipts)?)))
        .collect()
}

/// Notes that the feed may lack everything after these positions. One that is noted already keeps the lower one.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn record(connection: &mut PgConnection, backlog: &[(u16, Backlog)]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO feed_backlog AS f (conversation_id, partition, after_seq, after_receipts)
         SELECT conversation_id, partition, after_seq, after_receipts
         FROM unnest($1::uuid[], $2::int4[], $3::int8[], $4::int8[])
              AS new (conversation_id, partition, after_seq, after_receipts) ORDER BY conversation_id
         ON CONFLICT (conversation_id) DO UPDATE
         SET partition = excluded.partition, after_seq = least(f.after_seq, excluded.after_seq),
             after_receipts = least(f.after_receipts, excluded.after_receipts)",
    )
    .bind(
        backlog
            .iter()
            .map(|(_, b)| b.conversation.uuid())
            .collect::<Vec<_>>(),
    )
    .bind(
        backlog
            .iter()
            .map(|(partition, _)| i32::from(*partition))
            .collect::<Vec<_>>(),
    )
    .bind(
        backlog
            .iter()
            .map(|(_, b)| seq_to(b.after.seq))
            .collect::<Vec<_>>(),
    )
    .bind(
        backlog
            .iter()
            .map(|(_, b)| seq_to(b.after.receipts))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Of these partitions the conversations that wait longest.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn oldest(
    connection: &mut PgConnection,
    partitions: &[i32],
    limit: i64,
) -> Result<Vec<Backlog>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "SELECT conversation_id, after_seq, after_receipts FROM feed_backlog
         WHERE partition = ANY($1) ORDER BY since LIMIT $2",
    )
    .bind(partitions)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, seq, receipts)| {
            Ok(Backlog {
                conversation: ConversationId::from_uuid(id),
                after: position(seq, receipts)?,
            })
        })
        .collect()
}

/// How far the feed is behind in these partitions.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn lag(connection: &mut PgConnection, partitions: &[i32]) -> Result<Lag, sqlx::Error> {
    let (conversations, seconds): (i64, Option<f64>) = sqlx::query_as(
        "SELECT count(*), extract(epoch FROM now() - min(since))::float8
         FROM feed_backlog WHERE partition = ANY($1)",
    )
    .bind(partitions)
    .fetch_one(connection)
    .await?;
    Ok(Lag {
        conversations,
        seconds: seconds.unwrap_or_default(),
    })
}

/// The latest event of a conversation, which is locked until the transaction ends if `lock`; `None` where there is none.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn head(
    connection: &mut PgConnection,
    conversation: ConversationId,
    lock: bool,
) -> Result<Option<Position>, sqlx::Error> {
    let query = if lock {
        "SELECT head_seq, receipts_version FROM conversations WHERE conversation_id = $1 FOR NO KEY UPDATE"
    } else {
        "SELECT head_seq, receipts_version FROM conversations WHERE conversation_id = $1"
    };
    let row: Option<(i64, i64)> = sqlx::query_as(query)
        .bind(conversation.uuid())
        .fetch_optional(connection)
        .await?;
    row.map(|(seq, receipts)| position(seq, receipts)).transpose()
}

/// Moves a gap forward, unless it was moved back meanwhile. Whether it was moved.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn advance(
    connection: &mut PgConnection,
    backlog: &Backlog,
    to: Position,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE feed_backlog SET after_seq = $4, after_receipts = $5
         WHERE conversation_id = $1 AND after_seq = $2 AND after_receipts = $3",
    )
    .bind(backlog.conversation.uuid())
    .bind(seq_to(backlog.after.seq))
    .bind(seq_to(backlog.after.receipts))
    .bind(seq_to(to.seq))
    .bind(seq_to(to.receipts))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets a gap that is closed, unless it was moved back meanwhile. Whether it was forgotten.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn close(connection: &mut PgConnection, backlog: &Backlog) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM feed_backlog WHERE conversation_id = $1 AND after_seq = $2 AND after_receipts = $3",
    )
    .bind(backlog.conversation.uuid())
    .bind(seq_to(backlog.after.seq))
    .bind(seq_to(backlog.after.receipts))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

fn position(seq: i64, receipts: i64) -> Result<Position, sqlx::Error> {
    Ok(Position {
        seq: seq_from(seq)?,
        receipts: seq_from(receipts)?,
    })
}
