//! Which conversations this replica follows, and for whom.
//!
//! A room lives as long as a local session is attached, and lingers a little after. Its task owns its state;
//! this table only finds it. A replica without members of a conversation does nothing for it.

pub(crate) mod frames;
mod members;
mod room;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::v1::{self, ErrorCode, Head, ListState, Message};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::tasks;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::delivery::awareness::SentState;
use crate::delivery::journal::OpenJournal;
use crate::delivery::presence_input::{Happened, PresenceReports};
use crate::delivery::served::Served;
use crate::dialect::{Answer, Outbound, Place};
use crate::error::ClientError;
use crate::session::following::Following;
use crate::session::{Session, SessionId};
pub use members::Members;
use room::Replayed;

/// Requests that may wait for one room. More of those that can be made again are refused; the others are as many as the
/// attached sessions, each of which waits for its own.
const MOST_WAITING: usize = 10_000;
/// How long before the user was last seen a receipt may have changed without being told: to hear of one twice
/// does no harm.
const ON_ITS_WAY_MS: i64 = 5_000;

/// The rooms of this replica. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Parts>);

/// Conversations whose rooms have begun, and when.
pub type Begun = mpsc::UnboundedReceiver<(Instant, ConversationId)>;

/// What all rooms share.
pub struct Parts {
    bus: Bus,
    backend: Backend,
    served: Served,
    linger: Duration,
    table: Mutex<HashMap<ConversationId, Handle>>,
    members: Members,
    begun: mpsc::UnboundedSender<(Instant, ConversationId)>,
}

impl Deref for Rooms {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// From where on an attached session is told everything.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Events after this seq follow live.
    pub head_seq: u64,
    /// The epoch of that seq.
    pub epoch: String,
    /// Where the conversation is a journal: its versions, which the room keeps up to date.
    pub journal: Option<Arc<OpenJournal>>,
}

/// A room as others see it.
#[derive(Clone)]
struct Handle {
    requests: mpsc::UnboundedSender<Request>,
    progress: Arc<Progress>,
}

/// How far a room is; read without disturbing it.
#[derive(Debug, Default)]
struct Progress {
    /// Requests that it has not taken yet.
    waiting: AtomicUsize,
    /// Empty until it has begun.
    epoch: Mutex<String>,
    head_seq: AtomicU64,
    receipts_version: AtomicU64,
    place: Mutex<Option<Arc<Place>>>,
}

enum Request {
    Attach {
        session: Arc<Session>,
        following: Following,
        reply: oneshot::Sender<Result<Attached, ClientError>>,
    },
    /// Follow only the place in a list any more.
    Leave(SessionId),
    /// States of pages in a journal, from a session of its own user.
    Awareness {
        session: SessionId,
        states: Vec<SentState>,
        reply: oneshot::Sender<Result<(), ClientError>>,
    },
    /// The session is gone.
    Detach(SessionId),
    /// A replay to the session has ended.
    CaughtUp(SessionId, Replayed),
    /// What lists show was looked up anew.
    Listed(Box<ListState>),
    /// A message that streams was read.
    Streamed(Box<Message>),
    /// Whether a user whose sessions wait for it is a participant; what had been removed when it was asked.
    Admit {
        user: UserId,
        found: Result<bool, ClientError>,
        removals: u64,
    },
    /// The database is at least this far.
    Check { epoch: String, head: Head },
}

impl Request {
    /// Whether it can be made again: an attach by the session, a comparison by the next one; states are emitted anew
    /// several times a second.
    fn can_be_refused(&self) -> bool {
        matches!(
            self,
            Self::Attach { .. } | Self::Awareness { .. } | Self::Check { .. }
        )
    }
}

impl Handle {
    /// Hands a request to the room, unless too many wait there. What is refused is dropped, and with it the way to reply.
    fn send(&self, request: Request) {
        let waiting = &self.progress.waiting;
        if request.can_be_refused() && waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            metrics::counter!("chat_gateway_inbox_refused_total", "inbox" => "room").increment(1);
            return;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        // A room leaves the table before it stops to listen.
        drop(self.requests.send(request));
    }
}

impl Rooms {
    /// An empty table, and where it says which rooms have begun.
    pub fn new(
        bus: Bus,
        backend: Backend,
        served: Served,
        linger: Duration,
        reports: PresenceReports,
    ) -> (Self, Begun) {
        // It holds those that began within the time until they are compared once more.
        let (sender, begun) = mpsc::unbounded_channel();
        let rooms = Self(Arc::new(Parts {
            bus,
            backend,
            served,
            linger,
            table: Mutex::default(),
            members: Members::new(reports),
            begun: sender,
        }));
        (rooms, begun)
    }

