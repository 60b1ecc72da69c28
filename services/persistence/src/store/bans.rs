//! Users who are banned from groups: read and written under the locked row of the group.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use parlance_proto::{ConversationId, UserId, v1};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, from_millis, millis, seq_from};
use crate::model::state::{Effects, Loaded};

/// Notes in the conversations of a batch which of these users are banned there, and in these how many are.
///
/// # Errors
/// [`sqlx::Error`] if a query fails.
pub(super) async fn load(
    connection: &mut PgConnection,
    users: &BTreeSet<(Uuid, &str)>,
    counted: &BTreeSet<Uuid>,
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    if !users.is_empty() {
        let (conversations, users): (Vec<Uuid>, Vec<&str>) = users.iter().copied().unzip();
        let rows: Vec<(Uuid, String)> = sqlx::query_as(
            "SELECT asked.conversation_id, asked.user_id
             FROM unnest($1::uuid[], $2::text[]) AS asked (conversation_id, user_id)
             WHERE EXISTS (SELECT FROM bans b WHERE b.conversation_id = asked.conversation_id
                                                AND b.user_id = asked.user_id)",
        )
        .bind(conversations)
        .bind(users)
        .fetch_all(&mut *connection)
        .await?;
        for (id, user) in rows {
            let user = UserId::parse(user).map_err(|_| corrupt("a user id"))?;
            if let Some(state) = loaded.conversations.get_mut(&ConversationId::from_uuid(id)) {
                state.banned.insert(user);
            }
        }
    }
    if !counted.is_empty() {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT conversation_id, count(*) FROM bans WHERE conversation_id = ANY($1) GROUP BY conversation_id",
        )
        .bind(counted.iter().copied().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        for (id, count) in rows {
            if let Some(state) = loaded.conversations.get_mut(&ConversationId::from_uuid(id)) {
                state.ban_count = seq_from(count)?;
            }
        }
    }
    Ok(())
}

/// Writes which users are banned, and whose bans ended.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let (banned, ended): (Vec<_>, Vec<_>) = effects.bans.iter().partition(|(_, ban)| ban.is_some());
    if !banned.is_empty() {
        let by = || banned.iter().filter_map(|(_, by)| by.as_ref());
        sqlx::query(
            "INSERT INTO bans (conversation_id, user_id, banned_by, at)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
             ON CONFLICT DO NOTHING",
        )
        .bind(banned.iter().map(|((id, _), _)| id.uuid()).collect::<Vec<_>>())
        .bind(
            banned
                .iter()
                .map(|((_, user), _)| user.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(by().map(|(by, _)| by.as_str()).collect::<Vec<_>>())
        .bind(by().map(|(_, at_ms)| from_millis(*at_ms)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !ended.is_empty() {
        sqlx::query(
            "DELETE FROM bans b USING unnest($1::uuid[], $2::text[]) AS ended (conversation_id, user_id)
             WHERE b.conversation_id = ended.conversation_id AND b.user_id = ended.user_id",
        )
        .bind(ended.iter().map(|((id, _), _)| id.uuid()).collect::<Vec<_>>())
        .bind(
            ended
                .iter()
                .map(|((_, user), _)| user.as_str())
                .collect::<Vec<_>>(),
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// At most `limit` users banned from a conversation with greater ids than `after`, by ascending id.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn page(
    connection: &mut PgConnection,
    conversation: Uuid,
    after: &str,
    limit: i64,
) -> Result<Vec<v1::Ban>, sqlx::Error> {
    let rows: Vec<(String, String, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT b.user_id, u.username, b.banned_by, b.at
         FROM (SELECT * FROM bans x WHERE x.conversation_id = $1 AND x.user_id > $2
               ORDER BY x.user_id LIMIT $3) AS b
         JOIN users u ON u.user_id = b.user_id
         ORDER BY b.user_id",
    )
    .bind(conversation)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let ban = |(user_id, username, banned_by, at)| v1::Ban {
        user_id,
        username,
        banned_by,
        at_ms: millis(at),
    };
    Ok(rows.into_iter().map(ban).collect())
}
