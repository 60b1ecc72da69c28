//! HTTP routes in the native representation. Every route is served under `/api/v1` and `/api`.
//!
//! A handler reads its request, asks [`crate::backend`] or sends a command through [`crate::commands`],
//! and writes the answer with [`crate::dialect::native::json`].

mod caller;
mod conversations;
mod health;
mod messages;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request};
use http::StatusCode;
use http::request::Parts;
use parlance_proto::ConversationId;
use parlance_proto::v1::ErrorCode;
use parlance_runtime::health::Health;
use serde::Deserialize;

use crate::app::Shared;
use crate::dialect::native::json;
use crate::error::ClientError;

pub use caller::Caller;

/// Room for a message at its limits, doubled for JSON escapes.
const BODY_LIMIT: usize = 2 * 1024 * 1024;

/// All routes.
pub fn router(shared: Shared, health: Health) -> Router {
    let routes = Router::new()
        .merge(conversations::routes())
        .merge(messages::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(async || ClientError::no_method());
    Router::new()
        .nest("/api/v1", routes.clone())
        .nest("/api", routes)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared.clone())
        .fallback(no_route)
        .merge(health::routes(shared, health))
}

async fn no_route() -> ClientError {
    ClientError::new(ErrorCode::NotFound, "no such route")
}

/// A whole request body; one that cannot be had is answered like any other error.
struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ClientError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let body = Bytes::from_request(request, state).await;
        body.map(Self).map_err(|error| {
            if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let message = format!("the body is larger than {BODY_LIMIT} bytes");
                ClientError::new(ErrorCode::TooLarge, message)
            } else {
                ClientError::invalid("the body cannot be read")
            }
        })
    }
}

/// Reads a JSON body; the error never repeats content.
fn parse<'a, T: Deserialize<'a>>(Body(body): &'a Body) -> Result<T, ClientError> {
    let text = std::str::from_utf8(body).map_err(|_| ClientError::invalid("the body is not UTF-8"))?;
    // serde would take a list of the fields' values for the object.
    if text.trim_start().starts_with('[') {
        return Err(ClientError::invalid("the body is not an object"));
    }
    serde_json::from_str(text).map_err(|error| json::unreadable(&error))
}

/// A page size: the default where none is asked, never above the most.
fn page_size(asked: Option<u32>) -> Result<u32, ClientError> {
    match asked {
        None => Ok(50),
        Some(0) => Err(ClientError::invalid("limit is 0")),
        Some(limit) => Ok(limit.min(100)),
    }
}

/// The conversation a path names.
struct Named(ConversationId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ClientError::invalid("the path is not UTF-8"))?;
        Ok(Self(id.parse::<ConversationId>()?))
    }
}
