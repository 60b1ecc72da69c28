//! Routes for other backend services, on the internal port and only with a service's token. What they do is
//! what the same service could do over NATS, and it takes the same way; what users are called and
//! whether they are agents is set, and reports of messages are read and settled, here alone.
//!
//! Must not do anything by itself: a message goes to `chat.system.…`, a user's name or mark and the end of a report to persistence,
//! anything else to `chat.control.…`.

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use parlance_proto::v1::{DisconnectUser, ErrorCode, MessageReport, RevokeToken, RevokeUserTokens, control};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::caller::{bearer, count};
use super::conversations::ListQuery;
use super::users::NameBody;
use super::{Asked, Body, Named, Names, asked, no_route, page_size, parse};
use crate::actions::core::Core;
use crate::actions::services::{self, ServiceMessage, ServiceTarget};
use crate::auth::Identity;
use crate::dialect::UserRef;
use crate::dialect::native::json;
use crate::dialect::native::report::reason_name;
use crate::dialect::shape::time;
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// All routes; none while no token is a service's.
pub fn router(state: &RestState, has_services: bool) -> Router {
    if !has_services {
        return Router::new();
    }
    let routes = Router::new()
        .route("/conversations/{id}/messages", post(to_conversation))
        .route("/users/{user_id}/messages", post(to_user))
        .route("/users/{user_id}/disconnect", post(disconnect))
        .route("/users/{user_id}/name", put(rename))
        .route("/users/{user_id}/agent", put(mark_agent))
        .route("/tokens/revoke", post(revoke))
        .route("/reports", get(reports))
        .route("/reports/{report_id}/resolve", post(resolve_report))
        .fallback(no_route)
        .method_not_allowed_fallback(async || ClientError::no_method());
    Router::new().nest("/internal", routes).with_state(state.clone())
}

/// A verified service.
struct Service(Identity);

impl FromRequestParts<RestState> for Service {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, Self::Rejection> {
        let identity = bearer(parts, state).await?;
        if !identity.is_service {
            return Err(ClientError::new(
                ErrorCode::Forbidden,
                "the token is not a service's",
            ));
        }
        count(parts, state, &identity.user_id)?;
        Ok(Self(identity))
    }
}

/// A message of a service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageBody<'a> {
    /// The service's own: the same id is the same message, for ever.
    id: String,
    content: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    reply_to: Option<Uuid>,
    /// The service speaks as an agent and not as the system.
    #[serde(default)]
    agent: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectBody {
    #[serde(default)]
    for_good: bool,
}

/// One token, or all of a user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    jti: Option<String>,
    #[serde(default)]
    expires_at: i64,
    user_id: Option<UserRef>,
    issued_before: Option<i64>,
}

#[derive(Serialize)]
struct AcceptedMessage {
    conversation_id: String,
    message_id: String,
}

#[derive(Serialize)]
struct Accepted {
    ok: bool,
}

async fn to_conversation(
    Service(service): Service,
    State(core): State<Core>,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    core.check_conversation(id).await?;
    send(&core, &service, ServiceTarget::Conversation(id), &body).await
}

async fn to_user(
    Service(service): Service,
    State(core): State<Core>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user = names.user()?;
    services::sender(&service)?;
    send(&core, &service, ServiceTarget::User(user), &body).await
}

async fn send(
    core: &Core,
    service: &Identity,
    target: ServiceTarget,
    body: &Body,
) -> Result<Response, ClientError> {
    let body: MessageBody<'_> = parse(body)?;
    let message = ServiceMessage {
        id: body.id,
        content: body.content,
        kind: body.kind,
        metadata: body.metadata,
        reply_to: body.reply_to,
        agent: body.agent,
    };
    let (conversation, message) = core.send_for_service(service, target, message).await?;
    let accepted = AcceptedMessage {
        conversation_id: conversation.to_string(),
        message_id: message.to_string(),
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

async fn rename(
    _: Service,
    State(core): State<Core>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user = names.user()?;
    let NameBody { name } = parse(&body)?;
    let named = core.name_user(&user, name).await?;
    Ok(Json(json::user(&named)).into_response())
}

/// Whether a user is an agent.
#[derive(Deserialize)]
struct AgentBody {
    agent: bool,
}

async fn mark_agent(
    _: Service,
    State(core): State<Core>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user = names.user()?;
    let AgentBody { agent } = parse(&body)?;
    let marked = core.mark_agent(&user, agent).await?;
    Ok(Json(json::user(&marked)).into_response())
}

/// A message that a user reported.
#[derive(Serialize)]
struct ReportJson<'a> {
    id: &'a str,
    conversation_id: &'a str,
    message_id: &'a str,
    seq: u64,
    sender_id: &'a str,
    content: &'a str,
    reporter_id: &'a str,
    reason: &'static str,
    comment: &'a str,
    reported_at: String,
}

#[derive(Serialize)]
struct ReportsJson<'a> {
    reports: Vec<ReportJson<'a>>,
    next: Option<&'a str>,
}

/// What became of a report.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResolutionBody {
    #[serde(default)]
    resolution: String,
}

async fn reports(
    _: Service,
    State(core): State<Core>,
    query: Asked<ListQuery>,
) -> Result<Response, ClientError> {
    let query = asked(query)?;
    let page = core.reports(query.cursor, page_size(query.limit)?).await?;
    let reports = ReportsJson {
        reports: page.reports.iter().map(report_json).collect(),
        next: Some(page.next.as_str()).filter(|next| !next.is_empty()),
    };
    Ok(Json(reports).into_response())
}

fn report_json(report: &MessageReport) -> ReportJson<'_> {
    ReportJson {
        id: &report.id,
        conversation_id: &report.conversation_id,
        message_id: &report.message_id,
        seq: report.seq,
        sender_id: &report.sender_id,
        content: &report.content,
        reporter_id: &report.reporter_id,
        reason: reason_name(report.reason()),
        comment: &report.comment,
        reported_at: time(report.at_ms),
    }
}

async fn resolve_report(
    Service(service): Service,
    State(core): State<Core>,
    names: Names,
    body: Body,
) -> Result<StatusCode, ClientError> {
    let ResolutionBody { resolution } = if body.0.is_empty() {
        ResolutionBody::default()
    } else {
        parse(&body)?
    };
    let id = names.text("report_id").to_owned();
    core.resolve_report(&service, id, resolution).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn disconnect(
    _: Service,
    State(core): State<Core>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user_id = names.user()?.to_string();
    let DisconnectBody { for_good } = if body.0.is_empty() {
        DisconnectBody::default()
    } else {
        parse(&body)?
    };
    let order = DisconnectUser { user_id, for_good };
    publish(&core, control::Body::DisconnectUser(order)).await
}

async fn revoke(_: Service, State(core): State<Core>, body: Body) -> Result<Response, ClientError> {
    let order = match parse(&body)? {
        RevokeBody {
            jti: Some(jti),
            expires_at,
            user_id: None,
            issued_before: None,
        } => control::Body::RevokeToken(RevokeToken { jti, expires_at }),
        RevokeBody {
            jti: None,
            expires_at: 0,
            user_id: Some(user_id),
            issued_before: Some(issued_before),
        } => control::Body::RevokeUserTokens(RevokeUserTokens {
            user_id: user_id.0.to_string(),
            issued_before,
        }),
        _ => {
            return Err(ClientError::invalid(
                "either jti with expires_at, or user_id and issued_before are needed",
            ));
        }
    };
    publish(&core, order).await
}

async fn publish(core: &Core, body: control::Body) -> Result<Response, ClientError> {
    core.order(body).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { ok: true })).into_response())
}
