//! How often commands were tried, where a takeover sees it, and whether the database itself is well.

use std::collections::HashMap;

use parlance_proto::CommandId;
use sqlx::{Acquire as _, PgConnection};
use uuid::Uuid;

/// How often each of these was tried; those that never were are missing.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<CommandId, u16>, sqlx::Error> {
    let rows: Vec<(Uuid, i16)> =
        sqlx::query_as("SELECT command_id, attempts FROM command_attempts WHERE command_id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(id, attempts)| {
            (
                CommandId::from_uuid(id),
                u16::try_from(attempts).unwrap_or_default(),
            )
        })
        .collect())
}

/// Notes the number of attempts of each, and forgets what is long past. Giving the same numbers again changes nothing.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub async fn note(connection: &mut PgConnection, attempts: &[(Uuid, u16)]) -> Result<(), sqlx::Error> {
    let (ids, numbers): (Vec<Uuid>, Vec<i16>) = attempts
        .iter()
        .map(|&(id, attempts)| (id, i16::try_from(attempts).unwrap_or(i16::MAX)))
        .unzip();
    let mut tx = connection.begin().await?;
    sqlx::query("DELETE FROM command_attempts WHERE tried_at < now() - interval '1 hour'")
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO command_attempts (command_id, attempts)
         SELECT command_id, max(attempts) FROM unnest($1::uuid[], $2::int2[]) AS new (command_id, attempts)
         GROUP BY command_id ORDER BY command_id
         ON CONFLICT (command_id) DO UPDATE SET attempts = excluded.attempts, tried_at = now()",
    )
    .bind(ids)
    .bind(numbers)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Forgets attempts: the commands are carried out, or are to be tried as if for the first time.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn forget(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM command_attempts WHERE command_id = ANY($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the locks that a batch of these conversations takes, and lets them go: an error means that no batch could
/// be committed now, whatever its commands are.
///
/// # Errors
/// [`sqlx::Error`] if a lock is not to be had soon, or the database fails.
pub async fn probe(connection: &mut PgConnection, conversations: &[Uuid]) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '300ms'")
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "LOCK TABLE users, conversations, participants, messages, changes, reactions, threads, hidden_messages,
                    message_edits, journals, journal_versions IN ROW EXCLUSIVE MODE",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "SELECT FROM conversations WHERE conversation_id = ANY($1) ORDER BY conversation_id FOR NO KEY UPDATE",
    )
    .bind(conversations)
    .execute(&mut *tx)
    .await?;
    tx.rollback().await
}
