//! Users and their sets of conversations.

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::seq_from;

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: String,
    number: i64,
    username: String,
    memberships_version: i64,
}

impl TryFrom<UserRow> for v1::User {
    type Error = sqlx::Error;

    fn try_from(row: UserRow) -> Result<Self, sqlx::Error> {
        let UserRow {
            user_id,
            number,
            username,
            memberships_version,
        } = row;
        Ok(Self {
            user_id,
            number,
            username,
            memberships_version: seq_from(memberships_version)?,
        })
    }
}

/// A living user.
///
/// # Errors
/// Of the database.
pub async fn find(connection: &mut PgConnection, id: &str) -> Result<Option<v1::User>, sqlx::Error> {
    let row: Option<UserRow> = sqlx::query_as(
        "SELECT user_id, number, username, memberships_version FROM users
         WHERE user_id = $1 AND deleted_at IS NULL",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Creates the user if need be and gives them this name; `None` if they were deleted.
///
/// # Errors
/// Of the database.
pub async fn upsert(
    connection: &mut PgConnection,
    id: &str,
    username: &str,
) -> Result<Option<v1::User>, sqlx::Error> {
    let row: Option<UserRow> = sqlx::query_as(
        "INSERT INTO users AS u (user_id, username) VALUES ($1, $2)
         ON CONFLICT (user_id) DO UPDATE SET username = excluded.username, updated_at = now()
         WHERE u.deleted_at IS NULL
         RETURNING user_id, number, username, memberships_version",
    )
    .bind(id)
    .bind(username)
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Id and memberships_version of those users that live; nothing else is filled in.
///
/// # Errors
/// Of the database.
pub async fn versions(connection: &mut PgConnection, ids: &[String]) -> Result<Vec<v1::User>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT user_id, memberships_version FROM users WHERE user_id = ANY($1) AND deleted_at IS NULL",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(user_id, version)| {
            Ok(v1::User {
                user_id,
                memberships_version: seq_from(version)?,
                ..v1::User::default()
            })
        })
        .collect()
}

/// The conversations each living user belongs to now.
///
/// # Errors
/// Of the database.
pub async fn memberships(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<Vec<v1::Membership>, sqlx::Error> {
    // One statement, one snapshot: the set is exactly the version's.
    let rows: Vec<(String, i64, Vec<Uuid>)> = sqlx::query_as(
        "SELECT u.user_id, u.memberships_version,
                ARRAY(SELECT p.conversation_id FROM participants p
                      WHERE p.user_id = u.user_id AND p.left_seq IS NULL ORDER BY p.conversation_id)
         FROM users u WHERE u.user_id = ANY($1) AND u.deleted_at IS NULL",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(user_id, version, conversations)| {
            Ok(v1::Membership {
                user_id,
                version: seq_from(version)?,
                conversation_ids: conversations.iter().map(Uuid::to_string).collect(),
            })
        })
        .collect()
}
