//! Users and their sets of conversations.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::receipts::unread_messages;
use super::{from_millis, millis, seq_from};
use crate::ingest::tell::Unnamed;

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: String,
    number: i64,
    username: String,
    memberships_version: i64,
    seen_at: Option<DateTime<Utc>>,
    agent: bool,
    token_name: String,
}

/// A living user, with what only provisioning must know.
pub struct Known {
    /// The user.
    pub user: v1::User,
    /// The name the user's tokens said last.
    pub token_name: String,
}

#[derive(sqlx::FromRow)]
struct MembershipRow {
    user_id: String,
    memberships_version: i64,
    conversations: Vec<Uuid>,
    unread: Vec<i64>,
    heads: Vec<i64>,
    delivered: Vec<i64>,
    served: Vec<i64>,
    listed: Vec<i64>,
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
        } = row;
        let user = v1::User {
            user_id,
            number,
            username,
            memberships_version: seq_from(memberships_version)?,
            seen_at_ms: seen_at.map_or(0, millis),
            agent,
        };
        Ok(Self { user, token_name })
    }
}

/// A living user, with up to when an earlier session was surely told what was committed: while it is open, a
/// minute before the latest report of its gateway: in that time any dead connection is noticed.
///
/// # Errors
/// Of the database.
pub async fn find(connection: &mut PgConnection, id: &str) -> Result<Option<Known>, sqlx::Error> {
    let row: Option<UserRow> = sqlx::query_as(
        "SELECT u.user_id, u.number, u.username, u.memberships_version, u.agent,
                coalesce(u.token_name, u.username) AS token_name,
                greatest(p.alive_at, (SELECT max(g.renewed_at) - interval '60 seconds' FROM sessions s JOIN gateways g ON g.instance = s.gateway
                                      WHERE s.user_id = u.user_id)) AS seen_at
         FROM users u LEFT JOIN presence p USING (user_id)
         WHERE u.user_id = $1 AND u.deleted_at IS NULL",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// Creates the user if need be and gives them the name that a token says, if any; `None` if they were deleted. Earlier
/// sessions are left out.
///
/// # Errors
/// Of the database.
pub async fn upsert(
    connection: &mut PgConnection,
    id: &str,
    said: &str,
) -> Result<Option<v1::User>, sqlx::Error> {
    let row: Option<UserRow> = sqlx::query_as(
        "INSERT INTO users AS u (user_id, username, token_name) VALUES ($1, coalesce(nullif($2, ''), $1), nullif($2, ''))
         ON CONFLICT (user_id) DO UPDATE SET username = coalesce(nullif($2, ''), u.username),
             token_name = coalesce(nullif($2, ''), u.token_name), updated_at = now()
         WHERE u.deleted_at IS NULL
         RETURNING user_id, number, username, memberships_version, agent, NULL::timestamptz AS seen_at,
                   username AS token_name",
    )
    .bind(id)
    .bind(said)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Known::try_from).transpose()?.map(|known| known.user))
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
         RETURNING user_id, number, username, memberships_version, agent, NULL::timestamptz AS seen_at, username AS token_name",
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
         RETURNING user_id, number, username, memberships_version, agent, NULL::timestamptz AS seen_at, username AS token_name",
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

/// The conversations each living user belongs to now, journals left out, with what is unread in them.
///
/// # Errors
/// Of the database.
pub async fn memberships(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<Vec<v1::Membership>, sqlx::Error> {
    // One statement, one snapshot: the set is exactly the version's.
    let rows: Vec<MembershipRow> = sqlx::query_as(concat!(
        "SELECT u.user_id, u.memberships_version, m.conversations, m.unread, m.heads, m.delivered, m.served, m.listed
         FROM users u
         CROSS JOIN LATERAL
              (SELECT coalesce(array_agg(c.conversation_id ORDER BY c.conversation_id), '{}') AS conversations,
                      coalesce(array_agg(n.unread ORDER BY c.conversation_id), '{}') AS unread,
                      coalesce(array_agg(c.head_seq ORDER BY c.conversation_id), '{}') AS heads,
                      coalesce(array_agg(p.delivered_seq ORDER BY c.conversation_id), '{}') AS delivered,
                      coalesce(array_agg(coalesce(s.seq, 0) ORDER BY c.conversation_id), '{}') AS served,
                      coalesce(array_agg(coalesce(s.listed_seq, 0) ORDER BY c.conversation_id), '{}') AS listed
               FROM participants p JOIN conversations c USING (conversation_id)
               LEFT JOIN served s ON s.conversation_id = p.conversation_id AND s.user_id = p.user_id
               CROSS JOIN ",
        unread_messages!(),
        " WHERE p.user_id = u.user_id AND p.left_seq IS NULL AND c.kind <> 3) AS m
         WHERE u.user_id = ANY($1) AND u.deleted_at IS NULL"
    ))
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(
            |MembershipRow {
                 user_id,
                 memberships_version,
                 conversations,
                 unread,
                 heads,
                 delivered,
                 served,
                 listed,
             }| {
                Ok(v1::Membership {
                    user_id,
                    version: seq_from(memberships_version)?,
                    conversation_ids: conversations.iter().map(Uuid::to_string).collect(),
                    unread: unread.into_iter().map(seq_from).collect::<Result<_, _>>()?,
                    head_seqs: heads.into_iter().map(seq_from).collect::<Result<_, _>>()?,
                    delivered_seqs: delivered.into_iter().map(seq_from).collect::<Result<_, _>>()?,
                    served_seqs: served.into_iter().map(seq_from).collect::<Result<_, _>>()?,
                    listed_seqs: listed.into_iter().map(seq_from).collect::<Result<_, _>>()?,
                })
            },
        )
        .collect()
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
    let removal = |(id, number): (Uuid, i64)| v1::Removal {
        conversation_id: id.to_string(),
        number,
    };
    Ok(rows.into_iter().map(removal).collect())
}
