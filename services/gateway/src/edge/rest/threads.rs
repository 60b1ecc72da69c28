//! Threads of a conversation: begin, list, read with their messages, send into.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::messages::{ListQuery, MessageList, SendBody, page, sent};
use super::{AfterQuery, Asked, Body, Caller, Named, Names, asked, made, parse};
use crate::actions::core::Core;
use crate::dialect::place::thread_id;
use crate::dialect::representation::{AnyMessage, AnyThread, united};
use crate::dialect::{Action, Answer, ConversationRef, MessageRef};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// Threads in one answer where the caller does not say how many.
const MOST: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, send))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ThreadCreation)]
struct CreateBody {
    #[serde(default)]
    title: Option<String>,
    #[serde(alias = "rootMessageId")]
    root_message_id: Option<MessageRef>,
    #[serde(alias = "parentThreadId", default, deserialize_with = "thread_id")]
    parent_thread_id: Option<Uuid>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ThreadList)]
struct ThreadList {
    #[schema(value_type = Vec<AnyThread<'static>>)]
    threads: Vec<Box<RawValue>>,
    #[schema(required)]
    next: Option<u64>,
}

/// A thread with a page of its messages.
#[derive(ToSchema)]
#[schema(as = ThreadWithMessages)]
#[expect(dead_code, reason = "only its schema is used")]
struct ReadJson<'a> {
    #[serde(flatten)]
    thread: AnyThread<'a>,
    #[serde(flatten)]
    page: MessageList,
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/threads",
    operation_id = "create_thread",
    tag = "threads",
    summary = "Begins a thread.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = CreateBody,
    responses(
        (status = 201, description = "It was begun.", body = AnyThread<'_>),
        (status = 200, description = "It had been begun by this very request before.", body = AnyThread<'_>),
    ),
)]
async fn create(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: CreateBody = parse(&body)?;
    let title = body.title.unwrap_or_default();
    let (root, parent) = (body.root_message_id, body.parent_thread_id);
    let action = Action::create_thread(id.into(), title, root, parent, &core.limits)?;
    let begun = caller.perform(&core, action).await?;
    let Answer::Thread(thread) = &begun.answer else {
        return Err(ClientError::internal());
    };
    Ok((made(&caller, begun.repeated), caller.thread(thread)).into_response())
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/threads",
    operation_id = "list_threads",
    tag = "threads",
    summary = "Lists the threads of a conversation, the oldest first.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), AfterQuery),
    responses(
        (status = 200, description = "A page; `next` is the `after` of the next one.", body = ThreadList),
    ),
)]
async fn list(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<AfterQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = query.limit(MOST)?;
    let found = caller.reads(&core).threads(id, query.after, limit).await?;
    let list = ThreadList {
        threads: found
            .threads
            .iter()
            .map(|thread| caller.representation.thread(thread))
            .collect(),
        next: Some(found.next).filter(|next| *next != 0),
    };
    Ok(Json(list).into_response())
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/threads/{tid}",
    operation_id = "read_thread",
    tag = "threads",
    summary = "Reads a thread with a page of its messages.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("tid" = Uuid, Path, description = "The thread."), ListQuery),
    responses(
        (status = 200, description = "The thread.", body = ReadJson<'_>),
    ),
)]
async fn read(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let thread = names.thread()?;
    let wanted = asked(query)?.wanted(&caller, Some(thread))?;
    let thread = caller.reads(&core).thread(id, thread).await?;
    let page = page(&core, &caller, id, wanted).await?;
    let read = united(&caller.representation.thread(&thread), &page);
    Ok(Json(read).into_response())
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/threads/{tid}",
    operation_id = "send_to_thread",
    tag = "threads",
    summary = "Sends a message into a thread.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("tid" = Uuid, Path, description = "The thread.")),
    request_body = SendBody<'_>,
    responses(
        (status = 201, description = "It was sent now.", body = AnyMessage<'_>),
        (status = 200, description = "It had been sent before.", body = AnyMessage<'_>),
    ),
)]
async fn send(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let thread = names.thread()?;
    let body: SendBody = parse(&body)?;
    let send = body.check(id, Some(thread), &core.limits)?;
    sent(&core, &caller, caller.perform(&core, Action::Send(send)).await?).await
}
