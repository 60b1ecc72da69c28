//! Journals: documents that several users write, with who may read and who may write.

use axum::Json;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_proto::v1::{Conversation, JournalVersion, Participant, Role};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::ListQuery;
use super::{Asked, Body, Caller, Named, Names, asked, made, named, page_size, parse};
use crate::actions::commands::Confirmed;
use crate::actions::core::Core;
use crate::dialect::native::journal::{CreateBody, PermissionBody, ShareBody, UpdateBody};
use crate::dialect::shape::{role_name, time};
use crate::dialect::{ConversationRef, JournalAction};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update, delete))
        .routes(routes!(versions))
        .routes(routes!(version))
        .routes(routes!(restore))
        .routes(routes!(blame))
        .routes(routes!(share))
        .routes(routes!(change, unshare))
        .route_layer(map_response(named::as_is))
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
    /// All but the owner; of a journal with more than a hundred participants only some.
    collaborators: Vec<CollaboratorJson<'a>>,
    /// The owner and all collaborators.
    participant_count: u64,
    /// Whether these are all collaborators; the others are listed in pages of participants.
    participants_complete: bool,
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
    /// Absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    user_id: &'a str,
    #[schema(format = DateTime)]
    at: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalBlame)]
struct BlameJson {
    version: u64,
    content: String,
    /// User ids.
    authors: Vec<String>,
    /// The text from its beginning to its end.
    spans: Vec<SpanJson>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalSpan)]
struct SpanJson {
    /// UTF-16 units, as browsers count.
    length: usize,
    /// Place in `authors`; null where that is not known.
    #[schema(required)]
    author: Option<usize>,
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
        version: match journal.content {
            Some(_) => journal.journal_version,
            None => journal.head_seq,
        },
        collaborators: participants
            .iter()
            .filter(|participant| participant.role() != Role::Owner)
            .map(collaborator)
            .collect(),
        participant_count: journal.participant_count,
        participants_complete: journal.participants_complete,
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

/// The journal once something was done to it.
fn answer(status: StatusCode, done: Confirmed) -> Result<Response, ClientError> {
    let seen = done.answer.into_conversation()?;
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
async fn create(State(core): State<Core>, caller: Caller, body: Body) -> Result<Response, ClientError> {
    let body: CreateBody = parse(&body)?;
    let created = caller.perform(&core, body.check(&core.limits)?).await?;
    answer(StatusCode::CREATED, created)
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
    State(core): State<Core>,
    caller: Caller,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let page = caller.reads(&core).journals(limit, query.cursor).await?;
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
async fn read(State(core): State<Core>, caller: Caller, Named(id): Named) -> Result<Response, ClientError> {
    let seen = caller.reads(&core).journal(id).await?;
    Ok(Json(journal(&seen)).into_response())
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: UpdateBody = parse(&body)?;
    let updated = caller
        .perform(&core, body.check(id.into(), &core.limits)?)
        .await?;
    answer(StatusCode::OK, updated)
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
) -> Result<StatusCode, ClientError> {
    caller.perform(&core, JournalAction::Delete(id.into())).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get,
    path = "/journals/{id}/versions",
    operation_id = "list_journal_versions",
    tag = "journals",
    summary = "Lists the versions of a journal, without their texts.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id."), VersionsQuery),
    responses(
        (status = 200, description = "A page; `next` is the next bound.", body = VersionList<'_>),
    ),
)]
async fn versions(
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    query: Asked<VersionsQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let limit = page_size(query.limit)?;
    let reads = caller.reads(&core);
    let page = reads.journal_versions(id, query.before, limit).await?;
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    let version = names.version()?;
    let (found, content) = caller.reads(&core).journal_version(id, version).await?;
    let content = Some(content);
    Ok(Json(VersionJson {
        content,
        ..version_json(&found)
    })
    .into_response())
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    let version = match names.version() {
        Ok(version) => version,
        Err(error) => {
            // For non-members there is no journal, whatever they say of it.
            caller.reads(&core).journal(id).await?;
            return Err(error);
        }
    };
    let action = JournalAction::Restore {
        journal: id.into(),
        version,
    };
    answer(StatusCode::OK, caller.perform(&core, action).await?)
}

#[utoipa::path(
    get,
    path = "/journals/{id}/blame",
    operation_id = "blame_journal",
    tag = "journals",
    summary = "Reads who wrote which part of a journal.",
    params(("id" = ConversationRef, Path, description = "The journal, by any form of its id.")),
    responses(
        (status = 200, description = "The text in parts. What is older than the latest 2,000 versions, or 4 MiB of them, has no author.", body = BlameJson),
    ),
)]
async fn blame(State(core): State<Core>, caller: Caller, Named(id): Named) -> Result<Response, ClientError> {
    let authorship = caller.reads(&core).authorship(id).await?;
    let spans = authorship.spans.into_iter();
    let blame = BlameJson {
        version: authorship.version,
        content: authorship.content,
        authors: authorship.authors,
        spans: spans
            .map(|(length, author)| SpanJson { length, author })
            .collect(),
    };
    Ok(Json(blame).into_response())
}

fn version_json(version: &JournalVersion) -> VersionJson<'_> {
    VersionJson {
        version: version.version,
        content: None,
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    let body: ShareBody = parse(&body)?;
    let done = caller.perform(&core, body.check(id.into())?).await?;
    answer(made(&caller, done.repeated), done)
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let body: PermissionBody = parse(&body)?;
    let role = body.check()?;
    let action = JournalAction::ChangeRole {
        journal: id.into(),
        user: names.user()?,
        role,
    };
    answer(StatusCode::OK, caller.perform(&core, action).await?)
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<StatusCode, ClientError> {
    let action = JournalAction::Unshare {
        journal: id.into(),
        user: names.user()?,
    };
    caller.perform(&core, action).await?;
    Ok(StatusCode::NO_CONTENT)
}
