//! Failures as front ends that know no foreign conversation want them: forbidden instead of not found.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::dialect::Representation;
use crate::error::ClientError;

/// How the caller of a request reads what it is answered with, once that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Chosen(pub(super) Arc<OnceLock<&'static dyn Representation>>);

/// Answers a request with failures as its caller's representation has them.
pub(super) async fn by_representation(mut request: Request, next: Next) -> Response {
    let chosen = Chosen::default();
    request.extensions_mut().insert(chosen.clone());
    let response = next.run(request).await;
    match chosen.0.get() {
        Some(representation) if representation.forbids_non_members() => forbidding(response).await,
        _ => response,
    }
}

/// Leaves failures as they are: journals belong to a front end that is told when there is none.
pub(super) async fn as_is(mut response: Response) -> Response {
    response.extensions_mut().remove::<ClientError>();
    response
}

/// What a non-member asks for is forbidden.
pub(super) async fn forbidding(mut response: Response) -> Response {
    match response.extensions_mut().remove::<ClientError>() {
        Some(error) => error.forbidding().into_response(),
        None => response,
    }
}
