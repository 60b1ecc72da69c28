//! The connection under each session: how to find it, and how to close it. The engine knows neither, so it is noted here
//! how a polling client goes on. Must not make requests for the engine: the edge does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use futures::future::BoxFuture;
use parlance_runtime::tasks;
use socketioxide::extract::SocketRef;

use super::wire::{Peer, Wire};
use crate::query::query_value;

/// Closes the polling session of an engine id; `false` where the engine knows none.
pub type ClosePolling = Box<dyn Fn(&str) -> BoxFuture<'static, bool> + Send + Sync>;

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
    close: OnceLock<ClosePolling>,
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
    /// How polling sessions are closed.
    pub fn set_close(&self, close: ClosePolling) {
        if self.0.close.set(close).is_err() {
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

    /// Closes a polling session.
    pub fn close_polling(&self, engine_id: String) {
        let Some(closing) = self.0.close.get().map(|close| close(&engine_id)) else {
            return;
        };
        let transports = self.clone();
        tasks::spawn("close a polling session", async move {
            // It is gone already, or it has just been upgraded.
            if !closing.await
                && let Some(wire) = transports.wire_of_upgraded(&engine_id)
            {
                wire.kill();
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
