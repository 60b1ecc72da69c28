//! Conversations: list, read, change, delete, catch up.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::v1::{
    Channel, ConversationStatus, DeleteConversation, ListConversations, UpdateConversation, command,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::participants::set_members;
use super::{Asked, Body, Caller, Named, asked, page_size, parse};
use crate::actions::core::Core;
use crate::backend::SYNC_EVENTS;
use crate::dialect::ConversationRef;
use crate::dialect::native::SyncPayload;
use crate::dialect::native::json;
use crate::dialect::representation::AnyConversation;
use crate::dialect::{Answer, UserRef, schema};
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
    #[param(schema_with = maybe_status)]
    status: Option<String>,
    /// Only those of this channel.
    #[param(schema_with = maybe_channel)]
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

#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationUpdate)]
struct UpdateBody<'a> {
    #[schema(pattern = "\\S")]
    title: Option<String>,
    #[schema(schema_with = maybe_status)]
    status: Option<String>,
    #[schema(schema_with = maybe_channel)]
    channel: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    /// Of a group: all who belong to it from now on, besides the caller. Not with an `Idempotency-Key`: it says what shall
    /// be, so that it may be repeated as it is, but each time it adds and removes whoever differs then.
    #[serde(alias = "participant_ids", alias = "participantIds")]
    participants: Option<Vec<UserRef>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConversationList)]
pub(super) struct ConversationList {
    #[schema(value_type = Vec<AnyConversation<'_>>)]
    conversations: Vec<Box<RawValue>>,
    #[schema(required)]
    next: Option<String>,
}

/// The channel of that name.
pub(super) fn channel(name: &str) -> Result<Channel, ClientError> {
    match name {
        "chat" => Ok(Channel::Chat),
        "voice" => Ok(Channel::Voice),
        "email" => Ok(Channel::Email),
        _ => Err(ClientError::invalid("channel is none of chat, voice, email")),
    }
}

/// The channels a caller may name.
pub(super) fn maybe_channel() -> Object {
    schema::nullable(schema::channels(|name| channel(name).is_ok()))
}

fn maybe_status() -> Object {
    schema::nullable(schema::statuses(|name| status(name).is_ok()))
}

fn status(name: &str) -> Result<ConversationStatus, ClientError> {
    match name {
        "active" => Ok(ConversationStatus::Active),
        "archived" => Ok(ConversationStatus::Archived),
        "completed" => Ok(ConversationStatus::Completed),
        _ => Err(ClientError::invalid(
            "status is none of active, archived, completed",
        )),
    }
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
        status: filter.status.as_deref().map(status).transpose()?.map(Into::into),
        channel: filter
            .channel
            .as_deref()
            .map(channel)
            .transpose()?
            .map(Into::into),
    };
    let page = core.backend.all_conversations(caller.actor(), wanted).await?;
    let list = ConversationList {
        conversations: page
            .conversations
            .iter()
            .map(|conversation| {
                caller
                    .representation
                    .conversation(conversation, caller.user.as_str())
            })
            .collect(),
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
    let conversation = core.backend.conversation(Some(caller.actor()), id).await?;
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
    if let Some(title) = &body.title {
        core.limits.title(title)?;
    }
    let metadata = body.metadata.map(|metadata| core.limits.metadata(Some(metadata)));
    let update = UpdateConversation {
        title: body.title,
        status: body.status.as_deref().map(status).transpose()?.map(Into::into),
        channel: body.channel.as_deref().map(channel).transpose()?.map(Into::into),
        metadata_json: metadata.transpose()?,
    };
    // All is read before anything is changed.
    if let Some(users) = body.participants {
        set_members(&core, &caller, id, users).await?;
    }
    let command = command::Body::UpdateConversation(update);
    let confirmed = core
        .commands
        .execute(caller.actor(), &caller.change, id, command)
        .await?;
    let Answer::Conversation(conversation) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    Ok(caller.conversation(conversation).into_response())
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
    let command = command::Body::DeleteConversation(DeleteConversation {});
    core.commands
        .execute(caller.actor(), &caller.change, id, command)
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
    let page = core
        .backend
        .events(Some(caller.actor()), id, query.after, limit)
        .await?;
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
    let pages = core
        .backend
        .sync(Some(caller.actor()), positions, SYNC_EVENTS)
        .await?;
    Ok(Json(json::sync(&pages)).into_response())
}
