//! Making users known, and the sets of conversations they belong to.

use parlance_proto::text::shown;
use parlance_proto::v1::{self, ErrorCode};
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{QueryError, Viewer};
use crate::database::Database;
use crate::ingest::work::refuse;
use crate::store::users as store;

/// Longest name in characters.
const NAME_MAX_CHARS: usize = 128;
/// Conversations named in one question.
const MAX_CONVERSATIONS: usize = 1_000;
/// Ended memberships in one answer.
const MAX_REMOVALS: i64 = 100;

/// Finds or creates the actor. Writes only when something is new: connecting is frequent, renaming is not.
pub(super) async fn provision(
    database: &Database,
    actor: &v1::Actor,
    create: bool,
) -> Result<v1::User, QueryError> {
    let v1::Actor {
        user_id, username, ..
    } = actor;
    if username.contains('\0') {
        return Err(refuse("username holds a NUL character").into());
    }
    let said = shown(username);
    let known = {
        let mut connection = database.reads.acquire().await?;
        store::find(&mut connection, user_id).await?
    };
    let seen_at_ms = known.as_ref().map_or(0, |known| known.user.seen_at_ms);
    match known {
        Some(known) if said.is_empty() || known.token_name == said => return Ok(known.user),
        None if !create => return Err(unknown().into()),
        _ => {}
    }
    // Not on the connections for reads: their statement timeout must never meet a commit.
    let mut connection = database.writes.acquire().await?;
    let user = store::upsert(&mut connection, user_id, &said).await?;
    // Deleted: neither mode lets a deleted user in again.
    Ok(v1::User {
        seen_at_ms,
        ..user.ok_or_else(unknown)?
    })
}

/// Gives a user a name; on behalf of a user only their own.
pub(super) async fn set_name(
    database: &Database,
    viewer: Viewer<'_>,
    set: &v1::SetName,
) -> Result<v1::User, QueryError> {
    let user = UserId::parse(set.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
    if viewer.is_some_and(|viewer| viewer != user.as_str()) {
        return Err(unknown().into());
    }
    let name = shown(&set.name);
    if name.chars().count() > NAME_MAX_CHARS {
        return Err(refuse(format!("a name has at most {NAME_MAX_CHARS} characters")).into());
    }
    let mut connection = database.writes.acquire().await?;
    let named = store::set_name(&mut connection, user.as_str(), &name, set.create).await?;
    Ok(named.ok_or_else(unknown)?)
}

/// Marks a user as an agent, or as a person; only services may.
pub(super) async fn set_agent(
    database: &Database,
    viewer: Viewer<'_>,
    set: &v1::SetAgent,
) -> Result<v1::User, QueryError> {
    let user = UserId::parse(set.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
    if viewer.is_some() {
        return Err(unknown().into());
    }
    let mut connection = database.writes.acquire().await?;
    let marked = store::set_agent(&mut connection, user.as_str(), set.agent, set.create).await?;
    Ok(marked.ok_or_else(unknown)?)
}

pub(super) async fn memberships(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListMemberships,
) -> Result<v1::Memberships, QueryError> {
    let asked: Vec<String> = query
        .user_ids
        .iter()
        .filter(|id| viewer.is_none_or(|viewer| viewer == *id))
        .cloned()
        .collect();
    Ok(v1::Memberships {
        memberships: store::memberships(connection, &asked).await?,
    })
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

fn unknown() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such user")
}
