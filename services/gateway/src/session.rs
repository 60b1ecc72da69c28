//! Sessions: one connected client each, what is delivered to it, and when it is too slow to take more.
//!
//! | module | owns |
//! | --- | --- |
//! | [`sessions`] | all of them |
//! | [`page`] | what a client is as long as it is open |
//! | [`following`] | how a session takes part in a conversation |
//! | [`hidden`] | whom it is not shown |
//! | [`send_queue`] | what waits for the client of one connection |
//! | [`wire`], [`transports`] | the connection under a session, and how to find and close it |
//!
//! With `edge/socket` the only place that names socketioxide. Must not know the bus or decide who may see what.

pub mod following;
pub mod hidden;
pub mod page;
pub mod send_queue;
pub mod sessions;
pub mod transports;
pub mod wire;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use parlance_proto::v1::{Client, ErrorCode, KeptAnswer, Message, SenderKind};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::tasks;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::{SendError, SocketError, TransportType};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::auth::{Grant, Revocations};
use crate::dialect::{Answer, Dialect, Frame, Outbound, Place, Speaker, encode};
use crate::error::ClientError;
use following::Following;
use hidden::Hidden;
use page::Page;
use send_queue::{Occupancy, SendQueue};
use transports::Transports;
use wire::Wire;

/// Names a session towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// Unique in this process.
    pub fn number(self) -> u64 {
        self.0
    }

    /// A name without a session.
    #[cfg(test)]
    pub const fn of_test(number: u64) -> Self {
        Self(number)
    }
}

/// A connected client.
pub struct Session {
    /// Own name.
    pub id: SessionId,
    /// The page it belongs to.
    pub page: Page,
    /// The page returns, and what it got before is stored.
    pub is_settled: bool,
    /// Who it is, from the token.
    pub user: UserId,
    /// The name others see.
    pub username: String,
    /// The user's unique number.
    pub number: i64,
    /// A person or an agent.
    pub kind: SenderKind,
    /// Whom its user is not shown.
    pub hidden: Arc<Hidden>,
    /// When it began.
    pub since: SystemTime,
    /// What was committed up to then, in Unix milliseconds, earlier sessions of the user were told; 0 = there
    /// was none.
    pub seen_at_ms: i64,
    /// Cancelled when the connection is gone.
    pub closed: CancellationToken,
    /// The turn to tell the client what it missed.
    pub replays: Semaphore,
    /// The dialect it began with.
    dialect: &'static dyn Dialect,
    is_assumed: bool,
    /// The dialect its first telling event was of.
    learned: OnceLock<&'static dyn Dialect>,
    grant: Mutex<Grant>,
    socket: SocketRef,
    transports: Transports,
    send_queue: Arc<SendQueue>,
    occupancy: Mutex<Option<Occupancy>>,
    conversations: Mutex<HashSet<ConversationId>>,
    /// See [`Session::begin`].
    openings: Mutex<HashMap<ConversationId, Following>>,
    /// See [`Session::shown_at_ms`].
    shown_at_ms: AtomicI64,
    /// See [`Session::is_cut`].
    cut: AtomicBool,
    /// See [`Session::end_for_return`].
    page_is_back: AtomicBool,
    /// The rooms that know of it.
    rooms: TaskTracker,
    /// See [`Session::sends`].
    sent: Mutex<VecDeque<Sent>>,
    doubtful: Arc<AtomicBool>,
    max_backlog_bytes: u64,
}

/// What a client has got of what was emitted to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Everything.
    All,
    /// What was emitted before.
    Before(Instant),
    /// Not known.
    Nothing,
}

/// Where the answer to an event goes.
pub struct Ack(Option<AckSender>);

/// A message that a client sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The message's id.
    pub message_id: String,
    /// What the client calls it, as JSON.
    pub tag: Option<String>,
    /// The client asked for an acknowledgement, which carries the message.
    pub is_acked: bool,
}

