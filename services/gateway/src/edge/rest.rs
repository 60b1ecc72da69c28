//! HTTP routes. Every route is served under `/api/v1` and `/api`.
//!
//! A handler decodes its request, has the action performed ([`crate::actions::perform`]) or the query asked
//! ([`crate::actions::reads`]), and encodes the answer: messages, conversations and threads as the [`Caller`]'s representation
//! does. Must not build commands or resolve ids.

mod bans;
mod blocks;
mod caller;
mod conversations;
mod creation;
mod encrypted;
mod health;
pub mod internal;
mod journals;
mod marks;
mod messages;
mod mutes;
mod named;
mod names;
mod participants;
mod presence;
mod repeatable;
mod spans;
pub mod state;
mod threads;
mod users;

use std::convert::Infallible;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use futures::StreamExt as _;
use http::request::Parts;
use http::{StatusCode, Uri};
use parlance_proto::v1::ErrorCode;
use parlance_runtime::health::Health;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::backend;
use crate::dialect::fields;
use crate::error::ClientError;
use crate::limits::page_size;

use caller::Payer;
pub use caller::{Caller, DIALECT, PER_USER};
use names::{Named, NamedMessage, Names};
pub use repeatable::takes_key;
use state::RestState;

/// Room for a message at its limits, doubled for JSON escapes.
const BODY_LIMIT: usize = 2 * 1024 * 1024;
/// How far a larger body is read before its connection is given up.
const READ_ON: usize = 8 * BODY_LIMIT;

/// All routes.
pub fn router(state: RestState, health: Health) -> Router {
    let routes = Router::from(documented())
        .fallback(no_route)
        .method_not_allowed_fallback(async || ClientError::no_method());
    let compression = state.compression;
    Router::new()
        .nest("/api/v1", routes.clone())
        .nest("/api", routes)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn(async |request, next: Next| {
            backend::together(next.run(request)).await
        }))
        .layer(from_fn(named::by_representation))
        .layer(from_fn_with_state(state.clone(), repeatable::by_key))
        .layer(from_fn(spans::traced))
        .layer(from_fn(move |request, next: Next| {
            compression.answer(next, request)
        }))
        .with_state(state.clone())
        .fallback(no_route)
        .merge(Router::from(health::routes()).with_state((state.core, health)))
}

/// Every route with what it says of itself. A route that is not documented cannot be written here.
fn documented() -> OpenApiRouter<RestState> {
    OpenApiRouter::new()
        .merge(conversations::routes())
        .merge(creation::routes())
        .merge(participants::routes())
        .merge(presence::routes())
        .merge(users::routes())
        .merge(blocks::routes())
        .merge(bans::routes())
        .merge(messages::routes())
        .merge(marks::routes())
        .merge(mutes::routes())
        .merge(threads::routes())
        .merge(journals::routes())
        .merge(encrypted::routes())
}

/// What the routes say of themselves, under `/api/v1`.
pub fn openapi() -> OpenApi {
    OpenApiRouter::<RestState>::new()
        .nest("/api/v1", documented())
        .into_openapi()
        .merge_from(health::routes().into_openapi())
}

async fn no_route() -> ClientError {
    ClientError::new(ErrorCode::NotFound, "no such route")
}

/// A whole request body; one that cannot be had is answered like any other error.
struct Body(Bytes);

impl FromRequest<RestState> for Body {
    type Rejection = ClientError;

    async fn from_request(request: Request, state: &RestState) -> Result<Self, Self::Rejection> {
        let payer = request.extensions().get::<Payer>().cloned();
        let count = |bytes| match &payer {
            Some(Payer(user)) => state.core.limits.admit_bytes(user, bytes),
            None => Ok(()),
        };
        // Nothing is read where nothing is left of the allowance.
        count(1)?;
        let mut parts = request.into_body().into_data_stream();
        let (mut body, mut size) = (Vec::new(), 0);
        // Read on without keeping it: a client that is still writing would lose the answer.
        while size <= READ_ON {
            let Some(part) = parts.next().await else { break };
            let part = part.map_err(|_| ClientError::invalid("the body cannot be read"))?;
            size += part.len();
            if size <= BODY_LIMIT {
                body.extend_from_slice(&part);
            }
        }
        count(size.saturating_sub(1))?;
        if size > BODY_LIMIT {
            let message = format!("the body is larger than {BODY_LIMIT} bytes");
            return Err(ClientError::new(ErrorCode::TooLarge, message));
        }
        Ok(Self(body.into()))
    }
}

/// Reads a JSON body; the error never repeats content.
fn parse<'a, T: Deserialize<'a>>(Body(body): &'a Body) -> Result<T, ClientError> {
    let text = std::str::from_utf8(body).map_err(|_| ClientError::invalid("the body is not UTF-8"))?;
    fields::object("the body", text)
}

/// A page of a list that is read from its oldest item on.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AfterQuery {
    /// At most so many; more than 100 count as 100. All of a short list by default.
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// The `next` of the page before; 0 for the first.
    #[serde(default)]
    after: u64,
}

impl AfterQuery {
    /// How many are wanted, `most` where nothing says so.
    fn limit(&self, most: u32) -> Result<u32, ClientError> {
        match self.limit {
            None => Ok(most),
            limit => page_size(limit),
        }
    }
}

/// Whether a route was called under `/api`, as the older front ends do.
fn is_older(uri: &Uri) -> bool {
    !uri.path().starts_with("/api/v1/")
}

/// What a query string asks for; a missing one asks for nothing.
struct Asked<T>(Result<T, ClientError>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        Ok(Self(match pairs {
            Ok(Query(pairs)) => fields::query(&pairs),
            Err(_) => Err(ClientError::invalid("the query string is not UTF-8")),
        }))
    }
}

/// Takes an answer to that out, or how it failed.
fn asked<T>(Asked(asked): Asked<T>) -> Result<T, ClientError> {
    asked
}

/// The status of something that was made now, or had been before.
fn made(caller: &Caller, repeated: bool) -> StatusCode {
    // A resumed change finds what it made itself, and is answered as the first attempt would have been.
    if repeated && !caller.change.is_resumed() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    }
}
