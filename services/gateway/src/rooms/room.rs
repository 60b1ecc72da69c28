//! One followed conversation: brings every committed event to the attached sessions, in order and without
//! a hole, whatever the bus loses.
//!
//! Start: subscribe, then ask for the state, then merge by seq. The question travels behind the
//! subscription on one connection, so what is committed after its answer arrives live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parlance_bus::Subscription;
use parlance_proto::v1::{
    Ephemeral, ErrorCode, Event, EventBatch, EventPage, Head, Message, ReceiptUpdated, ephemeral, event,
};
use parlance_proto::{ConversationId, ErrorCodeExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::frames::Frames;
use super::{Attached, Progress, Request, Rooms};
use crate::dialect::Outbound;
use crate::error::ClientError;
use crate::socket::session::{Session, SessionId};

/// Pause before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(250);
/// Interest spreads between the servers of a NATS cluster with delay, so a young room looks once more.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Events fetched at once when repairing.
const PAGE: u32 = 500;

pub(super) struct Room {
    rooms: Rooms,
    conversation: ConversationId,
    progress: Arc<Progress>,
    epoch: String,
    head_seq: u64,
    receipts_version: u64,
    members: HashSet<String>,
    attached: HashMap<SessionId, (Arc<Session>, Joined)>,
}

type Joined = bool;
type Queue = mpsc::UnboundedReceiver<Request>;

/// The live subjects of the conversation.
struct Live {
    events: Subscription<EventBatch>,
    ephemeral: Subscription<Ephemeral>,
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
            members: HashSet::new(),
            attached: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut queue: Queue) {
        let failure = match self.start().await {
            Ok(live) => {
                self.serve(live, &mut queue).await;
                return;
            }
            Err(failure) => failure,
        };
        // Everyone who asked meanwhile gets the same answer; who asks later opens a new room.
        loop {
            while let Ok(request) = queue.try_recv() {
                if let Request::Attach { reply, .. } = request {
                    drop(reply.send(Err(failure.clone())));
                }
            }
            if self.rooms.close(self.conversation, &queue) {
                return;
            }
        }
    }

    async fn start(&mut self) -> Result<Live, ClientError> {
        let bus = &self.rooms.bus;
        let away = |error: parlance_bus::Error| ClientError::from_query(&error);
        let live = Live {
            events: bus.subscribe_events(self.conversation).await.map_err(away)?,
            ephemeral: bus.subscribe_ephemeral(self.conversation).await.map_err(away)?,
        };
        self.load().await?;
        Ok(live)
    }

    async fn load(&mut self) -> Result<(), ClientError> {
        let room = self.rooms.backend.room(None, self.conversation).await?;
        self.members = room.members.into_iter().map(|member| member.user_id).collect();
        if self.epoch.is_empty() {
            self.epoch = room.epoch;
            self.move_to(room.head_seq, room.receipts_version);
        }
        Ok(())
    }

    async fn serve(&mut self, mut live: Live, queue: &mut Queue) {
        let second_look = tokio::time::sleep(SECOND_LOOK);
        tokio::pin!(second_look);
        let mut looked = false;
        let mut empty_since = None;
        loop {
            let closing = empty_since.map(|since: Instant| since + self.rooms.linger);
            tokio::select! {
                biased;
                request = queue.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => return,
                },
                batch = live.events.next() => match batch {
                    Some(batch) => self.deliver(batch.events).await,
                    None => return,
                },
                ephemeral = live.ephemeral.next() => match ephemeral {
                    Some(ephemeral) => self.pass_on(&ephemeral),
                    None => return,
                },
                () = &mut second_look, if !looked => {
                    looked = true;
                    self.catch_up().await;
                }
                () = at(closing) => {
                    if self.rooms.close(self.conversation, queue) {
                        return;
                    }
                }
            }
            empty_since = match (self.attached.is_empty(), empty_since) {
                (false, _) => None,
                (true, since) => Some(since.unwrap_or_else(Instant::now)),
            };
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Attach {
                session,
                joined,
                reply,
            } => {
                let outcome = self.attach(session, joined).await;
                // Whoever asked has gone; the session detaches by itself.
                drop(reply.send(outcome));
            }
            Request::Leave(id) => {
                if let Some((_, joined)) = self.attached.get_mut(&id) {
                    *joined = false;
                }
            }
            Request::Detach(id) => {
                self.attached.remove(&id);
            }
            Request::Check { epoch, head } => self.check(&epoch, &head).await,
        }
    }

    async fn attach(&mut self, session: Arc<Session>, joined: Joined) -> Result<Attached, ClientError> {
        if !self.members.contains(session.user.as_str()) {
            // Perhaps a member since we looked.
            self.load().await?;
            if !self.members.contains(session.user.as_str()) {
                return Err(ClientError::no_conversation());
            }
        }
        let (_, already) = self.attached.entry(session.id).or_insert((session, false));
        *already |= joined;
        Ok(Attached {
            head_seq: self.head_seq,
            epoch: self.epoch.clone(),
        })
    }

    async fn check(&mut self, epoch: &str, head: &Head) {
        if epoch != self.epoch {
            self.resync(epoch.to_owned(), head.head_seq, head.receipts_version);
        } else if self.progress.is_behind(head) {
            tracing::info!(conversation = %self.conversation, "repairing a conversation that is behind");
            metrics::counter!("chat_gateway_repairs_total", "cause" => "check").increment(1);
            self.catch_up().await;
        }
    }

    /// Live events, ascending. What is known is dropped; a hole is fetched before going on.
    async fn deliver(&mut self, events: Vec<Event>) {
        for event in events {
            if event.epoch != self.epoch {
                let (epoch, seq) = (event.epoch.clone(), event.seq);
                self.resync(epoch, seq, 0);
                continue;
            }
            if let Some(event::Body::ReceiptUpdated(receipt)) = &event.body {
                if receipt.version > self.receipts_version + 1 {
                    self.fetch_receipts().await;
                }
                self.emit_receipt(receipt);
                continue;
            }
            if event.seq > self.head_seq + 1 {
                metrics::counter!("chat_gateway_repairs_total", "cause" => "hole").increment(1);
                self.fetch_events(event.seq - 1).await;
            }
            self.emit(&event);
        }
    }

    async fn catch_up(&mut self) {
        self.fetch_events(u64::MAX).await;
        self.fetch_receipts().await;
    }

    /// Emits everything stored after the head, at least up to `target` or the stored head.
    async fn fetch_events(&mut self, target: u64) {
        while self.head_seq < target {
            let page = self
                .rooms
                .backend
                .events(None, self.conversation, self.head_seq, PAGE)
                .await;
            match page {
                Ok(page) if page.epoch != self.epoch || page.resync => {
                    self.resync(page.epoch, page.head_seq, 0);
                    return;
                }
                Ok(EventPage { events, complete, .. }) => {
                    for event in &events {
                        self.emit(event);
                    }
                    if complete || events.is_empty() {
                        return;
                    }
                }
                Err(error) if error.code == ErrorCode::NotFound.name() => return,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn fetch_receipts(&mut self) {
        let known = self.receipts_version;
        // Not worth holding up messages: the next check asks again.
        if let Ok(receipts) = self.rooms.backend.receipts(None, self.conversation, known).await {
            for receipt in &receipts.receipts {
                self.emit_receipt(receipt);
            }
        }
    }

    fn emit(&mut self, event: &Event) {
        if event.seq != self.head_seq + 1 {
            return;
        }
        self.move_to(event.seq, self.receipts_version);
        match &event.body {
            Some(event::Body::MessageCreated(body)) => {
                if let Some(message) = &body.message {
                    self.emit_created(message);
                }
            }
            Some(event::Body::MessageEdited(body)) => {
                if let Some(message) = &body.message {
                    self.emit_to_joined(Outbound::MessageEdited(message));
                }
            }
            Some(event::Body::MessageDeleted(body)) => {
                if let Some(message) = &body.message {
                    self.emit_to_joined(Outbound::MessageDeleted(message));
                }
            }
            // A kind this version does not know keeps its place in the sequence.
            Some(event::Body::ReceiptUpdated(_)) | None => {}
        }
    }

    fn emit_created(&self, message: &Message) {
        let mut created = Frames::new(Outbound::MessageCreated(message));
        let mut updated = Frames::new(Outbound::ConversationUpdated(message));
        for (session, joined) in self.attached.values() {
            let frames = if *joined { &mut created } else { &mut updated };
            if let Some(frame) = frames.of(session.dialect) {
                session.emit(frame);
            }
        }
        let age = crate::commands::now().timestamp_millis() - message.created_at_ms;
        metrics::histogram!("chat_message_delivery_seconds")
            .record(Duration::from_millis(u64::try_from(age).unwrap_or_default()));
    }

    fn emit_receipt(&mut self, receipt: &ReceiptUpdated) {
        if receipt.version > self.receipts_version {
            self.move_to(self.head_seq, receipt.version);
            self.emit_to_joined(Outbound::Receipt(self.conversation, receipt));
        }
    }

    fn emit_to_joined(&self, outbound: Outbound<'_>) {
        let mut frames = Frames::new(outbound);
        for (session, _) in self.attached.values().filter(|(_, joined)| *joined) {
            if let Some(frame) = frames.of(session.dialect) {
                session.emit(frame);
            }
        }
    }

    fn pass_on(&self, ephemeral: &Ephemeral) {
        let Some(ephemeral::Body::Typing(typing)) = &ephemeral.body else {
            return;
        };
        let mut frames = Frames::new(Outbound::Typing(self.conversation, typing));
        let others = |session: &Session| session.user.as_str() != typing.user_id;
        for (session, joined) in self.attached.values() {
            if *joined
                && others(session)
                && let Some(frame) = frames.of(session.dialect)
            {
                session.emit_ephemeral(frame);
            }
        }
    }

    /// The database was restored: what clients know by seq is void.
    fn resync(&mut self, epoch: String, head_seq: u64, receipts_version: u64) {
        metrics::counter!("chat_gateway_resyncs_total").increment(1);
        tracing::warn!(conversation = %self.conversation, "the database has another epoch; clients read anew");
        self.epoch = epoch;
        self.move_to(head_seq, receipts_version);
        self.emit_to_joined(Outbound::Resync {
            conversation: self.conversation,
            epoch: &self.epoch,
            head_seq,
        });
    }

    fn move_to(&mut self, head_seq: u64, receipts_version: u64) {
        self.head_seq = head_seq;
        self.receipts_version = receipts_version;
        self.progress.head_seq.store(head_seq, Ordering::Relaxed);
        self.progress
            .receipts_version
            .store(receipts_version, Ordering::Relaxed);
    }
}

/// Completes at that time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
