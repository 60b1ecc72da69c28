//! Threads of a conversation: begin, list, read with their messages, send into.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parlance_proto::v1::{CreateThread, command};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::messages::{ListQuery, SendBody, deliver, next};
use super::names::no_thread;
use super::{Asked, Body, Caller, Named, Names, asked, made, parse};
use crate::app::Shared;
use crate::commands::new_id;
use crate::dialect::native::json::{self, MessageJson, ThreadJson};
use crate::dialect::place::thread_id;
use crate::dialect::{Answer, ConversationRef, MessageRef};
use crate::error::ClientError;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/conversations/{id}/threads", get(list).post(create))
        .route("/conversations/{id}/threads/{tid}", get(read).post(send))
}

#[derive(Deserialize)]
struct CreateBody {
    #[serde(default)]
    title: Option<String>,
    #[serde(alias = "rootMessageId")]
    root_message_id: Option<MessageRef>,
    #[serde(alias = "parentThreadId", default, deserialize_with = "thread_id")]
    parent_thread_id: Option<Uuid>,
}

#[derive(Serialize)]
struct ThreadList<'a> {
    threads: Vec<ThreadJson<'a>>,
}

/// A thread with a page of its messages.
#[derive(Serialize)]
struct ReadJson<'a> {
    #[serde(flatten)]
    thread: ThreadJson<'a>,
    messages: Vec<MessageJson<'a>>,
    next: Option<u64>,
}

async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: CreateBody = parse(&body)?;
    let title = body.title.unwrap_or_default();
    if !title.is_empty() {
        shared.limits.title(&title)?;
    }
    let root_message_id = match body.root_message_id {
        Some(root) => {
            let within = Some(ConversationRef::Id(id));
            Some(shared.resolver.message(within, root).await?.message)
        }
        None => None,
    };
    let command = command::Body::CreateThread(CreateThread {
        thread_id: new_id().to_string(),
        title,
        root_message_id,
        parent_thread_id: body.parent_thread_id.map(|id| id.to_string()),
    });
    let confirmed = shared.commands.execute(caller.actor(), id, command).await?;
    let Answer::Thread(thread) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    Ok((made(confirmed.repeated), Json(json::thread(thread))).into_response())
}

async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
) -> Result<Response, ClientError> {
    let found = shared
        .backend
        .threads(Some(caller.actor()), id, String::new())
        .await?;
    let list = ThreadList {
        threads: found.threads.iter().map(json::thread).collect(),
    };
    Ok(Json(list).into_response())
}

async fn read(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let thread = names.thread()?;
    let request = asked(query)?.request(id, Some(thread))?;
    let found = shared
        .backend
        .threads(Some(caller.actor()), id, thread.to_string())
        .await?;
    let thread = found.threads.first().ok_or_else(no_thread)?;
    let page = shared.backend.messages(Some(caller.actor()), request).await?;
    let read = ReadJson {
        thread: json::thread(thread),
        messages: page.messages.iter().map(json::message).collect(),
        next: next(&page),
    };
    Ok(Json(read).into_response())
}

async fn send(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let thread = names.thread()?;
    let body: SendBody = parse(&body)?;
    let (message, repeated) = deliver(&shared, &caller, id, body.input(Some(thread))).await?;
    Ok((made(repeated), Json(json::message(&message))).into_response())
}
