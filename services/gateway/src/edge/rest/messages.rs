//! Messages of a conversation: send and read.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use parlance_proto::ConversationId;
use parlance_proto::v1::{Message, MessagePage, StreamState};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{AfterQuery, Asked, Body, Caller, Named, NamedMessage, asked, made, page_size, parse};
use crate::actions::commands::Confirmed;
use crate::actions::core::Core;
use crate::actions::reads::History;
use crate::dialect::place::thread_id;
use crate::dialect::representation::AnyMessage;
use crate::dialect::shape::time;
use crate::dialect::{Action, ConversationRef, MessageRef, SendAction, Streams};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;
use crate::limits::Limits;

/// Earlier contents in one answer where the caller does not say how many: some MB where each is as large as may be.
const MOST_EDITS: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list, send))
        .routes(routes!(read))
        .routes(routes!(edits))
}

/// A message as a client sends it.
#[derive(Deserialize, ToSchema)]
#[schema(as = MessageToSend)]
pub(super) struct SendBody<'a> {
    #[serde(alias = "clientMsgId")]
    #[schema(pattern = "^[A-Za-z0-9_-]+$", min_length = 1, max_length = 64)]
    client_msg_id: Option<String>,
    #[serde(rename = "type", alias = "messageType", alias = "message_type")]
    #[schema(schema_with = crate::dialect::schema::sendable_type)]
    kind: Option<String>,
    #[schema(min_length = 1)]
    content: String,
    #[serde(default)]
    encrypted: bool,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    #[serde(alias = "replyTo")]
    reply_to: Option<MessageRef>,
    #[serde(alias = "threadId", default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
}

/// Which messages are wanted; `before` and `after` are exclusive seqs, `offset` skips that many of the latest.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many, 50 by default; more than 100 count as 100.
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// Those before this seq.
    before: Option<u64>,
    /// Those after this seq.
    after: Option<u64>,
    /// Skips that many of the latest; page with `before` instead where there are more.
    #[serde(default)]
    #[param(maximum = 100_000)]
    offset: u32,
    /// Those of this thread; also as `threadId`.
    #[serde(alias = "threadId", default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
    /// Without the messages of threads, where no thread is named; also as `mainLine`. The default of dialects
    /// that read threads beside it.
    #[serde(alias = "mainLine")]
    main_line: Option<bool>,
}

/// A page of messages as the caller reads them.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageList)]
pub(super) struct MessageList {
    #[schema(value_type = Vec<AnyMessage<'static>>)]
    messages: Vec<Box<RawValue>>,
    #[schema(required)]
    next: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EditList)]
struct EditList<'a> {
    edits: Vec<EditJson<'a>>,
    #[schema(required)]
    next: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Edit)]
struct EditJson<'a> {
    content: &'a str,
    #[schema(format = DateTime)]
    at: String,
}

impl SendBody<'_> {
    /// The message to this conversation, in that thread where the path names one.
    pub(super) fn check(
        self,
        conversation: ConversationId,
        thread: Option<Uuid>,
        limits: &Limits,
    ) -> Result<SendAction, ClientError> {
        Ok(SendAction {
            encrypted: self.encrypted,
            reply_to: self.reply_to,
            thread: thread.or(self.thread_id),
            ..SendAction::checked(
                conversation.into(),
                self.client_msg_id,
                self.kind.as_deref(),
                self.content,
                self.metadata,
                limits,
            )?
        })
    }
}

impl ListQuery {
    /// What is wanted of a conversation, of that thread where the path names one.
    pub(super) fn wanted(self, caller: &Caller, thread: Option<Uuid>) -> Result<History, ClientError> {
        Ok(History {
            limit: page_size(self.limit)?,
            before: self.before,
            after: self.after,
            offset: self.offset,
            thread: thread.or(self.thread_id),
            main_line: self.main_line.unwrap_or_default(),
            without_deleted: !caller.representation.keeps_tombstones(),
        })
    }
}

