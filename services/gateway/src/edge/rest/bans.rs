//! Users who are banned from a group.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use parlance_proto::ConversationId;
use parlance_proto::v1::{Ban, BanPage};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::change;
use super::participants::PageQuery;
use super::{Asked, Caller, Named, Names, asked, page_size};
use crate::actions::core::Core;
use crate::dialect::representation::AnyConversation;
use crate::dialect::shape::time;
use crate::dialect::{ConversationAction, ConversationRef};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(ban, unban))
}

/// A banned user.
#[derive(Serialize, ToSchema)]
#[schema(as = Ban)]
struct BanJson<'a> {
    user_id: &'a str,
    username: &'a str,
    /// The id of the user who banned them.
    banned_by: &'a str,
    #[schema(format = DateTime)]
    banned_at: String,
}

/// Users who are banned, by ascending id.
#[derive(Serialize, ToSchema)]
#[schema(as = BanPage)]
struct BanPageJson<'a> {
    bans: Vec<BanJson<'a>>,
    /// The `after` of the next page; null on the last one.
    #[schema(required)]
    next: Option<&'a str>,
}

fn json(page: &BanPage) -> BanPageJson<'_> {
    BanPageJson {
        bans: page.bans.iter().map(one).collect(),
        next: Some(page.next.as_str()).filter(|next| !next.is_empty()),
    }
}

fn one(ban: &Ban) -> BanJson<'_> {
    BanJson {
        user_id: &ban.user_id,
        username: &ban.username,
        banned_by: &ban.banned_by,
        banned_at: time(ban.at_ms),
    }
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/bans",
    operation_id = "list_bans",
    tag = "participants",
    summary = "Lists the users who are banned from a group, by ascending id; for those who may end bans.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), PageQuery),
    responses(
        (status = 200, description = "A page; `next` is the `after` of the next one.", body = BanPageJson<'_>),
    ),
)]
async fn list(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<PageQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let page = caller.reads(&core).bans(id, query.after, limit).await?;
    Ok(Json(json(&page)).into_response())
}

#[utoipa::path(
    put,
    path = "/conversations/{id}/bans/{user_id}",
    operation_id = "ban_user",
    tag = "participants",
    summary = "Removes a user from a group for good: nobody adds them before the ban ends. Also of users who are not in it.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn ban(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    change(&core, &caller, of(id, &names, true)?).await
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}/bans/{user_id}",
    operation_id = "unban_user",
    tag = "participants",
    summary = "Ends a ban; it does not add the user.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn unban(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    change(&core, &caller, of(id, &names, false)?).await
}

fn of(id: ConversationId, names: &Names, banned: bool) -> Result<ConversationAction, ClientError> {
    Ok(ConversationAction::Ban {
        conversation: id.into(),
        user: names.user()?,
        banned,
    })
}
