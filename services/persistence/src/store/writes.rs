//! Writing what a batch decided: one statement per table, whatever the size of the batch.

use std::collections::{BTreeMap, BTreeSet};

use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::users::conversation_count;
use super::{
    bans, changes, corrupt, edits, from_millis, hidden, journals, messages, metadata_to, mutes, participants,
    processed, reactions, reports, seq_to, small, threads,
};
use crate::model::state::{ConversationState, Effects, Loaded};

/// Writes everything but receipts. Conversations are locked, so nothing here can meet another writer,
/// except users, which are touched in one order for all.
///
/// # Errors
/// Of the database.
pub async fn write(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    insert_users(connection, &effects.new_users).await?;
    insert_conversations(connection, loaded, effects).await?;
    participants::write(connection, effects).await?;
    messages::insert(connection, loaded, effects).await?;
    messages::update(connection, loaded, effects).await?;
    reactions::write(connection, effects).await?;
    edits::write(connection, effects).await?;
    hidden::write(connection, effects).await?;
    mutes::write(connection, effects).await?;
    bans::write(connection, effects).await?;
    reports::write(connection, effects).await?;
    threads::write(connection, loaded, effects).await?;
    journals::write(connection, loaded, effects).await?;
    if !effects.new_changes.is_empty() {
        changes::insert(connection, effects).await?;
    }
    if !effects.processed.is_empty() {
        processed::remember(connection, &effects.processed).await?;
    }
    change_conversations(connection, loaded, effects).await?;
    move_conversations(connection, loaded, effects).await
}

/// Gives the sets of conversations of these users, which grew by so many, their next versions. After the participants
/// were written: what is not kept yet is counted. Returns the versions.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn bump_memberships(
    connection: &mut PgConnection,
    users: &BTreeMap<UserId, i64>,
) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(concat!(
        "UPDATE users u SET memberships_version = u.memberships_version + 1,
             conversations_at = u.memberships_version + 1,
             conversation_count = ",
        conversation_count!("locked.growth"),
        " FROM (SELECT v.user_id, new.growth
                FROM unnest($1::text[], $2::int8[]) AS new (user_id, growth) JOIN users v USING (user_id)
                ORDER BY v.user_id FOR NO KEY UPDATE OF v) AS locked
         WHERE u.user_id = locked.user_id
         RETURNING u.user_id, u.memberships_version"
    ))
    .bind(users.keys().map(UserId::as_str).collect::<Vec<_>>())
    .bind(users.values().copied().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, version)| Ok((id, super::seq_from(version)?)))
        .collect()
}

async fn insert_users(
    connection: &mut PgConnection,
    users: &BTreeMap<UserId, String>,
) -> Result<(), sqlx::Error> {
    if users.is_empty() {
        return Ok(());
    }
    // Another replica may create the same user at the same time: either row will do.
    sqlx::query(
        "INSERT INTO users (user_id, username)
         SELECT user_id, username FROM unnest($1::text[], $2::text[]) AS new (user_id, username) ORDER BY user_id
         ON CONFLICT (user_id) DO NOTHING",
    )
    .bind(users.keys().map(UserId::as_str).collect::<Vec<_>>())
    .bind(users.values().map(String::as_str).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_conversations(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let rows = states(loaded, &effects.created);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO conversations (conversation_id, number, kind, title, created_by, created_by_command,
                                    channel, status, metadata, created_at, updated_at, open, member_count,
                                    members_at)
         SELECT conversation_id, number, kind, title, created_by, created_by_command, channel, status,
                metadata::jsonb, at, at, open, member_count, 0
         FROM unnest($1::uuid[], $2::int8[], $3::int2[], $4::text[], $5::text[], $6::uuid[], $7::int2[],
                     $8::int2[], $9::text[], $10::timestamptz[], $11::bool[], $12::int8[])
              AS new (conversation_id, number, kind, title, created_by, created_by_command, channel, status,
                      metadata, at, open, member_count)",
    )
    .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.number).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| small(c.kind)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.title.as_str()).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|(_, c)| c.created_by.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        rows.iter()
            .map(|(_, c)| c.created_by_command.uuid())
            .collect::<Vec<_>>(),
    )
    .bind(rows.iter().map(|(_, c)| small(c.channel)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| small(c.status)).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|(_, c)| metadata_to(&c.metadata_json))
            .collect::<Vec<_>>(),
    )
    .bind(
        rows.iter()
            .map(|(_, c)| from_millis(c.created_at_ms))
            .collect::<Vec<_>>(),
    )
    .bind(rows.iter().map(|(_, c)| c.open).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|(_, c)| seq_to(c.member_count))
            .collect::<Vec<_>>(),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO conversation_numbers (number, conversation_id)
         SELECT number, conversation_id FROM unnest($1::int8[], $2::uuid[]) AS new (number, conversation_id)",
    )
    .bind(rows.iter().map(|(_, c)| c.number).collect::<Vec<_>>())
    .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Rare: what conversations are about, their end and their new beginning.
