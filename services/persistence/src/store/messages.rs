//! Reading messages. Their stored form becomes the wire form here and nowhere else.

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use parlance_proto::{ConversationId, MessageId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{from_millis, millis, seq_from, seq_to};

/// The columns of [`MessageRow`] out of `messages m`, `conversations c` and `users u`.
macro_rules! message_columns {
    () => {
        "m.conversation_id, c.number AS conversation_number, m.seq, m.message_id, m.sender_id, m.sender_kind,
         coalesce(m.sender_name, u.username, m.sender_id) AS sender_name, m.type AS message_type, m.content,
         m.metadata::text AS metadata, m.client_msg_id, m.reply_to, m.created_at, m.edited_at, m.deleted_at"
    };
}
pub(super) use message_columns;

/// A stored message with what stands in other tables.
#[derive(sqlx::FromRow)]
pub(super) struct MessageRow {
    conversation_id: Uuid,
    conversation_number: i64,
    seq: i64,
    message_id: Uuid,
    sender_id: String,
    sender_kind: i16,
    sender_name: String,
    message_type: i16,
    content: String,
    metadata: String,
    client_msg_id: Option<String>,
    reply_to: Option<Uuid>,
    created_at: DateTime<Utc>,
    edited_at: Option<DateTime<Utc>>,
    deleted_at: Option<DateTime<Utc>>,
}

/// Which messages of a conversation, by seq, bounds excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The latest below this seq.
    Before(u64),
    /// The earliest above this seq.
    After(u64),
}

impl TryFrom<MessageRow> for v1::Message {
    type Error = sqlx::Error;

    fn try_from(row: MessageRow) -> Result<Self, sqlx::Error> {
        let MessageRow {
            conversation_id,
            conversation_number,
            seq,
            message_id,
            sender_id,
            sender_kind,
            sender_name,
            message_type,
            content,
            metadata,
            client_msg_id,
            reply_to,
            created_at,
            edited_at,
            deleted_at,
        } = row;
        Ok(Self {
            id: message_id.to_string(),
            conversation_id: conversation_id.to_string(),
            conversation_number,
            seq: seq_from(seq)?,
            sender: Some(v1::Sender {
                id: sender_id,
                username: sender_name,
                kind: sender_kind.into(),
            }),
            r#type: message_type.into(),
            content,
            metadata_json: if metadata == "{}" { String::new() } else { metadata },
            client_msg_id,
            reply_to: reply_to.map(|id| id.to_string()),
            created_at_ms: millis(created_at),
            edited_at_ms: edited_at.map(millis),
            deleted_at_ms: deleted_at.map(millis),
        })
    }
}

/// Those of the named messages that exist.
///
/// # Errors
/// Of the database.
pub async fn by_id(
    connection: &mut PgConnection,
    names: &[(ConversationId, MessageId)],
) -> Result<Vec<v1::Message>, sqlx::Error> {
    let (conversations, ids): (Vec<Uuid>, Vec<Uuid>) =
        names.iter().map(|(c, m)| (c.uuid(), m.uuid())).unzip();
    let rows: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, message_id)
          CROSS JOIN LATERAL (SELECT * FROM messages x WHERE x.conversation_id = asked.conversation_id
                              AND x.message_id = asked.message_id LIMIT 1) AS m
          JOIN conversations c ON c.conversation_id = asked.conversation_id
          LEFT JOIN users u ON u.user_id = m.sender_id"
    ))
    .bind(conversations)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The messages at these places.
///
/// # Errors
/// Of the database.
pub async fn by_seq(
    connection: &mut PgConnection,
    places: &[(Uuid, i64)],
) -> Result<Vec<v1::Message>, sqlx::Error> {
    let (conversations, seqs): (Vec<Uuid>, Vec<i64>) = places.iter().copied().unzip();
    let rows: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM unnest($1::uuid[], $2::int8[]) AS asked (conversation_id, seq)
          CROSS JOIN LATERAL (SELECT * FROM messages x WHERE x.conversation_id = asked.conversation_id
                              AND x.seq = asked.seq LIMIT 1) AS m
          JOIN conversations c ON c.conversation_id = asked.conversation_id
          LEFT JOIN users u ON u.user_id = m.sender_id"
    ))
    .bind(conversations)
    .bind(seqs)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// At most `limit` messages of a window, ascending.
