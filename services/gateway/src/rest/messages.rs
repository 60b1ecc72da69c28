//! Messages of a conversation: send and read.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use parlance_proto::MessageId;
use parlance_proto::v1::{ListMessages, command};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Body, Caller, Named, page_size, parse};
use crate::app::Shared;
use crate::dialect::Answer;
use crate::dialect::native::json::{self, MessageInput, MessageJson};
use crate::error::ClientError;
use crate::socket::serve::send_message;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/conversations/{id}/messages", get(list).post(send))
}

#[derive(Deserialize)]
struct SendBody<'a> {
    #[serde(alias = "clientMsgId")]
    client_msg_id: Option<String>,
    #[serde(rename = "type", alias = "messageType", alias = "message_type")]
    kind: Option<String>,
    content: String,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(alias = "replyTo")]
    reply_to: Option<String>,
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<u32>,
    before: Option<u64>,
    after: Option<u64>,
}

#[derive(Serialize)]
struct MessageList<'a> {
    messages: Vec<MessageJson<'a>>,
    next: Option<u64>,
}

async fn send(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: SendBody = parse(&body)?;
    let input = MessageInput {
        client_msg_id: body.client_msg_id,
        kind: body.kind,
        content: body.content,
        metadata: body.metadata,
        reply_to: body.reply_to.map(|id| id.parse::<MessageId>()).transpose()?,
    };
    let send = json::message_input(input, id, &shared.limits)?;
    let command = command::Body::SendMessage(send_message(&caller.user, send));
    let confirmed = shared.commands.execute(caller.actor(), id, command).await?;
    let Answer::Message(message) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    let status = if confirmed.repeated {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(json::message(message))).into_response())
}

async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ClientError> {
    let Query(query) = query.map_err(|_| ClientError::invalid("limit, before or after is malformed"))?;
    let request = ListMessages {
        conversation_id: id.to_string(),
        limit: page_size(query.limit)?,
        before: query.before,
        after: query.after,
    };
    let page = shared.backend.messages(Some(caller.actor()), request).await?;
    let list = MessageList {
        messages: page.messages.iter().map(json::message).collect(),
        next: Some(page.next).filter(|next| *next != 0),
    };
    Ok(Json(list).into_response())
}
