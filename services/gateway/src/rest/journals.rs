//! Journals: documents that several users write, with who may read and who may write.

use axum::Json;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Conversation, ConversationKind, CreateConversation, DeleteConversation, EditJournal, ErrorCode,
    JournalVersion, Participant, Role, UpdateConversation, command, edit_journal,
};
use serde::{Deserialize, Serialize};
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::ListQuery;
use super::participants::{add_members, change_role, remove_member};
use super::{Asked, Body, Caller, Named, Names, asked, made, named, page_size, parse};
use crate::app::Shared;
use crate::commands::new_id;
use crate::dialect::shape::{role_name, time};
use crate::dialect::{ConversationRef, UserRef, schema};
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, delete))
        .routes(routes!(versions))
        .routes(routes!(version))
        .routes(routes!(restore))
        .routes(routes!(share))
        .routes(routes!(change, unshare))
        .route_layer(map_response(named::as_is))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalCreation)]
struct CreateBody {
    #[schema(pattern = "\\S")]
    title: String,
    #[serde(default)]
    content: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalUpdate)]
struct UpdateBody {
    #[schema(pattern = "\\S")]
    title: Option<String>,
    content: Option<String>,
    #[serde(alias = "baseVersion", default)]
    base_version: u64,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalShare)]
struct ShareBody {
    #[serde(alias = "userId")]
    user_id: UserRef,
    #[schema(schema_with = permission_schema)]
    permission: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalPermission)]
struct PermissionBody {
    #[schema(schema_with = permission_schema)]
    permission: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct VersionsQuery {
    /// At most so many, 50 by default; more than 100 count as 100.
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// Older than this version; 0 for the latest.
    #[serde(default)]
    before: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalDocument)]
struct JournalJson<'a> {
    id: &'a str,
    number: i64,
    title: &'a str,
    owner: &'a str,
    /// Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    version: u64,
    collaborators: Vec<CollaboratorJson<'a>>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalCollaborator)]
struct CollaboratorJson<'a> {
    user_id: &'a str,
    username: &'a str,
    #[schema(schema_with = crate::dialect::schema::role)]
    permission: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalList)]
struct JournalList<'a> {
    journals: Vec<JournalJson<'a>>,
    #[schema(required)]
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalVersionList)]
struct VersionList<'a> {
    versions: Vec<VersionJson<'a>>,
    #[schema(required)]
    next: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalVersion)]
struct VersionJson<'a> {
    version: u64,
    content: &'a str,
    user_id: &'a str,
    #[schema(format = DateTime)]
    at: String,
}

fn journal(journal: &Conversation) -> JournalJson<'_> {
    let participants = &journal.participants;
    let owner = participants
        .iter()
        .find(|participant| participant.role() == Role::Owner);
    JournalJson {
        id: &journal.id,
        number: journal.number,
        title: &journal.title,
        owner: owner.map_or(&journal.created_by, |owner| &owner.user_id),
        content: journal.content.as_deref(),
        version: journal.head_seq,
        collaborators: participants
            .iter()
            .filter(|participant| participant.role() != Role::Owner)
            .map(collaborator)
            .collect(),
        created_at: time(journal.created_at_ms),
        updated_at: time(journal.updated_at_ms),
    }
}

fn collaborator(participant: &Participant) -> CollaboratorJson<'_> {
    CollaboratorJson {
        user_id: &participant.user_id,
        username: &participant.username,
        permission: role_name(participant.role()),
    }
}

fn permission_schema() -> Object {
    schema::roles(|name| permission(name).is_ok())
}

fn permission(name: &str) -> Result<Role, ClientError> {
    match name {
        "viewer" => Ok(Role::Viewer),
        "editor" => Ok(Role::Editor),
        _ => Err(ClientError::invalid("permission is none of viewer, editor")),
    }
}

/// The journal as the caller sees it. A conversation of another kind is none.
async fn seen(shared: &Shared, caller: &Caller, id: ConversationId) -> Result<Conversation, ClientError> {
    let seen = shared.backend.conversation(Some(caller.actor()), id).await?;
    if seen.kind() != ConversationKind::Journal {
        return Err(ClientError::no_conversation());
    }
    Ok(seen)
}

/// The journal once something was done to it.
async fn answer(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    status: StatusCode,
) -> Result<Response, ClientError> {
    let seen = seen(shared, caller, id).await?;
    Ok((status, Json(journal(&seen))).into_response())
}

