//! The edge: decodes what clients send and encodes what they receive, by socket or over REST. Both are carried out by
//! [`crate::actions`]. A request passes [`cors`] and [`enter`] first, then belongs to one of two sides.
//!
//! | module | owns |
//! | --- | --- |
//! | [`rest`] | HTTP routes |
//! | [`socket`] | connections, and the events of sessions |
//! | [`gate`] | what requests are judged by before a token is read, made of the modules below |
//! | [`addresses`], [`origins`], [`headers`], [`endpoints`] | by address, by page, at which path |
//! | [`bundle`], [`compression`], [`refusals`] | the client library; smaller answers; the log of refusals |
//!
//! What happens before a token is read is cheap and the same for everyone.

pub mod addresses;
pub mod bundle;
pub mod compression;
pub mod cors;
pub mod endpoints;
pub mod gate;
pub mod headers;
pub mod origins;
pub mod refusals;
pub mod rest;
pub mod socket;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, header};
use parlance_proto::v1::ErrorCode;
use serde_json::json;

use crate::error::ClientError;
use crate::query::query_value;
use bundle::Bundle;
use compression::Compression;
use gate::Gate;
use refusals::Refused;
use socket::handshake::Handshake;

/// What leads requests to Socket.IO.
#[derive(Clone)]
pub struct Entrance {
    /// The engine behind its admission.
    pub handshake: Handshake,
    /// The client library.
    pub bundle: Bundle,
    /// What requests are judged by.
    pub gate: Gate,
    /// Of answers to polls.
    pub compression: Compression,
}

/// Serves Socket.IO at its paths and passes everything else on.
pub async fn enter(State(entrance): State<Entrance>, mut request: Request, next: Next) -> Response {
    let Entrance {
        handshake,
        bundle,
        gate,
        compression,
    } = entrance;
    match gate.endpoints.find(request.uri().path()) {
        Some("") => {
            move_query_token(&gate.query_token, &mut request);
            compression.answer(handshake, request).await
        }
        Some(name) if Bundle::names(name) => bundle.answer(name, request.headers()).unwrap_or_else(no_bundle),
        _ if is_handshake(&request) => {
            gate.refusals.note(&Refused {
                kind: "path",
                value: Some(request.uri().path()),
                reason: "Socket.IO is not served at this path",
                setting: Some("socket.path"),
            });
            ClientError::new(ErrorCode::NotFound, gate.endpoints.no_path()).into_response()
        }
        _ => next.run(request).await,
    }
}

/// `GET /`: what this is and where to read on.
pub async fn about(State((gate, docs)): State<(Gate, bool)>) -> Response {
    let mut about = json!({
        "about": "Parlance, a real-time chat backend: Socket.IO and REST",
        "socket": { "path": gate.endpoints.paths(), "namespaces": gate.endpoints.namespaces() },
        "rest": ["/api/v1", "/api"],
        "health": "/health",
    });
    if docs {
        about["docs"] = "/docs".into();
    }
    Json(about).into_response()
}

fn no_bundle() -> Response {
    let message = "the client library is not served here: take it from the package socket.io-client, or set \
                   socket.client_folder (PARLANCE_SOCKET_CLIENT_FOLDER)";
    ClientError::new(ErrorCode::NotFound, message).into_response()
}

/// Whether a request is one of a Socket.IO client, or a WebSocket's.
fn is_handshake(request: &Request) -> bool {
    query_value(request.uri(), "EIO=").is_some() || request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
}

/// Takes the token out of the query before anything could write it down, and puts it where tokens belong. An empty
/// name is none.
fn move_query_token(name: &str, request: &mut Request) {
    let prefix = format!("{name}=");
    if name.is_empty() || query_value(request.uri(), &prefix).is_none() {
        return;
    }
    let query = request.uri().query().unwrap_or_default();
    let others: Vec<_> = query
        .split('&')
        .filter(|part| !part.starts_with(&prefix))
        .collect();
    let rest = format!("{}?{}", request.uri().path(), others.join("&"));
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let token = pairs
        .ok()
        .and_then(|Query(pairs)| pairs.into_iter().find(|(key, _)| key == name))
        .map(|(_, token)| token);
    let mut parts = request.uri().clone().into_parts();
    // A query without some of its parts is a query.
    parts.path_and_query = PathAndQuery::try_from(rest).ok();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    let token = token.unwrap_or_default();
    let token = crate::auth::bearer(&token).unwrap_or(&token);
    if !request.headers().contains_key(header::AUTHORIZATION)
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn moved(name: &str, uri: &str) -> (String, Option<String>) {
        let mut request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        move_query_token(name, &mut request);
        let header = request.headers().get(header::AUTHORIZATION);
        (
            request.uri().to_string(),
            header.map(|value| value.to_str().unwrap().to_owned()),
        )
    }

    #[test]
    fn a_token_in_the_query_leaves_it_where_the_setting_allows_one() {
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        for (uri, rest, header) in [
            (
                "/socket.io/?EIO=4&token=a.b.c&t=1",
                "/socket.io/?EIO=4&t=1",
                bearer("a.b.c"),
            ),
            (
                "/socket.io/?token=Bearer%20a.b.c",
                "/socket.io/?",
                bearer("a.b.c"),
            ),
            (
                "/socket.io/?token=a&EIO=4&token=b",
                "/socket.io/?EIO=4",
                bearer("a"),
            ),
            ("/socket.io/?EIO=4", "/socket.io/?EIO=4", None),
            (
                "/socket.io/?EIO=4&my_token=a",
                "/socket.io/?EIO=4&my_token=a",
                None,
            ),
        ] {
            assert_eq!(moved("token", uri), (rest.to_owned(), header), "{uri}");
            assert_eq!(moved("", uri), (uri.to_owned(), None));
        }
    }

    #[test]
    fn a_token_in_the_header_goes_before_one_in_the_query() {
        let mut request = Request::builder()
            .uri("/socket.io/?token=query")
            .header(header::AUTHORIZATION, "Bearer header")
            .body(Body::empty())
            .unwrap();
        move_query_token("token", &mut request);
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer header");
        assert_eq!(request.uri(), "/socket.io/?");
    }
}
