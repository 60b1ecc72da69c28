//! All sessions of this replica: those of a user, those of a page, and who was ordered to go.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use parlance_proto::UserId;

use super::page::Page;
use super::{Session, SessionId};
use crate::clock::now;

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
}

/// How long an order to send a user away is remembered: for those whose sessions are about to begin.
const SENT_AWAY: Duration = Duration::from_secs(30);

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
            }),
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