    /// A room has its first state.
    fn has_begun(&self, conversation: ConversationId) {
        // Nobody reads it while the gateway ends.
        self.begun.send((Instant::now(), conversation)).ok();
    }

    /// Attaches a session of a member.
    ///
    /// # Errors
    /// [`ClientError::no_conversation`] where the user is no member; or the room cannot be started now.
    pub async fn attach(
        &self,
        conversation: ConversationId,
        session: Arc<Session>,
        following: Following,
    ) -> Result<Attached, ClientError> {
        let known = session.is_attached(conversation);
        let (reply, answer) = oneshot::channel();
        let opening = session.begin(conversation, following, |following| {
            let request = Request::Attach {
                session: Arc::clone(&session),
                following,
                reply,
            };
            self.send_or_open(conversation, request);
        });
        let attached = match answer.await.unwrap_or_else(|_| Err(busy())) {
            Ok(attached) => attached,
            Err(error) => {
                // What it begins with there is part of the next attempt.
                if let Some(opening) = opening {
                    session.begins_again(conversation, opening);
                }
                return Err(error);
            }
        };
        if !known {
            self.members
                .reports
                .report(Happened::Attached(Arc::clone(&session), conversation));
        }
        if session.closed.is_cancelled() {
            // It went while we waited, so nobody else detaches it from here.
            self.detach(conversation, session.id);
        }
        Ok(attached)
    }

    /// Tells a session what became of its user's messages since the user was last seen: in one conversation, or
    /// in all it is attached to.
    pub async fn tell_missed_receipts(&self, session: &Session, only: Option<ConversationId>) {
        let since_ms = session.seen_at_ms - ON_ITS_WAY_MS;
        let missed = match self.backend.receipts_since(&session.user, since_ms, only).await {
            Ok(missed) => missed,
            // Statuses are also part of what is read over REST.
            Err(error) => {
                tracing::debug!(code = error.code, "missed receipts are not told");
                return;
            }
        };
        for v1::ConversationReceipts {
            conversation_id,
            receipts,
        } in missed
        {
            let id = conversation_id.parse().ok();
            let id = id.filter(|id| session.is_attached(*id));
            let Some(place) = id.and_then(|id| self.place(id)) else {
                continue;
            };
            for receipt in &receipts {
                session.tell(Outbound::Receipt(&place, receipt));
            }
        }
    }

    /// The session follows only the conversation's place in a list any more.
    pub fn leave(&self, conversation: ConversationId, session: SessionId) {
        self.send(conversation, Request::Leave(session));
    }

