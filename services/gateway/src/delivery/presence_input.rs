//! What presence must know of: the inbox into which sessions and rooms report, in the order in which it happened.
//!
//! It is bounded: beyond its limit greetings are left out and queries are refused; what must not be missed is not counted
//! out, and is as much as sessions begin and end here and members are removed. Must not know who reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parlance_proto::v1::Presence;
use parlance_proto::{ConversationId, UserId};
use tokio::sync::{mpsc, oneshot};

use crate::error::ClientError;
use crate::session::{Session, SessionId};

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
    /// The next; `None` once nobody can report any more.
    pub async fn recv(&mut self) -> Option<Happened> {
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
