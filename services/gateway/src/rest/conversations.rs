//! Conversations: create, list, read, catch up.

use axum::extract::{OriginalUri, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use parlance_proto::v1::{ConversationKind, CreateConversation, ErrorCode, command};
use parlance_proto::{ConversationId, UserId};
use serde::{Deserialize, Serialize};

use super::{Body, Caller, Named, page_size, parse};
use crate::app::Shared;
use crate::commands::{Confirmed, new_id};
use crate::dialect::Answer;
use crate::dialect::native::json::{self, ConversationJson};
use crate::error::ClientError;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/conversations", get(list))
        .route("/conversations/direct", post(create_direct))
        .route("/conversations/group", post(create_group))
        .route("/conversations/{id}", get(read))
        .route("/conversations/{id}/events", get(events))
}

#[derive(Deserialize)]
struct DirectBody {
    #[serde(alias = "userId")]
    user_id: String,
}

#[derive(Deserialize)]
struct GroupBody {
    title: String,
    #[serde(alias = "participantIds")]
    participant_ids: Vec<String>,
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<u32>,
    #[serde(default)]
    cursor: String,
}

#[derive(Deserialize)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct ConversationList<'a> {
    conversations: Vec<ConversationJson<'a>>,
    next: Option<String>,
}

async fn create_direct(
    State(shared): State<Shared>,
    OriginalUri(uri): OriginalUri,
    caller: Caller,
    body: Body,
) -> Result<Response, ClientError> {
    let body: DirectBody = parse(&body)?;
    let other = UserId::parse(body.user_id)?;
    if other == caller.user {
        return Err(ClientError::invalid("user_id is the caller"));
    }
    let id = ConversationId::direct(&caller.user, &other);
    let create = CreateConversation {
        kind: ConversationKind::Direct.into(),
        title: String::new(),
        participant_ids: vec![other.to_string()],
        provision_users: shared.provision,
    };
    let confirmed = create_conversation(&shared, &caller, id, create).await?;
    // The older route promises a conflict where both users have a conversation already.
    let conflict = confirmed.repeated && !uri.path().starts_with("/api/v1/");
    created(&confirmed, conflict)
}

async fn create_group(
    State(shared): State<Shared>,
    caller: Caller,
    body: Body,
) -> Result<Response, ClientError> {
    let body: GroupBody = parse(&body)?;
    shared.limits.title(&body.title)?;
    shared.limits.participants(body.participant_ids.len())?;
    let mut others = Vec::new();
    for id in body.participant_ids {
        let id = UserId::parse(id)?;
        if id != caller.user && !others.contains(&id.to_string()) {
            others.push(id.to_string());
        }
    }
    if others.is_empty() {
        return Err(ClientError::invalid(
            "participant_ids names nobody but the caller",
        ));
    }
    let create = CreateConversation {
        kind: ConversationKind::Group.into(),
        title: body.title,
        participant_ids: others,
        provision_users: shared.provision,
    };
    let id = ConversationId::from_uuid(new_id());
    let confirmed = create_conversation(&shared, &caller, id, create).await?;
    created(&confirmed, false)
}

async fn create_conversation(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    create: CreateConversation,
) -> Result<Confirmed, ClientError> {
    let body = command::Body::CreateConversation(create);
    shared.commands.execute(caller.actor(), id, body).await
}

fn created(confirmed: &Confirmed, conflict: bool) -> Result<Response, ClientError> {
    let Answer::Conversation(conversation) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    let json = json::conversation(conversation);
    if conflict {
        let error = ClientError::new(ErrorCode::Conflict, "Conversation already exists");
        return Ok(error.with_existing("conversation", &json).into_response());
    }
    let status = if confirmed.repeated {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(json)).into_response())
}

async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ClientError> {
    let Query(query) = query.map_err(|_| ClientError::invalid("limit or cursor is malformed"))?;
    let limit = page_size(query.limit)?;
    let page = shared
        .backend
        .conversations(Some(caller.actor()), limit, query.cursor)
        .await?;
    let list = ConversationList {
        conversations: page.conversations.iter().map(json::conversation).collect(),
        next: Some(page.next.clone()).filter(|next| !next.is_empty()),
    };
    Ok(Json(list).into_response())
}

async fn read(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
) -> Result<Response, ClientError> {
    let conversation = shared.backend.conversation(Some(caller.actor()), id).await?;
    Ok(Json(json::conversation(&conversation)).into_response())
}

async fn events(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ClientError> {
    let Query(query) = query.map_err(|_| ClientError::invalid("after or limit is malformed"))?;
    let limit = page_size(query.limit)?;
    let page = shared
        .backend
        .events(Some(caller.actor()), id, query.after, limit)
        .await?;
    Ok(Json(json::event_page(&page)).into_response())
}
