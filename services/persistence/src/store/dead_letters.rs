//! Commands that can never be carried out, kept for an operator.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use parlance_proto::ErrorCodeExt;
use parlance_proto::v1::ErrorCode;
use sqlx::PgConnection;
use uuid::Uuid;

/// A parked command as it is shown, without its payload.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Parked {
    /// Its own id.
    pub id: Uuid,
    /// Where it was published.
    pub subject: String,
    /// If it could be read that far.
    pub command_id: Option<String>,
    /// What the emitter was told.
    pub error_code: String,
    /// The cause.
    pub error: String,
    /// When it was parked.
    pub created_at: DateTime<Utc>,
    /// Length of the payload.
    pub bytes: i32,
}

/// A place in the list: what comes after it was parked before.
pub type Place = (DateTime<Utc>, Uuid);

/// Parked commands after that place, latest first.
///
/// # Errors
/// Of the database.
pub async fn list(
    connection: &mut PgConnection,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Parked>, sqlx::Error> {
    let (at, id) = after.unzip();
    sqlx::query_as(
        "SELECT id, subject, command_id, error_code, error, created_at, octet_length(payload) AS bytes
         FROM dead_letters WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2)
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// One of them and its payload.
///
/// # Errors
/// Of the database.
pub async fn get(connection: &mut PgConnection, id: Uuid) -> Result<Option<(Parked, Vec<u8>)>, sqlx::Error> {
    let parked: Option<Parked> = sqlx::query_as(
        "SELECT id, subject, command_id, error_code, error, created_at, octet_length(payload) AS bytes
         FROM dead_letters WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let payload: Option<Vec<u8>> = sqlx::query_scalar("SELECT payload FROM dead_letters WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    Ok(parked.zip(payload))
}

/// Forgets one. Whether it was there.
///
/// # Errors
/// Of the database.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query("DELETE FROM dead_letters WHERE id = $1")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

/// A command to park.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its own id.
    pub id: Uuid,
    /// Of the command stream; `None` for messages of services.
    pub partition: Option<u16>,
    /// Where it was published.
    pub subject: String,
    /// If it could be read that far.
    pub command_id: Option<String>,
    /// As it came.
    pub payload: Vec<u8>,
    /// What the emitter was told.
    pub code: ErrorCode,
    /// The cause in words without content.
    pub error: String,
}

/// What a letter was, by its subject: a message of a service (`system`), a `push` or a `command`.
pub fn kind(subject: &str) -> &'static str {
    if subject.starts_with("chat.system.") {
        "system"
    } else if subject.starts_with("chat.push.") {
        "push"
    } else {
        "command"
    }
}

/// Parks commands. Repeating one with the same id does nothing. Those that are new.
///
/// # Errors
/// Of the database.
pub async fn insert(
    connection: &mut PgConnection,
    letters: &[DeadLetter],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    // A command id that is no text Postgres can store must not hinder the parking.
    let command_id = |letter: &DeadLetter| letter.command_id.as_ref().map(|id| id.replace('\0', "\u{FFFD}"));
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO dead_letters (id, partition, subject, command_id, payload, error_code, error)
         SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[])
         ON CONFLICT (id) DO NOTHING RETURNING id",
    )
    .bind(letters.iter().map(|letter| letter.id).collect::<Vec<_>>())
    .bind(
        letters
            .iter()
            .map(|letter| letter.partition.map(i32::from))
            .collect::<Vec<_>>(),
    )
    .bind(
        letters
            .iter()
            .map(|letter| letter.subject.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(letters.iter().map(command_id).collect::<Vec<_>>())
    .bind(
        letters
            .iter()
            .map(|letter| letter.payload.as_slice())
            .collect::<Vec<_>>(),
    )
    .bind(
        letters
            .iter()
            .map(|letter| letter.code.name())
            .collect::<Vec<_>>(),
    )
    .bind(
        letters
            .iter()
            .map(|letter| letter.error.as_str())
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    Ok(new.into_iter().collect())
}

/// What is kept of letters: those of commands apart from the others, so that no service has a command forgotten.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The most of either.
    pub most: i64,
    /// How old they become.
    pub days: i32,
}

/// Forgets the oldest of those beyond what is kept, no more than `batch`. How many.
///
/// # Errors
/// Of the database.
pub async fn forget(
    connection: &mut PgConnection,
    of_commands: bool,
    kept: Kept,
    batch: i64,
) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query(
        "WITH last AS (SELECT created_at, id FROM dead_letters WHERE (partition IS NOT NULL) = $1
                       ORDER BY created_at DESC, id DESC OFFSET $2 LIMIT 1)
         DELETE FROM dead_letters WHERE id IN (
             SELECT d.id FROM dead_letters d
             WHERE (d.partition IS NOT NULL) = $1
               AND (d.created_at < now() - make_interval(days => $3)
                    OR (d.created_at, d.id) <= (SELECT created_at, id FROM last))
             ORDER BY d.created_at, d.id LIMIT $4 FOR UPDATE OF d SKIP LOCKED)",
    )
    .bind(of_commands)
    .bind(kept.most)
    .bind(kept.days)
    .bind(batch)
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}