#[utoipa::path(
    post,
    path = "/journals",
    operation_id = "create_journal",
    tag = "journals",
    summary = "Creates a journal.",
    request_body = CreateBody,
    responses(
        (status = 201, description = "The journal.", body = JournalJson<'_>),
    ),
)]
async fn create(State(shared): State<Shared>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: CreateBody = parse(&body)?;
    shared.limits.title(&body.title)?;
    shared.limits.journal(&body.content)?;
    let id = ConversationId::from_uuid(new_id());
    let command = command::Body::CreateConversation(CreateConversation {
        kind: ConversationKind::Journal.into(),
        title: body.title,
        content: body.content,
        ..CreateConversation::default()
    });
    shared.commands.execute(caller.actor(), id, command).await?;
    answer(&shared, &caller, id, StatusCode::CREATED).await
}

#[utoipa::path(
    get,
    path = "/journals",
    operation_id = "list_journals",
    tag = "journals",
    summary = "Lists the journals the caller may read, without their texts.",
    params(ListQuery),
    responses(
        (status = 200, description = "A page; `next` is the cursor of the next one.", body = JournalList<'_>),
    ),
)]
async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let page = shared
        .backend
        .journals(Some(caller.actor()), limit, query.cursor)
        .await?;
    let list = JournalList {
        journals: page.conversations.iter().map(journal).collect(),
        next: Some(page.next.clone()).filter(|next| !next.is_empty()),
    };
    Ok(Json(list).into_response())
}

#[utoipa::path(
    get,
    path = "/journals/{id}",
    operation_id = "read_journal",
    tag = "journals",
    summary = "Reads a journal.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id.")),
    responses(
        (status = 200, description = "The journal.", body = JournalJson<'_>),
    ),
)]
async fn read(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
) -> Result<Response, ClientError> {
    answer(&shared, &caller, id, StatusCode::OK).await
}

#[utoipa::path(
    patch,
    path = "/journals/{id}",
    operation_id = "update_journal",
    tag = "journals",
    summary = "Changes title or text; `base_version` says which text the caller changed.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id.")),
    request_body = UpdateBody,
    responses(
        (status = 200, description = "The journal.", body = JournalJson<'_>),
    ),
)]
async fn update(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: UpdateBody = parse(&body)?;
    if body.title.is_none() && body.content.is_none() {
        return Err(ClientError::invalid("neither title nor content is given"));
    }
    if let Some(title) = &body.title {
        shared.limits.title(title)?;
    }
    if let Some(content) = &body.content {
        shared.limits.journal(content)?;
    }
    seen(&shared, &caller, id).await?;
    // The text first: what can go wrong with it must not leave a new title behind.
    if let Some(content) = body.content {
        let edit = command::Body::EditJournal(EditJournal {
            change: Some(edit_journal::Change::Content(content)),
            base_version: body.base_version,
        });
        shared.commands.execute(caller.actor(), id, edit).await?;
    }
    if let Some(title) = body.title {
        let update = command::Body::UpdateConversation(UpdateConversation {
            title: Some(title),
            ..UpdateConversation::default()
        });
        shared.commands.execute(caller.actor(), id, update).await?;
    }
    answer(&shared, &caller, id, StatusCode::OK).await
}

#[utoipa::path(
    delete,
    path = "/journals/{id}",
    operation_id = "delete_journal",
    tag = "journals",
    summary = "Deletes a journal.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id.")),
    responses(
        (status = 204, description = "It is gone."),
    ),
)]
async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
) -> Result<StatusCode, ClientError> {
    seen(&shared, &caller, id).await?;
    let command = command::Body::DeleteConversation(DeleteConversation {});
    shared.commands.execute(caller.actor(), id, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get,
    path = "/journals/{id}/versions",
    operation_id = "list_journal_versions",
    tag = "journals",
    summary = "Reads what a journal said before.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id."), VersionsQuery),
    responses(
        (status = 200, description = "A page; `next` is the next bound.", body = VersionList<'_>),
    ),
)]
async fn versions(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    query: Asked<VersionsQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let page = shared
        .backend
        .journal_versions(Some(caller.actor()), id, limit, query.before)
        .await?;
    let list = VersionList {
        versions: page.versions.iter().map(version_json).collect(),
        next: Some(page.next).filter(|next| *next != 0),
    };
    Ok(Json(list).into_response())
}

