//! New conversations, on the routes of several front ends.

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use parlance_proto::v1::{Channel, ConversationKind, CreateConversation, ErrorCode, command};
use parlance_proto::{ConversationId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::{self, channel};
use super::{Asked, Body, Caller, asked, is_older, made, parse};
use crate::actions::commands::Confirmed;
use crate::actions::core::Core;
use crate::dialect::representation::AnyConversation;
use crate::dialect::{Answer, UserRef, schema};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// Users named in the title of a group that was given none.
const NAMED: usize = 3;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(create, conversations::list))
        .routes(routes!(create_direct))
        .routes(routes!(create_group))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = DirectCreation)]
struct DirectBody {
    #[serde(alias = "userId")]
    user_id: UserRef,
    title: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DirectQuery {
    /// Whether a conversation that exists is as good as a new one.
    #[serde(default)]
    ensure: bool,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = GroupCreation)]
struct GroupBody {
    #[schema(pattern = "\\S")]
    title: String,
    #[serde(alias = "participantIds", alias = "participants")]
    participant_ids: Vec<UserRef>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationCreation)]
struct CreateBody<'a> {
    /// May name nobody where the group is open.
    #[serde(default, alias = "participantIds", alias = "participants")]
    participant_ids: Option<Vec<UserRef>>,
    /// The kind, or the channel of a group.
    #[serde(alias = "type")]
    #[schema(schema_with = maybe_kind)]
    kind: Option<String>,
    title: Option<String>,
    #[schema(schema_with = conversations::maybe_channel)]
    channel: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    /// Every participant may change title, status, channel and metadata, and add and remove members. The default
    /// of dialects without roles where `type` does not say `group`.
    open: Option<bool>,
}

#[utoipa::path(
    post,
    path = "/conversations/direct",
    operation_id = "create_direct_conversation",
    tag = "conversations",
    summary = "Creates the one direct conversation with a user. Under `/api`, without `ensure`, one that exists is a conflict.",
    params(DirectQuery),
    request_body = DirectBody,
    responses(
        (status = 201, description = "It was made now.", body = AnyConversation<'_>),
        (status = 200, description = "It was there.", body = AnyConversation<'_>),
    ),
)]
async fn create_direct(
    State(core): State<Core>,
    OriginalUri(uri): OriginalUri,
    caller: Caller,
    query: Asked<DirectQuery>,
    body: Body,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let body: DirectBody = parse(&body)?;
    let UserRef(other) = body.user_id;
    if other == caller.user {
        return Err(ClientError::invalid("user_id is the caller"));
    }
    let create = CreateConversation {
        kind: ConversationKind::Direct.into(),
        title: own_title(&core, body.title)?,
        participant_ids: vec![other.to_string()],
        ..CreateConversation::default()
    };
    let confirmed = execute(&core, &caller, create).await?;
    // The older route promises a conflict where both users have a conversation already.
    let is_there = confirmed.repeated && !caller.change.is_resumed();
    let conflict = is_there && !query.ensure && is_older(&uri);
    created(&caller, &confirmed, conflict)
}

#[utoipa::path(
    post,
    path = "/conversations/group",
    operation_id = "create_group",
    tag = "conversations",
    summary = "Creates a group.",
    request_body = GroupBody,
    responses(
        (status = 201, description = "It was made.", body = AnyConversation<'_>),
    ),
)]
async fn create_group(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: GroupBody = parse(&body)?;
    core.limits.title(&body.title)?;
    let create = CreateConversation {
        kind: ConversationKind::Group.into(),
        title: body.title,
        participant_ids: others(&core, &caller, body.participant_ids)?,
        ..CreateConversation::default()
    };
    if create.participant_ids.is_empty() {
        return Err(nobody());
    }
    created(&caller, &execute(&core, &caller, create).await?, false)
}

