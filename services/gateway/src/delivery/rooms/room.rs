//! One followed conversation: brings every committed event to the attached sessions, in order and without
//! a hole, whatever the bus loses.
//!
//! Start: subscribe, then ask for the state, then merge by seq. The question travels behind the
//! subscription on one connection, so what is committed after its answer arrives live.

mod admission;
mod audience;
mod awareness;
mod event;
mod journal;
mod lists;
mod replay;
mod streamed;
mod typing;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parlance_bus::Subscription;
use parlance_proto::v1::{
    ConversationKind, Ephemeral, ErrorCode, Event, EventBatch, EventPage, Head, ephemeral, event as body,
};
use parlance_proto::{ConversationId, ErrorCodeExt as _};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Attached, Progress, Request, Rooms};
use crate::clock::at;
use crate::delivery::journal::OpenJournal;
use crate::delivery::presence_input::Happened;
use crate::dialect::{Outbound, Place};
use crate::error::ClientError;
use crate::session::Session;
use crate::session::following::{Following, Missed};
use admission::Admissions;
use audience::{Audience, Progressed, Stretch};
use awareness::Awareness;
use journal::Texts;
use lists::Lists;
pub(super) use replay::Replayed;
use streamed::StreamedTexts;
use typing::Typists;

/// Pause before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(250);
/// The longest of these pauses, below the time in which everything must be right again after a fault.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Pause between two reports of what users were served.
const SERVED: Duration = Duration::from_millis(100);
/// The same while clients have not got it yet.
const SERVED_LATER: Duration = Duration::from_millis(50);
/// Sessions that are reported at that pace; more are reported as much later.
const SERVED_AT_ONCE: usize = 50;
/// Events fetched at once when repairing.
const PAGE: u32 = 500;

pub(super) struct Room {
    rooms: Rooms,
    conversation: ConversationId,
    progress: Arc<Progress>,
    epoch: String,
    head_seq: u64,
    receipts_version: u64,
    /// Versions of receipts that were read back, which does not say what messages they cover. The live events
    /// that do may still come.
    read_back: Range<u64>,
    place: Place,
    /// The head that participants were counted at, or later: changes up to it are part of that count.
    counted_at: u64,
    /// Of journals.
    journal: Option<Arc<OpenJournal>>,
    /// When clients of the journal are looked after that were left behind.
    pauses_at: Option<Instant>,
    texts: Texts,
    audience: Audience,
    lists: Lists,
    typing: Typists,
    streamed: StreamedTexts,
    awareness: Awareness,
    /// What may be dropped; followed from the first session on that follows the conversation itself.
    ephemeral: Option<Subscription<Ephemeral>>,
    /// Sessions of users of whom is asked whether they are participants.
    admissions: Admissions,
    /// When what users were served is to be reported.
    report_at: Option<Instant>,
    reported_at: Option<Instant>,
}

type Queue = mpsc::UnboundedReceiver<Request>;

/// The pauses between attempts of a room to ask persistence.
fn retries() -> Backoff {
    Backoff::new(RETRY, LONGEST_RETRY)
}

impl Room {
    pub(super) fn new(rooms: Rooms, conversation: ConversationId, progress: Arc<Progress>) -> Self {
        Self {
            rooms,
            conversation,
            progress,
            epoch: String::new(),
            head_seq: 0,
            receipts_version: 0,
            read_back: 0..0,
            place: Place::unknown(conversation, 0),
            counted_at: 0,
            journal: None,
            pauses_at: None,
            texts: Texts::default(),
            audience: Audience::default(),
            lists: Lists::default(),
            typing: Typists::default(),
            streamed: StreamedTexts::default(),
            awareness: Awareness::default(),
            ephemeral: None,
            admissions: Admissions::default(),
            report_at: None,
            reported_at: None,
        }
    }

