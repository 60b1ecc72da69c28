//! The connection under each session: how to find it, and how to close it. The engine knows neither, so it is noted here
//! how a polling client goes on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Ready;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{self, Context};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse as _;
use http::{Method, Request, Response, StatusCode, header};
use parlance_runtime::tasks;
use socketioxide::extract::SocketRef;
use socketioxide::service::SocketIoService;
use tower::{Service, ServiceExt as _};

use super::wire::{Peer, Wire};
use crate::query::query_value;

/// The engine as the service of its path.
pub type Engine = SocketIoService<Elsewhere>;

/// Answers what is under the engine's path but not for it.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere;

/// The transports of all sessions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Transports(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Connections of sessions that began with polling, by engine id, for as long as they last: one engine session
    /// may be left and entered again.
    upgraded: Mutex<HashMap<String, Weak<Wire>>>,
    /// What polling clients have received, by engine id.
    polls: Mutex<HashMap<String, Polls>>,
    engine: OnceLock<Engine>,
}

/// The polls of one client.
#[derive(Clone, Copy)]
struct Polls {
    /// When the latest answer was made.
    answered_at: Instant,
    /// When that answer was made which the client surely got, because it asked again.
    received: Option<Instant>,
}

/// How long a client that does not poll any more is remembered.
const POLLS: Duration = Duration::from_secs(120);

impl Transports {
    /// Where polling sessions can be closed.
    pub fn set_engine(&self, engine: Engine) {
        if self.0.engine.set(engine).is_err() {
            tracing::error!("the engine was set twice");
        }
    }

    /// A polling session goes on over this connection.
    pub fn upgraded(&self, engine_id: &str, wire: &Arc<Wire>) {
        lock(&self.0.upgraded).insert(engine_id.to_owned(), Arc::downgrade(wire));
    }

    /// A client polls: it got the answer before.
    pub fn polls(&self, engine_id: &str) {
        if let Some(polls) = lock(&self.0.polls).get_mut(engine_id) {
            polls.received = Some(polls.answered_at);
        }
    }

    /// A poll was answered.
    pub fn answered(&self, engine_id: &str) {
        let mut polls = lock(&self.0.polls);
        let received = polls.get(engine_id).and_then(|polls| polls.received);
        let answered = Polls {
            answered_at: Instant::now(),
            received,
        };
        polls.insert(engine_id.to_owned(), answered);
    }

    /// Until when a polling client got what was emitted, because it asked again after it.
    pub fn polled_until(&self, engine_id: &str) -> Option<Instant> {
        lock(&self.0.polls).get(engine_id)?.received
    }

    /// Forgets connections that have ended.
    pub fn tidy(&self) {
        lock(&self.0.polls).retain(|_, polls| polls.answered_at.elapsed() < POLLS);
        lock(&self.0.upgraded).retain(|_, wire| wire.strong_count() > 0);
    }

    /// The connection of a WebSocket session; `None` while polling.
    pub fn wire_of(&self, socket: &SocketRef) -> Option<Arc<Wire>> {
        let first = socket.req_parts();
        // Its first request came over a connection that may be anyone's by now.
        if query_value(&first.uri, "transport=") == Some("polling") {
            return self.wire_of_upgraded(&socket.id.to_string());
        }
        let ConnectInfo(peer) = first.extensions.get::<ConnectInfo<Peer>>()?;
        Some(Arc::clone(&peer.wire))
    }

    fn wire_of_upgraded(&self, engine_id: &str) -> Option<Arc<Wire>> {
        lock(&self.0.upgraded).get(engine_id)?.upgrade()
    }

    /// Closes a polling session. The engine offers no call for it, so it gets the client's own packet.
    pub fn close_polling(&self, engine_id: String) {
        let Some(engine) = self.0.engine.get().cloned() else {
            return;
        };
        let Some(request) = post(&engine_id, Body::from("1")) else {
            return;
        };
        let transports = self.clone();
        tasks::spawn("close a polling session", async move {
            let Ok(answer) = engine.oneshot(request).await;
            // It is gone already, or it has just been upgraded.
            if answer.status() != StatusCode::OK
                && let Some(wire) = transports.wire_of_upgraded(&engine_id)
            {
                wire.kill();
            }
        });
    }
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

/// Packets of a polling session, as the engine takes them.
pub fn post(engine_id: &str, packets: Body) -> Option<Request<Body>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/socket.io/?EIO=4&transport=polling&sid={engine_id}"))
        .header(header::CONTENT_TYPE, "text/plain;charset=UTF-8");
    request.body(packets).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
