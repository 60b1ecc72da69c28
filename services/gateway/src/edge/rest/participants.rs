//! Who belongs to a conversation, and as what.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::v1::{AddMembers, ChangeRole, ConversationKind, RemoveMember, Role, command};
use parlance_proto::{ConversationId, UserId};
use serde::Deserialize;
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Asked, Body, Caller, Named, Names, asked, made, page_size, parse};
use crate::actions::commands::Confirmed;
use crate::actions::core::Core;
use crate::dialect::native::json;
use crate::dialect::representation::AnyConversation;
use crate::dialect::{Answer, ConversationRef, UserRef, schema};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(change, remove))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ParticipantAddition)]
struct AddBody {
    #[serde(alias = "userId")]
    user_id: Option<UserRef>,
    #[serde(alias = "userIds", alias = "participant_ids", alias = "participantIds")]
    user_ids: Option<Vec<UserRef>>,
    #[schema(schema_with = maybe_role_schema)]
    role: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ParticipantRole)]
struct RoleBody {
    #[schema(schema_with = role_schema)]
    role: String,
}

/// Adds users. A role is given to those that are there already too; without one they keep theirs.
pub(super) async fn add_members(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    users: Vec<UserId>,
    role: Option<Role>,
) -> Result<Confirmed, ClientError> {
    let body = command::Body::AddMembers(AddMembers {
        user_ids: users.iter().map(ToString::to_string).collect(),
        role: role.unwrap_or_default().into(),
        provision_users: core.provision,
        change_present: role.is_some(),
    });
    core.commands
        .execute(caller.actor(), &caller.change, id, body)
        .await
}

/// Gives a participant another role.
pub(super) async fn change_role(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    user: &UserId,
    role: Role,
) -> Result<Confirmed, ClientError> {
    let body = command::Body::ChangeRole(ChangeRole {
        user_id: user.to_string(),
        role: role.into(),
    });
    core.commands
        .execute(caller.actor(), &caller.change, id, body)
        .await
}

/// Removes a participant, or lets the caller leave.
pub(super) async fn remove_member(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    user: &UserId,
) -> Result<(), ClientError> {
    let body = command::Body::RemoveMember(RemoveMember {
        user_id: user.to_string(),
    });
    core.commands
        .execute(caller.actor(), &caller.change, id, body)
        .await
        .map(drop)
}

/// Makes these users, and the caller, all that belong to a group: adds who is missing and removes the others, one
/// command after the other. Each is authorized by itself; a repeat goes on where a failed one ended. What they are depends
/// on who is there, so that they cannot be carried out once for a key.
pub(super) async fn set_members(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    users: Vec<UserRef>,
) -> Result<(), ClientError> {
    if caller.change.is_keyed() {
        let message = "participants takes no Idempotency-Key, because who is added and removed depends on who is there; \
                       repeat it without one, or change each participant by a request of its own";
        return Err(ClientError::invalid(message));
    }
    core.limits.participants(users.len())?;
    let mut wanted = vec![caller.user.clone()];
    for UserRef(user) in users {
        if !wanted.contains(&user) {
            wanted.push(user);
        }
    }
    let conversation = core.backend.conversation(Some(caller.actor()), id).await?;
    let participants = if conversation.participants_complete {
        conversation.participants.clone()
    } else {
        let most = core.limits.most_participants();
        core.backend.all_participants(caller.actor(), id, most).await?
    };
    let mut present = Vec::with_capacity(participants.len());
    for participant in &participants {
        present.push(UserId::parse(participant.user_id.as_str())?);
    }
    let missing: Vec<UserId> = wanted
        .iter()
        .filter(|user| !present.contains(user))
        .cloned()
        .collect();
    let surplus: Vec<&UserId> = present.iter().filter(|user| !wanted.contains(user)).collect();
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    if conversation.kind() != ConversationKind::Group {
        let message = "the participants of a direct conversation cannot be changed";
        return Err(ClientError::invalid(message));
    }
    // More than a page of members cannot be compared.
    core.limits.participants(present.len())?;
    if !missing.is_empty() {
        add_members(core, caller, id, missing, None).await?;
    }
    for user in surplus {
        remove_member(core, caller, id, user).await?;
    }
    Ok(())
}

