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
//! What is told may be dropped for a slow client; what is known here always becomes what persistence says. The teller's
//! inbox is bounded: beyond its limit greetings are left out and questions are refused; what must not be missed is not
//! counted out, and is as much as sessions begin and end here and members are removed.

mod board;
mod ledger;
mod report;
mod teller;
mod watches;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlance_proto::v1::{ErrorCode, Presence, PresenceStatus};
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
    waiting: Arc<AtomicUsize>,
    /// How often a user was told to have left a conversation.
    removals: Arc<AtomicU64>,
}

/// What the teller takes in.
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<Happened>,
    waiting: Arc<AtomicUsize>,
}

/// Happenings that wait for the teller; beyond them those are refused whose session can come again, or that are answered.
const MOST_WAITING: usize = 50_000;

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
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let inbox = Inbox {
        receiver,
        waiting: Arc::clone(&waiting),
    };
    let removals = Arc::default();
    let news = News {
        sender,
        waiting,
        removals,
    };
    (news, inbox)
}

impl Inbox {
    async fn recv(&mut self) -> Option<Happened> {
        let happened = self.receiver.recv().await?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(happened)
    }

    /// What waits already; `None` where nothing does.
    #[cfg(test)]
    pub(crate) fn next_waiting(&mut self) -> Option<Happened> {
        futures::FutureExt::now_or_never(self.recv()).flatten()
    }
}

impl Happened {
    /// Whether it is about one session, or is answered.
    fn can_be_refused(&self) -> bool {
        match self {
            Self::Attached(..) | Self::Looked(..) => true,
            Self::Asked(..) | Self::Watched { .. } => true,
            Self::Arrived(_) | Self::Gone(..) | Self::Joined(..) | Self::Left(_) | Self::Unwatched(..) => {
                false
            }
        }
    }

    /// It is not taken in. A client that would not be told how others are seen comes again.
    fn refuse(self) {
        metrics::counter!("chat_gateway_inbox_refused_total", "inbox" => "presence").increment(1);
        if let Self::Attached(session, _) | Self::Looked(session, _) = self {
            session.close_transport();
        }
    }
}

impl News {
    /// Something happened. The teller ends only with the process.
    pub fn tell(&self, happened: Happened) {
        if matches!(happened, Happened::Left(_)) {
            self.removals.fetch_add(1, Ordering::SeqCst);
        }
        if happened.can_be_refused() && self.waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            return happened.refuse();
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
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
    /// [`ErrorCode::TooLarge`] where the session would watch too many.
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
        answer.await.unwrap_or_else(|_| {
            let message = "too much happens to watch anybody at the moment";
            Err(ClientError::new(ErrorCode::Unavailable, message))
        })
    }

    /// Ends that.
    pub fn unwatch(&self, session: SessionId, users: Vec<String>) {
        self.news.tell(Happened::Unwatched(session, users));
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_inbox_refuses_what_can_be_asked_again_and_nothing_else() {
        let (news, mut inbox) = channel();
        for _ in 0..MOST_WAITING {
            news.tell(Happened::Left("alice".to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        news.tell(Happened::Asked(Vec::new(), reply));
        assert!(answer.await.is_err());
        news.tell(Happened::Left("bob".to_owned()));
        assert_eq!(news.removals(), MOST_WAITING as u64 + 1);
        for _ in 0..MOST_WAITING {
            assert!(inbox.recv().await.is_some());
        }
        assert!(matches!(inbox.recv().await, Some(Happened::Left(user)) if user == "bob"));
        let (reply, _answer) = oneshot::channel();
        news.tell(Happened::Asked(Vec::new(), reply));
        assert!(matches!(inbox.recv().await, Some(Happened::Asked(..))));
    }
}
