//! What is done to messages once they are sent: change, delete, react, mark as delivered or read.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::ConversationId;
use serde::Deserialize;
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::messages::answer;
use super::{Asked, Body, Caller, Named, NamedMessage, asked, parse};
use crate::actions::core::Core;
use crate::dialect::native::report::ReportBody;
use crate::dialect::native::{for_me, json};
use crate::dialect::representation::AnyMessage;
use crate::dialect::{Action, ConversationRef, MessageRef, schema};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(edit, delete))
        .routes(routes!(react, take_back))
        .routes(routes!(stop))
        .routes(routes!(report))
        .routes(routes!(status))
        .routes(routes!(read))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MessageEdit)]
struct EditBody {
    #[schema(min_length = 1)]
    content: String,
}

/// Whether a deletion is for all or for oneself.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// `all`, the default, or `me`.
    #[param(schema_with = schema::scope)]
    scope: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MessageStatus)]
pub(super) struct StatusBody {
    #[schema(schema_with = reached)]
    status: String,
}

/// The mark that is taken back, for clients that send no body with DELETE.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EmojiQuery {
    /// The mark, where the request has no body.
    emoji: Option<String>,
}

/// A mark.
#[derive(Deserialize, ToSchema)]
#[schema(as = Reacting)]
pub(super) struct EmojiBody {
    /// Any text of 1 to 64 bytes without NUL characters.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) emoji: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Reading)]
struct ReadBody {
    #[serde(alias = "upToSeq", alias = "up_to")]
    up_to_seq: Option<u64>,
    #[serde(alias = "messageIds")]
    message_ids: Option<Vec<MessageRef>>,
}

fn reached() -> Object {
    schema::one_of(["delivered", "read"])
}

impl DeleteQuery {
    /// Whether only the caller shall not see the message any more.
    pub(super) fn for_me(&self) -> Result<bool, ClientError> {
        for_me(self.scope.as_deref())
    }
}

/// How one message is marked as the body says.
pub(super) fn marking(
    core: &Core,
    conversation: Option<ConversationRef>,
    message: MessageRef,
    body: &Body,
) -> Result<Action, ClientError> {
    let body: StatusBody = parse(body)?;
    let delivered_only = match body.status.as_str() {
        "delivered" => true,
        "read" => false,
        _ => return Err(ClientError::invalid("status is none of delivered, read")),
    };
    Action::receipt(conversation, None, vec![message], delivered_only, &core.limits)
}

/// Carries out what leads to a message, and answers with it.
async fn change(core: &Core, caller: &Caller, action: Action) -> Result<Response, ClientError> {
    let changed = caller.perform(core, action).await?;
    answer(core, caller, changed.answer.into_message()?).await
}

/// Marks messages of a conversation, and answers with the caller's receipts.
async fn mark(
    core: &Core,
    caller: &Caller,
    conversation: ConversationId,
    action: Action,
) -> Result<Response, ClientError> {
    let receipt = caller.perform(core, action).await?.answer.into_receipt()?;
    Ok(Json(json::receipt(conversation, &receipt)).into_response())
}

/// The mark named in the body or, without one, in the query string.
pub(super) fn emoji(body: &Body, query: EmojiQuery) -> Result<String, ClientError> {
    match query.emoji {
        Some(emoji) if body.0.is_empty() => Ok(emoji),
        _ => Ok(parse::<EmojiBody>(body)?.emoji),
    }
}

#[utoipa::path(
    patch,
    path = "/conversations/{id}/messages/{mid}",
    operation_id = "edit_message",
    tag = "messages",
    summary = "Changes the content of a message.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = EditBody,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn edit(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    body: Body,
) -> Result<Response, ClientError> {
    let body: EditBody = parse(&body)?;
    let action = Action::edit(Some(conversation.into()), message, body.content, &core.limits)?;
    change(&core, &caller, action).await
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}/messages/{mid}",
    operation_id = "delete_message",
    tag = "messages",
    summary = "Deletes a message for all, or hides it from the caller.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id."), DeleteQuery),
    responses(
        (status = 200, description = "The message as it is left for all.", body = AnyMessage<'_>),
        (status = 204, description = "It is hidden from the caller."),
    ),
)]
async fn delete(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    query: Asked<DeleteQuery>,
) -> Result<Response, ClientError> {
    let for_me = asked(query)?.for_me()?;
    let action = Action::Delete {
        conversation: Some(conversation.into()),
        message,
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
    path = "/conversations/{id}/messages/{mid}/reactions",
    operation_id = "react",
    tag = "messages",
    summary = "Puts the caller's mark on a message.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = EmojiBody,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn react(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    body: Body,
) -> Result<Response, ClientError> {
    let body: EmojiBody = parse(&body)?;
    let action = Action::react(
        Some(conversation.into()),
        message,
        body.emoji,
        false,
        &core.limits,
    )?;
    change(&core, &caller, action).await
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}/messages/{mid}/reactions",
    operation_id = "take_back_reaction",
    tag = "messages",
    summary = "Takes the caller's mark back, named in the query string or in the body.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id."), EmojiQuery),
    request_body = Option<EmojiBody>,
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn take_back(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    query: Asked<EmojiQuery>,
    body: Body,
) -> Result<Response, ClientError> {
    let emoji = emoji(&body, asked(query)?)?;
    let action = Action::react(Some(conversation.into()), message, emoji, true, &core.limits)?;
    change(&core, &caller, action).await
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/messages/{mid}/stop",
    operation_id = "stop_message",
    tag = "messages",
    summary = "Asks the service of a message that streams to end it; any participant may. 409 where it does not stream any more.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id.")),
    responses(
        (status = 202, description = "The service was asked; whether and how the message ends is up to it."),
    ),
)]
async fn stop(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
) -> Result<Response, ClientError> {
    let action = Action::Stop {
        conversation: Some(conversation.into()),
        message,
    };
    caller.perform(&core, action).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/messages/{mid}/report",
    operation_id = "report_message",
    tag = "messages",
    summary = "Reports a message of another to those who moderate. Nobody in the conversation learns of it.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = ReportBody,
    responses(
        (status = 204, description = "It is reported, perhaps was before."),
    ),
)]
async fn report(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    body: Body,
) -> Result<StatusCode, ClientError> {
    let body: ReportBody = parse(&body)?;
    let action = body.check(Some(conversation.into()), message, &core.limits)?;
    caller.perform(&core, action).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/messages/{mid}/status",
    operation_id = "mark_message",
    tag = "receipts",
    summary = "Marks a message as delivered or read.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id.")),
    request_body = StatusBody,
    responses(
        (status = 200, description = "The caller's receipts.", body = json::ReceiptJson<'_>),
    ),
)]
async fn status(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    body: Body,
) -> Result<Response, ClientError> {
    let action = marking(&core, Some(conversation.into()), message, &body)?;
    mark(&core, &caller, conversation, action).await
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/read",
    operation_id = "mark_read",
    tag = "receipts",
    summary = "Marks messages, or all up to a seq, as read.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = ReadBody,
    responses(
        (status = 200, description = "The caller's receipts.", body = json::ReceiptJson<'_>),
    ),
)]
async fn read(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: ReadBody = parse(&body)?;
    if body.up_to_seq.is_none() && body.message_ids.is_none() {
        return Err(ClientError::invalid("neither up_to_seq nor message_ids is given"));
    }
    let messages = body.message_ids.unwrap_or_default();
    let action = Action::receipt(Some(id.into()), body.up_to_seq, messages, false, &core.limits)?;
    mark(&core, &caller, id, action).await
}
