//! The sessions attached to a room, and what each user among them has not read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parlance_bus::faults;
use parlance_proto::v1::Message;
use parlance_proto::{ConversationId, UserId};

use crate::dialect::{Frame, Outbound, Place};
use crate::rooms::frames::Frames;
use crate::rooms::{Following, Unread};
use crate::socket::session::{Session, SessionId};

/// Bytes that may wait for a session in one room while it is told what it missed; it comes back and is told all
/// in one if there are more.
const MAX_WAITING: usize = 1 << 20;
/// Messages remembered, so that a count made a moment ago can be brought up to date.
const RECENT: usize = 64;

/// Whether a session follows the conversation itself.
type Joined = bool;

/// A session that is told.
struct Listener {
    session: Arc<Session>,
    joined: Joined,
    /// The head when it was attached.
    present_from: u64,
    /// While it is told what it missed: what comes after that.
    waiting: Option<Waiting>,
}

#[derive(Default)]
struct Waiting {
    hold: u64,
    frames: Vec<Frame>,
    bytes: usize,
}

#[derive(Default)]
pub(super) struct Audience {
    /// Sessions that were held so far.
    holds: u64,
    sessions: HashMap<SessionId, Listener>,
    /// Of attached users, as far as it is known.
    unread: HashMap<String, Unread>,
    /// The latest messages: seq and sender.
    recent: VecDeque<(u64, String)>,
}

impl Audience {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Returns the head when the session was attached first.
    pub(super) fn attach(&mut self, session: Arc<Session>, following: Following, head_seq: u64) -> u64 {
        if let Some(unread) = following.unread
            && !self.unread.contains_key(session.user.as_str())
        {
            self.unread.insert(session.user.to_string(), unread);
        }
        let listener = self.sessions.entry(session.id).or_insert(Listener {
            session,
            joined: false,
            present_from: head_seq,
            waiting: None,
        });
        listener.joined |= following.joined;
        listener.present_from
    }

    /// Keeps back what the session would be told, until it is released with the number returned. `None` where
    /// that is so already.
    pub(super) fn hold(&mut self, id: SessionId) -> Option<u64> {
        let listener = self.sessions.get_mut(&id)?;
        if listener.waiting.is_some() {
            return None;
        }
        self.holds += 1;
        listener.waiting = Some(Waiting {
            hold: self.holds,
            ..Waiting::default()
        });
        Some(self.holds)
    }

    /// Tells the session what was kept back, and everything else from now on.
    pub(super) fn release(&mut self, id: SessionId, hold: u64) {
        let listener = self.sessions.get_mut(&id);
        let held = |listener: &&mut Listener| {
            listener
                .waiting
                .as_ref()
                .is_some_and(|waiting| waiting.hold == hold)
        };
        if let Some(listener) = listener.filter(held) {
            listener.release();
        }
    }

    /// Whoever has a session here.
    pub(super) fn users(&self) -> HashSet<UserId> {
        let sessions = self.sessions.values();
        sessions.map(|listener| listener.session.user.clone()).collect()
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        if let Some(listener) = self.sessions.get_mut(&id) {
            listener.joined = false;
        }
    }

    pub(super) fn detach(&mut self, id: SessionId) {
        if let Some(Listener { session: gone, .. }) = self.sessions.remove(&id)
            && !self
                .sessions
                .values()
                .any(|listener| listener.session.user == gone.user)
        {
            self.unread.remove(gone.user.as_str());
        }
    }

    pub(super) fn detach_all(&mut self, conversation: ConversationId) {
        for (_, mut listener) in self.sessions.drain() {
            listener.release();
            listener.session.detached(conversation);
        }
        self.unread.clear();
    }

    /// Nothing that comes after this reaches the user's sessions.
    pub(super) fn remove_user(&mut self, place: &Place, user: &str) {
        self.unread.remove(user);
        self.sessions.retain(|_, listener| {
            let stays = listener.session.user.as_str() != user;
            if !stays {
                listener.release();
                listener.session.detached(place.id);
                listener.session.tell(Outbound::ConversationRemoved(place));
            }
            stays
        });
    }

    /// Tells those who follow the conversation itself.
    pub(super) fn tell_joined(&mut self, outbound: Outbound<'_>) {
        self.tell(outbound, |_, joined| joined);
    }

    /// Those who follow the conversation itself were told of an event that was committed then.
    pub(super) fn shown(&self, at_ms: i64) {
        for listener in self.sessions.values() {
            if listener.joined && listener.waiting.is_none() {
                listener.session.shown(at_ms);
            }
        }
    }