#[utoipa::path(
    get,
    path = "/journals/{id}/versions/{version}",
    operation_id = "read_journal_version",
    tag = "journals",
    summary = "Reads what a journal said at a version.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id."), ("version" = u64, Path, minimum = 1, description = "The version.")),
    responses(
        (status = 200, description = "The version.", body = VersionJson<'_>),
    ),
)]
async fn version(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    let found = version_of(&shared, &caller, id, names.version()?).await?;
    Ok(Json(version_json(&found)).into_response())
}

#[utoipa::path(
    post,
    path = "/journals/{id}/restore/{version}",
    operation_id = "restore_journal_version",
    tag = "journals",
    summary = "Makes the text of a version the text of the journal again: a change like any other.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id."), ("version" = u64, Path, minimum = 1, description = "The version.")),
    responses(
        (status = 200, description = "The journal.", body = JournalJson<'_>),
    ),
)]
async fn restore(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    let found = version_of(&shared, &caller, id, names.version()?).await?;
    let edit = command::Body::EditJournal(EditJournal {
        change: Some(edit_journal::Change::Content(found.content)),
        base_version: 0,
    });
    shared.commands.execute(caller.actor(), id, edit).await?;
    answer(&shared, &caller, id, StatusCode::OK).await
}

/// What the journal said at a version. Changes of its title and members have numbers too, and are no versions.
async fn version_of(
    shared: &Shared,
    caller: &Caller,
    id: ConversationId,
    version: u64,
) -> Result<JournalVersion, ClientError> {
    let below = version.saturating_add(1);
    let page = shared
        .backend
        .journal_versions(Some(caller.actor()), id, 1, below)
        .await?;
    let mut found = page.versions.into_iter().filter(|found| found.version == version);
    found
        .next()
        .ok_or_else(|| ClientError::new(ErrorCode::NotFound, "no such version"))
}

fn version_json(version: &JournalVersion) -> VersionJson<'_> {
    VersionJson {
        version: version.version,
        content: &version.content,
        user_id: &version.actor_id,
        at: time(version.at_ms),
    }
}

#[utoipa::path(
    post,
    path = "/journals/{id}/collaborators",
    operation_id = "share_journal",
    tag = "journals",
    summary = "Lets a user read or write a journal; a collaborator gets the permission named.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id.")),
    request_body = ShareBody,
    responses(
        (status = 201, description = "It is shared now.", body = JournalJson<'_>),
        (status = 200, description = "It had been shared with them before.", body = JournalJson<'_>),
    ),
)]
async fn share(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: ShareBody = parse(&body)?;
    let role = permission(&body.permission)?;
    let UserRef(user) = body.user_id;
    let before = seen(&shared, &caller, id).await?;
    let present = before
        .participants
        .iter()
        .any(|participant| participant.user_id == user.as_str());
    let confirmed = add_members(&shared, &caller, id, vec![user], Some(role)).await?;
    let repeated = present || confirmed.repeated;
    answer(&shared, &caller, id, made(repeated)).await
}

#[utoipa::path(
    patch,
    path = "/journals/{id}/collaborators/{user_id}",
    operation_id = "change_collaborator",
    tag = "journals",
    summary = "Gives a collaborator another permission.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    request_body = PermissionBody,
    responses(
        (status = 200, description = "The journal.", body = JournalJson<'_>),
    ),
)]
async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: PermissionBody = parse(&body)?;
    let role = permission(&body.permission)?;
    let user = names.user()?;
    seen(&shared, &caller, id).await?;
    change_role(&shared, &caller, id, &user, role).await?;
    answer(&shared, &caller, id, StatusCode::OK).await
}

#[utoipa::path(
    delete,
    path = "/journals/{id}/collaborators/{user_id}",
    operation_id = "unshare_journal",
    tag = "journals",
    summary = "Ends what a user may do with a journal.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id."), ("user_id" = String, Path, description = "The user.")),
    responses(
        (status = 204, description = "It is not shared with them any more."),
    ),
)]
async fn unshare(
    State(shared): State<Shared>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<StatusCode, ClientError> {
    let user = names.user()?;
    seen(&shared, &caller, id).await?;
    remove_member(&shared, &caller, id, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}
