//! Who is here: reports this replica's sessions to persistence, and tells its sessions how those they share
//! conversations with are seen.
//!
//! | module | owns |
//! | --- | --- |
//! | `ledger` | which sessions persistence knows of, and what it must still be told |
//! | `report` | the lease of this replica: renewing it, and what follows when it is lost |
//! | `cache` | the presence of users as it was last emitted |
//! | `state` | which sessions receive whose presence; pure |
//! | `fanout` | the task around it: the bus, queries, emission |
//! | `watches` | whom sessions watch, as long as they may |
//!
//! What is told may be dropped for a slow client; what is known here always becomes what persistence says. Sessions and
//! rooms report by [`presence_input`](super::presence_input).

mod cache;
mod fanout;
mod ledger;
mod report;
mod state;
mod watches;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlance_proto::ConversationId;
use parlance_proto::v1::{ErrorCode, Presence, PresenceStatus};
use tokio::sync::{Notify, oneshot};

use super::presence_input::{Happened, PresenceReports};
use crate::error::ClientError;
use crate::ids::new_id;
use crate::session::{Session, SessionId};
use ledger::Ledger;

pub use fanout::PresenceFanout;
pub use report::Reporter;

/// The sessions of this replica as presence sees them. Cheap to clone.
#[derive(Clone)]
pub struct Presences {
    reports: PresenceReports,
    ledger: Arc<Mutex<Ledger>>,
    changed: Arc<Notify>,
}

impl Presences {
    /// Without sessions.
    pub fn new(reports: PresenceReports) -> Self {
        Self {
            reports,
            ledger: Arc::new(Mutex::new(Ledger::new(new_id()))),
            changed: Arc::default(),
        }
    }

    /// A session began.
    pub fn arrived(&self, session: &Arc<Session>) {
        self.reports.report(Happened::Arrived(Arc::clone(session)));
        self.lock().opened(session.id.number(), &session.user);
        self.changed.notify_one();
    }

    /// A session ended.
    pub fn gone(&self, session: &Session) {
        self.reports
            .report(Happened::Gone(session.user.clone(), session.id));
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
        self.reports.report(Happened::Looked(session, conversation));
    }

    /// How users are seen. Whatever changes afterwards is told to those who share a conversation with them.
    pub async fn look(&self, users: Vec<String>) -> Vec<Presence> {
        let (reply, answer) = oneshot::channel();
        self.reports.report(Happened::Asked(users, reply));
        answer.await.unwrap_or_default()
    }

    /// Removals so far, to be read before persistence is asked whom a session may watch.
    pub fn removals(&self) -> u64 {
        self.reports.removals()
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
        self.reports.report(Happened::Watched {
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
        self.reports.report(Happened::Unwatched(session, users));
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
