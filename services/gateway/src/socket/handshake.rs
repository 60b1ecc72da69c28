//! What happens to a Socket.IO request before the engine sees it: admission and memory.
//!
//! Everything temporary is refused here with an HTTP status, because stock clients retry after that;
//! after a `connect_error` they do not.

use std::convert::Infallible;
use std::future::Ready;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Context};

use axum::body::Body;
use axum::extract::{ConnectInfo, OriginalUri};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use parlance_proto::v1::ErrorCode;
use socketioxide::service::SocketIoService;
use tower::Service;

use super::connection::Connection;
use super::listener::Peer;
use super::relay::{self, Foreign, Named, Poll, query_value};
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
    rate: Arc<DefaultDirectRateLimiter>,
}

/// What comes of a request.
type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl Handshake {
    /// Puts admission in front of an engine, which takes at most `per_second` clients.
    pub fn new(engine: Engine, shared: Shared, per_second: NonZeroU32) -> Self {
        Self {
            engine,
            shared,
            rate: Arc::new(RateLimiter::direct(Quota::per_second(per_second))),
        }
    }

    fn admit(&self, request: &Request<Body>) -> Result<(), ClientError> {
        if query_value(request.uri(), "sid=").is_some() {
            return Ok(());
        }
        if self.shared.refusing.is_cancelled() {
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
        if self.rate.check().is_err() {
            return Err(ClientError::new(
                ErrorCode::Unavailable,
                "too many clients come at once",
            ));
        }
        Ok(())
    }

    /// A request without a session makes one.
    fn open(&mut self, request: Request<Body>) -> Answer {
        let is_polling = query_value(request.uri(), "transport=") == Some("polling");
        let answer = self.engine.call(slim(request));
        let relay = self.shared.relay.clone();
        Box::pin(async move {
            let response = answer.await?.map(Body::new);
            Ok(if is_polling {
                relay.tag(response).await
            } else {
                response
            })
        })
    }

    /// A request of a session of this gateway.
    fn serve(&mut self, mut request: Request<Body>, uri: Uri, engine_id: String) -> Answer {
        *request.uri_mut() = uri;
        let poll = Poll::of(request.method(), request.uri());
        if self.shared.relay.is_repeated(&engine_id, poll.as_ref()) {
            self.shared.sessions.close_polling(engine_id);
            return Box::pin(async { Ok(relay::unknown_session()) });
        }
        let is_poll = poll.is_some();
        if is_poll {
            self.shared.sessions.polls(&engine_id);
        }
        let peer = request.extensions().get::<ConnectInfo<Peer>>().cloned();
        let answer = self.engine.call(slim(request));
        let shared = self.shared.clone();
        Box::pin(async move {
            let response = answer.await?.map(Body::new);
            if response.status() == StatusCode::OK {
                shared.relay.answered(&engine_id, poll);
                if is_poll {
                    shared.sessions.answered(&engine_id);
                }
            }
            // A polling session that now has a WebSocket is reached through that from here on.
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                && let Some(ConnectInfo(peer)) = peer
            {
                shared.sessions.upgraded(&engine_id, &peer.wire);
            }
            Ok(response)
        })
    }

    /// A request of a session of another gateway.
    fn forward(&self, request: Request<Body>, session: Foreign) -> Answer {
        let relay = self.shared.relay.clone();
        if query_value(request.uri(), "transport=") != Some("websocket") {
            return Box::pin(async move { Ok(relay.forward(session, request).await) });
        }
        // It would be closed again in a moment.
        if self.shared.draining.is_cancelled() {
            return Box::pin(async { Ok(relay::no_upgrade()) });
        }
        Box::pin(async move { Ok(relay.carry(session, request).await) })
    }
}

impl Service<Request<Body>> for Handshake {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.engine, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(error) = self.admit(&request) {
            metrics::counter!("chat_gateway_connects_total", "result" => error.code).increment(1);
            return Box::pin(async move { Ok(last(error.into_response())) });
        }
        let answer = self.route(request);
        if !self.shared.draining.is_cancelled() {
            return answer;
        }
        Box::pin(async move { Ok(last(answer.await?)) })
    }
}

impl Handshake {
    fn route(&mut self, request: Request<Body>) -> Answer {
        if query_value(request.uri(), "sid=").is_none() {
            return self.open(request);
        }
        let Some(session) = Named::of(request.uri()) else {
            return Box::pin(async { Ok(relay::unknown_session()) });
        };
        if !self.shared.relay.owns(&session) {
            let session = Foreign::new(&session);
            return self.forward(request, session);
        }
        let (uri, engine_id) = (session.engine_uri(request.uri()), session.engine_id.to_owned());
        match uri {
            Some(uri) => self.serve(request, uri, engine_id),
            None => Box::pin(async { Ok(relay::unknown_session()) }),
        }
    }
}

/// The last answer on its connection: what balances connections, not requests, takes the next one elsewhere.
fn last(mut answer: Response<Body>) -> Response<Body> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

impl Service<Request<Body>> for Elsewhere {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        task::Poll::Ready(Ok(()))
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
    // The engine knows one path, whichever led here.
    let query = request.uri().query().unwrap_or_default();
    if let Ok(uri) = Uri::try_from(format!("/socket.io/?{query}")) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().remove::<OriginalUri>();
    request.extensions_mut().insert(Arc::<Connection>::default());
    request
}
