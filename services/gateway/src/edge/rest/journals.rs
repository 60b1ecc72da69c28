//! Journals: documents that several users write, with who may read and who may write.

use axum::Json;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parlance_journal::{Blame, Error, Span};
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Conversation, ConversationKind, CreateConversation, DeleteConversation, EditJournal, ErrorCode,
    JournalVersion, ListJournalUpdates, Participant, Role, UpdateConversation, command,
};
use serde::{Deserialize, Serialize};
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversations::ListQuery;
use super::participants::{add_members, change_role, remove_member};
use super::{Asked, Body, Caller, Named, Names, asked, made, named, page_size, parse};
use crate::actions::core::Core;
use crate::delivery::journal as document;
use crate::delivery::journal::turns::Turn;
use crate::dialect::shape::{role_name, time};
use crate::dialect::{ConversationRef, UserRef, schema};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// Versions whose authors are looked for, from the newest on.
const BLAMED_VERSIONS: u64 = 2_000;
/// Bytes of them.
const BLAMED_BYTES: u64 = 4 * 1024 * 1024;
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
async fn seen(core: &Core, caller: &Caller, id: ConversationId) -> Result<Conversation, ClientError> {
    let seen = core.backend.conversation(Some(caller.actor()), id).await?;
    if seen.kind() != ConversationKind::Journal {
        return Err(ClientError::no_conversation());
    }
    Ok(seen)
}

/// Whether there is such a journal for the caller, or was before this very change ended that: its command tells.
async fn was_seen(core: &Core, caller: &Caller, id: ConversationId) -> Result<(), ClientError> {
    let seen = core.backend.conversation(Some(caller.actor()), id).await;
    match seen {
        Ok(seen) if seen.kind() != ConversationKind::Journal => Err(ClientError::no_conversation()),
        Err(error) if caller.change.is_resumed() && error == ClientError::no_conversation() => Ok(()),
        seen => seen.map(drop),
    }
}

