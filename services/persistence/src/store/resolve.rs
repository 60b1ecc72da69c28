//! From the ids clients have to those we use. They allow nothing by themselves.

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::seq_from;

/// The conversations with these numbers.
///
/// # Errors
/// Of the database.
pub async fn conversations(
    connection: &mut PgConnection,
    numbers: &[i64],
) -> Result<Vec<v1::ResolvedConversation>, sqlx::Error> {
    let rows: Vec<(i64, Uuid)> =
        sqlx::query_as("SELECT number, conversation_id FROM conversation_numbers WHERE number = ANY($1)")
            .bind(numbers)
            .fetch_all(connection)
            .await?;
    let resolved = |(number, id): (i64, Uuid)| v1::ResolvedConversation {
        number,
        conversation_id: id.to_string(),
    };
    Ok(rows.into_iter().map(resolved).collect())
}

/// The places of the messages with these ids.
///
/// # Errors
/// Of the database.
pub async fn messages(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<v1::ResolvedMessage>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, i64)> =
        sqlx::query_as("SELECT message_id, conversation_id, seq FROM messages WHERE message_id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    rows.into_iter()
        .map(|(message_id, conversation_id, seq)| {
            Ok(v1::ResolvedMessage {
                message_id: message_id.to_string(),
                conversation_id: conversation_id.to_string(),
                seq: seq_from(seq)?,
            })
        })
        .collect()
}
