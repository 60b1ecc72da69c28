//! Who calls a route: the same tokens as on sockets, from the Authorization header only.

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use parlance_proto::v1::{Actor, ErrorCode};
use parlance_proto::{ErrorCodeExt as _, UserId};

use crate::app::Shared;
use crate::auth::{self, AuthError, Identity};
use crate::commands::actor;
use crate::edge::refusals::Refused;
use crate::error::ClientError;

/// A verified and known user.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From the token.
    pub user: UserId,
    /// From the token.
    pub username: String,
}

impl Caller {
    /// As the actor of commands and queries.
    pub fn actor(&self) -> Actor {
        actor(&self.user, &self.username)
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Self::Rejection> {
        let identity = bearer(parts, shared).await?;
        shared.limits.admit(&identity.user_id)?;
        let caller = Self {
            user: identity.user_id,
            username: identity.username,
        };
        let known = shared
            .backend
            .provision(Some(caller.actor()), shared.provision)
            .await;
        known.map_err(|error| {
            if error.code == ErrorCode::NotFound.name() {
                ClientError::new(ErrorCode::Unauthenticated, "unknown user")
            } else {
                error
            }
        })?;
        Ok(caller)
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