/// The journal once something was done to it.
async fn answer(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    status: StatusCode,
) -> Result<Response, ClientError> {
    let seen = seen(core, caller, id).await?;
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
    core.limits.title(&body.title)?;
    core.limits.journal(&body.content)?;
    let turn = core.turns.turn(caller.user.clone()).await?;
    let journal = computed(&turn, move || document::first(&body.content)).await?;
    drop(turn);
    let id = ConversationId::from_uuid(caller.change.id_of("conversation"));
    let command = command::Body::CreateConversation(CreateConversation {
        kind: ConversationKind::Journal.into(),
        title: body.title,
        journal,
        ..CreateConversation::default()
    });
    core.commands
        .execute(caller.actor(), &caller.change, id, command)
        .await?;
    answer(&core, &caller, id, StatusCode::CREATED).await
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
    let page = core
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
async fn read(State(core): State<Core>, caller: Caller, Named(id): Named) -> Result<Response, ClientError> {
    answer(&core, &caller, id, StatusCode::OK).await
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
    if body.title.is_none() && body.content.is_none() {
        return Err(ClientError::invalid("neither title nor content is given"));
    }
    if let Some(title) = &body.title {
        core.limits.title(title)?;
    }
    if let Some(content) = &body.content {
        core.limits.journal(content)?;
    }
    let present = seen(&core, &caller, id).await?;
    // The text first: what can go wrong with it must not leave a new title behind.
    if let Some(content) = body.content {
        if body.base_version > present.head_seq {
            return Err(ClientError::invalid("base_version is later than the journal"));
        }
        rewrite(&core, &caller, &present, id, body.base_version, content).await?;
    }
    if let Some(title) = body.title {
        let update = command::Body::UpdateConversation(UpdateConversation {
            title: Some(title),
            ..UpdateConversation::default()
        });
        core.commands
            .execute(caller.actor(), &caller.change, id, update)
            .await?;
    }
    answer(&core, &caller, id, StatusCode::OK).await
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
    was_seen(&core, &caller, id).await?;
    let command = command::Body::DeleteConversation(DeleteConversation {});
    core.commands
        .execute(caller.actor(), &caller.change, id, command)
        .await?;
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
    let page = core
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
    State(core): State<Core>,
    caller: Caller,
    Named(id): Named,
    names: Names,
) -> Result<Response, ClientError> {
    let (found, content) = version_of(&core, &caller, id, names.version()?).await?;
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
    let present = seen(&core, &caller, id).await?;
    let (_, content) = version_of(&core, &caller, id, names.version()?).await?;
    rewrite(&core, &caller, &present, id, 0, content).await?;
    answer(&core, &caller, id, StatusCode::OK).await
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
    let actor = caller.actor();
    let present = seen(&core, &caller, id).await?;
    let turn = core.turns.turn(caller.user.clone()).await?;
    let mut request = ListJournalUpdates {
        journal_id: id.to_string(),
        after: 0,
        through: present.head_seq,
        most: BLAMED_VERSIONS,
        most_bytes: BLAMED_BYTES,
    };
    let mut page = core
        .backend
        .journal_updates(Some(actor.clone()), request.clone())
        .await?;
    let mut version = page.after;
    let before = match page.after {
        0 => Vec::new(),
        after => {
            core.backend
                .journal_document(Some(actor.clone()), id, after)
                .await?
                .parts
        }
    };
    let mut blame = computed(&turn, move || document::blame(&before)).await?;
    loop {
        version = page.updates.last().map_or(version, |last| last.version);
        let updates = page.updates;
        blame = computed(&turn, move || {
            for run in updates.chunk_by(|one, next| one.actor_id == next.actor_id) {
                let author = run
                    .first()
                    .map(|update| update.actor_id.clone())
                    .unwrap_or_default();
                blame.apply_all(&author, run.iter().map(|update| &update.update))?;
            }
            Ok(blame)
        })
        .await?;
        if page.next == 0 || page.next >= present.head_seq {
            break;
        }
        request.after = page.next;
        page = core
            .backend
            .journal_updates(Some(actor.clone()), request.clone())
            .await?;
    }
    let blamed = computed(&turn, move || Ok(blamed(version, &blame))).await?;
    Ok(Json(blamed).into_response())
}

fn blamed(version: u64, blame: &Blame<String>) -> BlameJson {
    let mut authors: Vec<String> = Vec::new();
    let spans = blame.utf16_spans().into_iter().map(|Span { length, author }| {
        let author = author.map(|author| {
            let known = authors.iter().position(|known| *known == author);
            known.unwrap_or_else(|| {
                authors.push(author);
                authors.len() - 1
            })
        });
        SpanJson { length, author }
    });
    BlameJson {
        version,
        content: blame.text(),
        spans: spans.collect(),
        authors,
    }
}

/// What the journal said at a version. Changes of its title and members have numbers too, and are no versions.
async fn version_of(
    core: &Core,
    caller: &Caller,
    id: ConversationId,
    version: u64,
) -> Result<(JournalVersion, String), ClientError> {
    let backend = &core.backend;
    let below = version.saturating_add(1);
    let latest = backend
        .journal_versions(Some(caller.actor()), id, 1, below)
        .await?;
    if latest
        .versions
        .first()
        .is_none_or(|latest| latest.version != version)
    {
        return Err(ClientError::new(ErrorCode::NotFound, "no such version"));
    }
    let turn = core.turns.turn(caller.user.clone()).await?;
    let found = backend
        .journal_document(Some(caller.actor()), id, version)
        .await?;
    let text = computed(&turn, move || document::text(&found.parts)).await?;
    Ok((found.version, text))
}

/// Makes the text of a version into this one; 0 for the present. Whatever others changed since stays.
async fn rewrite(
    core: &Core,
    caller: &Caller,
    journal: &Conversation,
    id: ConversationId,
    base_version: u64,
    content: String,
) -> Result<(), ClientError> {
    if caller.change.is_resumed()
        && let Some(outcome) = core
            .commands
            .resumed_edit(caller.actor(), &caller.change, id)
            .await
    {
        return outcome.map(drop);
    }
    document::may_edit(&journal.participants, caller.user.as_str())?;
    let turn = core.turns.turn(caller.user.clone()).await?;
    let backend = &core.backend;
    let base = backend
        .journal_document(Some(caller.actor()), id, base_version)
        .await?;
    let update = computed(&turn, move || document::rewrite(&base.parts, &content)).await?;
    drop(turn);
    let edit = command::Body::EditJournal(EditJournal { update });
    core.commands
        .execute(caller.actor(), &caller.change, id, edit)
        .await?;
    Ok(())
}

/// What documents and texts make, beside the runtime.
async fn computed<T: Send + 'static>(
    turn: &Turn,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ClientError> {
    turn.compute(work).await?.map_err(|error| match error {
        Error::NotStorable => ClientError::invalid(error.to_string()),
        error => {
            tracing::error!(%error, "a stored journal cannot be read; are versions mixed?");
            ClientError::internal()
        }
    })
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
    let role = permission(&body.permission)?;
    let UserRef(user) = body.user_id;
    // To a stranger there is none.
    seen(&core, &caller, id).await?;
    let present = core.backend.member(id, user.as_str()).await?.is_some();
    let confirmed = add_members(&core, &caller, id, vec![user], Some(role)).await?;
    let repeated = present || confirmed.repeated;
    answer(&core, &caller, id, made(&caller, repeated)).await
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
    let role = permission(&body.permission)?;
    let user = names.user()?;
    seen(&core, &caller, id).await?;
    change_role(&core, &caller, id, &user, role).await?;
    answer(&core, &caller, id, StatusCode::OK).await
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
    let user = names.user()?;
    was_seen(&core, &caller, id).await?;
    remove_member(&core, &caller, id, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}
