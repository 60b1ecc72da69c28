//! Writing what a batch decided: one statement per table, whatever the size of the batch.

use std::collections::{BTreeMap, BTreeSet};

use parlance_proto::v1;
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::change_kind_to;
use super::{corrupt, from_millis, messages, seq_to};
use crate::ingest::state::{ConversationState, Effects, Loaded};

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
    if !effects.created.is_empty() {
        insert_users(connection, &effects.new_users).await?;
        insert_conversations(connection, loaded, effects).await?;
        insert_participants(connection, effects).await?;
    }
    let new: Vec<&v1::Message> = effects
        .new_messages
        .iter()
        .filter_map(|(c, m)| loaded.conversations.get(c)?.messages.get(m))
        .collect();
    if !new.is_empty() {
        messages::insert(connection, &new).await?;
    }
    let inserted: BTreeSet<_> = effects.new_messages.iter().copied().collect();
    let changed: Vec<&v1::Message> = effects
        .changed_messages
        .difference(&inserted)
        .filter_map(|(c, m)| loaded.conversations.get(c)?.messages.get(m))
        .collect();
    if !changed.is_empty() {
        messages::update(connection, &changed).await?;
    }
    if !effects.new_changes.is_empty() {
        insert_changes(connection, effects).await?;
    }
    let moved: Vec<(ConversationId, &ConversationState)> = effects
        .moved
        .iter()
        .filter_map(|id| Some((*id, loaded.conversations.get(id)?)))
        .collect();
    if !moved.is_empty() {
        move_conversations(connection, &moved).await?;
    }
    Ok(())
}

/// Tells the users that their set of conversations changed. Returns their new versions.
///
/// # Errors
/// Of the database.
pub async fn bump_memberships(
    connection: &mut PgConnection,
    users: &BTreeSet<&UserId>,
) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "UPDATE users u SET memberships_version = u.memberships_version + 1
         FROM (SELECT user_id FROM users WHERE user_id = ANY($1) ORDER BY user_id FOR NO KEY UPDATE) AS locked
         WHERE u.user_id = locked.user_id
         RETURNING u.user_id, u.memberships_version",
    )
    .bind(users.iter().map(|id| id.as_str()).collect::<Vec<_>>())
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
    let rows: Vec<(Uuid, &ConversationState)> = effects
        .created
        .keys()
        .filter_map(|id| Some((id.uuid(), loaded.conversations.get(id)?)))
        .collect();
    sqlx::query(
        "INSERT INTO conversations (conversation_id, number, kind, title, created_by, created_by_command,
                                    created_at, updated_at)
         SELECT conversation_id, number, kind, title, created_by, created_by_command, at, at
         FROM unnest($1::uuid[], $2::int8[], $3::int2[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[])
              AS new (conversation_id, number, kind, title, created_by, created_by_command, at)",
    )
    .bind(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.number).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| i16::try_from(i32::from(c.kind)).unwrap_or_default()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.title.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.created_by.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, c)| c.created_by_command.uuid()).collect::<Vec<_>>())
    .bind(rows.iter().map(|_| from_millis(loaded.now_ms)).collect::<Vec<_>>())
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

async fn insert_participants(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let rows: Vec<(Uuid, &str, i16)> = effects
        .created
        .iter()
        .flat_map(|(id, roles)| {
            let role = |role: &v1::Role| i16::try_from(i32::from(*role)).unwrap_or_default();
            roles
                .iter()
                .map(move |(user, r)| (id.uuid(), user.as_str(), role(r)))
        })
        .collect();
    sqlx::query(
        "INSERT INTO participants (conversation_id, user_id, role)
         SELECT conversation_id, user_id, role
         FROM unnest($1::uuid[], $2::text[], $3::int2[]) AS new (conversation_id, user_id, role)",
    )
    .bind(rows.iter().map(|row| row.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.2).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_changes(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let rows = &effects.new_changes;
    sqlx::query(
        "INSERT INTO changes (conversation_id, seq, command_id, kind, target_seq, actor, at)
         SELECT conversation_id, seq, command_id, kind, target_seq, actor, at
         FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::int2[], $5::int8[], $6::text[], $7::timestamptz[])
              AS new (conversation_id, seq, command_id, kind, target_seq, actor, at)",
    )
    .bind(rows.iter().map(|(id, _, _)| id.uuid()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| seq_to(c.seq)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| change_kind_to(c.kind)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| seq_to(c.target_seq)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| c.actor.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| from_millis(c.at_ms)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn move_conversations(
    connection: &mut PgConnection,
    moved: &[(ConversationId, &ConversationState)],
) -> Result<(), sqlx::Error> {
    let done = sqlx::query(
        "UPDATE conversations c
         SET head_seq = new.head_seq, last_message_seq = new.last_message_seq,
             receipts_version = new.receipts_version, updated_at = new.updated_at
         FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::timestamptz[])
              AS new (conversation_id, head_seq, last_message_seq, receipts_version, updated_at)
         WHERE c.conversation_id = new.conversation_id",
    )
    .bind(moved.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
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
    .execute(connection)
    .await?;
    // Messages without a moved head would be seqs given twice.
    if done.rows_affected() == moved.len() as u64 {
        Ok(())
    } else {
        Err(corrupt("a conversation vanished"))
    }
}
