//! Muted conversations, and the total of what is unread in the others.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::change;
use super::{Body, Caller, Named, parse};
use crate::actions::core::Core;
use crate::dialect::ConversationRef;
use crate::dialect::native::mute::{self, MuteBody};
use crate::dialect::representation::AnyConversation;
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
    summary = "Ends that the caller muted a conversation.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn unmute(State(core): State<Core>, caller: Caller, Named(id): Named) -> Result<Response, ClientError> {
    change(&core, &caller, mute::end(id.into())).await
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