/// An event that is to be answered.
pub struct Request<'a> {
    /// Where the answer goes.
    pub ack: Ack,
    /// The event's name as sent.
    pub event: &'a str,
    /// What the client calls it.
    pub tag: Option<&'a str>,
}

/// What makes a session.
pub struct Opening {
    /// See [`Session::page`].
    pub page: Page,
    /// See [`Session::is_settled`].
    pub is_settled: bool,
    /// See [`Session::user`].
    pub user: UserId,
    /// See [`Session::username`].
    pub username: String,
    /// See [`Session::number`].
    pub number: i64,
    /// See [`Session::kind`].
    pub kind: SenderKind,
    /// See [`Session::hidden`].
    pub hidden: Arc<Hidden>,
    /// What it speaks until its client shows that it speaks another.
    pub dialect: &'static dyn Dialect,
    /// Whether nothing named that dialect.
    pub is_assumed: bool,
    /// See [`Session::seen_at_ms`].
    pub seen_at_ms: i64,
    /// The token it stands on.
    pub grant: Grant,
    /// See [`Session::since`].
    pub since: SystemTime,
    /// See [`Session::closed`].
    pub closed: CancellationToken,
    /// Set where the connection ends otherwise than by the client's will.
    pub doubtful: Arc<AtomicBool>,
    /// Of its connection.
    pub send_queue: Arc<SendQueue>,
}

/// In this time a dead connection is noticed.
const NOTICED_WITHIN_MS: i64 = 60_000;
/// How long a client may take to leave by itself after it was told to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the last poll of a client may take that left at the same time: it asks again as soon as it got an answer,
/// and says that it leaves over another connection.
const LAST_POLL: Duration = Duration::from_millis(50);

