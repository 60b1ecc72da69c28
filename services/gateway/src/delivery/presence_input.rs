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

/// The sending end. Cheap to clone.
#[derive(Clone)]
pub struct PresenceReports {
    sender: mpsc::UnboundedSender<Happened>,
    waiting: Arc<AtomicUsize>,
    /// How often a user has left a conversation, by these reports.
    removals: Arc<AtomicU64>,
}

/// The receiving end.
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<Happened>,
    waiting: Arc<AtomicUsize>,
}

/// Reports that wait; beyond them those are refused whose session can come again, or that are answered.
const MOST_WAITING: usize = 50_000;

/// What presence must know of. `S` is a session.
pub enum Happened<S = Arc<Session>> {
    /// A session began.
    Arrived(S),
    /// A session ended.
    Gone(UserId, SessionId),
    /// A session receives a conversation's events from now on.
    Attached(S, ConversationId),
    /// A session asks for the presence of a conversation's participants.
    Looked(S, ConversationId),
    /// Users came into a conversation that is followed here.
    Joined(ConversationId, Vec<String>),
    /// A user belongs no more to a conversation that is followed here.
    Left(String),
    /// Others are hidden from a user, or not any more.
    Hidden {
        /// Who.
        user: UserId,
        /// Those who are hidden from now on.
        hidden: Vec<String>,
        /// Those who are hidden no more.
        shown: Vec<String>,
    },
    /// A query for the presence of users, by a client that may read it.
    Asked(Vec<String>, oneshot::Sender<Vec<Presence>>),
    /// A session subscribes to users; persistence has said that it may, when it was asked after so many removals.
    Watched {
        /// Which.
        session: S,
        /// Their presence.
        users: Vec<Presence>,
        /// [`PresenceReports::removals`] before persistence was asked.
        removals: u64,
        /// Their presence as it is now, or why it may not subscribe.
        reply: oneshot::Sender<Result<Vec<Presence>, ClientError>>,
    },
    /// A session does not want that any more.
    Unwatched(SessionId, Vec<String>),
}

/// A pair of ways: in and out.
pub fn channel() -> (PresenceReports, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let inbox = Inbox {
        receiver,
        waiting: Arc::clone(&waiting),
    };
    let removals = Arc::default();
    let reports = PresenceReports {
        sender,
        waiting,
        removals,
    };
    (reports, inbox)
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
            Self::Arrived(_)
            | Self::Gone(..)
            | Self::Joined(..)
            | Self::Left(_)
            | Self::Hidden { .. }
            | Self::Unwatched(..) => false,
        }
    }

    /// It is not taken in. A client that would miss the presence of others comes again.
    fn refuse(self) {
        metrics::counter!("chat_gateway_inbox_refused_total", "inbox" => "presence").increment(1);
        if let Self::Attached(session, _) | Self::Looked(session, _) = self {
            session.close_transport();
        }
    }
}

impl PresenceReports {
    /// Something happened. The receiving end lasts as long as the process.
    pub fn report(&self, happened: Happened) {
        if matches!(happened, Happened::Left(_)) {
            self.removals.fetch_add(1, Ordering::SeqCst);
        }
        if happened.can_be_refused() && self.waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            return happened.refuse();
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(self.sender.send(happened));
    }

    /// Changes before it is taken in that a user has left a conversation.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_inbox_refuses_what_can_be_asked_again_and_nothing_else() {
        let (reports, mut inbox) = channel();
        for _ in 0..MOST_WAITING {
            reports.report(Happened::Left("alice".to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        reports.report(Happened::Asked(Vec::new(), reply));
        assert!(answer.await.is_err());
        reports.report(Happened::Left("bob".to_owned()));
        assert_eq!(reports.removals(), MOST_WAITING as u64 + 1);
        for _ in 0..MOST_WAITING {
            assert!(inbox.recv().await.is_some());
        }
        assert!(matches!(inbox.recv().await, Some(Happened::Left(user)) if user == "bob"));
        let (reply, _answer) = oneshot::channel();
        reports.report(Happened::Asked(Vec::new(), reply));
        assert!(matches!(inbox.recv().await, Some(Happened::Asked(..))));
    }
}
