//! What participants have read, and how much they have not.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, from_millis, seq_from, seq_to};
use crate::ingest::state::{Effects, Loaded};
use crate::read_set::ReadSet;

/// Counts what `p` has not read: messages of others, not deleted, not in the read set. Counting starts
/// above the first range of the set, so it is short for everyone who reads.
macro_rules! unread_messages {
    () => {
        "LATERAL (SELECT count(*) AS unread, min(m.seq) AS first_unread FROM messages m
                  WHERE m.conversation_id = p.conversation_id
                    AND m.seq > coalesce((SELECT upper(r) - 1 FROM unnest(p.read_seqs) AS r
                                          WHERE lower(r) <= 1 LIMIT 1), 0)
                    AND m.sender_id <> p.user_id AND m.deleted_at IS NULL AND NOT p.read_seqs @> m.seq) AS n"
    };
}
pub(super) use unread_messages;

#[derive(sqlx::FromRow)]
struct SettledRow {
    conversation_id: Uuid,
    user_id: String,
    unread: i64,
    first_unread: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct ReceiptRow {
    user_id: String,
    read_seqs: String,
    receipts_version: i64,
    unread: i64,
    head_seq: i64,
}

/// Stores the read sets of a batch's readers, closing gaps in which nothing is unread, and tells everyone's
/// present receipts. Comes after the batch's messages are written.
///
/// # Errors
/// Of the database.
pub async fn settle(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<BTreeMap<(ConversationId, UserId), v1::ReceiptUpdated>, sqlx::Error> {
    let mut settled = BTreeMap::new();
    if effects.readers.is_empty() {
        return Ok(settled);
    }
    let mut sets: BTreeMap<(ConversationId, UserId), (ReadSet, u64, u64)> = BTreeMap::new();
    for key @ (id, user) in effects.readers.keys() {
        let state = loaded
            .conversations
            .get(id)
            .ok_or_else(|| corrupt("a reader's conversation"))?;
        let member = state.members.get(user).ok_or_else(|| corrupt("a reader"))?;
        sets.insert(
            key.clone(),
            (member.read.clone(), member.receipts_version, state.head_seq),
        );
    }
    let rows: Vec<SettledRow> = sqlx::query_as(concat!(
        "SELECT p.conversation_id, p.user_id, n.unread, n.first_unread
         FROM (SELECT conversation_id, user_id, read_seqs::int8multirange AS read_seqs
               FROM unnest($1::uuid[], $2::text[], $3::text[]) AS asked (conversation_id, user_id, read_seqs)) AS p
         CROSS JOIN ",
        unread_messages!()
    ))
    .bind(sets.keys().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(sets.keys().map(|(_, user)| user.as_str()).collect::<Vec<_>>())
    .bind(sets.values().map(|(read, _, _)| read.to_sql()).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let SettledRow {
            conversation_id,
            user_id,
            unread,
            first_unread,
        } = row;
        let user = UserId::parse(user_id).map_err(|_| corrupt("a user id"))?;
        let key = (ConversationId::from_uuid(conversation_id), user);
        let Some((read, version, head_seq)) = sets.get_mut(&key) else {
            continue;
        };
        let all_read_to = match first_unread {
            Some(seq) => seq_from(seq)?.saturating_sub(1),
            None => *head_seq,
        };
        read.insert(1, all_read_to);
        let receipt = v1::ReceiptUpdated {
            user_id: key.1.to_string(),
            read: read.to_wire(),
            version: *version,
            unread: seq_from(unread)?,
            head_seq: *head_seq,
        };
        settled.insert(key, receipt);
    }
    let news: Vec<_> = sets
        .iter()
        .filter(|(key, _)| effects.readers.get(key).is_some_and(|news| *news))
        .collect();
    store(connection, &news, from_millis(loaded.now_ms)).await?;
    Ok(settled)
}

type Reader<'a> = (&'a (ConversationId, UserId), &'a (ReadSet, u64, u64));

async fn store(
    connection: &mut PgConnection,
    news: &[Reader<'_>],
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if news.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE participants p
         SET read_seqs = p.read_seqs + new.read_seqs::int8multirange, receipts_version = new.receipts_version,
             last_read_at = $5
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[])
              AS new (conversation_id, user_id, read_seqs, receipts_version)
         WHERE p.conversation_id = new.conversation_id AND p.user_id = new.user_id",
    )
    .bind(news.iter().map(|((id, _), _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        news.iter()
            .map(|((_, user), _)| user.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        news.iter()
            .map(|(_, (read, _, _))| read.to_sql())
            .collect::<Vec<_>>(),
    )
    .bind(
        news.iter()
            .map(|(_, (_, version, _))| seq_to(*version))
            .collect::<Vec<_>>(),
    )
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Receipts of current participants that changed after a version, oldest change first.
///
/// # Errors
/// Of the database.
pub async fn after(
    connection: &mut PgConnection,
    conversation: ConversationId,
    version: u64,
) -> Result<Vec<v1::ReceiptUpdated>, sqlx::Error> {
    let rows: Vec<ReceiptRow> = sqlx::query_as(concat!(
        "SELECT p.user_id, p.read_seqs::text AS read_seqs, p.receipts_version, n.unread, c.head_seq
         FROM participants p JOIN conversations c USING (conversation_id) CROSS JOIN ",
        unread_messages!(),
        " WHERE p.conversation_id = $1 AND p.receipts_version > $2 AND p.left_seq IS NULL
          ORDER BY p.receipts_version, p.user_id"
    ))
    .bind(conversation.uuid())
    .bind(seq_to(version))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let ReceiptRow {
                user_id,
                read_seqs,
                receipts_version,
                unread,
                head_seq,
            } = row;
            let read: ReadSet = read_seqs.parse().map_err(|_| corrupt("read_seqs"))?;
            Ok(v1::ReceiptUpdated {
                user_id,
                read: read.to_wire(),
                version: seq_from(receipts_version)?,
                unread: seq_from(unread)?,
                head_seq: seq_from(head_seq)?,
            })
        })
        .collect()
}
