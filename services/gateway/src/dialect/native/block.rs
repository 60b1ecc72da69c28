//! Blocking users in the native representation: what is asked, answered, and what the user's sessions are notified of. Pure.

use parlance_proto::v1::{BlockChanged, BlockPage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dialect::{Action, UserRef};
use crate::error::ClientError;
use crate::limits::page_size;

#[derive(Deserialize, ToSchema)]
#[schema(as = UserPayload)]
pub(super) struct UserPayload {
    user_id: UserRef,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = BlocksPayload)]
pub(super) struct BlocksPayload {
    // The `next` of the page before; without it, the first page.
    after: Option<UserRef>,
    /// 50 by default; more than 100 count as 100.
    #[schema(minimum = 1)]
    limit: Option<u32>,
}

/// Users that one has blocked, by ascending id.
#[derive(Serialize, ToSchema)]
#[schema(as = BlockPage)]
pub(crate) struct BlockPageJson<'a> {
    user_ids: Vec<&'a str>,
    /// The `after` of the next page; null on the last one.
    #[schema(required)]
    next: Option<&'a str>,
}

/// Whom a user blocked, or does not block any more.
#[derive(Serialize, ToSchema)]
#[schema(as = BlockChanged)]
pub(super) struct BlockChangedJson<'a> {
    user_id: &'a str,
    blocked: bool,
}

pub(super) fn decode(payload: UserPayload, blocked: bool) -> Action {
    let UserRef(user) = payload.user_id;
    Action::Block { user, blocked }
}

pub(super) fn decode_list(payload: BlocksPayload) -> Result<Action, ClientError> {
    let after = payload.after.map(|UserRef(user)| user.to_string());
    Ok(Action::ListBlocks {
        after: after.unwrap_or_default(),
        limit: page_size(payload.limit)?,
    })
}

/// Writes a page of blocked users.
pub(crate) fn page(page: &BlockPage) -> BlockPageJson<'_> {
    BlockPageJson {
        user_ids: page.user_ids.iter().map(String::as_str).collect(),
        next: Some(page.next.as_str()).filter(|next| !next.is_empty()),
    }
}

/// Writes that the user blocked another, or ended that.
pub(super) fn changed(changed: &BlockChanged) -> BlockChangedJson<'_> {
    BlockChangedJson {
        user_id: &changed.blocked_id,
        blocked: changed.blocked,
    }
}