/// A message that was sent, as the caller reads it.
pub(super) async fn sent(
    core: &Core,
    caller: &Caller,
    confirmed: Confirmed,
) -> Result<Response, ClientError> {
    let status = made(caller, confirmed.repeated);
    let message = answer(core, caller, confirmed.answer.into_message()?).await?;
    Ok((status, message).into_response())
}

/// A message as the caller reads it. That it was sent or changed does not depend on whether its receipts are at hand.
pub(super) async fn answer(core: &Core, caller: &Caller, message: Message) -> Result<Response, ClientError> {
    let place = match message.conversation_id.parse() {
        Ok(id) => caller.place(core, id).await.ok().flatten(),
        Err(_) => None,
    };
    Ok(caller.message(&message, place.as_ref()).into_response())
}

/// A page of history as the caller reads it.
pub(super) async fn page(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    wanted: History,
) -> Result<MessageList, ClientError> {
    let page = caller.reads(core).history(id, wanted).await?;
    let place = caller.place(core, id).await?;
    Ok(written(&page, caller, |message| {
        caller.representation.message(message, place.as_ref())
    }))
}

/// A page with its messages written like that. What still streams is left out where streams are not shown: it comes as a new
/// message.
pub(super) fn written(
    page: &MessagePage,
    caller: &Caller,
    write: impl Fn(&Message) -> Box<RawValue>,
) -> MessageList {
    let hides_streams = caller.representation.streams() == Some(Streams::Finished);
    let shown = page
        .messages
        .iter()
        .filter(|message| !(hides_streams && message.stream() == StreamState::Open));
    MessageList {
        messages: shown.map(write).collect(),
        next: Some(page.next).filter(|next| *next != 0),
    }
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/messages",
    operation_id = "send_message",
    tag = "messages",
    summary = "Sends a message; `client_msg_id` makes a repeat harmless.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
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
    body: Body,
) -> Result<Response, ClientError> {
    let body: SendBody = parse(&body)?;
    let send = body.check(id, None, &core.limits)?;
    sent(&core, &caller, caller.perform(&core, Action::Send(send)).await?).await
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/messages",
    operation_id = "list_messages",
    tag = "messages",
    summary = "Reads messages of a conversation: the latest, or those around a seq.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ListQuery),
    responses(
        (status = 200, description = "A page; `next` is the next bound.", body = MessageList),
    ),
)]
async fn list(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let mut query = asked(query)?;
    query
        .main_line
        .get_or_insert(caller.representation.separates_threads());
    let wanted = query.wanted(&caller, None)?;
    Ok(Json(page(&core, &caller, id, wanted).await?).into_response())
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/messages/{mid}",
    operation_id = "read_message",
    tag = "messages",
    summary = "Reads a message.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id.")),
    responses(
        (status = 200, description = "The message.", body = AnyMessage<'_>),
    ),
)]
async fn read(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
) -> Result<Response, ClientError> {
    let message = caller
        .reads(&core)
        .message(Some(conversation.into()), message)
        .await?;
    answer(&core, &caller, message).await
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/messages/{mid}/edits",
    operation_id = "list_edits",
    tag = "messages",
    summary = "Reads what a message said before it was changed, the oldest first.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("mid" = MessageRef, Path, description = "The message, by any form of its id."), AfterQuery),
    responses(
        (status = 200, description = "A page; `next` is the `after` of the next one.", body = EditList<'_>),
    ),
)]
async fn edits(
    State(core): State<Core>,
    caller: Caller,
    NamedMessage(conversation, message): NamedMessage,
    query: Asked<AfterQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = query.limit(MOST_EDITS)?;
    let reads = caller.reads(&core);
    let earlier = reads
        .edits(conversation.into(), message, query.after, limit)
        .await?;
    let edits = earlier.edits.iter().map(|edit| EditJson {
        content: &edit.content,
        at: time(edit.at_ms),
    });
    let list = EditList {
        edits: edits.collect(),
        next: Some(earlier.next).filter(|next| *next != 0),
    };
    Ok(Json(list).into_response())
}