    pub(super) async fn run(mut self, mut queue: Queue) {
        // What is awaited seldom lives on its own: a room costs its size for as long as it lives.
        let failure = match Box::pin(self.start()).await {
            Ok(events) => {
                self.serve(events, &mut queue).await;
                return;
            }
            Err(failure) => failure,
        };
        // Everyone who asked meanwhile gets the same answer; who asks later opens a new room.
        loop {
            while let Ok(request) = queue.try_recv() {
                self.progress.waiting.fetch_sub(1, Ordering::Relaxed);
                if let Request::Attach { reply, .. } = request {
                    drop(reply.send(Err(failure.clone())));
                }
            }
            if self.rooms.close(self.conversation, &queue) {
                return;
            }
        }
    }

    async fn start(&mut self) -> Result<Subscription<EventBatch>, ClientError> {
        let events = self.rooms.bus.subscribe_events(self.conversation).await;
        let events = events.map_err(|error| ClientError::from_query(&error))?;
        self.load().await?;
        Ok(events)
    }

    /// Follows what may be dropped, for those who follow the conversation itself.
    async fn follow_ephemeral(&mut self) -> Result<(), ClientError> {
        if self.ephemeral.is_none() {
            let followed = self.rooms.bus.subscribe_ephemeral(self.conversation).await;
            self.ephemeral = Some(followed.map_err(|error| ClientError::from_query(&error))?);
            self.request_awareness().await;
        }
        Ok(())
    }

    async fn load(&mut self) -> Result<(), ClientError> {
        let room = self.rooms.backend.room(None, self.conversation).await?;
        self.place.kind = room.kind();
        self.place.number = room.number;
        self.place.title = room.title;
        // Of a large group there are none: its members are asked for one by one.
        self.place.participants = room.members;
        self.place.participant_count = room.member_count.max(self.place.participants.len() as u64);
        self.counted_at = room.head_seq;
        self.publish_place();
        if self.epoch.is_empty() {
            let backend = &self.rooms.backend;
            let journal = journal::open(backend, self.conversation, self.place.kind, room.head_seq);
            self.journal = journal.await?;
            self.begin_epoch(room.epoch);
            self.move_to(room.head_seq, room.receipts_version);
        }
        Ok(())
    }

    async fn serve(&mut self, mut events: Subscription<EventBatch>, queue: &mut Queue) {
        self.rooms.has_begun(self.conversation);
        let mut empty_since = None;
        loop {
            let closing = empty_since.map(|since: Instant| since + self.rooms.linger);
            tokio::select! {
                biased;
                request = queue.recv() => match request {
                    Some(request) => {
                        self.progress.waiting.fetch_sub(1, Ordering::Relaxed);
                        Box::pin(self.answer(request)).await;
                    }
                    None => return,
                },
                batch = events.next() => match batch {
                    Some(batch) => Box::pin(self.deliver(batch.events)).await,
                    None => return,
                },
                ephemeral = next(&mut self.ephemeral) => match ephemeral {
                    Some(ephemeral) => self.pass_on(&ephemeral),
                    None => return,
                },
                () = at(self.report_at) => self.report_served(),
                () = at(self.typing.next_end()) => self.end_typing(),
                () = at(self.streamed.next()) => self.show_streams(),
                () = at(self.texts.due_at()) => Box::pin(self.show_held_back()).await,
                () = at(self.pauses_at) => Box::pin(self.show_paused()).await,
                () = at(self.awareness.next()) => Box::pin(self.flush_awareness()).await,
                () = at(closing) => {
                    if self.rooms.close(self.conversation, queue) {
                        return;
                    }
                }
            }
            let is_empty = self.audience.is_empty() && self.admissions.is_empty();
            empty_since = match (is_empty, empty_since) {
                (false, _) => None,
                (true, since) => Some(since.unwrap_or_else(Instant::now)),
            };
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Attach {
                session,
                following,
                reply,
            } => {
                self.let_in(admission::Waiting {
                    session,
                    following,
                    reply,
                })
                .await;
            }
            Request::Admit {
                user,
                found,
                removals,
            } => self.admit(user, found, removals).await,
            Request::Leave(id) => {
                self.admissions.leave(id);
                let served = self.audience.leave(id, self.head_seq);
                self.report(served);
                self.end_awareness();
            }
            Request::Detach(id) => {
                self.admissions.detach(id);
                if let Some((served, tracked)) = self.audience.detach(id) {
                    self.report(served);
                    drop(tracked);
                }
                self.end_awareness();
                self.rooms.served.left();
            }
            Request::Awareness {
                session,
                states,
                reply,
            } => {
                let outcome = self.share_awareness(session, states);
                // The session is gone, and its states go with it.
                drop(reply.send(outcome));
            }
            Request::CaughtUp(id, replayed) => {
                self.report_soon(Duration::ZERO);
                if let Some(stretch) = self.audience.release(id, replayed, self.head_seq) {
                    self.start_replay(stretch);
                }
            }
            Request::Listed(state) => self.listed(*state),
            Request::Streamed(message) => self.found_stream(*message),
            Request::Check { epoch, head } => self.check(&epoch, &head).await,
        }
    }

