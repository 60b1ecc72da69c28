//! What users were served: by events of their sessions, and by what they read.
//!
//! Rows are written in the order of their keys, so that writers do not block each other. A commit here need not be
//! durable, and only its own statement says so: what a crash of the database loses is served once more.

use parlance_proto::ConversationId;
use sqlx::PgConnection;

use super::seq_to;

/// A user's place in a conversation.
#[derive(Debug, Clone)]
pub struct Position {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: String,
    /// Everything up to here.
    pub seq: u64,
}

/// Users were served everything up to these seqs; lower ones than before change nothing.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn reach(connection: &mut PgConnection, positions: &[Position]) -> Result<(), sqlx::Error> {
    write(
        connection,
        positions,
        "INSERT INTO served AS s (conversation_id, user_id, seq)
         SELECT conversation_id, user_id, max(seq)
         FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick,
              unnest($1::uuid[], $2::text[], $3::int8[]) AS new (conversation_id, user_id, seq)
         GROUP BY conversation_id, user_id ORDER BY conversation_id, user_id
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET seq = excluded.seq
         WHERE s.seq IS NULL OR s.seq < excluded.seq",
    )
    .await
}

/// Users were shown lists that count what is unread up to these seqs.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn list(connection: &mut PgConnection, positions: &[Position]) -> Result<(), sqlx::Error> {
    write(
        connection,
        positions,
        "INSERT INTO served AS s (conversation_id, user_id, listed_seq)
         SELECT conversation_id, user_id, max(seq)
         FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quick,
              unnest($1::uuid[], $2::text[], $3::int8[]) AS new (conversation_id, user_id, seq)
         GROUP BY conversation_id, user_id ORDER BY conversation_id, user_id
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET listed_seq = excluded.listed_seq
         WHERE s.listed_seq < excluded.listed_seq",
    )
    .await
}

async fn write(
    connection: &mut PgConnection,
    positions: &[Position],
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    if positions.is_empty() {
        return Ok(());
    }
    sqlx::query(statement)
        .bind(
            positions
                .iter()
                .map(|one| one.conversation.uuid())
                .collect::<Vec<_>>(),
        )
        .bind(positions.iter().map(|one| one.user.as_str()).collect::<Vec<_>>())
        .bind(positions.iter().map(|one| seq_to(one.seq)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Up to where a user was served.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn of(
    connection: &mut PgConnection,
    conversation: ConversationId,
    user: &str,
) -> Result<Option<i64>, sqlx::Error> {
    let seq: Option<Option<i64>> =
        sqlx::query_scalar("SELECT seq FROM served WHERE conversation_id = $1 AND user_id = $2")
            .bind(conversation.uuid())
            .bind(user)
            .fetch_optional(connection)
            .await?;
    Ok(seq.flatten())
}
