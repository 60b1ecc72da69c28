//! Messages whose text streams in, as the intake looks at them: how much of the text is stored, and which are open.

use std::collections::HashMap;

use parlance_proto::v1::{self, StreamState};
use parlance_proto::{ConversationId, MessageId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, seq_from};

/// A message of a conversation.
pub type Key = (ConversationId, MessageId);

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place.
    pub seq: u64,
    /// Who sent it.
    pub sender_id: String,
    /// As clients show them.
    pub sender_name: String,
    /// The number of their kind.
    pub sender_kind: i16,
    /// Bytes of its text.
    pub bytes: u64,
    /// Whether, and how far, it streams.
    pub state: StreamState,
    /// Nothing of it is left.
    pub deleted: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    conversation_id: Uuid,
    message_id: Uuid,
    seq: i64,
    sender_id: String,
    sender_name: String,
    sender_kind: i16,
    bytes: i64,
    stream: Option<i16>,
    deleted: bool,
}

macro_rules! columns {
    () => {
        "m.conversation_id, m.message_id, m.seq, m.sender_id, coalesce(m.sender_name, m.sender_id) AS sender_name,
         m.sender_kind, octet_length(m.content)::int8 AS bytes, m.stream,
         m.deleted_at IS NOT NULL OR c.deleted_at IS NOT NULL OR m.seq <= c.history_from AS deleted"
    };
}

impl TryFrom<Row> for (Key, Stored) {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let Row {
            conversation_id,
            message_id,
            seq,
            sender_id,
            sender_name,
            sender_kind,
            bytes,
            stream,
            deleted,
        } = row;
        let key = (
            ConversationId::from_uuid(conversation_id),
            MessageId::from_uuid(message_id),
        );
        let state = StreamState::try_from(i32::from(stream.unwrap_or_default()));
        let stored = Stored {
            seq: seq_from(seq)?,
            sender_id,
            sender_name,
            sender_kind,
            bytes: seq_from(bytes)?,
            state: state.map_err(|_| corrupt("the state of a stream"))?,
            deleted,
        };
        Ok((key, stored))
    }
}

/// Those of these messages that are stored.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn look(connection: &mut PgConnection, keys: &[Key]) -> Result<HashMap<Key, Stored>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, message_id)
          CROSS JOIN LATERAL (SELECT * FROM messages x WHERE x.conversation_id = asked.conversation_id
                              AND x.message_id = asked.message_id LIMIT 1) AS m
          JOIN conversations c ON c.conversation_id = asked.conversation_id"
    ))
    .bind(keys.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, id)| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The open ones, at most `limit`.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn open(connection: &mut PgConnection, limit: i64) -> Result<HashMap<Key, Stored>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM (SELECT * FROM open_streams LIMIT $1) AS asked
          CROSS JOIN LATERAL (SELECT * FROM messages x WHERE x.conversation_id = asked.conversation_id
                              AND x.message_id = asked.message_id LIMIT 1) AS m
          JOIN conversations c ON c.conversation_id = asked.conversation_id"
    ))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Of these new messages, notes those that stream.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub(super) async fn opened(
    connection: &mut PgConnection,
    messages: &[&v1::Message],
) -> Result<(), sqlx::Error> {
    let keys = keys(messages, |state| state == StreamState::Open)?;
    if keys.0.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO open_streams (conversation_id, message_id)
         SELECT conversation_id, message_id FROM unnest($1::uuid[], $2::uuid[]) AS new (conversation_id, message_id)
         ON CONFLICT DO NOTHING",
    )
    .bind(keys.0)
    .bind(keys.1)
    .execute(connection)
    .await?;
    Ok(())
}

/// Of these changed messages, forgets those that have ended.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub(super) async fn ended(
    connection: &mut PgConnection,
    messages: &[&v1::Message],
) -> Result<(), sqlx::Error> {
    let keys = keys(messages, |state| {
        !matches!(state, StreamState::Unspecified | StreamState::Open)
    })?;
    if keys.0.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM open_streams s USING unnest($1::uuid[], $2::uuid[]) AS ended (conversation_id, message_id)
         WHERE s.conversation_id = ended.conversation_id AND s.message_id = ended.message_id",
    )
    .bind(keys.0)
    .bind(keys.1)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets an open one of a conversation that is gone.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn forget(connection: &mut PgConnection, keys: &[Key]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM open_streams s USING unnest($1::uuid[], $2::uuid[]) AS gone (conversation_id, message_id)
         WHERE s.conversation_id = gone.conversation_id AND s.message_id = gone.message_id",
    )
    .bind(keys.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, id)| id.uuid()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

fn keys(
    messages: &[&v1::Message],
    which: impl Fn(StreamState) -> bool,
) -> Result<(Vec<Uuid>, Vec<Uuid>), sqlx::Error> {
    messages
        .iter()
        .filter(|message| which(message.stream()))
        .map(|message| {
            let id = |text: &str| Uuid::try_parse(text).map_err(|_| corrupt("a message without valid ids"));
            Ok((id(&message.conversation_id)?, id(&message.id)?))
        })
        .collect()
}