    /// Attaches a session of a participant.
    async fn attach(&mut self, session: Arc<Session>, following: Following) -> Result<Attached, ClientError> {
        if following.joined {
            self.follow_ephemeral().await?;
        }
        let missed = following.missed.as_ref();
        if missed.is_some_and(|missed| missed.after > self.head_seq) {
            // It comes from a replica that is ahead of this one.
            self.catch_up().await;
        }
        let missed = self
            .audience
            .attach(Arc::clone(&session), following, self.head_seq);
        session.attached(self.conversation);
        self.show_awareness(&session);
        let head_seq = match missed {
            Some(missed) => self.replay(&session, missed),
            None => self.head_seq,
        };
        self.report_soon(Duration::ZERO);
        Ok(Attached {
            head_seq,
            epoch: self.epoch.clone(),
            journal: self.journal.clone(),
        })
    }

    /// Has a session told what it missed, and what happens meanwhile after that. Returns the seq after which it is
    /// told everything.
    fn replay(&mut self, session: &Session, mut missed: Missed) -> u64 {
        let other_life = !missed.epoch.is_empty() && missed.epoch != self.epoch;
        let too_far = self.head_seq.saturating_sub(missed.after) > replay::MOST_EXACT;
        if missed.exact && (other_life || missed.after > self.head_seq || too_far) {
            let void = Outbound::Resync {
                place: &self.place,
                epoch: &self.epoch,
                head_seq: self.head_seq,
            };
            if !session.dialect().encode(void).is_empty() {
                session.tell(void);
                return self.head_seq;
            }
            // Without a word for it, it is shown the latest instead.
            missed = Missed {
                own_after: self.head_seq,
                ..Missed::default()
            };
        }
        let goes_on_after = if missed.exact { missed.after } else { self.head_seq };
        let receipts = missed
            .receipts_after
            .is_some_and(|version| version < self.receipts_version);
        if (missed.after < self.head_seq || receipts)
            && let Some(stretch) = self.audience.hold(session.id, missed, self.head_seq)
        {
            self.start_replay(stretch);
        }
        goes_on_after
    }

    fn start_replay(&self, stretch: Stretch) {
        let replay = replay::Replay {
            rooms: self.rooms.clone(),
            place: self.place.clone(),
            dialect: stretch.session.dialect(),
            stretch,
            told_at: None,
        };
        tasks::spawn("replay", replay.run());
    }

    /// Reports what users were served: at once after a pause, else so much after the report before; the more sessions,
    /// the more rarely. `earliest` is how long it takes at least.
    fn report_soon(&mut self, earliest: Duration) {
        let many = u32::try_from(self.audience.len() / SERVED_AT_ONCE).unwrap_or(u32::MAX);
        let interval = SERVED.saturating_mul(many.saturating_add(1));
        let soonest = Instant::now() + earliest;
        let next = self.reported_at.map_or(soonest, |at| at + interval);
        let next = next.max(soonest);
        self.report_at = Some(self.report_at.map_or(next, |at| at.min(next)));
    }

    fn report(&self, served: impl IntoIterator<Item = Progressed>) {
        for Progressed { user, page, reached } in served {
            self.rooms.served.reached(self.conversation, user, page, reached);
        }
    }

