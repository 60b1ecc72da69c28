//! Blocks: set by users, listed for them and for gateways. Enforced where commands are carried out and presence is read.

use parlance_bus::Bus;
use parlance_proto::UserId;
use parlance_proto::v1::{self, ErrorCode, user_notice};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::arrivals::unknown;
use super::page::check_user_cursor;
use crate::database::Database;
use crate::error::{QueryError, by};
use crate::model::refusals::refuse;
use crate::store::blocks as store;

/// Users in one answer; they fit the bus with the longest ids.
const MAX_LIMIT: u32 = 1_000;

/// The viewer blocks a user, or ends that. Gateways of both are notified once it is committed; one that misses the notice finds
/// another version of their conversations.
pub(super) async fn set(
    database: &Database,
    bus: &Bus,
    viewer: &str,
    set: &v1::SetBlock,
    most: u64,
    deadline: Instant,
) -> Result<v1::BlockSet, QueryError> {
    let parse = |id: &str| UserId::parse(id).map_err(|error| refuse(error.to_string()));
    let (user, other) = (parse(viewer)?, parse(&set.user_id)?);
    if user == other {
        return Err(refuse("user_id is you; it names another user").into());
    }
    let mut connection = by(deadline, database.writes.acquire()).await?;
    let mut transaction = connection.begin().await?;
    let found = store::lock(&mut transaction, &user, &other).await?;
    if !found.contains(user.as_str()) || set.blocked && !found.contains(other.as_str()) {
        return Err(unknown().into());
    }
    if !store::set(&mut transaction, &user, &other, set.blocked).await? {
        return Ok(v1::BlockSet {});
    }
    let blocked = store::count(&mut transaction, &user).await?;
    if set.blocked && u64::try_from(blocked).unwrap_or_default() > most {
        let message = format!("you have blocked as many users as limits.user_blocks allows: {most}");
        return Err(v1::Error::with(ErrorCode::TooLarge, message).into());
    }
    store::mark_direct(&mut transaction, &user, &other).await?;
    let versions = store::bump(&mut transaction, &user, &other).await?;
    transaction.commit().await?;
    for (user_id, version) in versions {
        let notice = v1::UserNotice {
            user_id,
            memberships_version: u64::try_from(version).unwrap_or_default(),
            users: Vec::new(),
            body: Some(user_notice::Body::BlockChanged(v1::BlockChanged {
                user_id: user.to_string(),
                blocked_id: other.to_string(),
                blocked: set.blocked,
            })),
        };
        if let Err(error) = bus.notify(&notice).await {
            tracing::debug!(%error, "a block is not notified");
        }
    }
    Ok(v1::BlockSet {})
}

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListBlocks,
) -> Result<v1::BlockPage, QueryError> {
    check_user_cursor(&query.after)?;
    let limit = query.limit.clamp(1, MAX_LIMIT);
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let limit = i64::from(limit) + 1;
    let mut users = store::page(connection, viewer, &query.after, limit, query.both_ways).await?;
    let is_last = users.len() <= most;
    users.truncate(most);
    let next = users.last().filter(|_| !is_last).cloned().unwrap_or_default();
    Ok(v1::BlockPage {
        user_ids: users,
        next,
    })
}
