//! All sessions of this replica, and how to reach the connection under each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request, header};
use socketioxide::extract::SocketRef;
use tower::ServiceExt;

use super::handshake::Engine;
use super::listener::{Peer, Wire};
use super::relay::query_value;
use super::session::{Session, SessionId};

/// The sessions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// Connections of sessions that began with polling, by engine id.
    upgraded: Mutex<HashMap<String, Arc<Wire>>>,
    engine: OnceLock<Engine>,
}

impl Sessions {
    /// Tells where polling sessions can be closed.
    pub fn set_engine(&self, engine: Engine) {
        if self.inner.engine.set(engine).is_err() {
            tracing::error!("the engine was set twice");
        }
    }

    /// Takes a session in.
    pub fn insert(&self, session: Arc<Session>) {
        lock(&self.inner.sessions).insert(session.id, session);
    }

    /// Forgets a session.
    pub fn remove(&self, session: &Session) {
        lock(&self.inner.sessions).remove(&session.id);
        lock(&self.inner.upgraded).remove(&session.engine_id());
    }

    /// All sessions as they are now.
    pub fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.inner.sessions).values().cloned().collect()
    }

    /// A polling session goes on over this connection.
    pub fn upgraded(&self, engine_id: &str, wire: Arc<Wire>) {
        lock(&self.inner.upgraded).insert(engine_id.to_owned(), wire);
    }

    /// The connection of a WebSocket session; `None` while polling.
    pub(super) fn wire_of(&self, socket: &SocketRef) -> Option<Arc<Wire>> {
        if let Some(wire) = lock(&self.inner.upgraded).get(&socket.id.to_string()) {
            return Some(Arc::clone(wire));
        }
        let request = socket.req_parts();
        // A polling session's first request came over a connection that others use as well.
        if query_value(&request.uri, "transport=") != Some("websocket") {
            return None;
        }
        let ConnectInfo(peer) = request.extensions.get::<ConnectInfo<Peer>>()?;
        Some(Arc::clone(&peer.wire))
    }

    /// Closes a polling session. The engine offers no call for it, so it gets the client's own packet.
    pub(super) fn close_polling(&self, engine_id: String) {
        let Some(engine) = self.inner.engine.get().cloned() else {
            return;
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/socket.io/?EIO=4&transport=polling&sid={engine_id}"))
            .header(header::CONTENT_TYPE, "text/plain;charset=UTF-8")
            .body(Body::from("1"));
        let Ok(request) = request else {
            return;
        };
        tokio::spawn(async move {
            // A session that is gone already is what we want.
            drop(engine.oneshot(request).await);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
