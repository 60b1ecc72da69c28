//! The caller's own name.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Body, Caller, parse};
use crate::actions::core::Core;
use crate::dialect::native::json;
use crate::dialect::{Action, Answer};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new().routes(routes!(rename))
}

/// What a user is called from now on.
#[derive(Deserialize, ToSchema)]
#[schema(as = UserName)]
pub(super) struct NameBody {
    /// Shown to others; without anything to see, what the user's tokens say counts again.
    #[schema(max_length = 128)]
    pub(super) name: String,
}

#[utoipa::path(
    patch,
    path = "/users/me",
    operation_id = "rename_user",
    tag = "users",
    summary = "Gives the caller another name, which stays until a token says another name than before.",
    request_body = NameBody,
    responses(
        (status = 200, description = "The user.", body = json::UserJson<'_>),
    ),
)]
async fn rename(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let NameBody { name } = parse(&body)?;
    let confirmed = caller.perform(&core, Action::Rename(name)).await?;
    let Answer::User(user) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    Ok(Json(json::user(user)).into_response())
}
