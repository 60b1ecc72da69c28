//! The users banned from a group, for those who may end bans.

use parlance_proto::UserId;
use parlance_proto::v1::{self, ConversationKind};
use sqlx::PgConnection;

use super::head;
use super::page::{MAX_BYTES, fitting, limit};
use crate::error::QueryError;
use crate::model::permissions::{Form, Right, verdict};
use crate::model::refusals::{granted, no_conversation, refuse};
use crate::store::{bans as store, participants};

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListBans,
) -> Result<v1::BanPage, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    let id = head.id.uuid();
    let key = (id, viewer.to_owned());
    let found = participants::among(connection, &[(id, viewer)]).await?;
    let role = found
        .get(&key)
        .map(v1::Participant::role)
        .ok_or_else(no_conversation)?;
    // Open or not, only roles decide.
    let kind = ConversationKind::try_from(head.kind).unwrap_or_default();
    granted(verdict(Form::of(kind, false), role, Right::Unban))?;
    if !query.after.is_empty() {
        UserId::parse(query.after.as_str()).map_err(|_| refuse("after is no user id"))?;
    }
    let limit = limit(query.limit);
    let mut bans = store::page(connection, id, &query.after, i64::from(limit) + 1).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let kept = fitting(bans.iter().take(most), MAX_BYTES);
    let is_last = kept == bans.len();
    bans.truncate(kept);
    let next = bans.last().filter(|_| !is_last);
    let next = next.map(|ban| ban.user_id.clone()).unwrap_or_default();
    Ok(v1::BanPage { bans, next })
}
