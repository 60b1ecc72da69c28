//! All sessions of this replica, and how to reach the connection under each.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request, StatusCode, header};
use parlance_proto::UserId;
use parlance_runtime::tasks;
use socketioxide::extract::SocketRef;
use tower::ServiceExt;

use super::engineio::query_value;
use super::handshake::Engine;
use super::listener::{Peer, Wire};
use super::page::Page;
use super::session::{Session, SessionId};
use crate::commands::now;

/// The sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

/// When the order was given, and whether for good.
type SentAway = (SystemTime, bool);
/// A page of a user.
type PageOfUser = (UserId, Page);

struct Inner {
    /// How many one user may have.
    per_user: NonZeroUsize,
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// Those of each user, the oldest first.
    users: Mutex<HashMap<UserId, VecDeque<SessionId>>>,
    /// Users who were lately ordered to be sent away.
    sent_away: Mutex<HashMap<UserId, SentAway>>,
    /// Those that have ended and that some room still knows of.
    ending: Mutex<HashMap<PageOfUser, Vec<Arc<Session>>>>,
    /// Connections of sessions that began with polling, by engine id, for as long as they last: one engine session
    /// may be left and entered again.
    upgraded: Mutex<HashMap<String, Weak<Wire>>>,
    /// How far polling clients are, by engine id.
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

/// How long an order to send a user away is remembered: for those whose sessions are about to begin.
const SENT_AWAY: Duration = Duration::from_secs(30);
/// How long a client that does not poll any more is remembered.
const POLLS: Duration = Duration::from_secs(120);

impl Sessions {
    /// None yet; one user may have `per_user`.
    pub fn new(per_user: NonZeroUsize) -> Self {
        Self {
            inner: Arc::new(Inner {
                per_user,
                sessions: Mutex::default(),
                users: Mutex::default(),
                sent_away: Mutex::default(),
                ending: Mutex::default(),
                upgraded: Mutex::default(),
                polls: Mutex::default(),
                engine: OnceLock::new(),
            }),
        }
    }

    /// Tells where polling sessions can be closed.
    pub fn set_engine(&self, engine: Engine) {
        if self.inner.engine.set(engine).is_err() {
            tracing::error!("the engine was set twice");
        }
    }

    /// Takes a session in. Returns the oldest of its user where that has too many now: those that return, from another
    /// replica maybe, may be twice as many as those that begin.
    pub fn insert(&self, session: Arc<Session>, returns: bool) -> Option<Arc<Session>> {
        let per_user = self.inner.per_user.get();
        let most = if returns {
            per_user.saturating_mul(2)
        } else {
            per_user
        };
        let id = session.id;
        let user = session.user.clone();
        lock(&self.inner.sessions).insert(id, session);
        let oldest = {
            let mut users = lock(&self.inner.users);
            let own = users.entry(user).or_default();
            own.push_back(id);
            // It is still there until it has ended, and is not ended twice.
            (own.len() > most).then(|| own.pop_front()).flatten()
        };
        lock(&self.inner.sessions).get(&oldest?).cloned()
    }

    /// How many sessions one user may have here.
    pub fn per_user(&self) -> NonZeroUsize {
        self.inner.per_user
    }

    /// The sessions of a page, those that have ended and that some room still knows of among them.
    pub fn of_page(&self, user: &UserId, page: Page) -> Vec<Arc<Session>> {
        // First: one that ends meanwhile is found twice rather than not at all.
        let own: Vec<_> = lock(&self.inner.users)
            .get(user)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let mut found: Vec<_> = {
            let sessions = lock(&self.inner.sessions);
            let own = own.iter().filter_map(|id| sessions.get(id));
            own.filter(|session| session.page == page).cloned().collect()
        };
        let ending = lock(&self.inner.ending);
        found.extend(ending.get(&(user.clone(), page)).into_iter().flatten().cloned());
        found
    }

    /// A session has ended; rooms still know of it.
    pub fn ends(&self, session: &Arc<Session>) {
        let key = (session.user.clone(), session.page);
        let mut ending = lock(&self.inner.ending);
        ending.entry(key).or_default().push(Arc::clone(session));
        drop(ending);
        self.remove(session);
    }

