//! Users that the caller has blocked.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::participants::PageQuery;
use super::{Asked, Caller, Names, asked, page_size};
use crate::actions::core::Core;
use crate::dialect::native::block::{BlockPageJson, page};
use crate::dialect::{Action, Answer};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(block, unblock))
}

#[utoipa::path(
    get,
    path = "/blocks",
    operation_id = "list_blocks",
    tag = "users",
    summary = "Lists the users that the caller has blocked, by ascending id.",
    params(PageQuery),
    responses(
        (status = 200, description = "A page; `next` is the `after` of the next one.", body = BlockPageJson<'_>),
    ),
)]
async fn list(
    State(core): State<Core>,
    caller: Caller,
    query: Asked<PageQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let action = Action::ListBlocks {
        after: query.after,
        limit: page_size(query.limit)?,
    };
    let Answer::Blocks(blocks) = caller.perform(&core, action).await?.answer else {
        return Err(ClientError::internal());
    };
    Ok(Json(page(&blocks)).into_response())
}

#[utoipa::path(
    put,
    path = "/blocks/{user_id}",
    operation_id = "block_user",
    tag = "users",
    summary = "Blocks a user: neither writes to the other in a direct conversation, the blocked one does not add the caller to \
               conversations, and neither is shown presence or typing of the other.",
    params(("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 204, description = "The user is blocked, perhaps was before."),
    ),
)]
async fn block(State(core): State<Core>, caller: Caller, names: Names) -> Result<StatusCode, ClientError> {
    set(&core, &caller, &names, true).await
}

#[utoipa::path(
    delete,
    path = "/blocks/{user_id}",
    operation_id = "unblock_user",
    tag = "users",
    summary = "Ends that.",
    params(("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 204, description = "The user is not blocked."),
    ),
)]
async fn unblock(State(core): State<Core>, caller: Caller, names: Names) -> Result<StatusCode, ClientError> {
    set(&core, &caller, &names, false).await
}

async fn set(core: &Core, caller: &Caller, names: &Names, blocked: bool) -> Result<StatusCode, ClientError> {
    let user = names.user()?;
    caller.perform(core, Action::Block { user, blocked }).await?;
    Ok(StatusCode::NO_CONTENT)
}
