//! The users banned from a group, for those who may end bans.

use parlance_proto::v1::{self, ConversationKind};
use sqlx::PgConnection;

use super::head;
use super::page::{check_user_cursor, cut_page_by_user, limit};
use crate::error::QueryError;
use crate::model::permissions::{Form, Right, verdict};
use crate::model::refusals::{granted, no_conversation};
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
    check_user_cursor(&query.after)?;
    let limit = limit(query.limit);
    let mut bans = store::page(connection, id, &query.after, i64::from(limit) + 1).await?;
    let next = cut_page_by_user(&mut bans, limit, |ban| &ban.user_id);
    Ok(v1::BanPage { bans, next })
}