///
/// # Errors
/// Of the database.
pub async fn window(
    connection: &mut PgConnection,
    conversation: ConversationId,
    window: Window,
    limit: i64,
) -> Result<Vec<v1::Message>, sqlx::Error> {
    const BEFORE: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m JOIN conversations c USING (conversation_id)
          LEFT JOIN users u ON u.user_id = m.sender_id
          WHERE m.conversation_id = $1 AND m.seq < $2 ORDER BY m.seq DESC LIMIT $3"
    );
    const AFTER: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m JOIN conversations c USING (conversation_id)
          LEFT JOIN users u ON u.user_id = m.sender_id
          WHERE m.conversation_id = $1 AND m.seq > $2 ORDER BY m.seq LIMIT $3"
    );
    let (sql, bound) = match window {
        Window::Before(seq) => (BEFORE, seq),
        Window::After(seq) => (AFTER, seq),
    };
    let rows: Vec<MessageRow> = sqlx::query_as(sql)
        .bind(conversation.uuid())
        .bind(seq_to(bound))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let messages: Result<Vec<v1::Message>, _> = rows.into_iter().map(TryInto::try_into).collect();
    let mut messages = messages?;
    if matches!(window, Window::Before(_)) {
        messages.reverse();
    }
    Ok(messages)
}

/// Inserts new messages; their conversation's row is locked and their ids are known to be free.
///
/// # Errors
/// Of the database.
pub async fn insert(connection: &mut PgConnection, messages: &[&v1::Message]) -> Result<(), sqlx::Error> {
    let sender = |m: &v1::Message| m.sender.clone().unwrap_or_default();
    let is_user = |m: &v1::Message| sender(m).kind() == v1::SenderKind::User;
    sqlx::query(
        "INSERT INTO messages (conversation_id, seq, message_id, sender_id, sender_kind, sender_name, type, content,
                               metadata, client_msg_id, reply_to, created_at, edited_at, deleted_at)
         SELECT conversation_id, seq, message_id, sender_id, sender_kind, sender_name, type, content,
                metadata::jsonb, client_msg_id, reply_to, created_at, edited_at, deleted_at
         FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::text[], $5::int2[], $6::text[], $7::int2[], $8::text[],
                     $9::text[], $10::text[], $11::uuid[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[])
              AS new (conversation_id, seq, message_id, sender_id, sender_kind, sender_name, type, content,
                      metadata, client_msg_id, reply_to, created_at, edited_at, deleted_at)",
    )
    .bind(uuids(messages, |m| &m.conversation_id)?)
    .bind(messages.iter().map(|m| seq_to(m.seq)).collect::<Vec<_>>())
    .bind(uuids(messages, |m| &m.id)?)
    .bind(messages.iter().map(|m| sender(m).id).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| small(sender(m).kind)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| (!is_user(m)).then(|| sender(m).username)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| small(m.r#type)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| metadata(m)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.client_msg_id.as_deref()).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.reply_to.as_deref().and_then(|id| Uuid::try_parse(id).ok())).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| from_millis(m.created_at_ms)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.edited_at_ms.map(from_millis)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.deleted_at_ms.map(from_millis)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores the present content of edited and deleted messages.
///
/// # Errors
/// Of the database.
pub async fn update(connection: &mut PgConnection, messages: &[&v1::Message]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE messages m
         SET content = new.content, edited_at = new.edited_at, deleted_at = new.deleted_at,
             metadata = CASE WHEN new.deleted_at IS NULL THEN m.metadata ELSE '{}' END
         FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::timestamptz[], $5::timestamptz[])
              AS new (conversation_id, seq, content, edited_at, deleted_at)
         WHERE m.conversation_id = new.conversation_id AND m.seq = new.seq",
    )
    .bind(uuids(messages, |m| &m.conversation_id)?)
    .bind(messages.iter().map(|m| seq_to(m.seq)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>())
    .bind(
        messages
            .iter()
            .map(|m| m.edited_at_ms.map(from_millis))
            .collect::<Vec<_>>(),
    )
    .bind(
        messages
            .iter()
            .map(|m| m.deleted_at_ms.map(from_millis))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn metadata(message: &v1::Message) -> &str {
    if message.metadata_json.is_empty() {
        "{}"
    } else {
        &message.metadata_json
    }
}

fn uuids(messages: &[&v1::Message], id: impl Fn(&v1::Message) -> &String) -> Result<Vec<Uuid>, sqlx::Error> {
    messages
        .iter()
        .map(|m| Uuid::try_parse(id(m)).map_err(|_| super::corrupt("a message without valid ids")))
        .collect()
}

fn small(number: i32) -> i16 {
    i16::try_from(number).unwrap_or_default()
}
