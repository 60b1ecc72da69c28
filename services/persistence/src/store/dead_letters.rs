//! Commands that can never be carried out, kept for an operator.

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

/// Parks a command. Repeating it with the same id does nothing. Whether it is new.
///
/// # Errors
/// Of the database.
pub async fn insert(connection: &mut PgConnection, letter: &DeadLetter) -> Result<bool, sqlx::Error> {
    let DeadLetter {
        id,
        partition,
        subject,
        command_id,
        payload,
        code,
        error,
    } = letter;
    // A command id that is no text Postgres can store must not hinder the parking.
    let command_id = command_id.as_deref().map(|id| id.replace('\0', "\u{FFFD}"));
    let done = sqlx::query(
        "INSERT INTO dead_letters (id, partition, subject, command_id, payload, error_code, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id)
    .bind(partition.map(i32::from))
    .bind(subject)
    .bind(command_id)
    .bind(payload)
    .bind(code.name())
    .bind(error)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}
