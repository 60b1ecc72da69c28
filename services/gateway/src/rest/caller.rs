//! Who calls a route: the same tokens as on sockets, from the Authorization header only.

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use parlance_proto::v1::{Actor, ErrorCode, SenderKind};
use parlance_proto::{ErrorCodeExt as _, UserId};

use crate::app::Shared;
use crate::auth::{self, AuthError, Identity};
use crate::commands::{actor, sender_kind};
use crate::edge::refusals::Refused;
use crate::error::ClientError;

/// A verified and known user.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From the token.
    pub user: UserId,
    /// As the user is shown.
    pub username: String,
    /// A person or an agent.
    pub kind: SenderKind,
}

impl Caller {
    /// As the actor of commands and queries.
    pub fn actor(&self) -> Actor {
        Actor {
            kind: self.kind.into(),
            ..actor(&self.user, &self.username)
        }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Self::Rejection> {
        let identity = bearer(parts, shared).await?;
        shared.limits.admit(&identity.user_id)?;
        let me = actor(
            &identity.user_id,
            identity.username.as_deref().unwrap_or_default(),
        );
        let known = shared.backend.provision(Some(me), shared.provision).await;
        let known = known.map_err(|error| {
            if error.code == ErrorCode::NotFound.name() {
                ClientError::new(ErrorCode::Unauthenticated, "unknown user")
            } else {
                error
            }
        })?;
        Ok(Self {
            kind: sender_kind(\&identity, \&known),
            user: identity.user_id,
            username: known.username,
        })
    }
}

/// Who the token in the Authorization header speaks for.
pub(super) async fn bearer(parts: &Parts, shared: &Shared) -> Result<Identity, ClientError> {
    let header = parts.headers.get(header::AUTHORIZATION);
    let token = header
        .and_then(|value| auth::bearer(value.to_str().ok()?))
        .ok_or_else(|| refusal(&AuthError::Missing))?;
    let identity = shared.auth.authenticate(token).await;
    identity.map_err(|error| {
        shared.refusals.note(&Refused {
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
