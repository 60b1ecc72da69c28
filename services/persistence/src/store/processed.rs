//! Commands that were processed and leave no other trace: so that a redelivery changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use parlance_proto::v1::{self, ErrorCode};
use parlance_proto::{CommandId, ConversationId};
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::{corrupt, from_millis, seq_from, seq_to, small};
use crate::model::processed::{CommandKey, Processed};

#[derive(sqlx::FromRow)]
struct Row {
    conversation_id: Uuid,
    command_id: Uuid,
    code: Option<i16>,
    message: Option<String>,
    seq: Option<i64>,
}

/// Those of these commands that were processed.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn among(
    connection: &mut PgConnection,
    commands: &[CommandKey],
) -> Result<HashMap<CommandKey, Processed>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT p.conversation_id, p.command_id, p.code, p.message, p.seq
         FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, command_id)
         CROSS JOIN LATERAL (SELECT * FROM processed_commands x WHERE x.conversation_id = asked.conversation_id
                             AND x.command_id = asked.command_id LIMIT 1) AS p",
    )
    .bind(commands.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(commands.iter().map(|(_, id)| id.uuid()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(
            |Row {
                 conversation_id,
                 command_id,
                 code,
                 message,
                 seq,
             }| {
                let key = (
                    ConversationId::from_uuid(conversation_id),
                    CommandId::from_uuid(command_id),
                );
                let refusal = code.map(|code| {
                    let code = ErrorCode::try_from(i32::from(code)).map_err(|_| corrupt("an error code"))?;
                    Ok::<_, sqlx::Error>(v1::Error {
                        code: code.into(),
                        message: message.unwrap_or_default(),
                        retry_after_ms: 0,
                    })
                });
                let processed = Processed {
                    refusal: refusal.transpose()?,
                    seq: seq_from(seq.unwrap_or_default())?,
                };
                Ok((key, processed))
            },
        )
        .collect()
}

/// Remembers commands and how they were answered. One that is remembered keeps its first outcome.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn remember(
    connection: &mut PgConnection,
    commands: &[(CommandKey, Processed)],
) -> Result<(), sqlx::Error> {
    let refusals = || commands.iter().map(|(_, processed)| processed.refusal.as_ref());
    sqlx::query(
        "INSERT INTO processed_commands (conversation_id, command_id, code, message, seq)
         SELECT conversation_id, command_id, code, message, seq
         FROM unnest($1::uuid[], $2::uuid[], $3::int2[], $4::text[], $5::int8[])
              AS new (conversation_id, command_id, code, message, seq)
         ON CONFLICT DO NOTHING",
    )
    .bind(commands.iter().map(|((id, _), _)| id.uuid()).collect::<Vec<_>>())
    .bind(commands.iter().map(|((_, id), _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        refusals()
            .map(|refusal| refusal.map(|error| small(error.code)))
            .collect::<Vec<_>>(),
    )
    .bind(
        refusals()
            .map(|refusal| refusal.map(|error| error.message.replace('\0', "\u{FFFD}")))
            .collect::<Vec<_>>(),
    )
    .bind(
        commands
            .iter()
            .map(|(_, processed)| (processed.seq > 0).then(|| seq_to(processed.seq)))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets at most `limit` commands that were processed longer than `age` ago and before `before_ms`, unix milliseconds. How
/// many.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn forget(
    connection: &mut PgConnection,
    age: Duration,
    before_ms: Option<i64>,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let age = PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(age.as_micros()).unwrap_or(i64::MAX),
    };
    let done = sqlx::query(
        "DELETE FROM processed_commands p
         USING (SELECT conversation_id, command_id FROM processed_commands
                WHERE at < least(now() - $1, coalesce($2, 'infinity')) ORDER BY at LIMIT $3 FOR UPDATE SKIP LOCKED)
               AS old
         WHERE p.conversation_id = old.conversation_id AND p.command_id = old.command_id",
    )
    .bind(age)
    .bind(before_ms.map(from_millis))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
