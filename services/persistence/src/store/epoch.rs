//! Which life of the data this is.

use sqlx::PgConnection;
use uuid::Uuid;

/// The present epoch.
///
/// # Errors
/// Of the database.
pub async fn current(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let id: Uuid = sqlx::query_scalar("SELECT id FROM epoch")
        .fetch_one(connection)
        .await?;
    Ok(id.to_string())
}

/// Begins a new one: every seq known before is void.
///
/// # Errors
/// Of the database.
pub async fn replace(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO epoch (id) VALUES ($1)
         ON CONFLICT (only_row) DO UPDATE SET id = excluded.id, made_at = now()",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}
