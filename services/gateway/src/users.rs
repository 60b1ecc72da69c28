//! The users connected here: follows each one's notices and keeps their sessions attached to all of their
//! conversations.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use parlance_bus::{Bus, Subscription};
use parlance_proto::v1::{User, UserNotice, user_notice};
use parlance_proto::{ConversationId, UserId};
use tokio::sync::{mpsc, oneshot};

use crate::backend::Backend;
use crate::commands::actor;
use crate::dialect::Outbound;
use crate::rooms::Rooms;
use crate::socket::session::{Session, SessionId};

/// Rooms opened at once for one user.
const ATTACH_CONCURRENCY: usize = 16;
/// How often it is looked whether clients are still expected.
const FORGET: Duration = Duration::from_secs(5);
/// Pause before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// The connected users of this replica. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    bus: Bus,
    backend: Backend,
    rooms: Rooms,
    table: Arc<Mutex<HashMap<UserId, mpsc::UnboundedSender<Request>>>>,
}

/// Keeps a user's notices followed while a client is about to arrive.
#[derive(Debug, Clone)]
pub struct Expected(Arc<()>);

enum Request {
    /// A client is about to arrive; told once nothing can be missed any more.
    Expect(Weak<()>, oneshot::Sender<()>),
    Arrived(Arc<Session>),
    Gone(SessionId),
    /// The database knows this version of the user's set of conversations.
    Check(u64),
}

/// One connected user; lives as long as a session.
struct Connected {
    users: Users,
    user: UserId,
    version: u64,
    conversations: HashSet<ConversationId>,
    sessions: Vec<Arc<Session>>,
    expected: Vec<Weak<()>>,
}

impl Users {
    /// An empty table.
    pub fn new(bus: Bus, backend: Backend, rooms: Rooms) -> Self {
        Self {
            bus,
            backend,
            rooms,
            table: Arc::default(),
        }
    }

    /// Follows a user's notices before a client of theirs is told that it is connected, so that it hears of
    /// every conversation it is added to from then on.
    pub async fn expect(&self, user: &UserId) -> Expected {
        let token = Arc::new(());
        let (ready, followed) = oneshot::channel();
        self.send_or_follow(user, Request::Expect(Arc::downgrade(&token), ready));
        // Dropped only with the process.
        drop(followed.await);
        Expected(token)
    }

    /// A session began.
    pub fn arrived(&self, session: Arc<Session>) {
        let user = session.user.clone();
        self.send_or_follow(&user, Request::Arrived(session));
    }

    fn send_or_follow(&self, user: &UserId, request: Request) {
        let mut table = self.lock();
        let requests = table.entry(user.clone()).or_insert_with(|| {
            let (tx, rx) = mpsc::unbounded_channel();
            let connected = Connected {
                users: self.clone(),
                user: user.clone(),
                version: 0,
                conversations: HashSet::new(),
                sessions: Vec::new(),
                expected: Vec::new(),
            };
            tokio::spawn(connected.run(rx));
            tx
        });
        drop(requests.send(request));
    }

    /// A session ended.
    pub fn gone(&self, session: &Session) {
        if let Some(requests) = self.lock().get(&session.user) {
            drop(requests.send(Request::Gone(session.id)));
        }
    }

    /// All users connected here.
    pub fn connected(&self) -> Vec<String> {
        self.lock().keys().map(ToString::to_string).collect()
    }

    /// Lets the users whose conversations changed catch up.
    pub fn check(&self, users: Vec<User>) {
        let table = self.lock();
        for user in users {
            let id = UserId::parse(user.user_id);
            if let Some(requests) = id.ok().and_then(|id| table.get(&id)) {
                drop(requests.send(Request::Check(user.memberships_version)));
            }
        }
    }

