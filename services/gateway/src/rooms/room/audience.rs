//! The sessions attached to a room, and what each user among them has not read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parlance_bus::faults;
use parlance_proto::v1::Message;
use parlance_proto::{ConversationId, UserId};

use crate::dialect::{Frame, Outbound, Place};
use crate::rooms::frames::Frames;
use crate::rooms::{Following, Unread};
use crate::socket::session::{Session, SessionId};

/// Messages remembered, so that a count made a moment ago can be brought up to date.
const RECENT: usize = 64;

/// Whether a session follows the conversation itself.
type Joined = bool;

#[derive(Default)]
pub(super) struct Audience {
    sessions: HashMap<SessionId, (Arc<Session>, Joined)>,
    /// Of attached users, as far as it is known.
    unread: HashMap<String, Unread>,
    /// The latest messages: seq and sender.
    recent: VecDeque<(u64, String)>,
}

impl Audience {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(super) fn attach(&mut self, session: Arc<Session>, following: Following) {
        if let Some(unread) = following.unread
            && !self.unread.contains_key(session.user.as_str())
        {
            self.unread.insert(session.user.to_string(), unread);
        }
        let (_, joined) = self.sessions.entry(session.id).or_insert((session, false));
        *joined |= following.joined;
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        if let Some((_, joined)) = self.sessions.get_mut(&id) {
            *joined = false;
        }
    }

    pub(super) fn detach(&mut self, id: SessionId) {
        if let Some((gone, _)) = self.sessions.remove(&id)
            && !self
                .sessions
                .values()
                .any(|(session, _)| session.user == gone.user)
        {
            self.unread.remove(gone.user.as_str());
        }
    }

    pub(super) fn detach_all(&mut self, conversation: ConversationId) {
        for (_, (session, _)) in self.sessions.drain() {
            session.detached(conversation);
        }
        self.unread.clear();
    }

    /// Nothing that comes after this reaches the user's sessions.
    pub(super) fn remove_user(&mut self, place: &Place, user: &str) {
        self.unread.remove(user);
        self.sessions.retain(|_, (session, _)| {
            let stays = session.user.as_str() != user;
            if !stays {
                session.detached(place.id);
                session.tell(Outbound::ConversationRemoved(place));
            }
            stays
        });
    }

    /// Tells those who follow the conversation itself.
    pub(super) fn tell_joined(&self, outbound: Outbound<'_>) {
        self.tell(outbound, |_, joined| joined);
    }

    /// Tells those who follow the conversation itself and have no word for what was told before.
    pub(super) fn tell_the_untold(&self, before: Outbound<'_>, outbound: Outbound<'_>) {
        self.tell(outbound, |session, joined| {
            joined && session.dialect.encode(before).is_empty()
        });
    }

    /// Tells those who follow that what they know is void. Who has no word for it is disconnected at
    /// transport level and reads anew when it comes back.
    pub(super) fn resync(&self, outbound: Outbound<'_>) {
        let mut frames = Frames::new(outbound);
        for (session, _) in self.sessions.values().filter(|(_, joined)| *joined) {
            let frames = frames.of(session.dialect);
            if frames.is_empty() {
                session.close_transport();
            }
            for frame in frames {
                session.emit(frame);
            }
        }
    }

    /// Tells everyone attached.
    pub(super) fn tell_all(&self, outbound: Outbound<'_>) {
        self.tell(outbound, |_, _| true);
    }

    /// Tells everyone who follows, but the user it comes from, something that may be dropped.
    pub(super) fn whisper(&self, outbound: Outbound<'_>, origin: &str) {
        let mut frames = Frames::new(outbound);
        for (session, joined) in self.sessions.values() {
            if *joined && session.user.as_str() != origin {
                for frame in frames.of(session.dialect) {
                    session.emit_ephemeral(frame);
                }
            }
        }
    }

    fn tell(&self, outbound: Outbound<'_>, whom: impl Fn(&Session, Joined) -> bool) {
        let mut frames = Frames::new(outbound);
        for (session, joined) in self.sessions.values() {
            if whom(session, *joined) {
                for frame in frames.of(session.dialect) {
                    session.emit(frame);
                }
            }
        }
    }

    /// Tells everyone's list of the latest message; sessions of equal needs share the encoding.
    pub(super) fn update_lists(&self, place: &Place, last: &Message) {
        let mut made: HashMap<(&'static str, u64, Joined), Vec<Frame>> = HashMap::new();
        for (session, joined) in self.sessions.values() {
            let unread = self
                .unread
                .get(session.user.as_str())
                .map_or(0, |unread| unread.count);
            let frames = made
                .entry((session.dialect.name(), unread, *joined))
                .or_insert_with(|| {
                    session.dialect.encode(Outbound::ListUpdated {
                        place,
                        last,
                        unread,
                        joined: *joined,
                    })
                });
            for frame in frames.iter() {
                session.emit(frame);
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
        for (session, _) in self.sessions.values() {
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
