//! Users and their sets of conversations.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{from_millis, millis, seq_from};
use crate::model::events::Unnamed;

/// The number of conversations of the user `u`, journals left out: kept where it was counted as of the present version
/// of their set, else counted. With a growth, what it is after the participants were written.
macro_rules! conversation_count {
    () => {
        conversation_count!("0")
    };
    ($growth:literal) => {
        concat!(
            "CASE WHEN u.conversations_at = u.memberships_version THEN u.conversation_count + ",
            $growth,
            " ELSE (SELECT count(*) FROM participants x JOIN conversations y ON y.conversation_id = x.conversation_id
                    WHERE x.user_id = u.user_id AND x.left_seq IS NULL AND y.kind <> 3)
              END"
        )
    };
}
pub(super) use conversation_count;

#[derive(sqlx::FromRow)]
pub(super) struct UserRow {
    user_id: String,
    number: i64,
    username: String,
    memberships_version: i64,
    seen_at: Option<DateTime<Utc>>,
    agent: bool,
    token_name: String,
    has_blocks: bool,
}

/// A living user, with what only provisioning must know.
pub struct Known {
    /// The user.
    pub user: v1::User,
    /// The name the user's tokens said last.
    pub token_name: String,
}

impl UserRow {
    pub(super) fn user_id(&self) -> &str {
        &self.user_id
    }
}

impl TryFrom<UserRow> for Known {
    type Error = sqlx::Error;

    fn try_from(row: UserRow) -> Result<Self, sqlx::Error> {
        let UserRow {
            user_id,
            number,
            username,
            memberships_version,
            seen_at,
            agent,
            token_name,
            has_blocks,
        } = row;
        let user = v1::User {
            user_id,
            number,
            username,
            memberships_version: seq_from(memberships_version)?,
            seen_at_ms: seen_at.map_or(0, millis),
            agent,
            has_blocks,
        };
        Ok(Self { user, token_name })
    }
}

/// Gives a user this name, or takes back the one that was given where it is empty. Creates the user if asked to; `None`
/// where there is none. Earlier sessions are left out.
///
/// # Errors
/// Of the database.
pub async fn set_name(
    connection: &mut PgConnection,
    id: &str,
    name: &str,
    create: bool,
) -> Result<Option<v1::User>, sqlx::Error> {
    let row: Option<UserRow> = sqlx::query_as(
        "INSERT INTO users AS u (user_id, username, token_name)
         SELECT $1, coalesce(nullif($2, ''), $1), $1 WHERE $3 OR EXISTS (SELECT FROM users WHERE user_id = $1)
         ON CONFLICT (user_id) DO UPDATE SET username = coalesce(nullif($2, ''), u.token_name, u.username),
             token_name = coalesce(u.token_name, u.username), updated_at = now()
         WHERE u.deleted_at IS NULL
         RETURNING user_id, number, username, memberships_version, agent, NULL::timestamptz AS seen_at, username AS token_name,
                   false AS has_blocks",
    )
    .bind(id)
    .bind(name)
    .bind(create)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Known::try_from).transpose()?.map(|known| known.user))
}

/// Marks a user as an agent, or as a person. Creates the user if asked to; `None` where there is none. Earlier sessions
/// are left out.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn set_agent(
    connection: &mut PgConnection,
    id: &str,
    agent: bool,
    create: bool,
) -> Result<Option<v1::User>, sqlx::Error> {
    let row: Option<UserRow> = sqlx::query_as(
        "INSERT INTO users AS u (user_id, username, agent)
         SELECT $1, $1, $2 WHERE $3 OR EXISTS (SELECT FROM users WHERE user_id = $1)
         ON CONFLICT (user_id) DO UPDATE SET agent = $2, updated_at = now()
         WHERE u.deleted_at IS NULL
         RETURNING user_id, number, username, memberships_version, agent, NULL::timestamptz AS seen_at, username AS token_name,
                   false AS has_blocks",
    )
    .bind(id)
    .bind(agent)
    .bind(create)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Known::try_from).transpose()?.map(|known| known.user))
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

/// Fills in the names and numbers of people.
///
/// # Errors
/// Of the database.
pub async fn name(connection: &mut PgConnection, people: Vec<Unnamed<'_>>) -> Result<(), sqlx::Error> {
    if people.is_empty() {
        return Ok(());
    }
    let ids: BTreeSet<&str> = people.iter().map(|person| person.id).collect();
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT user_id, username, number FROM users WHERE user_id = ANY($1)")
            .bind(ids.into_iter().map(str::to_owned).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    let names: HashMap<String, (String, i64)> = rows
        .into_iter()
        .map(|(id, username, number)| (id, (username, number)))
        .collect();
    for person in people {
        if let Some((username, number)) = names.get(person.id) {
            person.username.clone_from(username);
            *person.number = *number;
        }
    }
    Ok(())
}

/// Memberships of a user that ended since, or at any time in these conversations: the latest, at most `max`.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn removals(
    connection: &mut PgConnection,
    user: &str,
    since_ms: Option<i64>,
    conversations: &[Uuid],
    max: i64,
) -> Result<Vec<v1::Removal>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT p.conversation_id, c.number FROM participants p JOIN conversations c USING (conversation_id)
         WHERE p.user_id = $1 AND p.left_seq IS NOT NULL AND c.kind <> 3
           AND (p.left_at >= $2 OR p.conversation_id = ANY($3))
         ORDER BY p.left_at DESC NULLS LAST LIMIT $4",
    )
    .bind(user)
    .bind(since_ms.map(from_millis))
    .bind(conversations)
    .bind(max)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, number)| removal(id, number)).collect())
}

/// Memberships of users that ended since, each user beside a time in Unix milliseconds: the latest, at most `max` of each, in
/// the order of the users.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn removals_since(
    connection: &mut PgConnection,
    users: &[(&str, i64)],
    max: i64,
) -> Result<Vec<Vec<v1::Removal>>, sqlx::Error> {
    let rows: Vec<(i64, Uuid, i64)> = sqlx::query_as(
        "SELECT asked.place, ended.conversation_id, ended.number
         FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS asked (user_id, since, place)
         CROSS JOIN LATERAL
              (SELECT p.conversation_id, p.left_at, c.number
               FROM participants p JOIN conversations c USING (conversation_id)
               WHERE p.user_id = asked.user_id AND p.left_seq IS NOT NULL AND c.kind <> 3 AND p.left_at >= asked.since
               ORDER BY p.left_at DESC LIMIT $3) AS ended
         ORDER BY asked.place, ended.left_at DESC",
    )
    .bind(users.iter().map(|(user, _)| *user).collect::<Vec<_>>())
    .bind(users.iter().map(|(_, since_ms)| from_millis(*since_ms)).collect::<Vec<_>>())
    .bind(max)
    .fetch_all(connection)
    .await?;
    let mut removals: Vec<Vec<v1::Removal>> = users.iter().map(|_| Vec::new()).collect();
    for (place, id, number) in rows {
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        if let Some(of_user) = removals.get_mut(place) {
            of_user.push(removal(id, number));
        }
    }
    Ok(removals)
}

fn removal(id: Uuid, number: i64) -> v1::Removal {
    v1::Removal {
        conversation_id: id.to_string(),
        number,
    }
}
