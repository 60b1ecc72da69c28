//! New conversations, on the routes of several front ends.

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use parlance_proto::v1::ErrorCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Asked, Body, Caller, asked, conversations, is_older, made, parse};
use crate::actions::commands::Confirmed;
use crate::actions::core::Core;
use crate::dialect::native::conversation::{CreateBody, DirectBody, GroupBody};
use crate::dialect::representation::AnyConversation;
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(create, conversations::list))
        .routes(routes!(create_direct))
        .routes(routes!(create_group))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DirectQuery {
    /// Whether a conversation that exists is as good as a new one.
    #[serde(default)]
    ensure: bool,
}

#[utoipa::path(
    post,
    path = "/conversations/direct",
    operation_id = "create_direct_conversation",
    tag = "conversations",
    summary = "Creates the one direct conversation with a user. Under `/api`, without `ensure`, one that exists is a conflict.",
    params(DirectQuery),
    request_body = DirectBody,
    responses(
        (status = 201, description = "It was made now.", body = AnyConversation<'_>),
        (status = 200, description = "It was there.", body = AnyConversation<'_>),
    ),
)]
async fn create_direct(
    State(core): State<Core>,
    OriginalUri(uri): OriginalUri,
    caller: Caller,
    query: Asked<DirectQuery>,
    body: Body,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let body: DirectBody = parse(&body)?;
    let create = body.check(&caller.user.id, &core.limits)?;
    let confirmed = caller.perform(&core, create).await?;
    // The older route promises a conflict where both users have a conversation already.
    let is_there = confirmed.repeated && !caller.change.is_resumed();
    let conflict = is_there && !query.ensure && is_older(&uri);
    created(&caller, confirmed, conflict)
}

#[utoipa::path(
    post,
    path = "/conversations/group",
    operation_id = "create_group",
    tag = "conversations",
    summary = "Creates a group.",
    request_body = GroupBody,
    responses(
        (status = 201, description = "It was made.", body = AnyConversation<'_>),
    ),
)]
async fn create_group(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: GroupBody = parse(&body)?;
    let create = body.check(&caller.user.id, &core.limits)?;
    created(&caller, caller.perform(&core, create).await?, false)
}

#[utoipa::path(
    post,
    path = "/conversations",
    operation_id = "create_conversation",
    tag = "conversations",
    summary = "Creates a group, or with `type: direct` the one direct conversation with a user.",
    request_body = CreateBody<'_>,
    responses(
        (status = 201, description = "It was made now.", body = AnyConversation<'_>),
        (status = 200, description = "The direct conversation of these users, which was there.", body = AnyConversation<'_>),
    ),
)]
async fn create(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: CreateBody = parse(&body)?;
    let is_without_roles = caller.representation.is_without_roles();
    let create = body.check(&caller.user.id, is_without_roles, &core.limits)?;
    created(&caller, caller.perform(&core, create).await?, false)
}

fn created(caller: &Caller, confirmed: Confirmed, conflict: bool) -> Result<Response, ClientError> {
    let json = caller.conversation(&confirmed.answer.into_conversation()?);
    if conflict {
        let error = ClientError::new(ErrorCode::Conflict, "Conversation already exists");
        return Ok(error.with_existing("conversation", &json.0).into_response());
    }
    Ok((made(caller, confirmed.repeated), json).into_response())
}
