//! Branches of conversations.

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, from_millis, millis, seq_from, seq_to};
use crate::model::state::{Effects, Loaded};

/// The columns of [`ThreadRow`] out of `threads t` and the root `messages r`.
macro_rules! thread_columns {
    () => {
        "t.conversation_id, t.thread_id, t.title, r.message_id AS root_id, t.parent_thread_id, t.seq, t.created_by,
         t.created_at, t.reply_count, t.last_reply_at"
    };
}

#[derive(sqlx::FromRow)]
struct ThreadRow {
    conversation_id: Uuid,
    thread_id: Uuid,
    title: String,
    root_id: Option<Uuid>,
    parent_thread_id: Option<Uuid>,
    seq: i64,
    created_by: String,
    created_at: DateTime<Utc>,
    reply_count: i64,
    last_reply_at: Option<DateTime<Utc>>,
}

/// A thread, and the seq of its making.
pub type Placed = (u64, v1::Thread);

impl TryFrom<ThreadRow> for Placed {
    type Error = sqlx::Error;

    fn try_from(row: ThreadRow) -> Result<Self, sqlx::Error> {
        let ThreadRow {
            conversation_id,
            thread_id,
            title,
            root_id,
            parent_thread_id,
            seq,
            created_by,
            created_at,
            reply_count,
            last_reply_at,
        } = row;
        let thread = v1::Thread {
            id: thread_id.to_string(),
            conversation_id: conversation_id.to_string(),
            title,
            root_message_id: root_id.map(|id| id.to_string()),
            parent_thread_id: parent_thread_id.map(|id| id.to_string()),
            created_by,
            created_at_ms: millis(created_at),
            reply_count: seq_from(reply_count)?,
            last_reply_at_ms: last_reply_at.map(millis),
        };
        Ok((seq_from(seq)?, thread))
    }
}

/// Those of the named threads that exist.
///
/// # Errors
/// Of the database.
pub async fn by_id(
    connection: &mut PgConnection,
    names: &[(Uuid, Uuid)],
) -> Result<Vec<Placed>, sqlx::Error> {
    let (conversations, threads): (Vec<Uuid>, Vec<Uuid>) = names.iter().copied().unzip();
    let rows: Vec<ThreadRow> = sqlx::query_as(concat!(
        "SELECT ",
        thread_columns!(),
        " FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, thread_id)
          CROSS JOIN LATERAL (SELECT * FROM threads x WHERE x.conversation_id = asked.conversation_id
                              AND x.thread_id = asked.thread_id LIMIT 1) AS t
          LEFT JOIN messages r ON r.conversation_id = t.conversation_id AND r.seq = t.root_seq"
    ))
    .bind(conversations)
    .bind(threads)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// At most `limit` threads of a conversation made after a seq, oldest first, with the seqs of their making.
///
/// # Errors
/// Of the database.
pub async fn of(
    connection: &mut PgConnection,
    conversation: ConversationId,
    after: u64,
    limit: i64,
) -> Result<Vec<Placed>, sqlx::Error> {
    let rows: Vec<ThreadRow> = sqlx::query_as(concat!(
        "SELECT ",
        thread_columns!(),
        " FROM threads t
          LEFT JOIN messages r ON r.conversation_id = t.conversation_id AND r.seq = t.root_seq
          WHERE t.conversation_id = $1 AND t.seq > $2 ORDER BY t.seq LIMIT $3"
    ))
    .bind(conversation.uuid())
    .bind(seq_to(after))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Placed::try_from).collect()
}

/// Inserts new threads and moves the counters of others.
///
/// # Errors
/// Of the database.
pub(super) async fn write(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let find = |&(conversation, id): &(ConversationId, Uuid)| {
        let state = loaded.conversations.get(&conversation)?;
        let (seq, thread) = state.threads.get(&id)?;
        let root = thread
            .root_message_id
            .as_ref()
            .and_then(|id| state.messages.get(&id.parse().ok()?));
        Some((
            conversation.uuid(),
            id,
            *seq,
            thread,
            root.map(|root| seq_to(root.seq)),
        ))
    };
    let new: Vec<_> = effects.new_threads.iter().filter_map(find).collect();
    if !new.is_empty() {
        let parent = |thread: &v1::Thread| {
            let parent = thread.parent_thread_id.as_deref();
            parent
                .map(|id| Uuid::try_parse(id).map_err(|_| corrupt("a thread id")))
                .transpose()
        };
        sqlx::query(
            "INSERT INTO threads (conversation_id, thread_id, title, root_seq, parent_thread_id, seq, created_by,
                                  created_at, reply_count, last_reply_at)
             SELECT conversation_id, thread_id, title, root_seq, parent_thread_id, seq, created_by, created_at,
                    reply_count, last_reply_at
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::int8[], $5::uuid[], $6::int8[], $7::text[],
                         $8::timestamptz[], $9::int8[], $10::timestamptz[])
                  AS new (conversation_id, thread_id, title, root_seq, parent_thread_id, seq, created_by,
                          created_at, reply_count, last_reply_at)",
        )
        .bind(new.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.3.title.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.4).collect::<Vec<_>>())
        .bind(new.iter().map(|row| parent(row.3)).collect::<Result<Vec<_>, _>>()?)
        .bind(new.iter().map(|row| seq_to(row.2)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.3.created_by.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|row| from_millis(row.3.created_at_ms)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| seq_to(row.3.reply_count)).collect::<Vec<_>>())
        .bind(new.iter().map(|row| row.3.last_reply_at_ms.map(from_millis)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    let moved: Vec<_> = effects
        .moved_threads
        .difference(&effects.new_threads)
        .filter_map(find)
        .collect();
    if !moved.is_empty() {
        sqlx::query(
            "UPDATE threads t SET reply_count = new.reply_count, last_reply_at = new.last_reply_at
             FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::timestamptz[])
                  AS new (conversation_id, thread_id, reply_count, last_reply_at)
             WHERE t.conversation_id = new.conversation_id AND t.thread_id = new.thread_id",
        )
        .bind(moved.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(moved.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(
            moved
                .iter()
                .map(|row| seq_to(row.3.reply_count))
                .collect::<Vec<_>>(),
        )
        .bind(
            moved
                .iter()
                .map(|row| row.3.last_reply_at_ms.map(from_millis))
                .collect::<Vec<_>>(),
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}
