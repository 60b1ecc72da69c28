//! Reading conversations as their participants see them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::receipts::unread_messages;
use super::{messages, millis, seq_from};

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
}

#[derive(sqlx::FromRow)]
struct ParticipantRow {
    conversation_id: Uuid,
    user_id: String,
    username: String,
    role: i16,
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    conversation_id: Uuid,
    number: i64,
    head_seq: i64,
    receipts_version: i64,
    epoch: Uuid,
}

/// The counters of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub id: ConversationId,
    /// Its number.
    pub number: i64,
    /// Seq of the latest change.
    pub seq: u64,
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
                c.last_message_seq, c.receipts_version, c.created_at, c.updated_at, n.unread, e.id AS epoch
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
    let participants = participants(connection, &ids).await?;
    let last: HashMap<String, v1::Message> = if places.is_empty() {
        HashMap::new()
    } else {
        let messages = messages::by_seq(connection, &places).await?;
        messages
            .into_iter()
            .map(|message| (message.conversation_id.clone(), message))
            .collect()
    };
    rows.into_iter()
        .map(|row| {
            let members = participants
                .get(&row.conversation_id)
                .cloned()
                .unwrap_or_default();
            let last_message = last.get(&row.conversation_id.to_string()).cloned();
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
    };
    Ok((viewer, (ConversationId::from_uuid(conversation_id), conversation)))
}

/// The current participants of conversations, in the order of their ids.
///
/// # Errors
/// Of the database.
pub async fn participants(
    connection: &mut PgConnection,
    conversations: &[Uuid],
) -> Result<HashMap<Uuid, Vec<v1::Participant>>, sqlx::Error> {
    let rows: Vec<ParticipantRow> = sqlx::query_as(
        "SELECT p.conversation_id, p.user_id, u.username, p.role
         FROM participants p JOIN users u USING (user_id)
         WHERE p.conversation_id = ANY($1) AND p.left_seq IS NULL
         ORDER BY p.conversation_id, p.user_id",
    )
    .bind(conversations)
    .fetch_all(connection)
    .await?;
    let mut all: HashMap<Uuid, Vec<v1::Participant>> = HashMap::new();
    for ParticipantRow {
        conversation_id,
        user_id,
        username,
        role,
    } in rows
    {
        let participant = v1::Participant {
            user_id,
            username,
            role: role.into(),
        };
        all.entry(conversation_id).or_default().push(participant);
    }
    Ok(all)
}

/// A page of a user's conversations, latest first.
///
/// # Errors
/// Of the database.
pub async fn page(
    connection: &mut PgConnection,
    user: &str,
    below: Option<Place>,
    limit: i64,
) -> Result<Vec<ConversationId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT c.conversation_id
         FROM participants p JOIN conversations c USING (conversation_id)
         WHERE p.user_id = $1 AND p.left_seq IS NULL
           AND ($2::timestamptz IS NULL OR (c.updated_at, c.conversation_id) < ($2, $3))
         ORDER BY c.updated_at DESC, c.conversation_id DESC LIMIT $4",
    )
    .bind(user)
    .bind(below.map(|place| super::from_millis(place.updated_at_ms)))
    .bind(below.map(|place| place.id))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(ConversationId::from_uuid).collect())
}

/// The counters of those conversations that exist; with a viewer, of those they belong to.
///
/// # Errors
/// Of the database.
pub async fn heads(
    connection: &mut PgConnection,
    conversations: &[ConversationId],
    viewer: Option<&str>,
) -> Result<Vec<Head>, sqlx::Error> {
    let rows: Vec<HeadRow> = sqlx::query_as(
        "SELECT c.conversation_id, c.number, c.head_seq, c.receipts_version, e.id AS epoch
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
                head_seq,
                receipts_version,
                epoch,
            } = row;
            Ok(Head {
                id: ConversationId::from_uuid(conversation_id),
                number,
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
