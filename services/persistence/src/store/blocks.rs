//! Which users have blocked which. `conversations.blocked` says the same of direct conversations. Both are written under the locked
//! rows of the two users, which a batch that creates a direct conversation locks as well: neither misses the other.

use std::collections::HashSet;

use parlance_proto::v1::ConversationKind;
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::corrupt;
use crate::model::state::{Effects, Loaded};

/// Locks the two users and their direct conversation, in the order in which batches do. Which of the users exist.
///
/// # Errors
/// [`sqlx::Error`] if a statement fails.
pub async fn lock(
    connection: &mut PgConnection,
    user: &UserId,
    other: &UserId,
) -> Result<HashSet<String>, sqlx::Error> {
    sqlx::query("SELECT FROM conversations WHERE conversation_id = $1 FOR NO KEY UPDATE")
        .bind(ConversationId::direct(user, other).uuid())
        .execute(&mut *connection)
        .await?;
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT user_id FROM users WHERE user_id = ANY($1) AND deleted_at IS NULL
         ORDER BY user_id FOR NO KEY UPDATE",
    )
    .bind(vec![user.as_str(), other.as_str()])
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().collect())
}

/// How many users this one has blocked.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn count(connection: &mut PgConnection, user: &UserId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM blocks WHERE user_id = $1")
        .bind(user.as_str())
        .fetch_one(connection)
        .await
}

/// Blocks a user, or ends that; whether it changed anything.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn set(
    connection: &mut PgConnection,
    user: &UserId,
    other: &UserId,
    blocked: bool,
) -> Result<bool, sqlx::Error> {
    let statement = match blocked {
        true => "INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        false => "DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2",
    };
    let done = sqlx::query(statement)
        .bind(user.as_str())
        .bind(other.as_str())
        .execute(&mut *connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Writes to the direct conversation of two users whether one has blocked the other.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn mark_direct(
    connection: &mut PgConnection,
    user: &UserId,
    other: &UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE conversations SET blocked = EXISTS (SELECT FROM blocks WHERE user_id = $2 AND blocked_id = $3)
                                         OR EXISTS (SELECT FROM blocks WHERE user_id = $3 AND blocked_id = $2)
         WHERE conversation_id = $1",
    )
    .bind(ConversationId::direct(user, other).uuid())
    .bind(user.as_str())
    .bind(other.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// The same of the direct conversations that a batch created, once it has locked their users: a block may have come after the batch
/// looked for it.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub(crate) async fn mark_created(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let is_direct = |id: &&ConversationId| {
        let state = loaded.conversations.get(*id);
        state.is_some_and(|state| state.kind == ConversationKind::Direct)
    };
    let created = effects.created.iter().chain(&effects.changed).filter(is_direct);
    let created: Vec<Uuid> = created.map(|id| id.uuid()).collect();
    if created.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE conversations c SET blocked = true
         WHERE c.conversation_id = ANY($1) AND NOT c.blocked
           AND EXISTS (SELECT FROM participants p
                       JOIN participants o ON o.conversation_id = p.conversation_id AND o.user_id <> p.user_id
                       JOIN blocks b ON b.user_id = p.user_id AND b.blocked_id = o.user_id
                       WHERE p.conversation_id = c.conversation_id)",
    )
    .bind(created)
    .execute(connection)
    .await?;
    Ok(())
}

/// The sets of conversations of these users get their next versions though they are the same: gateways that missed the notice
/// notice that.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn bump(
    connection: &mut PgConnection,
    user: &UserId,
    other: &UserId,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "UPDATE users SET memberships_version = memberships_version + 1,
                conversations_at = CASE WHEN conversations_at = memberships_version THEN memberships_version + 1
                                        ELSE conversations_at END
         WHERE user_id = ANY($1) RETURNING user_id, memberships_version",
    )
    .bind(vec![user.as_str(), other.as_str()])
    .fetch_all(connection)
    .await
}

/// Which of these pairs are blocks: of the first by the second of each pair.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub(super) async fn among(
    connection: &mut PgConnection,
    pairs: &HashSet<(&str, &str)>,
) -> Result<HashSet<(UserId, UserId)>, sqlx::Error> {
    if pairs.is_empty() {
        return Ok(HashSet::new());
    }
    let (users, blocked): (Vec<&str>, Vec<&str>) = pairs.iter().copied().unzip();
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT b.user_id, b.blocked_id FROM unnest($1::text[], $2::text[]) AS asked (user_id, blocked_id)
         CROSS JOIN LATERAL (SELECT * FROM blocks x WHERE x.user_id = asked.user_id
                             AND x.blocked_id = asked.blocked_id LIMIT 1) AS b",
    )
    .bind(users)
    .bind(blocked)
    .fetch_all(connection)
    .await?;
    let id = |id: String| UserId::parse(id).map_err(|_| corrupt("a user id"));
    rows.into_iter()
        .map(|(user, blocked)| Ok((id(user)?, id(blocked)?)))
        .collect()
}

/// Those of these users who have blocked the viewer, or whom the viewer has blocked.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn hidden_from(
    connection: &mut PgConnection,
    viewer: &str,
    users: &[String],
) -> Result<HashSet<String>, sqlx::Error> {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT blocked_id FROM blocks WHERE user_id = $1 AND blocked_id = ANY($2)
         UNION SELECT user_id FROM blocks WHERE blocked_id = $1 AND user_id = ANY($2)",
    )
    .bind(viewer)
    .bind(users)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// At most `limit` users with greater ids than `after` whom a user has blocked, `both_ways` with those who have blocked the user; by
/// ascending id.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn page(
    connection: &mut PgConnection,
    user: &str,
    after: &str,
    limit: i64,
    both_ways: bool,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM
           ((SELECT blocked_id AS id FROM blocks WHERE user_id = $1 AND blocked_id > $2 ORDER BY blocked_id LIMIT $3)
            UNION
            (SELECT user_id FROM blocks WHERE $4 AND blocked_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3)) AS found
         ORDER BY id LIMIT $3",
    )
    .bind(user)
    .bind(after)
    .bind(limit)
    .bind(both_ways)
    .fetch_all(connection)
    .await
}
