//! Commands that can never be carried out, kept for an operator.

use parlance_proto::ErrorCodeExt;
use parlance_proto::v1::ErrorCode;
use sqlx::PgConnection;
use uuid::Uuid;

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

/// Parks a command. Repeating it with the same id does nothing.
///
/// # Errors
/// Of the database.
pub async fn insert(connection: &mut PgConnection, letter: &DeadLetter) -> Result<(), sqlx::Error> {
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
    sqlx::query(
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
    Ok(())
}
