//! Tells one session what it missed of a conversation, in order, in pages, as fast as it reads.
//!
//! Runs beside the room, which goes on for everyone else and keeps back what is for this session until all is
//! told. Must not tell anything beyond the seq it was given: that comes live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::{ErrorCode, Event, event};

use super::audience::Stretch;
use super::event::told;
use super::{Rooms, retries};
use crate::backend::actor;
use crate::dialect::{Dialect, Outbound, Place};

/// Events behind which a client that knows its position does better to read anew.
pub(super) const MOST_EXACT: u64 = 10_000;
/// Events told of what was never marked as delivered; older ones are for the history to show.
const MOST_UNDELIVERED: u64 = 1_000;
/// Events told before the session is looked at again.
const PACE: usize = 64;
/// Pause before looking again whether the session has read.
const BREATH: Duration = Duration::from_millis(20);

/// A replay has ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery::rooms) struct Replayed {
    /// What held the session back meanwhile.
    pub hold: u64,
    /// When the last of it began to be emitted.
    pub told_at: Option<Instant>,
    /// Where it was cut short, because its session is gone.
    pub cut_at: Option<u64>,
}

/// One session's way to the present.
pub(super) struct Replay {
    pub rooms: Rooms,
    /// The conversation as of the last event to be told.
    pub place: Place,
    /// What the session speaks. Should it learn another, that one is told from the beginning.
    pub dialect: &'static dyn Dialect,
    pub stretch: Stretch,
    /// When the latest of it began to be told.
    pub told_at: Option<Instant>,
}

impl Replay {
    pub(super) async fn run(mut self) {
        // One conversation after the other, or many together would be too much for a slow client.
        let session = Arc::clone(&self.stretch.session);
        let turn = session.replays.acquire().await;
        if !self.stretch.missed.exact {
            let oldest = self.stretch.through.saturating_sub(MOST_UNDELIVERED);
            self.stretch.missed.after = self.stretch.missed.after.max(oldest);
        }
        self.events().await;
        self.receipts().await;
        drop(turn);
        let is_cut = self.stretch.missed.after < self.stretch.through && !self.is_wanted();
        let replayed = Replayed {
            hold: self.stretch.hold,
            told_at: self.told_at,
            cut_at: is_cut.then_some(self.stretch.missed.after),
        };
        self.rooms
            .caught_up(self.place.id, self.stretch.session.id, replayed);
    }

    async fn events(&mut self) {
        let mut backoff = retries();
        while self.stretch.missed.after < self.stretch.through && self.is_wanted() {
            let user = &self.stretch.session.user;
            let backend = &self.rooms.backend;
            let missed = match backend
                .missed_events(user, self.place.id, self.stretch.missed.after)
                .await
            {
                Ok(missed) => missed,
                Err(error) if error.code == ErrorCode::NotFound.name() => return,
                Err(_) if self.rooms.backend.pause(&mut backoff).await => continue,
                Err(_) => return,
            };
            if let Some((epoch, head_seq)) = missed.resync() {
                self.emit(Outbound::Resync {
                    place: &self.place,
                    epoch,
                    head_seq,
                });
                return;
            }
            let reached = self.stretch.missed.after;
            for (emitted, event) in missed.events().enumerate() {
                if emitted % PACE == 0 {
                    if emitted > 0 {
                        self.breathe().await;
                    }
                    if !self.is_wanted() {
                        return;
                    }
                    self.told_at = Some(Instant::now());
                }
                self.place.head_seq = event.seq;
                if self.matters(&event)
                    && let Some(outbound) = told(&self.place, &event)
                {
                    self.emit(outbound);
                    self.stretch.session.shown(event.at_ms);
                }
                self.stretch.missed.after = event.seq;
            }
            if self.stretch.missed.after == reached {
                return;
            }
            self.breathe().await;
        }
    }

    async fn receipts(&self) {
        let Some(after) = self.stretch.missed.receipts_after.filter(|_| self.is_wanted()) else {
            return;
        };
        let me = actor(&self.stretch.session.user, &self.stretch.session.username);
        // Without an answer the next one that is told carries the whole state.
        if let Ok(receipts) = self.rooms.backend.receipts(Some(me), self.place.id, after).await {
            for receipt in &receipts.receipts {
                self.emit(Outbound::Receipt(&self.place, receipt));
            }
        }
    }

    /// Whether the event still makes a difference to this client.
    fn matters(&self, event: &Event) -> bool {
        if event.seq > self.stretch.through {
            return false;
        }
        match &event.body {
            Some(event::Body::MessageCreated(body)) if !self.stretch.missed.exact => {
                body.message.as_ref().is_some_and(|message| {
                    let sender = message.sender.as_ref().map_or("", |sender| &sender.id);
                    let is_new = event.seq > self.stretch.missed.own_after
                        || sender != self.stretch.session.user.as_str();
                    is_new && message.deleted_at_ms.is_none()
                })
            }
            // Where streams are not shown it is a new message.
            Some(event::Body::MessageFinished(body)) if !self.stretch.missed.exact => {
                let message = body.message.as_ref();
                message.is_some_and(|message| message.deleted_at_ms.is_none())
            }
            _ => true,
        }
    }

    fn emit(&self, outbound: Outbound<'_>) {
        let echo = match outbound {
            Outbound::MessageCreated(place, message) => self.stretch.session.echo(place, message),
            _ => None,
        };
        for frame in echo.unwrap_or_else(|| self.dialect.frames(outbound)) {
            self.stretch.session.emit(&frame);
        }
    }

    fn is_wanted(&self) -> bool {
        let session = &self.stretch.session;
        !session.closed.is_cancelled()
            && session.is_attached(self.place.id)
            && session.dialect().name() == self.dialect.name()
    }

    /// Waits until the client has read most of what it was told.
    async fn breathe(&self) {
        tokio::task::yield_now().await;
        if self.stretch.session.wire().is_none() {
            // Polling: how much it has read is not known.
            tokio::time::sleep(BREATH).await;
        }
        while self.stretch.session.is_behind() && self.is_wanted() {
            tokio::time::sleep(BREATH).await;
        }
    }
}
