//! What services say of users, and the conversations a user belongs to no more.

use parlance_proto::text::shown;
use parlance_proto::v1;
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::Viewer;
use super::arrivals::unknown;
use super::page::{MAX_BYTES, fitting};
use crate::database::Database;
use crate::error::{QueryError, by};
use crate::model::refusals::refuse;
use crate::store::users as store;

/// Longest name in characters.
const NAME_MAX_CHARS: usize = 128;
/// Users in one query.
const MAX_USERS: usize = 500;
/// Conversations named in one question.
const MAX_CONVERSATIONS: usize = 1_000;
/// Ended memberships in one answer.
const MAX_REMOVALS: i64 = 100;

/// Gives a user a name; on behalf of a user only their own.
pub(super) async fn set_name(
    database: &Database,
    viewer: Viewer<'_>,
    set: &v1::SetName,
    deadline: Instant,
) -> Result<v1::User, QueryError> {
    let user = UserId::parse(set.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
    if viewer.is_some_and(|viewer| viewer != user.as_str()) {
        return Err(unknown().into());
    }
    let name = shown(&set.name);
    if name.chars().count() > NAME_MAX_CHARS {
        return Err(refuse(format!("a name has at most {NAME_MAX_CHARS} characters")).into());
    }
    let mut connection = by(deadline, database.writes.acquire()).await?;
    let named = store::set_name(&mut connection, user.as_str(), &name, set.create).await?;
    Ok(named.ok_or_else(unknown)?)
}

/// Marks a user as an agent, or as a person; only services may.
pub(super) async fn set_agent(
    database: &Database,
    viewer: Viewer<'_>,
    set: &v1::SetAgent,
    deadline: Instant,
) -> Result<v1::User, QueryError> {
    let user = UserId::parse(set.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
    if viewer.is_some() {
        return Err(unknown().into());
    }
    let mut connection = by(deadline, database.writes.acquire()).await?;
    let marked = store::set_agent(&mut connection, user.as_str(), set.agent, set.create).await?;
    Ok(marked.ok_or_else(unknown)?)
}

/// The conversations the viewer belongs to no more.
pub(super) async fn removals(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListRemovals,
) -> Result<v1::Removals, QueryError> {
    if query.conversation_ids.len() > MAX_CONVERSATIONS {
        return Err(refuse(format!("more than {MAX_CONVERSATIONS} conversations")).into());
    }
    let named = query.conversation_ids.iter();
    let named: Vec<Uuid> = named
        .filter_map(|id| Some(id.parse::<ConversationId>().ok()?.uuid()))
        .collect();
    let since_ms = Some(query.since_ms).filter(|since| *since > 0);
    Ok(v1::Removals {
        removals: store::removals(connection, viewer, since_ms, &named, MAX_REMOVALS).await?,
    })
}

/// The conversations that each of these users belongs to no more since they were seen.
pub(super) async fn find_removals(
    connection: &mut PgConnection,
    query: &v1::FindRemovals,
) -> Result<v1::FoundRemovals, QueryError> {
    if query.users.len() > MAX_USERS {
        return Err(refuse(format!("more than {MAX_USERS} users")).into());
    }
    let asked = query.users.iter().map(|one| (one.user_id.as_str(), one.since_ms));
    let asked: Vec<(&str, i64)> = asked.collect();
    let removals = store::removals_since(connection, &asked, MAX_REMOVALS).await?;
    let users = removals.into_iter().map(|removals| v1::Removals { removals });
    let mut users: Vec<v1::Removals> = users.collect();
    // Those at the end are asked about again.
    users.truncate(fitting(&users, MAX_BYTES));
    Ok(v1::FoundRemovals { users })
}
