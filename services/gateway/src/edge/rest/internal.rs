//! Routes for other backend services, on the internal port and only with a service's token. What they do is
//! what the same service could do over NATS, and it takes the same way; what users are called and
//! whether they are agents is set here alone.
//!
//! Must not do anything by itself: a message goes to `chat.system.…`, a user's name or mark to persistence, anything else to `chat.control.…`.

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use parlance_bus::SystemTarget;
use parlance_proto::v1::{
    Control, DisconnectUser, ErrorCode, MessageType, RevokeToken, RevokeUserTokens, SenderKind,
    SystemMessage, control,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::caller::{bearer, count};
use super::users::{self, NameBody};
use super::{Body, Named, Names, no_route, parse};
use crate::actions::control::Checked;
use crate::auth::Identity;
use crate::dialect::UserRef;
use crate::dialect::native::message_type;
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// Longest id of a service's message.
const MESSAGE_ID_MAX_BYTES: usize = 200;

/// All routes; none while no token is a service's.
pub fn router(shared: &RestState, has_services: bool) -> Router {
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
        .fallback(no_route)
        .method_not_allowed_fallback(async || ClientError::no_method());
    Router::new().nest("/internal", routes).with_state(shared.clone())
}

/// A verified service.
struct Service(Identity);

impl FromRequestParts<RestState> for Service {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, shared: &RestState) -> Result<Self, Self::Rejection> {
        let identity = bearer(parts, shared).await?;
        if !identity.is_service {
            return Err(ClientError::new(
                ErrorCode::Forbidden,
                "the token is not a service's",
            ));
        }
        count(parts, shared, &identity.user_id)?;
        Ok(Self(identity))
    }
}

impl Service {
    /// As whom it sends.
    fn sender(&self) -> Result<UserId, ClientError> {
        UserId::of_service(self.0.user_id.as_str())
            .map_err(|error| ClientError::invalid(format!("the service's own id: {error}")))
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
    service: Service,
    State(shared): State<RestState>,
    Named(id): Named,
    body: Body,
) -> Result<Response, ClientError> {
    // Persistence would park the message; here there is someone to be told.
    shared.core.backend.room(None, id).await?;
    send(&shared, &service, SystemTarget::Conversation(id), id, &body).await
}

async fn to_user(
    service: Service,
    State(shared): State<RestState>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user = names.user()?;
    let conversation = ConversationId::direct(&service.sender()?, &user);
    send(&shared, &service, SystemTarget::User(user), conversation, &body).await
}

async fn send(
    shared: &RestState,
    service: &Service,
    target: SystemTarget,
    conversation: ConversationId,
    body: &Body,
) -> Result<Response, ClientError> {
    let body: MessageBody<'_> = parse(body)?;
    if body.id.is_empty() || body.id.len() > MESSAGE_ID_MAX_BYTES {
        return Err(ClientError::invalid("id is empty or longer than 200 bytes"));
    }
    shared.core.limits.content(&body.content)?;
    let sender = service.sender()?;
    let kind = match body.kind.as_deref() {
        None | Some("system") => MessageType::System,
        other => message_type(other)?,
    };
    let sender_kind = if body.agent {
        SenderKind::Agent
    } else {
        SenderKind::System
    };
    let message = SystemMessage {
        sender_id: sender.to_string(),
        sender_name: service.0.username.clone().unwrap_or_default(),
        sender_kind: sender_kind.into(),
        r#type: kind.into(),
        content: body.content,
        metadata_json: shared.core.limits.metadata(body.metadata)?,
        reply_to: body.reply_to.map(|id| id.to_string()),
        ..SystemMessage::default()
    };
    // Apart from what the service publishes itself.
    let id = MessageId::derive(conversation, &sender, &format!("service:{}", body.id)).to_string();
    let sent = shared
        .core
        .bus
        .send_system(&target, &message, &id, &body.id, deadline(shared))
        .await;
    sent.map_err(|error| ClientError::from_send(&error))?;
    let accepted = AcceptedMessage {
        conversation_id: conversation.to_string(),
        message_id: MessageId::of_service(conversation, &sender, &id).to_string(),
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

async fn rename(
    _: Service,
    State(shared): State<RestState>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user = names.user()?;
    let NameBody { name } = parse(&body)?;
    let named = shared
        .core
        .backend
        .set_name(None, &user, name, shared.core.provision)
        .await?;
    Ok(Json(users::user(&named)).into_response())
}

/// Whether a user is an agent.
#[derive(Deserialize)]
struct AgentBody {
    agent: bool,
}

async fn mark_agent(
    _: Service,
    State(shared): State<RestState>,
    names: Names,
    body: Body,
) -> Result<Response, ClientError> {
    let user = names.user()?;
    let AgentBody { agent } = parse(&body)?;
    let marked = shared
        .core
        .backend
        .set_agent(None, &user, agent, shared.core.provision)
        .await?;
    Ok(Json(users::user(&marked)).into_response())
}

async fn disconnect(
    _: Service,
    State(shared): State<RestState>,
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
    publish(&shared, control::Body::DisconnectUser(order)).await
}

async fn revoke(_: Service, State(shared): State<RestState>, body: Body) -> Result<Response, ClientError> {
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
    publish(&shared, order).await
}

async fn publish(shared: &RestState, body: control::Body) -> Result<Response, ClientError> {
    let control = Control { body: Some(body) };
    Checked::of(control.clone()).map_err(ClientError::invalid)?;
    let published = shared.core.bus.publish_control(&control, deadline(shared)).await;
    published.map_err(|error| ClientError::from_send(&error))?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { ok: true })).into_response())
}

fn deadline(shared: &RestState) -> Instant {
    Instant::now() + shared.send_timeout
}