    fn report_served(&mut self) {
        self.report_at = None;
        let (served, more) = self.audience.served();
        if !served.is_empty() {
            self.reported_at = Some(Instant::now());
        }
        self.report(served);
        if more {
            self.report_soon(SERVED_LATER);
        } else if let Some(at) = self.audience.next_report() {
            self.report_soon(at.saturating_duration_since(Instant::now().into_std()));
        }
    }

    async fn check(&mut self, epoch: &str, head: &Head) {
        if epoch != self.epoch {
            self.resync(epoch.to_owned(), head.head_seq, head.receipts_version)
                .await;
        } else if self.progress.is_behind(epoch, head) {
            tracing::info!(conversation = %self.conversation, "repairing a conversation that is behind");
            metrics::counter!("chat_gateway_repairs_total", "cause" => "check").increment(1);
            self.catch_up().await;
        }
    }

    /// Live events, ascending. What is known is dropped; a hole is fetched before going on.
    async fn deliver(&mut self, events: Vec<Event>) {
        for event in events {
            // A service with rights of its own can have a stored event sent to any subject, without having written it.
            if event.conversation_id.parse() != Ok(self.conversation) {
                tracing::error!(conversation = %self.conversation, "dropped an event of another conversation");
                continue;
            }
            if event.epoch != self.epoch {
                let (epoch, seq) = (event.epoch.clone(), event.seq);
                self.resync(epoch, seq, 0).await;
                continue;
            }
            if let Some(body::Body::ReceiptUpdated(receipt)) = &event.body {
                if receipt.version > self.receipts_version + 1
                    && !self.fetch_receipts(receipt.version - 1).await
                {
                    // Not worth holding up messages: the next comparison finds that the room is behind.
                    continue;
                }
                let _delivering = event::deliver_span(&event).entered();
                if self.read_back.contains(&receipt.version) {
                    self.complete_receipt(receipt);
                } else {
                    self.emit_receipt(receipt);
                }
                continue;
            }
            if event.seq > self.head_seq + 1 {
                metrics::counter!("chat_gateway_repairs_total", "cause" => "hole").increment(1);
                self.fetch_events(event.seq - 1).await;
            }
            let span = event::deliver_span(&event);
            self.take(&event).instrument(span).await;
        }
    }

    async fn catch_up(&mut self) {
        self.fetch_events(u64::MAX).await;
        self.fetch_receipts(u64::MAX).await;
    }

    /// Emits everything stored after the head, at least up to `target` or the stored head.
    async fn fetch_events(&mut self, target: u64) {
        let mut backoff = retries();
        while self.head_seq < target {
            let page = self
                .rooms
                .backend
                .events(None, self.conversation, self.head_seq, PAGE)
                .await;
            match page {
                Ok(page) if page.epoch != self.epoch || page.resync => {
                    self.resync(page.epoch, page.head_seq, 0).await;
                    return;
                }
                Ok(EventPage { events, complete, .. }) => {
                    for event in &events {
                        self.take(event).await;
                    }
                    if complete || events.is_empty() {
                        return;
                    }
                }
                Err(error) if error.code == ErrorCode::NotFound.name() => return,
                // Who comes later finds by the next comparison what is missing.
                Err(_) if self.audience.is_gone() || !self.rooms.backend.pause(&mut backoff).await => return,
                Err(_) => {}
            }
        }
    }

    /// Emits receipts that were missed, up to this version. False where some are missing yet.
    async fn fetch_receipts(&mut self, target: u64) -> bool {
        let known = self.receipts_version;
        let mut reached = known;
        if let Ok(receipts) = self.rooms.backend.receipts(None, self.conversation, known).await {
            reached = receipts.receipts_version;
            for receipt in receipts
                .receipts
                .iter()
                .filter(|receipt| receipt.version <= target)
            {
                self.emit_receipt(receipt);
            }
        }
        if self.receipts_version > known {
            let first = if self.read_back.is_empty() {
                known + 1
            } else {
                self.read_back.start
            };
            self.read_back = first..self.receipts_version + 1;
        }
        reached >= target
    }

