//! The engine as the service of its path, and the requests that are made for it here: it offers no call for what they do.

use std::convert::Infallible;
use std::future::Ready;
use std::task::{self, Context};

use axum::body::Body;
use axum::response::IntoResponse as _;
use futures::FutureExt as _;
use http::{Method, Request, Response, StatusCode, header};
use socketioxide::service::SocketIoService;
use tower::{Service, ServiceExt as _};

use crate::session::transports::ClosePolling;

/// The engine as the service of its path.
pub type Engine = SocketIoService<Elsewhere>;

/// Answers what is under the engine's path but not for it.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere;

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

/// Packets of a polling session, as the engine takes them.
pub(super) fn post(engine_id: &str, packets: Body) -> Option<Request<Body>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/socket.io/?EIO=4&transport=polling&sid={engine_id}"))
        .header(header::CONTENT_TYPE, "text/plain;charset=UTF-8");
    request.body(packets).ok()
}

/// Closes polling sessions of this engine: each gets the packet by which its own client would.
pub fn closing(engine: Engine) -> ClosePolling {
    Box::new(move |engine_id: &str| {
        let engine = engine.clone();
        let request = post(engine_id, Body::from("1"));
        let closed = async move {
            let Some(request) = request else { return true };
            let Ok(answer) = engine.oneshot(request).await;
            answer.status() == StatusCode::OK
        };
        closed.boxed()
    })
}