    fn close(&self, user: &UserId, queue: &mpsc::UnboundedReceiver<Request>) -> bool {
        let mut table = self.lock();
        // Requests are sent under this lock, so an empty queue stays empty.
        if !queue.is_empty() {
            return false;
        }
        table.remove(user);
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, mpsc::UnboundedSender<Request>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Request>) {
        let mut notices = loop {
            match self.users.bus.subscribe_user(&self.user).await {
                Ok(notices) => break notices,
                Err(error) => {
                    tracing::warn!(%error, "cannot follow a user's notices");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        // Asked behind the subscription on one connection: later changes arrive as notices.
        self.reload(false).await;
        loop {
            self.step(&mut queue, &mut notices).await;
            self.expected.retain(|token| token.strong_count() > 0);
            let needed = !self.sessions.is_empty() || !self.expected.is_empty();
            if !needed && self.users.close(&self.user, &queue) {
                return;
            }
        }
    }

    async fn step(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Request>,
        notices: &mut Subscription<UserNotice>,
    ) {
        tokio::select! {
            request = queue.recv() => match request {
                Some(Request::Arrived(session)) => {
                    self.sessions.push(Arc::clone(&session));
                    self.attach(&[session], self.conversations.iter().copied().collect()).await;
                }
                Some(Request::Expect(token, ready)) => {
                    self.expected.push(token);
                    // The connection may be gone by now.
                    drop(ready.send(()));
                }
                Some(Request::Gone(id)) => self.sessions.retain(|session| session.id != id),
                Some(Request::Check(version)) if version > self.version => self.reload(true).await,
                Some(Request::Check(_)) | None => {}
            },
            notice = notices.next() => if let Some(notice) = notice {
                self.noticed(notice).await;
            },
            // Whether a client that was expected comes at all is noticed nowhere else.
            () = tokio::time::sleep(FORGET), if self.sessions.is_empty() => {}
        }
    }

    async fn noticed(&mut self, notice: UserNotice) {
        if notice.memberships_version > self.version + 1 {
            self.reload(true).await;
            return;
        }
        let Some(user_notice::Body::ConversationAdded(conversation)) = notice.body else {
            return;
        };
        let Ok(id) = conversation.id.parse() else {
            return;
        };
        self.version = self.version.max(notice.memberships_version);
        if self.conversations.insert(id) {
            let sessions = self.sessions.clone();
            self.attach(&sessions, vec![id]).await;
            self.tell(&conversation);
        }
    }

    /// Takes over the user's conversations from the database; tells of those that are added.
    async fn reload(&mut self, tell: bool) {
        let membership = loop {
            match self.users.backend.membership(self.user.as_str()).await {
                Ok(membership) => break membership,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        self.version = membership.version;
        let ids = membership
            .conversation_ids
            .iter()
            .filter_map(|id| id.parse().ok());
        let added: Vec<ConversationId> = ids.filter(|id| self.conversations.insert(*id)).collect();
        let sessions = self.sessions.clone();
        self.attach(&sessions, added.clone()).await;
        for id in added.into_iter().filter(|_| tell) {
            let me = actor(&self.user, "");
            if let Ok(conversation) = self.users.backend.conversation(Some(me), id).await {
                self.tell(&conversation);
            }
        }
    }

    async fn attach(&self, sessions: &[Arc<Session>], conversations: Vec<ConversationId>) {
        let mut pairs = Vec::with_capacity(sessions.len() * conversations.len());
        for session in sessions {
            pairs.extend(conversations.iter().map(|id| (*id, Arc::clone(session))));
        }
        let rooms = self.users.rooms.clone();
        futures::stream::iter(pairs)
            .for_each_concurrent(ATTACH_CONCURRENCY, move |(id, session)| {
                let rooms = rooms.clone();
                async move {
                    if let Err(error) = rooms.attach(id, session, false).await {
                        tracing::debug!(conversation = %id, code = error.code, "not attached");
                    }
                }
            })
            .await;
    }

    fn tell(&self, conversation: &parlance_proto::v1::Conversation) {
        for session in &self.sessions {
            if let Some(frame) = session.dialect.encode(Outbound::ConversationNew(conversation)) {
                session.emit(&frame);
            }
        }
    }
}