    fn pass_on(&mut self, ephemeral: &Ephemeral) {
        let (outbound, origin) = match &ephemeral.body {
            Some(ephemeral::Body::Typing(typing)) => {
                self.typing.saw(typing, Instant::now());
                (Outbound::Typing(&self.place, typing), &typing.user_id)
            }
            Some(ephemeral::Body::RoomPresence(presence)) => {
                (Outbound::RoomPresence(&self.place, presence), &presence.user_id)
            }
            // Before the message itself; a later chunk has the same text.
            Some(ephemeral::Body::MessageChunk(chunk)) if chunk.seq > self.head_seq => return,
            Some(ephemeral::Body::MessageChunk(chunk)) => {
                self.audience
                    .whisper_past(Outbound::MessageChunk(&self.place, chunk), None);
                return self.stream_grows(chunk);
            }
            Some(ephemeral::Body::Awareness(awareness)) => return self.merge_awareness(awareness),
            Some(ephemeral::Body::AwarenessRequested(_)) => return self.awareness.publish_all(),
            None => return,
        };
        self.audience.whisper(outbound, origin);
    }

    /// The database was restored: what clients know by seq is void.
    async fn resync(&mut self, epoch: String, head_seq: u64, receipts_version: u64) {
        metrics::counter!("chat_gateway_resyncs_total").increment(1);
        tracing::warn!(conversation = %self.conversation, "the database has another epoch; clients read anew");
        self.begin_epoch(epoch);
        self.read_back = 0..0;
        self.streamed = StreamedTexts::default();
        self.move_to(head_seq, receipts_version);
        self.audience.resync(Outbound::Resync {
            place: &self.place,
            epoch: &self.epoch,
            head_seq,
        });
        self.readmit().await;
        self.restore_journal().await;
    }

    /// Keeps only those attached who belong to the conversation in the database as it is now.
    async fn readmit(&mut self) {
        let mut backoff = retries();
        loop {
            match self.load().await {
                Ok(()) => break,
                Err(error) if error.code == ErrorCode::NotFound.name() => {
                    self.end_memberships();
                    break;
                }
                Err(_) if !self.rooms.backend.pause(&mut backoff).await => return,
                Err(_) => {}
            }
        }
        let users = self.audience.users();
        for user in self.others_among(users.clone()).await {
            self.audience.remove_user(&self.place, user.as_str());
        }
        // Whoever is here may watch members that the restored database does not have, wherever these are connected.
        for user in users {
            self.left(user.to_string());
        }
        self.end_awareness();
    }

    /// Nobody belongs to the conversation any more.
    fn end_memberships(&mut self) {
        self.place.participants.clear();
        self.place.participant_count = 0;
        self.publish_place();
        for user in self.audience.users() {
            self.left(user.to_string());
        }
    }

    /// A user may belong to the conversation no more.
    fn left(&mut self, user: String) {
        self.admissions.removed();
        if self.place.kind == ConversationKind::Journal {
            // Those who share one are not seen for that.
            return;
        }
        let reports = &self.rooms.members.reports;
        reports.report(Happened::Left(user));
    }

    fn begin_epoch(&mut self, epoch: String) {
        self.progress.begin_epoch(&epoch);
        self.epoch = epoch;
    }

    fn move_to(&mut self, head_seq: u64, receipts_version: u64) {
        self.head_seq = head_seq;
        self.place.head_seq = head_seq;
        self.receipts_version = receipts_version;
        self.progress.head_seq.store(head_seq, Ordering::Relaxed);
        self.progress
            .receipts_version
            .store(receipts_version, Ordering::Relaxed);
    }

    fn publish_place(&self) {
        let place = Arc::new(self.place.clone());
        let before = self.progress.show(Arc::clone(&place));
        self.rooms.members.changed(before.as_deref(), Some(&place));
    }
}

/// The next of what is followed; none ever where nothing is.
async fn next(followed: &mut Option<Subscription<Ephemeral>>) -> Option<Ephemeral> {
    match followed {
        Some(followed) => followed.next().await,
        None => std::future::pending().await,
    }
}