/// Own messages remembered until their events come.
const SENT: usize = 64;

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Session {
    /// A session on a socket.
    pub fn new(opening: Opening, socket: SocketRef, transports: Transports, max_backlog_bytes: u64) -> Self {
        let Opening {
            page,
            is_settled,
            user,
            username,
            number,
            kind,
            hidden,
            dialect,
            is_assumed,
            seen_at_ms,
            grant,
            since,
            closed,
            doubtful,
            send_queue,
        } = opening;
        Self {
            id: SessionId(NEXT.fetch_add(1, Ordering::Relaxed)),
            page,
            is_settled,
            user,
            username,
            number,
            kind,
            hidden,
            since,
            seen_at_ms,
            closed,
            replays: Semaphore::new(1),
            dialect,
            is_assumed,
            learned: OnceLock::new(),
            grant: Mutex::new(grant),
            socket,
            transports,
            occupancy: Mutex::new(Some(send_queue.occupy())),
            send_queue,
            conversations: Mutex::default(),
            openings: Mutex::default(),
            shown_at_ms: AtomicI64::default(),
            cut: AtomicBool::default(),
            page_is_back: AtomicBool::default(),
            rooms: TaskTracker::new(),
            sent: Mutex::default(),
            doubtful,
            max_backlog_bytes,
        }
    }

    /// As persistence knows its client.
    pub fn client(&self) -> Client {
        Client {
            page: self.page.to_string(),
            connected_at_ms: self.since_ms(),
        }
    }

    /// When it began, in Unix milliseconds.
    pub fn since_ms(&self) -> i64 {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH);
        i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
    }

    /// What its client speaks.
    pub fn dialect(&self) -> &'static dyn Dialect {
        self.learned.get().copied().unwrap_or(self.dialect)
    }

    /// Whether its client is known to speak its dialect. One that is only assumed may be lost on the client, so what is
    /// emitted in it counts as received by nobody.
    pub fn is_understood(&self) -> bool {
        !self.is_assumed || self.learned.get().is_some()
    }

    /// Its client speaks this one, from now on and for good.
    pub fn learn(&self, dialect: &'static dyn Dialect) {
        // Learned once; a second time changes nothing.
        let _ = self.learned.set(dialect);
    }

    /// When the token it stands on expires, in seconds since 1970.
    pub fn expires_at(&self) -> i64 {
        lock(&self.grant).expires_at
    }

    /// Lets it stand on another token of the same user, unless that ends sooner: one that came late must not
    /// shorten what another one granted.
    pub fn renew(&self, grant: Grant) {
        let mut current = lock(&self.grant);
        if grant.expires_at >= current.expires_at {
            *current = grant;
        }
    }

    /// Whether the token it stands on is on the list.
    pub fn is_revoked(&self, revocations: &Revocations) -> bool {
        revocations.includes(&self.user, &lock(&self.grant))
    }

    /// What the session begins with in each conversation of its user.
    pub fn opens(&self, openings: HashMap<ConversationId, Following>) {
        *lock(&self.openings) = openings;
    }

    /// Attaches the session to a conversation by `attach`. What it begins with there is part of the first such
    /// request, even where its client joins before the server gets to it: else the backlog and what is live would
    /// not meet. Returns what it begins with, if that is part of this one.
    pub fn begin(
        &self,
        conversation: ConversationId,
        asked: Following,
        attach: impl FnOnce(Following),
    ) -> Option<Following> {
        // Held meanwhile: a second request must not get ahead of the first.
        let mut openings = lock(&self.openings);
        let opening = openings.remove(&conversation);
        attach(match opening.clone() {
            Some(opening) => opening.and(asked),
            None => asked,
        });
        opening
    }

    /// The request that this was part of came to nothing.
    pub fn begins_again(&self, conversation: ConversationId, opening: Following) {
        lock(&self.openings).insert(conversation, opening);
    }

    /// The session is told about this conversation from now on.
    pub fn attached(&self, conversation: ConversationId) {
        lock(&self.conversations).insert(conversation);
    }

    /// The session is not told about this conversation any more.
    pub fn detached(&self, conversation: ConversationId) {
        lock(&self.conversations).remove(&conversation);
    }

    /// Whether the session is told about this conversation: its user is a member then.
    pub fn is_attached(&self, conversation: ConversationId) -> bool {
        lock(&self.conversations).contains(&conversation)
    }

    /// All conversations the session is told about.
    pub fn conversations(&self) -> Vec<ConversationId> {
        lock(&self.conversations).iter().copied().collect()
    }

    /// A room knows of the session until it drops this.
    pub fn track_room(&self) -> TaskTrackerToken {
        self.rooms.token()
    }

    /// The session has ended, and the rooms that know of it have been asked to forget it.
    pub fn close_tracking(&self) {
        self.rooms.close();
    }

    /// Waits until the session has ended and no room knows of it.
    pub async fn forgotten(&self) {
        self.rooms.wait().await;
    }

    /// The client was told of an event that was committed then.
    pub fn shown(&self, at_ms: i64) {
        self.shown_at_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    /// What was committed up to then, in Unix milliseconds, the client was told; 0 = it was told of nothing. Where
    /// the connection did not end by the client's will, what went out last may never have come.
    pub fn shown_at_ms(&self) -> i64 {
        let shown = self.shown_at_ms.load(Ordering::Relaxed);
        if shown > 0 && self.doubtful.load(Ordering::Relaxed) {
            (shown - NOTICED_WITHIN_MS).max(1)
        } else {
            shown
        }
    }

    /// Whether something was emitted that the engine did not take: nothing after that counts as received.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed) || self.closed.is_cancelled()
    }

    /// What the client has got of what was emitted: over a WebSocket what the kernel took, while polling what was
    /// emitted before an answer after which it asked again.
    pub fn received(&self) -> Received {
        if let Some(wire) = self.wire() {
            return if wire.is_blocked() {
                Received::Nothing
            } else {
                Received::All
            };
        }
        self.transports
            .polled_until(&self.engine_id())
            .map_or(Received::Nothing, Received::Before)
    }

    /// Remembers a message whose event this session gets in another form than others, or not at all.
    pub fn sends(&self, sent: Sent) {
        let mut all = lock(&self.sent);
        if all.len() == SENT {
            all.pop_front();
        }
        all.push_back(sent);
    }

    /// What is emitted of a message that this client sent lately: with its own name for it, or nothing where its dialect
    /// acknowledges with the message instead. `None` where it is emitted as to everyone.
    pub fn echo(&self, place: &Place, message: &Message) -> Option<Vec<Frame>> {
        let sender = message.sender.as_ref()?;
        if sender.id != self.user.as_str() {
            return None;
        }
        let sent = lock(&self.sent)
            .iter()
            .find(|sent| sent.message_id == message.id)
            .cloned()?;
        if sent.is_acked && !self.dialect().echoes() {
            return Some(Vec::new());
        }
        Some(self.dialect().echo(place, message, &sent.tag?))
    }

    /// As dialects see it.
    pub fn speaker(&self) -> Speaker<'_> {
        Speaker {
            user: &self.user,
            number: self.number,
        }
    }

    /// The engine's id, which is also `socket.id`; requests need the id with its proof, see `session_id`.
    pub fn engine_id(&self) -> String {
        self.socket.id.to_string()
    }

    /// `websocket` or `polling`, as it is now.
    pub fn transport(&self) -> &'static str {
        match self.socket.transport_type() {
            TransportType::Websocket => "websocket",
            TransportType::Polling => "polling",
        }
    }

    /// Tells the client something; a client that cannot take it is disconnected at transport level.
    pub fn emit(&self, frame: &Frame) {
        // Type digits and the array around name and payload.
        let bytes = frame.event.len() + frame.payload.get().len() + 7;
        if self.meter(bytes) > self.max_backlog_bytes {
            self.close_slow("backlog");
            return;
        }
        metrics::counter!("chat_gateway_events_total", "direction" => "out", "event" => frame.event)
            .increment(1);
        if let Err(error) = self.socket.emit(frame.event, &frame.payload) {
            self.failed(&error);
        }
    }

    /// Tells the client something that it can do without: dropped when much is waiting already.
    pub fn emit_ephemeral(&self, frame: &Frame) {
        if !self.is_behind() {
            self.emit(frame);
        }
    }

    /// Whether much waits for the client already; never known while polling.
    pub fn is_behind(&self) -> bool {
        self.meter(0) > self.max_backlog_bytes / 4
    }

    /// Answers an event: by its ack where it asked for one, and a failure in the dialect's own events too.
    pub fn answer(
        &self,
        request: Request<'_>,
        outcome: Result<&Answer, &ClientError>,
        place: Option<&Place>,
    ) {
        let Request { ack, event, tag } = request;
        let acked = ack.0.is_some();
        if let Some(sender) = ack.0 {
            let payload = self.dialect().answer(outcome, place);
            if self.meter(payload.get().len() + 24) > self.max_backlog_bytes {
                self.close_slow("backlog");
                return;
            }
            if let Err(error) = sender.send(&payload) {
                self.failed(&error);
            }
        }
        if let Err(error) = outcome {
            self.tell(Outbound::Failed {
                event,
                tag,
                error,
                acked,
            });
        }
    }

    /// Answers an event as it was answered before.
    pub fn answer_again(&self, request: Request<'_>, kept: &KeptAnswer) {
        let text = std::str::from_utf8(&kept.body).ok();
        let payload = text.and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let failure = ClientError::of_kept(kept);
        match (failure, payload) {
            (Some(error), _) => self.answer(request, Err(&error), None),
            (None, Some(payload)) => self.acknowledge(request.ack, &payload),
            (None, None) => self.answer(request, Err(&ClientError::internal()), None),
        }
    }

    /// Answers an event that is none of the dialect's.
    pub fn acknowledge(&self, ack: Ack, payload: &impl Serialize) {
        if let Some(sender) = ack.0
            && let Err(error) = sender.send(&encode(payload))
        {
            self.failed(&error);
        }
    }

    /// Tells the client something that is for it alone.
    pub fn tell(&self, outbound: Outbound<'_>) {
        for frame in self.dialect().frames(outbound) {
            self.emit(&frame);
        }
    }

    /// Ends the connection as if the client had gone; stock clients reconnect and catch up.
    pub fn close_transport(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
        self.cut.store(true, Ordering::Relaxed);
        let engine_id = self.engine_id();
        match self.wire() {
            Some(wire) => wire.kill(),
            None => self.transports.close_polling(engine_id),
        }
    }

    /// Ends the session because its page has connected again, here or elsewhere. `arriving` is the engine's id of the
    /// connection it arrives on, which stays open.
    pub fn end_for_return(&self, arriving: Option<&str>) {
        self.page_is_back.store(true, Ordering::Relaxed);
        if !self.closed.is_cancelled() && arriving != Some(&self.engine_id()) {
            self.close_transport();
        }
    }

    /// How long what its client got may still become known after it has ended.
    pub fn last_poll(&self) -> Duration {
        if self.transport() == "polling" && !self.page_is_back.load(Ordering::Relaxed) {
            LAST_POLL
        } else {
            Duration::ZERO
        }
    }

    /// The session has ended: its connection is left to those of other namespaces.
    pub fn leave(&self) {
        lock(&self.occupancy).take();
    }

    /// Ends the session for good: stock clients do not reconnect, and others lose the connection soon, unless it
    /// has sessions of other namespaces.
    pub fn dismiss(self: &Arc<Self>) {
        // Fails only when the buffer is full, and then the transport goes at once.
        if self.socket.clone().disconnect().is_err() {
            self.close_transport();
            return;
        }
        // Found now: it is not known any more once the session has ended.
        self.wire();
        self.leave();
        let session = Arc::clone(self);
        tasks::spawn("dismiss a session", async move {
            tokio::time::sleep(FAREWELL).await;
            if !session.send_queue.is_occupied() {
                session.close_transport();
            }
        });
    }

    /// Ends the session as somebody ordered, perhaps for good.
    pub fn send_away(self: &Arc<Self>, for_good: bool) {
        if for_good {
            self.dismiss();
        } else {
            self.close_transport();
        }
    }

    /// Ends the session for good because its user began more than may be: its client reads why, and does not come
    /// again by itself to displace the next one.
    pub fn displace(self: &Arc<Self>, most: NonZeroUsize) {
        tracing::info!(user = %self.user, most, "ended the oldest session of a user who began too many");
        metrics::counter!("chat_gateway_displaced_sessions_total").increment(1);
        let message = format!("this user has more than {most} connections here; the oldest was ended");
        self.tell(Outbound::Failed {
            event: "connect",
            tag: None,
            error: &ClientError::new(ErrorCode::RateLimited, message),
            acked: false,
        });
        self.dismiss();
    }

    /// The WebSocket's connection; `None` while polling.
    pub fn wire(&self) -> Option<Arc<Wire>> {
        self.send_queue.wire(|| self.find_wire())
    }

    fn find_wire(&self) -> Option<Arc<Wire>> {
        let is_upgraded = self.socket.transport_type() == TransportType::Websocket;
        is_upgraded
            .then(|| self.transports.wire_of(&self.socket))
            .flatten()
    }

    fn close_slow(&self, kind: &'static str) {
        tracing::info!(user = %self.user, kind, "disconnected a client that reads too slowly");
        metrics::counter!("chat_gateway_slow_consumers_total", "kind" => kind).increment(1);
        self.close_transport();
    }

    fn failed(&self, error: &SendError) {
        match error {
            SendError::Socket(SocketError::InternalChannelFull) => self.close_slow("packets"),
            SendError::Socket(SocketError::Closed) => self.cut.store(true, Ordering::Relaxed),
            SendError::Serialize(error) => {
                tracing::error!(%error, "a packet cannot be encoded");
            }
        }
    }

    /// Adds a packet and returns the bytes that wait for the client, whatever namespace they are for.
    fn meter(&self, bytes: usize) -> u64 {
        self.send_queue.meter(bytes, || self.find_wire())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ack {
    /// Whether the client asked for an answer.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// `None` where the client asked for no answer.
    pub fn new(sender: Option<AckSender>) -> Self {
        Self(sender)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