    /// Tells those who follow the conversation itself and have no word for what was told before.
    pub(super) fn tell_the_untold(&mut self, before: Outbound<'_>, outbound: Outbound<'_>) {
        self.tell(outbound, |session, joined| {
            joined && session.dialect().encode(before).is_empty()
        });
    }

    /// Tells those who follow that what they know is void. Who has no word for it is disconnected at
    /// transport level and reads anew when it comes back.
    pub(super) fn resync(&self, outbound: Outbound<'_>) {
        let mut frames = Frames::new(outbound);
        for Listener { session, .. } in self.sessions.values().filter(|listener| listener.joined) {
            let frames = frames.of(session.dialect());
            if frames.is_empty() {
                session.close_transport();
            }
            for frame in frames {
                session.emit(frame);
            }
        }
    }

    /// Tells everyone attached.
    pub(super) fn tell_all(&mut self, outbound: Outbound<'_>) {
        self.tell(outbound, |_, _| true);
    }

    /// Tells everyone who follows, but the user it comes from, something that may be dropped.
    pub(super) fn whisper(&self, outbound: Outbound<'_>, origin: &str) {
        let mut frames = Frames::new(outbound);
        for listener in self.sessions.values() {
            if listener.joined && listener.waiting.is_none() && listener.session.user.as_str() != origin {
                for frame in frames.of(listener.session.dialect()) {
                    listener.session.emit_ephemeral(frame);
                }
            }
        }
    }

    fn tell(&mut self, outbound: Outbound<'_>, whom: impl Fn(&Session, Joined) -> bool) {
        let mut frames = Frames::new(outbound);
        for listener in self.sessions.values_mut() {
            if whom(&listener.session, listener.joined) {
                for frame in frames.of(listener.session.dialect()) {
                    listener.emit(frame);
                }
            }
        }
    }

    /// Tells everyone's list of the latest message; sessions of equal needs share the encoding.
    pub(super) fn update_lists(&mut self, place: &Place, last: &Message) {
        let mut made: HashMap<(&'static str, u64, Joined), Vec<Frame>> = HashMap::new();
        for listener in self.sessions.values_mut() {
            let Listener { session, joined, .. } = listener;
            let joined = *joined;
            let unread = self
                .unread
                .get(session.user.as_str())
                .map_or(0, |unread| unread.count);
            let frames = made
                .entry((session.dialect().name(), unread, joined))
                .or_insert_with(|| {
                    session.dialect().encode(Outbound::ListUpdated {
                        place,
                        last,
                        unread,
                        joined,
                    })
                });
            for frame in frames.iter() {
                listener.emit(frame);
            }
        }
    }

    /// Counts a message for everyone but its sender, unless it was counted already.
    pub(super) fn count_unread(&mut self, sender: &str, seq: u64) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, sender.to_owned()));
        for (user, unread) in &mut self.unread {
            if unread.head_seq < seq || faults::happens("unread_by_repeats") {
                unread.head_seq = seq;
                unread.count += u64::from(user != sender);
            }
        }
    }

    /// Takes over a count made elsewhere, and adds what came after it. One that is older than what is
    /// remembered is left: the next one is not.
    pub(super) fn set_unread(&mut self, user: &str, counted: Unread) {
        let Some(known) = self.unread.get_mut(user) else {
            return;
        };
        let missed = self.recent.len() == RECENT
            && self
                .recent
                .front()
                .is_some_and(|(oldest, _)| *oldest > counted.head_seq + 1);
        if missed {
            return;
        }
        let later = self
            .recent
            .iter()
            .filter(|(seq, sender)| *seq > counted.head_seq && sender != user);
        known.count = counted.count + later.count() as u64;
        known.head_seq = known.head_seq.max(counted.head_seq);
    }

    /// Attached users who have something unread, with the names they go by.
    pub(super) fn with_unread(&self) -> Vec<(UserId, String)> {
        let mut users: Vec<(UserId, String)> = Vec::new();
        for Listener { session, .. } in self.sessions.values() {
            let some = self
                .unread
                .get(session.user.as_str())
                .is_some_and(|unread| unread.count > 0);
            if some && !users.iter().any(|(user, _)| *user == session.user) {
                users.push((session.user.clone(), session.username.clone()));
            }
        }
        users
    }
}

impl Listener {
    fn emit(&mut self, frame: &Frame) {
        let Some(waiting) = &mut self.waiting else {
            self.session.emit(frame);
            return;
        };
        waiting.bytes += frame.payload.get().len();
        if waiting.bytes > MAX_WAITING {
            self.session.close_transport();
        } else {
            waiting.frames.push(frame.clone());
        }
    }

    fn release(&mut self) {
        for frame in self.waiting.take().unwrap_or_default().frames {
            self.session.emit(&frame);
        }
    }
}
