//! Who calls a route, and in which dialect: the same tokens as on sockets, from the Authorization header only.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, OriginalUri};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use parlance_proto::v1::{Conversation, ErrorCode, Message, Thread};
use parlance_proto::{ConversationId, UserId};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::named::Chosen;
use crate::actions::commands::Outcome;
use crate::actions::core::Core;
use crate::actions::idempotency::Change;
use crate::actions::reads::Reads;
use crate::actions::user::ActingUser;
use crate::auth::{self, AuthError, Identity};
use crate::dialect::representation::{Current, Older};
use crate::dialect::{self, Action, Dialect, Place, Representation};
use crate::edge::refusals::Refused;
use crate::edge::rest::state::RestState;
use crate::error::ClientError;
use crate::query::query_value;
use crate::slots::Slot;

/// The header that names the dialect of a request.
pub const DIALECT: HeaderName = HeaderName::from_static("x-parlance-dialect");

/// Requests of one user that are carried out at once; further ones wait for their turn. More than a browser sends, and too
/// few to be in the way of others.
pub const PER_USER: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// A verified and known user.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From the token.
    pub user: ActingUser,
    /// How the caller reads what it is answered with.
    pub representation: &'static dyn Representation,
    /// From which the ids of what the request makes are taken.
    pub change: Change,
    /// Until the request is answered.
    _slot: Arc<Slot>,
}

impl Caller {
    /// Performs an action on behalf of the caller, and waits for its outcome.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn perform(&self, core: &Core, action: impl Into<Action>) -> Outcome {
        core.perform(&self.user, &self.change, action.into()).await
    }

    /// What the caller may read.
    pub fn reads<'a>(&'a self, core: &'a Core) -> Reads<'a> {
        core.reads(&self.user)
    }

    /// A message as the caller reads it.
    pub fn message(&self, message: &Message, place: Option<&Place>) -> Json<Box<RawValue>> {
        Json(self.representation.message(message, place))
    }

    /// A conversation as the caller reads it.
    pub fn conversation(&self, conversation: &Conversation) -> Json<Box<RawValue>> {
        Json(
            self.representation
                .conversation(conversation, self.user.id.as_str()),
        )
    }

    /// A thread as the caller reads it.
    pub fn thread(&self, thread: &Thread) -> Json<Box<RawValue>> {
        Json(self.representation.thread(thread))
    }

    /// The conversation of messages with everyone's receipts, where the caller reads them.
    ///
    /// # Errors
    /// It cannot be asked for now.
    pub async fn place(&self, core: &Core, id: ConversationId) -> Result<Option<Place>, ClientError> {
        if self.representation.shows_receipts() {
            self.reads(core).place(id).await.map(Some)
        } else {
            Ok(None)
        }
    }
}

impl FromRequestParts<RestState> for Caller {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, Self::Rejection> {
        // Of a request with an idempotency key.
        if let Some(known) = parts.extensions.remove::<Self>() {
            choose(parts, known.representation);
            return Ok(known);
        }
        let identity = bearer(parts, state).await?;
        count(parts, state, &identity.user_id)?;
        let slot = timeout(PATIENCE, state.requests.wait(identity.user_id.clone())).await;
        let busy = "your earlier requests are not answered yet; send fewer at once";
        let slot = slot.map_err(|_| ClientError::new(ErrorCode::RateLimited, busy))??;
        let representation = representation(parts, state, &identity)?;
        choose(parts, representation);
        Ok(Self {
            user: state.core.acting_user(identity).await?,
            representation,
            change: Change::fresh(),
            _slot: Arc::new(slot),
        })
    }
}

/// Failures are answered as this representation has them.
fn choose(parts: &Parts, representation: &'static dyn Representation) {
    if let Some(Chosen(chosen)) = parts.extensions.get() {
        // Set once: nothing but the extractor does.
        chosen.set(representation).ok();
    }
}

/// By the query, the header, the token's claim, the page's origin or the default, as on sockets; else by the prefix.
fn representation(
    parts: &Parts,
    state: &RestState,
    identity: &Identity,
) -> Result<&'static dyn Representation, ClientError> {
    let by_header = || parts.headers.get(DIALECT)?.to_str().ok();
    if let Some(name) = query_value(&parts.uri, "dialect=").or_else(by_header) {
        let message = || format!("dialect is none of {}", dialect::names());
        let dialect = state
            .gate
            .dialects
            .named(name)
            .ok_or_else(|| ClientError::invalid(message()))?;
        return Ok(dialect);
    }
    let claimed = identity
        .dialect
        .as_deref()
        .and_then(|name| state.gate.dialects.named(name));
    if let Some(dialect) = claimed.or_else(|| mapped(&parts.headers, state)) {
        return Ok(dialect);
    }
    let default = state.gate.dialects.named(&state.gate.dialects.default);
    // `native` is everyone's default as long as nothing else is configured, so it names nothing.
    if let Some(dialect) = default.filter(|dialect| dialect.name() != dialect::DEFAULT.name()) {
        return Ok(dialect);
    }
    let path = parts.extensions.get::<OriginalUri>();
    let is_current = path.is_some_and(|OriginalUri(uri)| uri.path().starts_with("/api/v1/"));
    Ok(if is_current {
        &Current
    } else {
        Older::showing(state.gate.dialects.streams)
    })
}

/// The dialect that is configured for the page's origin.
fn mapped(headers: &HeaderMap, state: &RestState) -> Option<&'static dyn Dialect> {
    let origin = headers.get(header::ORIGIN)?.to_str().ok()?;
    state
        .gate
        .dialects
        .named(state.gate.dialects.origins.get(origin)?)
}

/// Whose allowance the bytes of a request's body are taken from, once they are read.
#[derive(Clone)]
pub(super) struct Payer(pub(super) UserId);

/// Counts a request; its body is counted when it is read.
pub(super) fn count(parts: &mut Parts, state: &RestState, user: &UserId) -> Result<(), ClientError> {
    state.core.limits.admit(user, 0)?;
    parts.extensions.insert(Payer(user.clone()));
    Ok(())
}

/// Who the token in the Authorization header speaks for.
pub(super) async fn bearer(parts: &Parts, state: &RestState) -> Result<Identity, ClientError> {
    let header = parts.headers.get(header::AUTHORIZATION);
    let token = header
        .and_then(|value| auth::bearer(value.to_str().ok()?))
        .ok_or_else(|| refusal(&AuthError::Missing))?;
    let identity = state.core.auth.authenticate(token).await;
    identity.map_err(|error| {
        state.gate.refusals.note(&Refused {
            kind: error.code(),
            value: None,
            reason: &error,
            setting: error.setting(),
        });
        refusal(&error)
    })
}

fn refusal(error: &AuthError) -> ClientError {
    let code = if error.is_retryable() {
        ErrorCode::Unavailable
    } else {
        ErrorCode::Unauthenticated
    };
    ClientError::new(code, error.to_string())
}