    /// Shows the others in a journal states that the session sent.
    ///
    /// # Errors
    /// [`ClientError::no_conversation`] where the session is not attached or this is no journal; it has not joined the journal;
    /// a state is refused.
    pub async fn share_awareness(
        &self,
        journal: ConversationId,
        session: SessionId,
        states: Vec<SentState>,
    ) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Awareness {
            session,
            states,
            reply,
        };
        if !self.send(journal, request) {
            // A room that has closed had nobody attached.
            return Err(ClientError::no_conversation());
        }
        answer.await.unwrap_or_else(|_| Err(busy()))
    }

    /// The session is gone.
    pub fn detach(&self, conversation: ConversationId, session: SessionId) {
        self.send(conversation, Request::Detach(session));
    }

    /// A replay to the session has ended.
    fn caught_up(&self, conversation: ConversationId, session: SessionId, replayed: Replayed) {
        self.send(conversation, Request::CaughtUp(session, replayed));
    }

    /// What lists show of a conversation was looked up anew.
    fn listed(&self, conversation: ConversationId, state: ListState) {
        self.send(conversation, Request::Listed(Box::new(state)));
    }

    /// A message that streams was read.
    fn found_stream(&self, conversation: ConversationId, message: Message) {
        self.send(conversation, Request::Streamed(Box::new(message)));
    }

    /// The conversation as its room knows it; `None` where nobody here follows it.
    pub fn place(&self, conversation: ConversationId) -> Option<Arc<Place>> {
        let progress = Arc::clone(&self.lock().get(&conversation)?.progress);
        progress.place()
    }

    /// The conversation an answer is about, as its room knows it.
    pub fn place_of(&self, answer: &Answer) -> Option<Arc<Place>> {
        let id = match answer {
            Answer::Message(message) => &message.conversation_id,
            Answer::Thread(thread) => &thread.conversation_id,
            Answer::Conversation(conversation) => &conversation.id,
            Answer::Done
            | Answer::Receipt(_)
            | Answer::Journal(..)
            | Answer::JournalSync { .. }
            | Answer::Pages(_)
            | Answer::Presence(_)
            | Answer::Participants(_)
            | Answer::Blocks(_)
            | Answer::User(_) => return None,
        };
        self.place(id.parse().ok()?)
    }

    /// Who is in the conversations followed here.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// All conversations followed here.
    pub fn followed(&self) -> Vec<ConversationId> {
        self.lock().keys().copied().collect()
    }

    /// Lets the rooms that are behind the database catch up.
    pub fn check(&self, epoch: &str, heads: Vec<Head>) {
        let table = self.lock();
        for head in heads {
            let id = head.conversation_id.parse();
            let Some(handle) = id.ok().and_then(|id: ConversationId| table.get(&id)) else {
                continue;
            };
            if handle.progress.is_behind(epoch, &head) {
                let epoch = epoch.to_owned();
                handle.send(Request::Check { epoch, head });
            }
        }
    }

    /// False where nobody here follows the conversation.
    fn send(&self, conversation: ConversationId, request: Request) -> bool {
        let table = self.lock();
        let handle = table.get(&conversation);
        if let Some(handle) = handle {
            handle.send(request);
        }
        handle.is_some()
    }

    fn send_or_open(&self, conversation: ConversationId, request: Request) {
        let mut table = self.lock();
        let handle = table.entry(conversation).or_insert_with(|| {
            let (requests, queue) = mpsc::unbounded_channel();
            let progress = Arc::<Progress>::default();
            let room = room::Room::new(self.clone(), conversation, Arc::clone(&progress));
            tasks::spawn("room", room.run(queue));
            metrics::gauge!("chat_gateway_rooms").increment(1);
            Handle { requests, progress }
        });
        handle.send(request);
    }

    /// Removes a room that nobody is attached to. False where someone has asked for it meanwhile.
    fn close(&self, conversation: ConversationId, queue: &mpsc::UnboundedReceiver<Request>) -> bool {
        let mut table = self.lock();
        // Requests are sent under this lock, so an empty queue stays empty.
        if !queue.is_empty() {
            return false;
        }
        if let Some(closed) = table.remove(&conversation)
            && let Some(place) = closed.progress.place()
        {
            self.members.forget(&place);
        }
        metrics::gauge!("chat_gateway_rooms").decrement(1);
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, Handle>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Too many wait for the room.
fn busy() -> ClientError {
    ClientError::new(
        ErrorCode::Unavailable,
        "the conversation has too much to do at the moment",
    )
}

impl Progress {
    fn place(&self) -> Option<Arc<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what was shown before.
    fn show(&self, place: Arc<Place>) -> Option<Arc<Place>> {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(place)
    }

    fn begin_epoch(&self, epoch: &str) {
        epoch.clone_into(&mut self.epoch.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_behind(&self, epoch: &str, head: &Head) -> bool {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) != epoch
            || self.head_seq.load(Ordering::Relaxed) < head.head_seq
            || self.receipts_version.load(Ordering::Relaxed) < head.receipts_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_inbox_refuses_what_can_be_asked_again_and_nothing_else() {
        let (requests, mut queue) = mpsc::unbounded_channel();
        let progress = Arc::<Progress>::default();
        let handle = Handle { requests, progress };
        let check = || Request::Check {
            epoch: String::new(),
            head: Head::default(),
        };
        for _ in 0..MOST_WAITING + 5 {
            handle.send(check());
        }
        let (reply, answer) = oneshot::channel();
        handle.send(Request::Awareness {
            session: SessionId::of_test(1),
            states: Vec::new(),
            reply,
        });
        assert!(answer.await.is_err());
        handle.send(Request::Detach(SessionId::of_test(1)));
        let mut last = None;
        let mut waiting = 0;
        while let Ok(request) = queue.try_recv() {
            last = Some(request);
            waiting += 1;
        }
        assert_eq!(waiting, MOST_WAITING + 1);
        assert!(matches!(last, Some(Request::Detach(_))));
    }
}
