//! Reading conversations as their participants see them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::receipts::unread_messages;
use super::{messages, metadata_from, millis, participants, seq_from};

/// The seq of the latest message of `c` that is neither deleted nor hidden by `p`; 0 for none.
macro_rules! last_message {
    () => {
        "CASE WHEN NOT EXISTS (SELECT FROM hidden_messages h
                               WHERE h.conversation_id = c.conversation_id AND h.user_id = p.user_id
                                 AND h.message_seq = c.last_message_seq)
               AND NOT EXISTS (SELECT FROM messages d
                               WHERE d.conversation_id = c.conversation_id AND d.seq = c.last_message_seq
                                 AND d.deleted_at IS NOT NULL)
              THEN c.last_message_seq
              ELSE coalesce((SELECT m.seq FROM messages m
                             WHERE m.conversation_id = c.conversation_id AND m.seq > c.history_from
                               AND m.deleted_at IS NULL
                               AND NOT EXISTS (SELECT FROM hidden_messages h
                                               WHERE h.conversation_id = c.conversation_id
                                                 AND h.user_id = p.user_id AND h.message_seq = m.seq)
                             ORDER BY m.seq DESC LIMIT 1), 0)
         END"
    };
}

#[derive(sqlx::FromRow)]
struct ViewRow {
    viewer: String,
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    created_by: String,
    head_seq: i64,
    last_message_seq: i64,
    receipts_version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    unread: i64,
    epoch: Uuid,
    channel: i16,
    status: i16,
    metadata: String,
    delivered_seq: i64,
    open: bool,
}

#[derive(sqlx::FromRow)]
struct BareRow {
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    head_seq: i64,
    receipts_version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    created_by: String,
    channel: i16,
    status: i16,
    metadata: String,
    open: bool,
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    head_seq: i64,
    receipts_version: i64,
    history_from: i64,
    deleted: bool,
    epoch: Uuid,
}

/// The counters of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub id: ConversationId,
    /// Its number.
    pub number: i64,
    /// Direct, group or journal.
    pub kind: i32,
    /// May be empty for direct.
    pub title: String,
    /// Seq of the latest change.
    pub seq: u64,
    /// What has a seq up to this belongs to an earlier life and is hidden.
    pub history_from: u64,
    /// Gone for all.
    pub deleted: bool,
    /// Version of the latest receipt.
    pub receipts_version: u64,
    /// See `Conversation.epoch`.
    pub epoch: String,
}

/// Where a page of a list begins: below this place in (updated_at, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// Among equals.
    pub id: Uuid,
}

