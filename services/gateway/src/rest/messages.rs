//! Messages of a conversation: send and read.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parlance_proto::ConversationId;
use parlance_proto::v1::{ListMessages, Message, MessagePage, command};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Asked, Body, Caller, Named, NamedMessage, asked, made, page_size, parse};
use crate::app::Shared;
use crate::dialect::native::input::MessageInput;
use crate::dialect::native::json::{self, MessageJson};
use crate::dialect::place::thread_id;
use crate::dialect::{Answer, ConversationRef, MessageRef};
use crate::error::ClientError;
use crate::socket::send_message;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/conversations/{id}/messages", get(list).post(send))
        .route("/conversations/{id}/messages/{mid}", get(read))
        .route("/conversations/{id}/messages/{mid}/edits", get(edits))
}

/// A message as a client sends it.
#[derive(Deserialize)]
pub(super) struct SendBody<'a> {
    #[serde(alias = "clientMsgId")]
    client_msg_id: Option<String>,
    #[serde(rename = "type", alias = "messageType", alias = "message_type")]
    kind: Option<String>,
    content: String,
    #[serde(default)]
    encrypted: bool,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(alias = "replyTo")]
    reply_to: Option<MessageRef>,
    #[serde(alias = "threadId", default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
}

/// Which messages are wanted; `before` and `after` are exclusive seqs, `offset` skips that many of the latest.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    before: Option<u64>,
    after: Option<u64>,
    #[serde(default)]
    offset: u32,
    #[serde(alias = "threadId")]
    thread_id: Option<Uuid>,
}

#[derive(Serialize)]
struct MessageList<'a> {
    messages: Vec<MessageJson<'a>>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct EditList<'a> {
    edits: Vec<EditJson<'a>>,
}

#[derive(Serialize)]
struct EditJson<'a> {
    content: &'a str,
    at: String,
}

impl<'a> SendBody<'a> {
    /// The message, in that thread where the path names one.
    pub(super) fn input(self, thread: Option<Uuid>) -> MessageInput<'a> {
        MessageInput {
            client_msg_id: self.client_msg_id,
            kind: self.kind,
            content: self.content,
            encrypted: self.encrypted,
            metadata: self.metadata,
            reply_to: self.reply_to,
            thread: thread.or(self.thread_id),
        }
    }
}

impl ListQuery {
    /// The same question to persistence, of that thread where the path names one.
    pub(super) fn request(
        self,
        id: ConversationId,
        thread: Option<Uuid>,
    ) -> Result<ListMessages, ClientError> {
        Ok(ListMessages {
            conversation_id: id.to_string(),
            limit: page_size(self.limit)?,
            before: self.before,
            after: self.after,
            thread_id: thread
                .or(self.thread_id)
                .map_or_else(String::new, |id| id.to_string()),
            offset: self.offset,
        })
    }
}

/// Sends a message. Returns it, and whether it had been sent before.
pub(super) async fn deliver(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    input: MessageInput<'_>,
) -> Result<(Message, bool), ClientError> {
    let send = input.check(ConversationRef::Id(id), &shared.limits)?;
    let message = send_message(&shared.resolver, &caller.user, id, send).await?;
    let command = command::Body::SendMessage(message);
    let confirmed = shared.commands.execute(caller.actor(), id, command).await?;
    match confirmed.answer {
        Answer::Message(message) => Ok((message, confirmed.repeated)),
        _ => Err(ClientError::internal()),
    }
}

/// The next bound of a page, where there is more.
pub(super) fn next(page: &MessagePage) -> Option<u64> {
    Some(page.next).filter(|next| *next != 0)
}

async fn send(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: SendBody = parse(&body)?;
    let (message, repeated) = deliver(&shared, &caller, id, body.input(None)).await?;
    Ok((made(repeated), Json(json::message(&message))).into_response())
}

async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let request = asked(query)?.request(id, None)?;
    let page = shared.backend.messages(Some(caller.actor()), request).await?;
    let list = MessageList {
        messages: page.messages.iter().map(json::message).collect(),
        next: next(&page),
    };
    Ok(Json(list).into_response())
}

async fn read(
    State(shared): State<Shared>,
    caller: Caller,
    NamedMessage(found): NamedMessage,
) -> Result<Response, ClientError> {
    let message = shared
        .backend
        .message(Some(caller.actor()), found.conversation, found.message)
        .await?;
    Ok(Json(json::message(&message)).into_response())
}

async fn edits(
    State(shared): State<Shared>,
    caller: Caller,
    NamedMessage(found): NamedMessage,
) -> Result<Response, ClientError> {
    let earlier = shared
        .backend
        .edits(Some(caller.actor()), found.conversation, found.message)
        .await?;
    let edits = earlier.edits.iter().map(|edit| EditJson {
        content: &edit.content,
        at: json::time(edit.at_ms),
    });
    let list = EditList {
        edits: edits.collect(),
    };
    Ok(Json(list).into_response())
}
