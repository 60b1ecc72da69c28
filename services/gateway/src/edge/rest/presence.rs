//! How users are seen: only those the caller shares a conversation with, and the caller.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use parlance_proto::UserId;
use parlance_proto::v1::ErrorCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Asked, Caller, Names, asked};
use crate::actions::core::Core;
use crate::dialect::native::presence::{ListJson, PresenceJson, json, list};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new().routes(routes!(one)).routes(routes!(several))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UsersQuery {
    /// Separated by commas; ids that hold one are asked for alone.
    #[serde(alias = "userIds")]
    user_ids: String,
}

#[utoipa::path(
    get,
    path = "/users/{user_id}/presence",
    operation_id = "read_presence",
    tag = "presence",
    summary = "How a user one shares a conversation with is seen.",
    params(("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 200, description = "Online or not, and when they were last seen.", body = PresenceJson<'_>),
    ),
)]
async fn one(State(core): State<Core>, caller: Caller, names: Names) -> Result<Response, ClientError> {
    let user = names.user()?;
    let seen = caller.reads(&core).presence(vec![user.to_string()]).await?;
    let presence = seen.first();
    let presence = presence.ok_or_else(|| ClientError::new(ErrorCode::NotFound, "no such user"))?;
    Ok(Json(json(presence)).into_response())
}

#[utoipa::path(
    get,
    path = "/presence",
    operation_id = "list_presence",
    tag = "presence",
    summary = "How those of some users are seen that one shares a conversation with.",
    params(UsersQuery),
    responses(
        (status = 200, description = "Of whom one may know; others are left out.", body = ListJson<'_>),
    ),
)]
async fn several(
    State(core): State<Core>,
    caller: Caller,
    query: Asked<UsersQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let ids: Vec<String> = query
        .user_ids
        .split(',')
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect();
    core.limits.watched(ids.len())?;
    for id in &ids {
        UserId::parse(id.as_str())?;
    }
    let seen = caller.reads(&core).presence(ids).await?;
    Ok(Json(list(&seen)).into_response())
}