fn role_schema() -> Object {
    schema::roles(|name| role(name).is_ok())
}

fn maybe_role_schema() -> Object {
    schema::nullable(role_schema())
}

fn role(name: &str) -> Result<Role, ClientError> {
    match name {
        "member" => Ok(Role::Member),
        "moderator" => Ok(Role::Moderator),
        "admin" => Ok(Role::Admin),
        _ => Err(ClientError::invalid("role is none of member, moderator, admin")),
    }
}

fn answer(caller: &Caller, status: StatusCode, confirmed: &Confirmed) -> Result<Response, ClientError> {
    let Answer::Conversation(conversation) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    Ok((status, caller.conversation(conversation)).into_response())
}

/// A page of the participants of a conversation.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// The `next` of the page before; empty for the first.
    #[serde(default)]
    after: String,
    /// At most so many, 50 by default; more than 100 count as 100.
    #[param(minimum = 1)]
    limit: Option<u32>,
}

#[utoipa::path(
    get,
    path = "/conversations/{id}/participants",
    operation_id = "list_participants",
    tag = "participants",
    summary = "Lists all participants of a conversation, by ascending id.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), PageQuery),
    responses(
        (status = 200, description = "A page; `next` is the `after` of the next one.", body = json::ParticipantPageJson<'_>),
    ),
)]
async fn list(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<PageQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let page = core
        .backend
        .participants(Some(caller.actor()), id, query.after, limit)
        .await?;
    Ok(Json(json::participant_page(&page)).into_response())
}

#[utoipa::path(
    post,
    path = "/conversations/{id}/participants",
    operation_id = "add_participants",
    tag = "participants",
    summary = "Adds users. `role` is given to those that are there already too; without it they keep theirs.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id.")),
    request_body = AddBody,
    responses(
        (status = 201, description = "They were added, or have the role now.", body = AnyConversation<'_>),
        (status = 200, description = "Nothing changed: they were participants already.", body = AnyConversation<'_>),
    ),
)]
async fn add(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: AddBody = parse(&body)?;
    let mut ids = body.user_ids.unwrap_or_default();
    ids.extend(body.user_id);
    if ids.is_empty() {
        return Err(ClientError::invalid("neither user_id nor user_ids names anybody"));
    }
    core.limits.participants(ids.len())?;
    let users = ids.into_iter().map(|UserRef(id)| id).collect();
    let role = body.role.as_deref().map(role).transpose()?;
    let confirmed = add_members(&core, &caller, id, users, role).await?;
    answer(&caller, made(&caller, confirmed.repeated), &confirmed)
}

#[utoipa::path(
    patch,
    path = "/conversations/{id}/participants/{user_id}",
    operation_id = "change_participant",
    tag = "participants",
    summary = "Gives a participant another role.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    request_body = RoleBody,
    responses(
        (status = 200, description = "The conversation.", body = AnyConversation<'_>),
    ),
)]
async fn change(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: RoleBody = parse(&body)?;
    let role = role(&body.role)?;
    let confirmed = change_role(&core, &caller, id, &names.user()?, role).await?;
    answer(&caller, StatusCode::OK, &confirmed)
}

#[utoipa::path(
    delete,
    path = "/conversations/{id}/participants/{user_id}",
    operation_id = "remove_participant",
    tag = "participants",
    summary = "Removes a participant, or lets the caller leave.",
    params(("id" = ConversationRef, Path, description = "The conversation, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 204, description = "They are in it no more."),
    ),
)]
async fn remove(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<StatusCode, ClientError> {
    remove_member(&core, &caller, id, &names.user()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