/// Conversations as their viewers see them, by (conversation, viewer); where the viewer does not belong to
/// the conversation, nothing.
///
/// # Errors
/// Of the database.
pub async fn views(
    connection: &mut PgConnection,
    asked: &[(ConversationId, String)],
) -> Result<HashMap<(ConversationId, String), v1::Conversation>, sqlx::Error> {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<ViewRow> = sqlx::query_as(concat!(
        "SELECT p.user_id AS viewer, c.conversation_id, c.number, c.kind, c.title, c.created_by, c.head_seq,
                ",
        last_message!(),
        " AS last_message_seq, c.receipts_version, c.created_at, c.updated_at, n.unread, e.id AS epoch,
                c.channel, c.status, c.metadata::text AS metadata, p.delivered_seq, c.open
         FROM unnest($1::uuid[], $2::text[]) AS asked (conversation_id, user_id)
         CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = asked.conversation_id
                             AND x.user_id = asked.user_id LIMIT 1) AS p
         JOIN conversations c ON c.conversation_id = asked.conversation_id
         CROSS JOIN epoch e
         CROSS JOIN ",
        unread_messages!(),
        " WHERE p.left_seq IS NULL"
    ))
    .bind(asked.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        asked
            .iter()
            .map(|(_, viewer)| viewer.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut ids: Vec<Uuid> = rows.iter().map(|row| row.conversation_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut places: Vec<(Uuid, i64)> = rows
        .iter()
        .map(|row| (row.conversation_id, row.last_message_seq))
        .filter(|&(_, seq)| seq > 0)
        .collect();
    places.sort_unstable();
    places.dedup();
    let participants = participants::of(connection, &ids).await?;
    let last: HashMap<(String, u64), v1::Message> = if places.is_empty() {
        HashMap::new()
    } else {
        let messages = messages::by_seq(connection, &places).await?;
        messages
            .into_iter()
            .map(|message| ((message.conversation_id.clone(), message.seq), message))
            .collect()
    };
    rows.into_iter()
        .map(|row| {
            let members = participants
                .get(&row.conversation_id)
                .cloned()
                .unwrap_or_default();
            let place = (row.conversation_id.to_string(), seq_from(row.last_message_seq)?);
            let last_message = last.get(&place).cloned();
            let (viewer, view) = view(row, members, last_message)?;
            let id = view.0;
            Ok(((id, viewer), view.1))
        })
        .collect()
}

type View = (ConversationId, v1::Conversation);

fn view(
    row: ViewRow,
    participants: Vec<v1::Participant>,
    last_message: Option<v1::Message>,
) -> Result<(String, View), sqlx::Error> {
    let ViewRow {
        viewer,
        conversation_id,
        number,
        kind,
        title,
        created_by,
        head_seq,
        last_message_seq: _,
        receipts_version,
        created_at,
        updated_at,
        unread,
        epoch,
        channel,
        status,
        metadata,
        delivered_seq,
        open,
    } = row;
    let conversation = v1::Conversation {
        id: conversation_id.to_string(),
        number,
        kind: kind.into(),
        title,
        participants,
        head_seq: seq_from(head_seq)?,
        epoch: epoch.to_string(),
        receipts_version: seq_from(receipts_version)?,
        unread: seq_from(unread)?,
        last_message,
        created_at_ms: millis(created_at),
        updated_at_ms: millis(updated_at),
        created_by,
        channel: channel.into(),
        status: status.into(),
        metadata_json: metadata_from(metadata),
        content: None,
        delivered_seq: seq_from(delivered_seq)?,
        open,
        served: None,
    };
    Ok((viewer, (ConversationId::from_uuid(conversation_id), conversation)))
}

/// The latest message of a conversation that is not deleted.
///
/// # Errors
/// [`sqlx::Error`] if a query fails.
pub async fn last_message(
    connection: &mut PgConnection,
    id: ConversationId,
) -> Result<Option<v1::Message>, sqlx::Error> {
    let seq: Option<i64> = sqlx::query_scalar(
        "SELECT m.seq FROM messages m JOIN conversations c USING (conversation_id)
         WHERE m.conversation_id = $1 AND m.seq > c.history_from AND m.deleted_at IS NULL
         ORDER BY m.seq DESC LIMIT 1",
    )
    .bind(id.uuid())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(seq) = seq else {
        return Ok(None);
    };
    Ok(messages::by_seq(connection, &[(id.uuid(), seq)]).await?.pop())
}

/// Conversations without participants, unread and last message.
///
/// # Errors
/// Of the database.
pub async fn bare(
    connection: &mut PgConnection,
    ids: impl Iterator<Item = ConversationId>,
    epoch: &str,
) -> Result<HashMap<ConversationId, v1::Conversation>, sqlx::Error> {
    let rows: Vec<BareRow> = sqlx::query_as(
        "SELECT conversation_id, number, kind, title, head_seq, receipts_version, created_at, updated_at, created_by,
                channel, status, metadata::text AS metadata, open
         FROM conversations WHERE conversation_id = ANY($1)",
    )
    .bind(ids.map(|id| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let conversation = v1::Conversation {
                id: row.conversation_id.to_string(),
                number: row.number,
                kind: row.kind.into(),
                title: row.title,
                head_seq: seq_from(row.head_seq)?,
                epoch: epoch.to_owned(),
                receipts_version: seq_from(row.receipts_version)?,
                created_at_ms: millis(row.created_at),
                updated_at_ms: millis(row.updated_at),
                created_by: row.created_by,
                channel: row.channel.into(),
                status: row.status.into(),
                metadata_json: metadata_from(row.metadata),
                open: row.open,
                ..Default::default()
            };
            Ok((ConversationId::from_uuid(row.conversation_id), conversation))
        })
        .collect()
}

/// Which of a user's conversations a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Their journals, or everything else.
    pub journals: bool,
    /// Only those with this status, as stored.
    pub status: Option<i16>,
    /// Only those of this channel, as stored.
    pub channel: Option<i16>,
}

/// A page of a user's conversations, latest first.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn page(
    connection: &mut PgConnection,
    user: &str,
    filter: Filter,
    below: Option<Place>,
    limit: i64,
) -> Result<Vec<ConversationId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT c.conversation_id
         FROM participants p JOIN conversations c USING (conversation_id)
         WHERE p.user_id = $1 AND p.left_seq IS NULL AND (c.kind = 3) = $5
           AND ($6::int2 IS NULL OR c.status = $6) AND ($7::int2 IS NULL OR c.channel = $7)
           AND ($2::timestamptz IS NULL OR (c.updated_at, c.conversation_id) < ($2, $3))
         ORDER BY c.updated_at DESC, c.conversation_id DESC LIMIT $4",
    )
    .bind(user)
    .bind(below.map(|place| super::from_millis(place.updated_at_ms)))
    .bind(below.map(|place| place.id))
    .bind(limit)
    .bind(filter.journals)
    .bind(filter.status)
    .bind(filter.channel)
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(ConversationId::from_uuid).collect())
}

/// The counters of those conversations that exist or were deleted; with a viewer, of those they belong to.
///
/// # Errors
/// Of the database.
pub async fn heads(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
    viewer: Option<&str>,
) -> Result<Vec<Head>, sqlx::Error> {
    let rows: Vec<HeadRow> = sqlx::query_as(
        "SELECT c.conversation_id, c.number, c.kind, c.title, c.head_seq, c.receipts_version, c.history_from,
                c.deleted_at IS NOT NULL AS deleted, e.id AS epoch
         FROM conversations c CROSS JOIN epoch e
         WHERE c.conversation_id = ANY($1)
           AND ($2::text IS NULL OR EXISTS
                (SELECT 1 FROM participants p
                 WHERE p.conversation_id = c.conversation_id AND p.user_id = $2 AND p.left_seq IS NULL))",
    )
    .bind(conversations.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(viewer)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let HeadRow {
                conversation_id,
                number,
                kind,
                title,
                head_seq,
                receipts_version,
                history_from,
                deleted,
                epoch,
            } = row;
            Ok(Head {
                id: ConversationId::from_uuid(conversation_id),
                number,
                kind: kind.into(),
                title,
                history_from: seq_from(history_from)?,
                deleted,
                seq: seq_from(head_seq)?,
                receipts_version: seq_from(receipts_version)?,
                epoch: epoch.to_string(),
            })
        })
        .collect()
}

/// The conversation with this number.
///
/// # Errors
/// Of the database.
pub async fn by_number(
    connection: &mut PgConnection,
    number: i64,
) -> Result<Option<ConversationId>, sqlx::Error> {
    let id: Option<Uuid> =
        sqlx::query_scalar("SELECT conversation_id FROM conversation_numbers WHERE number = $1")
            .bind(number)
            .fetch_optional(connection)
            .await?;
    Ok(id.map(ConversationId::from_uuid))
}
