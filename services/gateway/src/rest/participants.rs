//! Who belongs to a conversation, and as what.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use axum::{Json, Router};
use http::StatusCode;
use parlance_proto::v1::{AddMembers, ChangeRole, RemoveMember, Role, command};
use parlance_proto::{ConversationId, UserId};
use serde::Deserialize;

use super::{Body, Caller, Named, Names, made, parse};
use crate::app::Shared;
use crate::commands::Confirmed;
use crate::dialect::Answer;
use crate::dialect::native::json;
use crate::error::ClientError;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/conversations/{id}/participants", post(add))
        .route(
            "/conversations/{id}/participants/{user_id}",
            patch(change).delete(remove),
        )
}

#[derive(Deserialize)]
struct AddBody {
    #[serde(alias = "userId")]
    user_id: Option<String>,
    #[serde(alias = "userIds", alias = "participant_ids", alias = "participantIds")]
    user_ids: Option<Vec<String>>,
    role: Option<String>,
}

#[derive(Deserialize)]
struct RoleBody {
    role: String,
}

/// Adds users with a role; those that are there already stay as they are.
pub(super) async fn add_members(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    users: Vec<UserId>,
    role: Role,
) -> Result<Confirmed, ClientError> {
    let body = command::Body::AddMembers(AddMembers {
        user_ids: users.iter().map(ToString::to_string).collect(),
        role: role.into(),
        provision_users: shared.provision,
    });
    shared.commands.execute(caller.actor(), id, body).await
}

/// Gives a participant another role.
pub(super) async fn change_role(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    user: &UserId,
    role: Role,
) -> Result<Confirmed, ClientError> {
    let body = command::Body::ChangeRole(ChangeRole {
        user_id: user.to_string(),
        role: role.into(),
    });
    shared.commands.execute(caller.actor(), id, body).await
}

/// Removes a participant, or lets the caller leave.
pub(super) async fn remove_member(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    user: &UserId,
) -> Result<(), ClientError> {
    let body = command::Body::RemoveMember(RemoveMember {
        user_id: user.to_string(),
    });
    shared.commands.execute(caller.actor(), id, body).await.map(drop)
}

fn role(name: &str) -> Result<Role, ClientError> {
    match name {
        "member" => Ok(Role::Member),
        "moderator" => Ok(Role::Moderator),
        "admin" => Ok(Role::Admin),
        _ => Err(ClientError::invalid("role is none of member, moderator, admin")),
    }
}

fn answer(status: StatusCode, confirmed: &Confirmed) -> Result<Response, ClientError> {
    let Answer::Conversation(conversation) = &confirmed.answer else {
        return Err(ClientError::internal());
    };
    Ok((status, Json(json::conversation(conversation))).into_response())
}

async fn add(
    State(shared): State<Shared>,
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
    shared.limits.participants(ids.len())?;
    let users = ids.into_iter().map(UserId::parse).collect::<Result<_, _>>()?;
    let role = body
        .role
        .as_deref()
        .map(role)
        .transpose()?
        .unwrap_or(Role::Member);
    let confirmed = add_members(&shared, &caller, id, users, role).await?;
    answer(made(confirmed.repeated), &confirmed)
}

async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: RoleBody = parse(&body)?;
    let role = role(&body.role)?;
    let confirmed = change_role(&shared, &caller, id, &names.user()?, role).await?;
    answer(StatusCode::OK, &confirmed)
}

async fn remove(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<StatusCode, ClientError> {
    remove_member(&shared, &caller, id, &names.user()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
