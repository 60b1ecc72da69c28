//! Messages, read and written. Their stored form becomes the wire form here and nowhere else.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use parlance_proto::{CommandId, ConversationId, MessageId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{from_millis, metadata_from, metadata_to, millis, reactions, seq_from, seq_to, small, streams};
use crate::model::state::{Effects, Loaded};

/// The columns of [`MessageRow`] out of `messages m`, `conversations c` and `users u`.
macro_rules! message_columns {
    () => {
        "m.conversation_id, c.number AS conversation_number, m.seq, m.message_id, m.sender_id, m.sender_kind,
         coalesce(m.sender_name, u.username, m.sender_id) AS sender_name, m.type AS message_type, m.content,
         m.metadata::text AS metadata, m.client_msg_id, m.reply_to, m.created_at, m.edited_at, m.deleted_at,
         m.encrypted, m.thread_id, m.stream, CASE WHEN m.sender_kind = 1 THEN coalesce(u.number, 0) ELSE 0 END AS sender_number"
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
    encrypted: bool,
    thread_id: Option<Uuid>,
    stream: Option<i16>,
    sender_number: i64,
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
            encrypted,
            thread_id,
            stream,
            sender_number,
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
                number: sender_number,
            }),
            r#type: message_type.into(),
            content,
            metadata_json: metadata_from(metadata),
            client_msg_id,
            reply_to: reply_to.map(|id| id.to_string()),
            created_at_ms: millis(created_at),
            edited_at_ms: edited_at.map(millis),
            deleted_at_ms: deleted_at.map(millis),
            encrypted,
            thread_id: thread_id.map(|id| id.to_string()),
            reactions: Vec::new(),
            stream: stream.unwrap_or_default().into(),
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
    .fetch_all(&mut *connection)
    .await?;
    whole(connection, rows).await
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
    .fetch_all(&mut *connection)
    .await?;
    whole(connection, rows).await
}

/// Messages with their reactions.
///
/// # Errors
/// Of the database.
pub(super) async fn whole(
    connection: &mut PgConnection,
    rows: Vec<MessageRow>,
) -> Result<Vec<v1::Message>, sqlx::Error> {
    let mut messages = rows
        .into_iter()
        .map(TryInto::try_into)
        .collect::<Result<Vec<v1::Message>, _>>()?;
    reactions::attach(connection, &mut messages).await?;
    Ok(messages)
}

/// A part of the history of a conversation, as one viewer reads it.
#[derive(Debug, Clone, Copy)]
pub struct HistoryQuery<'a> {
    /// Where.
    pub conversation: ConversationId,
    /// Who: what they hid is left out.
    pub viewer: &'a str,
    /// What has a seq up to this is hidden from all.
    pub history_from: u64,
    /// Only this thread.
    pub thread: Option<Uuid>,
    /// Where no thread is named: only what belongs to none.
    pub main_line: bool,
    /// Which side of which seq.
    pub window: Window,
    /// How many of the nearest to leave out.
    pub offset: u32,
    /// Leaves out tombstones.
    pub without_deleted: bool,
}

/// A window in one direction, in one thread or all.
macro_rules! window_sql {
    ($side:literal, $order:literal, $thread:literal) => {
        concat!(
            "SELECT ",
            message_columns!(),
            " FROM messages m JOIN conversations c USING (conversation_id)
              LEFT JOIN users u ON u.user_id = m.sender_id
              WHERE m.conversation_id = $1 AND m.seq > $2 AND ",
            $side,
            $thread,
            " AND (NOT $9 OR m.deleted_at IS NULL)
              AND NOT EXISTS (SELECT FROM hidden_messages h
                              WHERE h.conversation_id = m.conversation_id AND h.user_id = $4 AND h.message_seq = m.seq)
              ORDER BY m.seq ",
            $order,
            " LIMIT $5 OFFSET $6"
        )
    };
}

/// At most `limit` messages of a history, ascending.
///
/// # Errors
/// Of the database.
pub async fn window(
    connection: &mut PgConnection,
    query: HistoryQuery<'_>,
    limit: i64,
) -> Result<Vec<v1::Message>, sqlx::Error> {
    const BEFORE: &str = window_sql!(
        "m.seq < $3",
        "DESC",
        " AND $7::uuid IS NULL AND (NOT $8 OR m.thread_id IS NULL)"
    );
    const AFTER: &str = window_sql!(
        "m.seq > $3",
        "ASC",
        " AND $7::uuid IS NULL AND (NOT $8 OR m.thread_id IS NULL)"
    );
    const BEFORE_IN_THREAD: &str =
        window_sql!("m.seq < $3", "DESC", " AND m.thread_id = $7 AND $8 IS NOT NULL");
    const AFTER_IN_THREAD: &str =
        window_sql!("m.seq > $3", "ASC", " AND m.thread_id = $7 AND $8 IS NOT NULL");
    let (sql, bound) = match (query.window, query.thread) {
        (Window::Before(seq), None) => (BEFORE, seq),
        (Window::After(seq), None) => (AFTER, seq),
        (Window::Before(seq), Some(_)) => (BEFORE_IN_THREAD, seq),
        (Window::After(seq), Some(_)) => (AFTER_IN_THREAD, seq),
    };
    let rows: Vec<MessageRow> = sqlx::query_as(sql)
        .bind(query.conversation.uuid())
        .bind(seq_to(query.history_from))
        .bind(seq_to(bound))
        .bind(query.viewer)
        .bind(limit)
        .bind(i64::from(query.offset))
        .bind(query.thread)
        .bind(query.main_line)
        .bind(query.without_deleted)
        .fetch_all(&mut *connection)
        .await?;
    let mut messages = whole(connection, rows).await?;
    if matches!(query.window, Window::Before(_)) {
        messages.reverse();
    }
    Ok(messages)
}

