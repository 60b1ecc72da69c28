//! Messages as the encrypted front end reads and writes them: ciphertext, with how far each has come to every
//! recipient. One path segment is the conversation or the message, by method.

use axum::Json;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::v1::Message;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::marks::{DeleteQuery, EmojiBody, EmojiQuery, StatusBody, emoji, marking};
use super::messages::{ListQuery, MessageList, written};
use super::{Asked, Body, Caller, Named, Names, asked, made, named, parse};
use crate::actions::core::Core;
use crate::dialect::place::thread_id;
use crate::dialect::representation::AnyMessage;
use crate::dialect::{Action, ConversationRef, MessageRef, SendAction};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(send))
        .routes(routes!(history, edit, delete))
        .routes(routes!(status))
        .routes(routes!(react, take_back))
        .route_layer(map_response(named::forbidding))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = EncryptedMessageToSend)]
struct SendBody<'a> {
    #[serde(alias = "conversationId")]
    conversation_id: ConversationRef,
    #[serde(alias = "contentEncrypted")]
    content_encrypted: Option<String>,
    content: Option<String>,
    #[serde(alias = "messageType", alias = "type")]
    #[schema(schema_with = crate::dialect::schema::sendable_type)]
    message_type: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    #[serde(alias = "replyTo")]
    reply_to: Option<MessageRef>,
    #[serde(alias = "threadId", default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
    #[serde(alias = "clientMsgId")]
    #[schema(pattern = "^[A-Za-z0-9_-]+$", min_length = 1, max_length = 64)]
    client_msg_id: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = EncryptedMessageEdit)]
struct EditBody {
    #[serde(alias = "contentEncrypted", alias = "content")]
    #[schema(min_length = 1)]
    content_encrypted: String,
}

/// A message that was changed. That the change is made does not depend on whether its statuses can be told.
async fn answer(core: &Core, caller: &Caller, code: StatusCode, changed: &Message) -> Response {
    let place = match changed.conversation_id.parse() {
        Ok(id) => caller.reads(core).place(id).await.ok(),
        Err(_) => None,
    };
    let message = caller.representation.ciphertext(changed, place.as_ref());
    (code, Json(message)).into_response()
}

/// Carries out what leads to a message, and answers with it.
async fn change(core: &Core, caller: &Caller, action: Action) -> Result<Response, ClientError> {
    let changed = caller.perform(core, action).await?.answer.into_message()?;
    Ok(answer(core, caller, StatusCode::OK, &changed).await)
}

#[utoipa::path(
    post,
    path = "/messages",
    operation_id = "send_encrypted_message",
    tag = "encrypted",
    summary = "Sends ciphertext; as plain `content`, a readable message.",
    request_body = SendBody<'_>,
    responses(
        (status = 201, description = "It was sent now.", body = AnyMessage<'_>),
        (status = 200, description = "It had been sent before.", body = AnyMessage<'_>),
    ),
)]
async fn send(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: SendBody = parse(&body)?;
    if body.content_encrypted.is_some() && body.content.is_some() {
        return Err(ClientError::both_contents());
    }
    let encrypted = body.content_encrypted.is_some();
    let content = body.content_encrypted.or(body.content);
    let content = content.ok_or_else(|| ClientError::invalid("content_encrypted is missing"))?;
    let id = core.conversation(body.conversation_id).await?;
    let send = SendAction {
        encrypted,
        reply_to: body.reply_to,
        thread: body.thread_id,
        ..SendAction::checked(
            id.into(),
            body.client_msg_id,
            body.message_type.as_deref(),
            content,
            body.metadata,
            &core.limits,
        )?
    };
    let sent = caller.perform(&core, Action::Send(send)).await?;
    let status = made(&caller, sent.repeated);
    Ok(answer(&core, &caller, status, &sent.answer.into_message()?).await)
}

