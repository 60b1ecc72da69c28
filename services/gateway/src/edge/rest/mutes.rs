//! Muted conversations, and the total of what is unread in the others.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Body, Caller, Named, parse};
use crate::actions::core::Core;
use crate::dialect::native::mute::MuteBody;
use crate::dialect::representation::AnyConversation;
use crate::dialect::{Action, ConversationRef};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(mute, unmute))
        .routes(routes!(total))
}

/// What a user has not read, for the badge of an application.
#[derive(Serialize, ToSchema)]
#[schema(as = UnreadTotal)]
struct TotalJson {
    /// Messages of others.
    unread: u64,
    /// Conversations that hold any.
    conversations: u64,
}

/// Carries out what leads to a conversation, and answers with it.
async fn change(core: &Core, caller: &Caller, action: Action) -> Result<Response, ClientError> {
    let changed = caller.perform(core, action).await?;
    let conversation = changed.answer.into_conversation()?;
    Ok(caller.conversation(&conversation).into_response())
}

#[utoipa::path(
    put,
    path = "/conversations/{id}/mute",
    operation_id = "mute_conversation",
    tag = "conversations",
    summary = "Mutes a conversation for the caller: no pushes, nothing for the badge. Once more with another `until` moves the end.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = MuteBody,
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn mute(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: MuteBody = parse(&body)?;
    change(&core, &caller, body.check(id.into())?).await
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}/mute",
    operation_id = "unmute_conversation",
    tag = "conversations",
    summary = "Ends that.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn unmute(State(core): State<Core>, caller: Caller, Named(id): Named) -> Result<Response, ClientError> {
    let action = Action::Mute {
        conversation: id.into(),
        mute: None,
    };
    change(&core, &caller, action).await
}

#[utoipa::path(
    get,
    path = "/unread",
    operation_id = "count_unread",
    tag = "conversations",
    summary = "What the caller has not read in all conversations that are not muted, for the badge of an application.",
    responses(
        (status = 200, description = "The total.", body = TotalJson),
    ),
)]
async fn total(State(core): State<Core>, caller: Caller) -> Result<Response, ClientError> {
    let total = caller.reads(&core).unread_total().await?;
    let json = TotalJson {
        unread: total.unread,
        conversations: total.conversations,
    };
    Ok(Json(json).into_response())
}
