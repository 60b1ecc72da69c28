//! Who is here: reports this replica's sessions to persistence, and tells its sessions how those they share
//! conversations with are seen.
//!
//! | module | owns |
//! | --- | --- |
//! | `ledger` | which sessions persistence knows of, and what it must still be told |
//! | `report` | the lease of this replica: renewing it, and what follows when it is lost |
//! | `board` | what was told of whom |
//! | `teller` | whom to tell, and the changes the bus lost |
//! | `watches` | whom sessions watch, as long as they may |
//!
//! What is told may be dropped for a slow client; what is known here always becomes what persistence says.

mod board;
mod ledger;
mod report;
mod teller;
mod watches;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlance_proto::v1::{Presence, PresenceStatus};
use parlance_proto::{ConversationId, UserId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::ClientError;
use crate::socket::session::{Session, SessionId};
use ledger::Ledger;

pub use report::Reporter;
pub use teller::Teller;

/// The sessions of this replica as presence sees them. Cheap to clone.
#[derive(Clone)]
pub struct Presences {
    news: News,
    ledger: Arc<Mutex<Ledger>>,
    changed: Arc<Notify>,
}

/// The way to the teller. Cheap to clone.
#[derive(Clone)]
pub struct News {
    sender: mpsc::UnboundedSender<Happened>,
    /// How often a user was told to have left a conversation.
    removals: Arc<AtomicU64>,
}

/// What the teller takes in.
pub type Inbox = mpsc::UnboundedReceiver<Happened>;

/// What the teller must know of.
pub enum Happened {
    /// A session began.
    Arrived(Arc<Session>),
    /// A session ended.
    Gone(UserId, SessionId),
    /// A session is told about a conversation from now on.
    Attached(Arc<Session>, ConversationId),
    /// A session wants to be told how those in a conversation are seen.
    Looked(Arc<Session>, ConversationId),
    /// Users came into a conversation that is followed here.
    Joined(ConversationId, Vec<String>),
    /// A user belongs no more to a conversation that is followed here.
    Left(String),
    /// Somebody wants to know how users are seen, who may be shown to them.
    Asked(Vec<String>, oneshot::Sender<Vec<Presence>>),
    /// A session wants to be told of users from now on; persistence has said that it may, when it was asked after so many
    /// removals.
    Watched {
        /// Which.
        session: Arc<Session>,
        /// How they are seen.
        users: Vec<Presence>,
        /// [`News::removals`] before persistence was asked.
        removals: u64,
        /// How they are seen now, or why it may not watch them.
        reply: oneshot::Sender<Result<Vec<Presence>, ClientError>>,
    },
    /// A session does not want that any more.
    Unwatched(SessionId, Vec<String>),
}

/// A pair of ways: in and out.
pub fn channel() -> (News, Inbox) {
    let (sender, inbox) = mpsc::unbounded_channel();
    let removals = Arc::default();
    (News { sender, removals }, inbox)
}

impl News {
    /// Something happened. The teller ends only with the process.
    pub fn tell(&self, happened: Happened) {
        if matches!(happened, Happened::Left(_)) {
            self.removals.fetch_add(1, Ordering::SeqCst);
        }
        drop(self.sender.send(happened));
    }

    /// Changes before the teller takes in that a user has left a conversation.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }
}

impl Presences {
    /// Without sessions.
    pub fn new(news: News) -> Self {
        Self {
            news,
            ledger: Arc::new(Mutex::new(Ledger::new(crate::commands::new_id()))),
            changed: Arc::default(),
        }
    }

    /// A session began.
    pub fn arrived(&self, session: &Arc<Session>) {
        self.news.tell(Happened::Arrived(Arc::clone(session)));
        self.lock().opened(session.id.number(), &session.user);
        self.changed.notify_one();
    }

    /// A session ended.
    pub fn gone(&self, session: &Session) {
        self.news.tell(Happened::Gone(session.user.clone(), session.id));
        self.lock().closed(session.id.number(), session.shown_at_ms());
        self.changed.notify_one();
    }

    /// The user wants to be seen like this by this session.
    pub fn set(&self, session: &Session, status: PresenceStatus) {
        self.lock().set(session.id.number(), status);
        self.changed.notify_one();
    }

    /// Tells a session, once more, how the others in a conversation are seen.
    pub fn greet(&self, session: Arc<Session>, conversation: ConversationId) {
        self.news.tell(Happened::Looked(session, conversation));
    }

    /// How users are seen. Whatever changes afterwards is told to those who share a conversation with them.
    pub async fn look(&self, users: Vec<String>) -> Vec<Presence> {
        let (reply, answer) = oneshot::channel();
        self.news.tell(Happened::Asked(users, reply));
        answer.await.unwrap_or_default()
    }

    /// Removals so far, to be read before persistence is asked whom a session may watch.
    pub fn removals(&self) -> u64 {
        self.news.removals()
    }

    /// Tells a session of these users from now on, whom persistence has said that it may watch; how they are seen now.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`](parlance_proto::v1::ErrorCode::TooLarge) where the session would watch too many.
    pub async fn watch(
        &self,
        session: Arc<Session>,
        users: Vec<Presence>,
        removals: u64,
    ) -> Result<Vec<Presence>, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.news.tell(Happened::Watched {
            session,
            users,
            removals,
            reply,
        });
        answer.await.unwrap_or_else(|_| Err(ClientError::internal()))
    }

    /// Ends that.
    pub fn unwatch(&self, session: SessionId, users: Vec<String>) {
        self.news.tell(Happened::Unwatched(session, users));
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
