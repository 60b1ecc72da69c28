//! HTTP routes in the native representation. Every route is served under `/api/v1` and `/api`.
//!
//! A handler reads its request, asks [`crate::backend`] or sends a command through [`crate::commands`],
//! and writes the answer with [`crate::dialect::native::json`].

mod caller;
mod conversations;
mod health;
mod messages;

use axum::Router;
use axum::extract::DefaultBodyLimit;
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
        .fallback(async || ClientError::new(ErrorCode::NotFound, "no such route"))
        .method_not_allowed_fallback(async || ClientError::invalid("no such method on this route"));
    Router::new()
        .nest("/api/v1", routes.clone())
        .nest("/api", routes)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared.clone())
        .merge(health::routes(shared, health))
}

/// Reads a JSON body; the error never repeats content.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ClientError> {
    let text = std::str::from_utf8(body).map_err(|_| ClientError::invalid("the body is not UTF-8"))?;
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

/// An id in a path.
fn conversation_id(text: &str) -> Result<ConversationId, ClientError> {
    Ok(text.parse::<ConversationId>()?)
}