/// Inserts new messages; their conversation's row is locked and their ids are known to be free.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub(super) async fn insert(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let with_command = |key| Some((loaded.message(key)?, loaded.sent_by.get(key).map(|id| id.uuid())));
    let new = effects.new_messages.iter().filter_map(with_command);
    let (messages, commands): (Vec<&v1::Message>, Vec<Option<Uuid>>) = new.unzip();
    if messages.is_empty() {
        return Ok(());
    }
    let sender = |m: &v1::Message| m.sender.clone().unwrap_or_default();
    let is_user = |m: &v1::Message| sender(m).kind() == v1::SenderKind::User;
    sqlx::query(
        "INSERT INTO messages (conversation_id, seq, message_id, sender_id, sender_kind, sender_name, type, content,
                               metadata, client_msg_id, reply_to, created_at, edited_at, deleted_at, encrypted,
                               thread_id, command_id, stream)
         SELECT conversation_id, seq, message_id, sender_id, sender_kind, sender_name, type, content,
                metadata::jsonb, client_msg_id, reply_to, created_at, edited_at, deleted_at, encrypted, thread_id,
                command_id, stream
         FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::text[], $5::int2[], $6::text[], $7::int2[], $8::text[],
                     $9::text[], $10::text[], $11::uuid[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[],
                     $15::bool[], $16::uuid[], $17::uuid[], $18::int2[])
              AS new (conversation_id, seq, message_id, sender_id, sender_kind, sender_name, type, content,
                      metadata, client_msg_id, reply_to, created_at, edited_at, deleted_at, encrypted, thread_id,
                      command_id, stream)",
    )
    .bind(uuids(&messages, |m| &m.conversation_id)?)
    .bind(messages.iter().map(|m| seq_to(m.seq)).collect::<Vec<_>>())
    .bind(uuids(&messages, |m| &m.id)?)
    .bind(messages.iter().map(|m| sender(m).id).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| small(sender(m).kind)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| (!is_user(m)).then(|| sender(m).username)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| small(m.r#type)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| metadata_to(&m.metadata_json)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.client_msg_id.as_deref()).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| optional_uuid(m.reply_to.as_ref())).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| from_millis(m.created_at_ms)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.edited_at_ms.map(from_millis)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.deleted_at_ms.map(from_millis)).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| m.encrypted).collect::<Vec<_>>())
    .bind(messages.iter().map(|m| optional_uuid(m.thread_id.as_ref())).collect::<Vec<_>>())
    .bind(commands)
    .bind(messages.iter().map(|m| stream_to(m.stream)).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    streams::opened(connection, &messages).await
}

/// Which commands sent these messages, where that is known.
///
/// # Errors
/// Of the database.
pub async fn sent_by(
    connection: &mut PgConnection,
    messages: &[(ConversationId, MessageId)],
) -> Result<HashMap<(ConversationId, MessageId), CommandId>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, Uuid)> = sqlx::query_as(
        "SELECT m.conversation_id, m.message_id, m.command_id
         FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, message_id)
         CROSS JOIN LATERAL (SELECT * FROM messages x WHERE x.conversation_id = asked.conversation_id
                             AND x.message_id = asked.message_id LIMIT 1) AS m
         WHERE m.command_id IS NOT NULL",
    )
    .bind(messages.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, id)| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let known = rows.into_iter().map(|(conversation, message, command)| {
        let key = (
            ConversationId::from_uuid(conversation),
            MessageId::from_uuid(message),
        );
        (key, CommandId::from_uuid(command))
    });
    Ok(known.collect())
}

/// Stores the present content of edited and deleted messages, except of those that are inserted with it.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub(super) async fn update(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let inserted: BTreeSet<_> = effects.new_messages.iter().copied().collect();
    let changed = effects.changed_messages.difference(&inserted);
    let messages: Vec<&v1::Message> = changed.filter_map(|key| loaded.message(key)).collect();
    if messages.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE messages m
         SET content = new.content, edited_at = new.edited_at, deleted_at = new.deleted_at,
             metadata = CASE WHEN new.deleted_at IS NULL THEN m.metadata ELSE '{}' END, stream = new.stream
         FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::int2[])
              AS new (conversation_id, seq, content, edited_at, deleted_at, stream)
         WHERE m.conversation_id = new.conversation_id AND m.seq = new.seq",
    )
    .bind(uuids(&messages, |m| &m.conversation_id)?)
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
    .bind(messages.iter().map(|m| stream_to(m.stream)).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    streams::ended(connection, &messages).await
}

/// Null for messages that were sent whole.
fn stream_to(state: i32) -> Option<i16> {
    (state != i32::from(v1::StreamState::Unspecified)).then(|| small(state))
}

fn optional_uuid(text: Option<&String>) -> Option<Uuid> {
    text.and_then(|text| Uuid::try_parse(text).ok())
}

fn uuids(messages: &[&v1::Message], id: impl Fn(&v1::Message) -> &String) -> Result<Vec<Uuid>, sqlx::Error> {
    messages
        .iter()
        .map(|m| Uuid::try_parse(id(m)).map_err(|_| super::corrupt("a message without valid ids")))
        .collect()
}
