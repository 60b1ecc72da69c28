//! Changing routes with an `Idempotency-Key`: the same request with the same key of the same user is carried out once, and
//! a repeat is answered as the first was, with the header `Idempotency-Replayed`.
//!
//! A request without a key passes through; a change that cannot be carried out once refuses one. Nothing is claimed before
//! its caller is verified, counted and known.

use axum::body::{self, Bytes};
use axum::extract::{FromRequest as _, FromRequestParts as _, MatchedPath, OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parlance_proto::v1::KeptAnswer;
use parlance_runtime::tasks;
use std::time::Duration;
use tracing::Instrument as _;

use super::caller::Payer;
use super::{Body, Caller};
use crate::actions::idempotency::{Attempt, Claim};
use crate::dialect::key::{Key, KeyedRequest};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// The header with the key.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer is held back until it is kept. Later a repeat resumes the change.
const KEEPING: Duration = Duration::from_secs(1);
/// Routes that store nothing, by a method that else changes something.
const STORING_NOTHING: &[&str] = &["/sync", "/stop"];
/// Routes whose changes have no id by which a second one would be found.
const WITHOUT_KEY: &[&str] = &["/users/me", "/blocks/{user_id}"];

/// Whether a route changes something.
fn changes(method: &Method, route: &str) -> bool {
    let stores_nothing = STORING_NOTHING.iter().any(|end| route.ends_with(end));
    !stores_nothing
        && matches!(
            *method,
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        )
}

/// Whether a change of this route may be repeated by a key.
pub fn takes_key(method: &Method, route: &str) -> bool {
    changes(method, route) && !WITHOUT_KEY.iter().any(|end| route.ends_with(end))
}

/// Answers requests with a key once.
pub(super) async fn by_key(State(state): State<RestState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let changes = route.is_some_and(|route| changes(request.method(), route.as_str()));
    let takes_key = route.is_some_and(|route| takes_key(request.method(), route.as_str()));
    if !changes || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    if !takes_key {
        let message = "this route takes no Idempotency-Key: a repeat is carried out once more";
        return ClientError::invalid(message).into_response();
    }
    let answer = once(&state, request, next).await;
    answer.unwrap_or_else(ClientError::into_response)
}

async fn once(state: &RestState, request: Request, next: Next) -> Result<Response, ClientError> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, state).await?;
    let key = key(&parts.headers)?;
    let Body(body) = Body::from_request(Request::from_parts(parts.clone(), body), state).await?;
    // It is counted, and read once more by the handler.
    parts.extensions.remove::<Payer>();
    let method = parts.method.as_str().as_bytes();
    let path = match parts.extensions.get::<OriginalUri>() {
        Some(OriginalUri(uri)) => uri.path_and_query(),
        None => parts.uri.path_and_query(),
    };
    let path = path.map_or("", |path| path.as_str()).as_bytes();
    // The answer is kept as this caller reads it.
    let reading = format!("{:?}", caller.representation);
    let keyed = KeyedRequest::new(key, &[b"route", method, path, reading.as_bytes()], &body);
    let request = Request::from_parts(parts, body::Body::from(body));
    // A client that goes away must leave neither a claim that blocks its repeat nor a change half done.
    let carried_out = claimed(state.clone(), caller, keyed, request, next).in_current_span();
    let done = tasks::spawn("keyed request", carried_out);
    done.await.map_err(|_| ClientError::unknown())?
}

/// Claims the change of a request and carries it out.
async fn claimed(
    state: RestState,
    mut caller: Caller,
    keyed: KeyedRequest,
    mut request: Request,
    next: Next,
) -> Result<Response, ClientError> {
    let attempt = match state.core.claim(&caller.user, keyed).await? {
        Claim::Answered(kept) => return Ok(replayed(kept)),
        Claim::Claimed(attempt) => attempt,
    };
    caller.change = attempt.change.clone();
    request.extensions_mut().insert(caller);
    Ok(carried_out(request, next, attempt).await)
}

/// The one key of a request.
fn key(headers: &HeaderMap) -> Result<Key, ClientError> {
    let mut values = headers.get_all(KEY).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Key::parse("Idempotency-Key", value.as_bytes()),
        _ => Err(ClientError::invalid("Idempotency-Key is given more than once")),
    }
}

/// Carries a request out and keeps how it was answered.
async fn carried_out(request: Request, next: Next, attempt: Box<Attempt>) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    let Ok(body) = body::to_bytes(body, usize::MAX).await else {
        attempt.settle(None).await;
        return ClientError::internal().into_response();
    };
    if parts.status.is_client_error() && is_final(parts.status) && attempt.change.may_be_stored() {
        attempt.settle(None).await;
        return ClientError::unknown().into_response();
    }
    let answer = is_final(parts.status).then(|| KeptAnswer {
        status: parts.status.as_u16().into(),
        body: body.to_vec(),
    });
    let keeping = attempt.settle(answer);
    if tokio::time::timeout(KEEPING, keeping).await.is_err() {
        tracing::debug!("an answer is given before it is kept");
    }
    Response::from_parts(parts, body::Body::from(body))
}

/// Whether the same request would be answered like this later too.
fn is_final(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// An answer as it was given.
fn replayed(kept: KeptAnswer) -> Response {
    let status = u16::try_from(kept.status).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_empty = kept.body.is_empty();
    let mut response = (status, Bytes::from(kept.body)).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if !is_empty {
        let kind = match status.is_success() {
            true => "application/json",
            false => "application/problem+json",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_change_any_more_is_final() {
        for code in [200, 201, 204, 400, 403, 404, 409, 413, 422] {
            assert!(is_final(StatusCode::from_u16(code).unwrap()), "{code}");
        }
        for code in [429, 500, 503, 504] {
            assert!(!is_final(StatusCode::from_u16(code).unwrap()), "{code}");
        }
    }

    #[test]
    fn reading_by_post_is_no_change() {
        assert!(!changes(&Method::POST, "/api/v1/sync") && !changes(&Method::GET, "/api/v1/conversations"));
        assert!(changes(&Method::DELETE, "/api/conversations/{id}"));
    }
}