/// A direct conversation only where the kind says so: cases of a support desk share their people.
#[utoipa::path(
    post,
    path = "/conversations",
    operation_id = "create_conversation",
    tag = "conversations",
    summary = "Creates a group, or with `type: direct` the one direct conversation with a user.",
    request_body = CreateBody<'_>,
    responses(
        (status = 201, description = "It was made now.", body = AnyConversation<'_>),
        (status = 200, description = "The direct conversation of these users, which was there.", body = AnyConversation<'_>),
    ),
)]
async fn create(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: CreateBody = parse(&body)?;
    let participant_ids = others(&core, &caller, body.participant_ids.unwrap_or_default())?;
    let (kind, named_channel) = match body.kind.as_deref() {
        Some("direct") => (Some(ConversationKind::Direct), None),
        Some("group") => (Some(ConversationKind::Group), None),
        Some(name) => (None, Some(channel(name).map_err(|_| no_kind())?)),
        None => (None, None),
    };
    let own_channel = body.channel.as_deref().map(channel).transpose()?;
    if let (Some(named), Some(own)) = (named_channel, own_channel)
        && named != own
    {
        return Err(ClientError::invalid("type and channel name two channels"));
    }
    let open = body
        .open
        .unwrap_or(kind.is_none() && caller.representation.is_without_roles());
    let kind = kind.unwrap_or(ConversationKind::Group);
    if kind == ConversationKind::Direct && participant_ids.len() != 1 {
        let message = "a direct conversation has exactly one other participant";
        return Err(ClientError::invalid(message));
    }
    if participant_ids.is_empty() && !open {
        return Err(nobody());
    }
    let mut title = own_title(&core, body.title)?;
    if title.is_empty() && kind == ConversationKind::Group {
        title = participant_ids[..participant_ids.len().min(NAMED)].join(", ");
        title.truncate(title.floor_char_boundary(200));
    }
    let create = CreateConversation {
        kind: kind.into(),
        title,
        participant_ids,
        channel: own_channel.or(named_channel).unwrap_or(Channel::Chat).into(),
        metadata_json: core.limits.metadata(body.metadata)?,
        open,
        ..CreateConversation::default()
    };
    created(&caller, &execute(&core, &caller, create).await?, false)
}

fn no_kind() -> ClientError {
    ClientError::invalid("type is none of direct, group, chat, voice, email")
}

fn nobody() -> ClientError {
    ClientError::invalid("participant_ids names nobody but the caller")
}

fn maybe_kind() -> Object {
    schema::nullable(schema::one_of(["direct", "group", "chat", "voice", "email"]))
}

/// A title that may be missing or empty.
fn own_title(core: &Core, title: Option<String>) -> Result<String, ClientError> {
    let title = title.unwrap_or_default();
    if !title.is_empty() {
        core.limits.title(&title)?;
    }
    Ok(title)
}

/// Everyone named but the caller, once.
fn others(core: &Core, caller: &Caller, ids: Vec<UserRef>) -> Result<Vec<String>, ClientError> {
    core.limits.participants(ids.len())?;
    let mut others = Vec::new();
    for UserRef(id) in ids {
        if id != caller.user && !others.contains(&id.to_string()) {
            others.push(id.to_string());
        }
    }
    Ok(others)
}

async fn execute(
    core: &Core,
    caller: &Caller,
    mut create: CreateConversation,
) -> Result<Confirmed, ClientError> {
    create.provision_users = core.provision;
    let id = match &create.participant_ids[..] {
        [other] if create.kind() == ConversationKind::Direct => {
            ConversationId::direct(&caller.user, &UserId::parse(other.as_str())?)
        }
        _ => ConversationId::from_uuid(caller.change.id_of("conversation")),
    };
    let body = command::Body::CreateConversation(create);
    core.commands
        .execute(caller.actor(), &caller.change, id, body)
        .await
}

fn created(caller: &Caller, confirmed: &Confirmed, conflict: bool) -> Result<Response, ClientError> {
    let Answer::Conversation(conversation) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    let json = caller.conversation(conversation);
    if conflict {
        let error = ClientError::new(ErrorCode::Conflict, "Conversation already exists");
        return Ok(error.with_existing("conversation", &json.0).into_response());
    }
    Ok((made(caller, confirmed.repeated), json).into_response())
}