#[utoipa::path(
    get,
    path = "/messages/{id}",
    operation_id = "list_encrypted_messages",
    tag = "encrypted",
    summary = "Reads messages of the conversation that the path names, with their statuses.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ListQuery),
    responses(
        (status = 200, description = "A page; `next` is the next bound.", body = MessageList),
    ),
)]
async fn history(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let wanted = asked(query)?.wanted(&caller, None)?;
    let page = caller.reads(&core).history(id, wanted).await?;
    let place = caller.reads(&core).place(id).await?;
    let history = written(&page, &caller, |message| {
        caller.representation.ciphertext(message, Some(&place))
    });
    Ok(Json(history).into_response())
}

#[utoipa::path(
    patch,
    path = "/messages/{id}",
    operation_id = "edit_encrypted_message",
    tag = "encrypted",
    summary = "Changes the message that the path names.",
    params(("id" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = EditBody,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn edit(
    State(core): State<Core>,
    caller: Caller,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: EditBody = parse(&body)?;
    let message = names.message_alone(&core).await?;
    let action = Action::edit(None, message, body.content_encrypted, &core.limits)?;
    change(&core, &caller, action).await
}

#[utoipa::path(
    delete,
    path = "/messages/{id}",
    operation_id = "delete_encrypted_message",
    tag = "encrypted",
    summary = "Deletes the message that the path names, for all or for the caller.",
    params(("id" = MessageRef, Path, description = "The message, by any form of its id."), DeleteQuery),
    responses(
        (status = 200, description = "The message as it is left for all.", body = AnyMessage<'_>),
        (status = 204, description = "It is hidden from the caller."),
    ),
)]
async fn delete(
    State(core): State<Core>,
    caller: Caller,
    names: Names,
    query: Asked<DeleteQuery>,
) -> Result<Response, ClientError> {
    let for_me = asked(query)?.for_me()?;
    let action = Action::Delete {
        conversation: None,
        message: names.message_alone(&core).await?,
        for_me,
    };
    if for_me {
        caller.perform(&core, action).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    change(&core, &caller, action).await
}

#[utoipa::path(
    post,
    path = "/messages/{id}/status",
    operation_id = "mark_encrypted_message",
    tag = "encrypted",
    summary = "Marks a message as delivered or read.",
    params(("id" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = StatusBody,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn status(
    State(core): State<Core>,
    caller: Caller,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let message = names.message_alone(&core).await?;
    caller
        .perform(&core, marking(&core, None, message, &body)?)
        .await?;
    let marked = caller.reads(&core).message(None, message).await?;
    Ok(answer(&core, &caller, StatusCode::OK, &marked).await)
}

#[utoipa::path(
    post,
    path = "/messages/{id}/reactions",
    operation_id = "react_to_encrypted_message",
    tag = "encrypted",
    summary = "Puts the caller's mark on a message.",
    params(("id" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = EmojiBody,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn react(
    State(core): State<Core>,
    caller: Caller,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: EmojiBody = parse(&body)?;
    let message = names.message_alone(&core).await?;
    let action = Action::react(None, message, body.emoji, false, &core.limits)?;
    change(&core, &caller, action).await
}

#[utoipa::path(
    delete,
    path = "/messages/{id}/reactions",
    operation_id = "take_back_encrypted_reaction",
    tag = "encrypted",
    summary = "Takes the caller's mark back, named in the query string or in the body.",
    params(("id" = MessageRef, Path, description = "The message, by any form of its id."), EmojiQuery),
    request_body = Option<EmojiBody>,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn take_back(
    State(core): State<Core>,
    caller: Caller,
    names: Names,
    query: Asked<EmojiQuery>,
    body: Body,
) -> Result<Response, ClientError> {
    let emoji = emoji(&body, asked(query)?)?;
    let message = names.message_alone(&core).await?;
    let action = Action::react(None, message, emoji, true, &core.limits)?;
    change(&core, &caller, action).await
}
