//! How users are seen: only those the caller shares a conversation with, and the caller.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parlance_proto::UserId;
use parlance_proto::v1::ErrorCode;
use serde::Deserialize;

use super::{Asked, Caller, Names, asked};
use crate::app::Shared;
use crate::dialect::native::presence::{json, list};
use crate::error::ClientError;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/users/{user_id}/presence", get(one))
        .route("/presence", get(several))
}

#[derive(Deserialize)]
struct UsersQuery {
    /// Separated by commas; ids that hold one are asked for alone.
    #[serde(alias = "userIds")]
    user_ids: String,
}

async fn one(State(shared): State<Shared>, caller: Caller, names: Names) -> Result<Response, ClientError> {
    let user = names.user()?;
    let asked = vec![user.to_string()];
    let seen = shared.backend.presence(Some(caller.actor()), asked).await?;
    let presence = seen.presences.first();
    let presence = presence.ok_or_else(|| ClientError::new(ErrorCode::NotFound, "no such user"))?;
    Ok(Json(json(presence)).into_response())
}

async fn several(
    State(shared): State<Shared>,
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
    shared.limits.watched(ids.len())?;
    for id in &ids {
        UserId::parse(id.as_str())?;
    }
    let seen = shared.backend.presence(Some(caller.actor()), ids).await?;
    Ok(Json(list(&seen.presences)).into_response())
}
