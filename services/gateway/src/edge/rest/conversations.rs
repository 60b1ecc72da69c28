//! Conversations: list, read, change, delete, catch up.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::v1::ListConversations;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Asked, Body, Caller, Named, asked, page_size, parse};
use crate::actions::core::Core;
use crate::dialect::native::SyncPayload;
use crate::dialect::native::conversation::{self, UpdateBody};
use crate::dialect::native::json;
use crate::dialect::representation::AnyConversation;
use crate::dialect::{Action, Answer, ConversationAction, ConversationRef};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(read, replace, update, delete))
        .routes(routes!(events))
        .routes(routes!(sync))
}

/// A page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many, 50 by default; more than 100 count as 100.
    #[param(minimum = 1)]
    pub(super) limit: Option<u32>,
    /// The `next` of the page before; empty for the first.
    #[serde(default)]
    pub(super) cursor: String,
}

/// Which conversations a list shows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterQuery {
    /// Only those with this status.
    #[param(schema_with = conversation::maybe_status)]
    status: Option<String>,
    /// Only those of this channel.
    #[param(schema_with = conversation::maybe_channel)]
    channel: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// What happened after this seq; 0 for everything.
    #[serde(default)]
    after: u64,
    /// At most so many, 50 by default; more than 100 count as 100.
    #[param(minimum = 1)]
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConversationList)]
pub(super) struct ConversationList {
    #[schema(value_type = Vec<AnyConversation<'_>>)]
    conversations: Vec<Box<RawValue>>,
    #[schema(required)]
    next: Option<String>,
}

#[utoipa::path(
    get,
    path = "/conversations",
    operation_id = "list_conversations",
    tag = "conversations",
    summary = "Lists the conversations of the caller, the latest first.",
    params(ListQuery, FilterQuery),
    responses(
        (status = 200, description = "A page; `next` is the cursor of the next one.", body = ConversationList),
    ),
)]
pub(super) async fn list(
    State(core): State<Core>,
    caller: Caller,
    query: Asked<ListQuery>,
    filter: Asked<FilterQuery>,
) -> Result<Response, ClientError> {
    let (query, filter) = (asked(query)?, asked(filter)?);
    let wanted = ListConversations {
        limit: page_size(query.limit)?,
        cursor: query.cursor,
        status: filter
            .status
            .as_deref()
            .map(conversation::status)
            .transpose()?
            .map(Into::into),
        channel: filter
            .channel
            .as_deref()
            .map(conversation::channel)
            .transpose()?
            .map(Into::into),
    };
    let page = caller.reads(&core).conversations(wanted).await?;
    let shown = page
        .conversations
        .iter()
        .map(|conversation| caller.conversation(conversation).0);
    let list = ConversationList {
        conversations: shown.collect(),
        next: Some(page.next.clone()).filter(|next| !next.is_empty()),
    };
    Ok(Json(list).into_response())
}

#[utoipa::path(
    get,
    path = "/conversations/{id}",
    operation_id = "read_conversation",
    tag = "conversations",
    summary = "Reads a conversation.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn read(State(core): State<Core>, caller: Caller, Named(id): Named) -> Result<Response, ClientError> {
    let conversation = caller.reads(&core).conversation(id).await?;
    Ok(caller.conversation(&conversation).into_response())
}

#[utoipa::path(
    put,
    path = "/conversations/{id}",
    operation_id = "replace_conversation",
    tag = "conversations",
    summary = "The same as PATCH.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = UpdateBody<'_>,
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn replace(
    core: State<Core>,
    caller: Caller,
    named: Named,
    body: Body,
) -> Result<Response, ClientError> {
    update(core, caller, named, body).await
}

#[utoipa::path(
    patch,
    path = "/conversations/{id}",
    operation_id = "update_conversation",
    tag = "conversations",
    summary = "Changes what the body names of a conversation.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = UpdateBody<'_>,
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn update(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: UpdateBody = parse(&body)?;
    change(&core, &caller, body.check(id.into(), &core.limits)?).await
}

/// Carries out what leads to a conversation, and answers with it.
pub(super) async fn change(
    core: &Core,
    caller: &Caller,
    action: impl Into<Action>,
) -> Result<Response, ClientError> {
    let changed = caller.perform(core, action).await?;
    let conversation = changed.answer.into_conversation()?;
    Ok(caller.conversation(&conversation).into_response())
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}",
    operation_id = "delete_conversation",
    tag = "conversations",
    summary = "Deletes a conversation for all.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    responses(
        (status = 204, description = "It is gone."),
    ),
)]
async fn delete(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
) -> Result<StatusCode, ClientError> {
    caller
        .perform(&core, ConversationAction::Delete(id.into()))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/events",
    operation_id = "list_events",
    tag = "conversations",
    summary = "What happened in a conversation after a seq, in order.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), EventsQuery),
    responses(
        (status = 200, description = "A page; `resync` says that the seq is void.", body = json::EventPageJson<'_>),
    ),
)]
async fn events(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<EventsQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let page = caller.reads(&core).events(id, query.after, limit).await?;
    Ok(Json(json::event_page(&page)).into_response())
}

#[utoipa::path(
    post,
    path = "/sync",
    operation_id = "sync",
    tag = "conversations",
    summary = "What happened in many conversations since a position in each, as the event `sync` of a socket.",
    request_body = SyncPayload,
    responses(
        (status = 200, description = "A page of each conversation one is in.", body = json::SyncJson<'_>),
    ),
)]
async fn sync(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let asked: SyncPayload = parse(&body)?;
    let positions = asked.conversations.check(&core.limits)?;
    let Answer::Pages(pages) = caller.perform(&core, Action::Sync(positions)).await?.answer else {
        return Err(ClientError::internal());
    };
    Ok(Json(json::sync(&pages)).into_response())
}