    /// No room knows of the session any more.
    pub fn ended(&self, session: &Session) {
        let key = (session.user.clone(), session.page);
        let mut ending = lock(&self.inner.ending);
        if let Some(same) = ending.get_mut(&key) {
            same.retain(|other| other.id != session.id);
            if same.is_empty() {
                ending.remove(&key);
            }
        }
    }

    fn remove(&self, session: &Session) {
        lock(&self.inner.sessions).remove(&session.id);
        let mut users = lock(&self.inner.users);
        if let Some(own) = users.get_mut(&session.user) {
            own.retain(|id| *id != session.id);
            if own.is_empty() {
                users.remove(&session.user);
            }
        }
    }

    /// The user's sessions that began up to then are to end, also those that are not taken in yet.
    pub fn send_away(&self, user: &UserId, for_good: bool, at: Option<SystemTime>) {
        let at = at.unwrap_or_else(|| now().into());
        let mut all = lock(&self.inner.sent_away);
        all.retain(|_, (at, _)| at.elapsed().is_ok_and(|age| age < SENT_AWAY));
        all.insert(user.clone(), (at, for_good));
    }

    /// Whether the session is to end by such an order; perhaps for good.
    pub fn sent_away(&self, session: &Session) -> Option<bool> {
        let (at, for_good) = lock(&self.inner.sent_away).get(&session.user).copied()?;
        (session.since <= at).then_some(for_good)
    }

    /// All sessions as they are now.
    pub fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.inner.sessions).values().cloned().collect()
    }

    /// A polling session goes on over this connection.
    pub fn upgraded(&self, engine_id: &str, wire: &Arc<Wire>) {
        lock(&self.inner.upgraded).insert(engine_id.to_owned(), Arc::downgrade(wire));
    }

    /// A client polls: it got the answer before.
    pub(super) fn polls(&self, engine_id: &str) {
        if let Some(polls) = lock(&self.inner.polls).get_mut(engine_id) {
            polls.received = Some(polls.answered_at);
        }
    }

    /// A poll was answered.
    pub(super) fn answered(&self, engine_id: &str) {
        let mut polls = lock(&self.inner.polls);
        let received = polls.get(engine_id).and_then(|polls| polls.received);
        let answered = Polls {
            answered_at: Instant::now(),
            received,
        };
        polls.insert(engine_id.to_owned(), answered);
    }

    /// Until when a polling client got what was emitted, because it asked again after it.
    pub(super) fn polled_until(&self, engine_id: &str) -> Option<Instant> {
        lock(&self.inner.polls).get(engine_id)?.received
    }

    /// Forgets connections that have ended.
    pub fn tidy(&self) {
        lock(&self.inner.polls).retain(|_, polls| polls.answered_at.elapsed() < POLLS);
        lock(&self.inner.upgraded).retain(|_, wire| wire.strong_count() > 0);
    }

    /// The connection of a WebSocket session; `None` while polling.
    pub(super) fn wire_of(&self, socket: &SocketRef) -> Option<Arc<Wire>> {
        let first = socket.req_parts();
        // Its first request came over a connection that may be anyone's by now.
        if query_value(&first.uri, "transport=") == Some("polling") {
            return self.wire_of_upgraded(&socket.id.to_string());
        }
        let ConnectInfo(peer) = first.extensions.get::<ConnectInfo<Peer>>()?;
        Some(Arc::clone(&peer.wire))
    }

    fn wire_of_upgraded(&self, engine_id: &str) -> Option<Arc<Wire>> {
        lock(&self.inner.upgraded).get(engine_id)?.upgrade()
    }

    /// Closes a polling session. The engine offers no call for it, so it gets the client's own packet.
    pub(super) fn close_polling(&self, engine_id: String) {
        let Some(engine) = self.inner.engine.get().cloned() else {
            return;
        };
        let Some(request) = post(&engine_id, Body::from("1")) else {
            return;
        };
        let sessions = self.clone();
        tasks::spawn("close a polling session", async move {
            let Ok(answer) = engine.oneshot(request).await;
            // It is gone already, or it has just been upgraded.
            if answer.status() != StatusCode::OK
                && let Some(wire) = sessions.wire_of_upgraded(&engine_id)
            {
                wire.kill();
            }
        });
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
