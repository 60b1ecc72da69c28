//! Who belongs to a conversation, and as what.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Asked, Body, Caller, Named, Names, asked, made, page_size, parse};
use crate::actions::commands::Confirmed;
use crate::actions::core::Core;
use crate::dialect::native::conversation::{AddBody, RoleBody};
use crate::dialect::native::json;
use crate::dialect::representation::AnyConversation;
use crate::dialect::{Action, Answer, ConversationAction, ConversationRef};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(change, remove))
}

/// The conversation whose participants were changed.
fn answer(caller: &Caller, status: StatusCode, changed: Confirmed) -> Result<Response, ClientError> {
    let conversation = changed.answer.into_conversation()?;
    Ok((status, caller.conversation(&conversation)).into_response())
}

/// A page of users, by ascending id.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The `next` of the page before; empty for the first.
    #[serde(default)]
    pub(super) after: String,
    /// At most so many, 50 by default; more than 100 count as 100.
    #[param(minimum = 1)]
    pub(super) limit: Option<u32>,
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/participants",
    operation_id = "list_participants",
    tag = "participants",
    summary = "Lists all participants of a conversation, by ascending id.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), PageQuery),
    responses(
        (status = 200, description = "A page; `next` is the `after` of the next one.", body = json::ParticipantPageJson<'_>),
    ),
)]
async fn list(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<PageQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let action = Action::ListParticipants {
        conversation: id.into(),
        after: query.after,
        limit: page_size(query.limit)?,
    };
    let Answer::Participants(page) = caller.perform(&core, action).await?.answer else {
        return Err(ClientError::internal());
    };
    Ok(Json(json::participant_page(&page)).into_response())
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/participants",
    operation_id = "add_participants",
    tag = "participants",
    summary = "Adds users. `role` is given to those that are there already too; without it they keep theirs.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = AddBody,
    responses(
        (status = 201, description = "They were added, or have the role now.", body = AnyConversation<'_>),
        (status = 200, description = "Nothing changed: they were participants already.", body = AnyConversation<'_>),
    ),
)]
async fn add(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: AddBody = parse(&body)?;
    let added = caller
        .perform(&core, body.check(id.into(), &core.limits)?)
        .await?;
    answer(&caller, made(&caller, added.repeated), added)
}

#[utoipa::path(
    patch,
    path = "/conversations/{id}/participants/{user_id}",
    operation_id = "change_participant",
    tag = "participants",
    summary = "Gives a participant another role.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    request_body = RoleBody,
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn change(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: RoleBody = parse(&body)?;
    let role = body.check()?;
    let action = ConversationAction::ChangeRole {
        conversation: id.into(),
        user: names.user()?,
        role,
    };
    let changed = caller.perform(&core, action).await?;
    answer(&caller, StatusCode::OK, changed)
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}/participants/{user_id}",
    operation_id = "remove_participant",
    tag = "participants",
    summary = "Removes a participant, or lets the caller leave.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 204, description = "They are in it no more."),
    ),
)]
async fn remove(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<StatusCode, ClientError> {
    let action = ConversationAction::RemoveMember {
        conversation: id.into(),
        user: names.user()?,
    };
    caller.perform(&core, action).await?;
    Ok(StatusCode::NO_CONTENT)
}
