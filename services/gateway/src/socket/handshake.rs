//! What happens to a Socket.IO request before the engine sees it: admission, Origin, and memory.
//!
//! Everything temporary is refused here with an HTTP status, because stock clients retry after that;
//! after a `connect_error` they do not.

use std::convert::Infallible;
use std::future::Ready;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{ConnectInfo, OriginalUri};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use parlance_proto::v1::ErrorCode;
use socketioxide::service::SocketIoService;
use tower::Service;

use super::listener::Peer;
use crate::app::Shared;
use crate::error::ClientError;

/// The engine as the service of its path.
pub type Engine = SocketIoService<Elsewhere>;

/// Answers what is under the engine's path but not for it.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere;

/// The engine behind its admission.
#[derive(Clone)]
pub struct Handshake {
    engine: Engine,
    shared: Shared,
}

impl Handshake {
    /// Puts admission in front of an engine.
    pub fn new(engine: Engine, shared: Shared) -> Self {
        Self { engine, shared }
    }

    fn admit(&self, request: &Request<Body>) -> Result<(), ClientError> {
        if !self.shared.origins.allows(request.headers()) {
            return Err(ClientError::new(
                ErrorCode::Forbidden,
                "this Origin is not allowed",
            ));
        }
        if session_of(request.uri()).is_some() {
            return Ok(());
        }
        if self.shared.draining.is_cancelled() {
            return Err(ClientError::new(
                ErrorCode::Unavailable,
                "this replica is draining",
            ));
        }
        if !self.shared.backend.is_ready() || !self.shared.auth.revocations().is_read() {
            return Err(ClientError::new(ErrorCode::Unavailable, "a dependency is away"));
        }
        if self.shared.connections.load(Ordering::Relaxed) > self.shared.max_connections {
            return Err(ClientError::new(ErrorCode::Unavailable, "this replica is full"));
        }
        Ok(())
    }
}

impl Service<Request<Body>> for Handshake {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.engine, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(error) = self.admit(&request) {
            metrics::counter!("chat_gateway_connects_total", "result" => error.code).increment(1);
            return Box::pin(async move { Ok(error.into_response()) });
        }
        let upgraded = session_of(request.uri()).map(str::to_owned);
        let peer = request.extensions().get::<ConnectInfo<Peer>>().cloned();
        let answer = self.engine.call(slim(request));
        let shared = self.shared.clone();
        Box::pin(async move {
            let response = answer.await?.map(Body::new);
            // A polling session that now has a WebSocket is reached through that from here on.
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                && let (Some(sid), Some(ConnectInfo(peer))) = (upgraded, peer)
            {
                shared.sessions.upgraded(&sid, peer.wire);
            }
            Ok(response)
        })
    }
}

impl Service<Request<Body>> for Elsewhere {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(StatusCode::NOT_FOUND.into_response()))
    }
}

/// The engine keeps the request for the life of the session, and with it hyper's whole read buffer,
/// of which header values and URI are slices: 16 KiB a connection. So it gets copies of what it needs.
fn slim(mut request: Request<Body>) -> Request<Body> {
    const KEPT: [header::HeaderName; 9] = [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::HOST,
        header::ORIGIN,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::UPGRADE,
    ];
    let mut headers = HeaderMap::with_capacity(KEPT.len());
    for name in KEPT {
        let copy = request
            .headers()
            .get(&name)
            .and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        if let Some(mut value) = copy {
            value.set_sensitive(name == header::AUTHORIZATION);
            headers.insert(name, value);
        }
    }
    *request.headers_mut() = headers;
    if let Ok(uri) = Uri::try_from(request.uri().to_string()) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().remove::<OriginalUri>();
    request
}

/// The session a request belongs to; `None` for one that wants a session.
fn session_of(uri: &Uri) -> Option<&str> {
    let mut parts = uri.query()?.split('&');
    parts.find_map(|part| part.strip_prefix("sid="))
}

/// Which web pages may connect. Requests without Origin are no web pages; they need a token anyway.
#[derive(Debug, Clone)]
pub struct Origins {
    allowed: Vec<String>,
}

impl Origins {
    /// `*` allows any.
    pub fn new(allowed: Vec<String>) -> Self {
        Self { allowed }
    }

    /// Whether this origin is listed.
    pub fn lists(&self, origin: &str) -> bool {
        self.allowed
            .iter()
            .any(|allowed| allowed == "*" || allowed == origin)
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| HeaderValue::to_str(value).ok())
        };
        let Some(origin) = text(header::ORIGIN) else {
            return !headers.contains_key(header::ORIGIN);
        };
        let own = origin.split_once("://").map(|(_, host)| host);
        self.lists(origin) || (own.is_some() && own == text(header::HOST))
    }
}