async fn change_conversations(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let rows = states(loaded, &effects.changed);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE conversations c
         SET title = new.title, channel = new.channel, status = new.status, metadata = new.metadata::jsonb,
             created_by = new.created_by, created_by_command = new.created_by_command,
             history_from = new.history_from, read_only = new.read_only,
             deleted_at = CASE WHEN new.deleted THEN coalesce(c.deleted_at, $10) END
         FROM unnest($1::uuid[], $2::text[], $3::int2[], $4::int2[], $5::text[], $6::text[], $7::uuid[], $8::int8[],
                     $9::bool[], $11::bool[])
              AS new (conversation_id, title, channel, status, metadata, created_by, created_by_command,
                      history_from, deleted, read_only)
         WHERE c.conversation_id = new.conversation_id",
    )
    .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.title.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| small(c.channel)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| small(c.status)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| metadata_to(&c.metadata_json)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.created_by.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.created_by_command.uuid()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| seq_to(c.history_from)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.deleted).collect::<Vec<_>>())
    .bind(from_millis(loaded.now_ms))
    .bind(rows.iter().map(|(_, c)| c.read_only).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn move_conversations(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let moved = states(loaded, &effects.moved);
    if moved.is_empty() {
        return Ok(());
    }
    let done = sqlx::query(
        "UPDATE conversations c
         SET head_seq = new.head_seq, last_message_seq = new.last_message_seq,
             receipts_version = new.receipts_version, updated_at = new.updated_at,
             member_count = new.member_count, members_at = new.head_seq
         FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::timestamptz[], $6::int8[])
              AS new (conversation_id, head_seq, last_message_seq, receipts_version, updated_at, member_count)
         WHERE c.conversation_id = new.conversation_id",
    )
    .bind(moved.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, c)| seq_to(c.head_seq)).collect::<Vec<_>>())
    .bind(
        moved
            .iter()
            .map(|(_, c)| seq_to(c.last_message_seq))
            .collect::<Vec<_>>(),
    )
    .bind(
        moved
            .iter()
            .map(|(_, c)| seq_to(c.receipts_version))
            .collect::<Vec<_>>(),
    )
    .bind(
        moved
            .iter()
            .map(|(_, c)| from_millis(c.updated_at_ms))
            .collect::<Vec<_>>(),
    )
    .bind(
        moved
            .iter()
            .map(|(_, c)| seq_to(c.member_count))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    // Messages without a moved head would be seqs given twice.
    if done.rows_affected() == moved.len() as u64 {
        Ok(())
    } else {
        Err(corrupt("a conversation vanished"))
    }
}

fn states<'a>(loaded: &'a Loaded, ids: &BTreeSet<ConversationId>) -> Vec<(Uuid, &'a ConversationState)> {
    ids.iter()
        .filter_map(|id| Some((id.uuid(), loaded.conversations.get(id)?)))
        .collect()
}
