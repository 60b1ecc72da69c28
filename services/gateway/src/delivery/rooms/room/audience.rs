//! The sessions attached to a room, and what each user among them has not read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parlance_proto::v1::{JournalEdited, Message};
use parlance_proto::{ConversationId, UserId};

use super::replay::Replayed;
use crate::clock::now;
use crate::delivery::rooms::frames::Frames;
use crate::delivery::served::Reached;
use crate::dialect::{Backlog, Frame, Outbound, Place, Streams};
use crate::session::following::{Following, Missed, Unread};
use crate::session::page::Page;
use crate::session::{Received, Session, SessionId};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Bytes that may wait for a session in one room while it is told what it missed; it comes back and is told all
/// in one if there are more.
const MAX_WAITING: usize = 1 << 20;
/// Emissions remembered, to know what a polling client has got.
const EMISSIONS: usize = 256;
/// How long a session that joined nothing by hand must stay until it is reported though nothing was emitted to it: users
/// with many conversations connect often, and come back seldom as the same page.
const STAYS: Duration = Duration::from_secs(10);
/// Messages remembered, so that a count made a moment ago can be brought up to date.
const RECENT: usize = 64;

/// Whether a session follows the conversation itself.
type Joined = bool;

/// A session that is told.
struct Listener {
    session: Arc<Session>,
    joined: Joined,
    /// Whether its client keeps the document of a journal itself.
    takes_updates: bool,
    /// Whether the newest version of the journal is yet to be emitted to it, as a whole text.
    is_owed: bool,
    /// The seq after which it goes on: up to there its client has got everything, or will from the replay under
    /// way. `None` where it has begun nothing here yet.
    position: Option<u64>,
    /// The seq up to which its page is known to be served; `None` where nothing is known of it.
    reported: Option<u64>,
    /// When it was attached like this.
    joined_at_ms: i64,
    /// When that is reported, if nothing was emitted to it until then.
    reports_at: Option<Instant>,
    /// When a replay to it ended.
    replayed_at: Option<Instant>,
    /// While it is told what it missed: what comes after that.
    waiting: Option<Waiting>,
    /// The room knows of the session.
    tracked: TaskTrackerToken,
}

/// A page that got further than is known elsewhere.
pub(super) struct Progressed {
    pub user: UserId,
    pub page: Page,
    pub reached: Reached,
}

/// Events to be replayed to a session.
pub(super) struct Stretch {
    pub session: Arc<Session>,
    /// From where on.
    pub missed: Missed,
    /// The last seq.
    pub through: u64,
    /// What releases the session when they are.
    pub hold: u64,
}

#[derive(Default)]
struct Waiting {
    hold: u64,
    /// What is to be replayed after that, up to which seq.
    next: Option<(Missed, u64)>,
    frames: Vec<Frame>,
    bytes: usize,
}

#[derive(Default)]
pub(super) struct Audience {
    /// Sessions that were held so far.
    holds: u64,
    sessions: HashMap<SessionId, Listener>,
    /// How many sessions each attached user has here.
    users: HashMap<UserId, usize>,
    /// Of attached users, as far as it is known.
    unread: HashMap<String, Unread>,
    /// The latest messages: seq and sender.
    recent: VecDeque<(u64, String)>,
    emissions: Emissions,
}

/// When the latest events began to be emitted, with their seqs.
#[derive(Default)]
struct Emissions(VecDeque<(Instant, u64)>);

impl Audience {
    /// Whether every session that is attached has ended.
    pub(super) fn is_gone(&self) -> bool {
        let mut listeners = self.sessions.values();
        listeners.all(|listener| listener.session.closed.is_cancelled())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Attaches a session at this head. Returns what must be replayed to it, from where its client ends.
    pub(super) fn attach(
        &mut self,
        session: Arc<Session>,
        following: Following,
        head_seq: u64,
    ) -> Option<Missed> {
        if let Some(unread) = following.unread
            && !self.unread.contains_key(session.user.as_str())
        {
            self.unread.insert(session.user.to_string(), unread);
        }
        let listener = self.sessions.entry(session.id).or_insert_with(|| {
            *self.users.entry(session.user.clone()).or_default() += 1;
            Listener {
                tracked: session.track_room(),
                session,
                joined: false,
                takes_updates: false,
                is_owed: false,
                position: None,
                reported: None,
                joined_at_ms: 0,
                reports_at: None,
                replayed_at: None,
                waiting: None,
            }
        });
        listener.attach(&following, head_seq)
    }

    /// Keeps back what the session would be told until it was replayed what is returned; where a replay is under
    /// way, this one comes after it.
    pub(super) fn hold(&mut self, id: SessionId, missed: Missed, through: u64) -> Option<Stretch> {
        let listener = self.sessions.get_mut(&id)?;
        if let Some(waiting) = &mut listener.waiting {
            waiting.next = Some((missed, through));
            return None;
        }
        self.holds += 1;
        listener.waiting = Some(Waiting {
            hold: self.holds,
            ..Waiting::default()
        });
        Some(Stretch {
            session: Arc::clone(&listener.session),
            missed,
            through,
            hold: self.holds,
        })
    }

    /// Tells the session what was kept back, and everything else from now on; unless there is more to replay, which
    /// is returned.
    pub(super) fn release(&mut self, id: SessionId, replayed: Replayed, head_seq: u64) -> Option<Stretch> {
        let listener = self.sessions.get_mut(&id)?;
        let waiting = listener
            .waiting
            .as_mut()
            .filter(|waiting| waiting.hold == replayed.hold)?;
        if let Some(cut_at) = replayed.cut_at {
            // Its session is gone, and got no further.
            listener.replayed_at = replayed.told_at;
            listener.position = Some(cut_at);
            listener.joined = false;
            listener.waiting = None;
            return None;
        }
        let Some((missed, through)) = waiting.next.take() else {
            // Before it is emitted: a poll may be answered with it at once.
            listener.replayed_at = if waiting.frames.is_empty() {
                replayed.told_at
            } else {
                Some(Instant::now())
            };
            listener.reports_at = None;
            listener.release();
            listener.emitted(head_seq);
            return None;
        };
        self.holds += 1;
        waiting.hold = self.holds;
        Some(Stretch {
            session: Arc::clone(&listener.session),
            missed,
            through,
            hold: self.holds,
        })
    }

    /// Whoever has a session here.
    pub(super) fn users(&self) -> HashSet<UserId> {
        self.users.keys().cloned().collect()
    }

    /// Whether a session of the user is attached.
    pub(super) fn has(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    /// The session follows only the conversation's place in a list any more. Clients that only append go on from
    /// here when they join again; others ask for what they want.
    /// Returns what it got and is not reported.
    pub(super) fn leave(&mut self, id: SessionId, head_seq: u64) -> Option<Progressed> {
        let listener = self.sessions.get_mut(&id).filter(|listener| listener.joined)?;
        let served = listener.served(&self.emissions);
        listener.joined = false;
        listener.is_owed = false;
        let appends = listener.session.dialect().backlog() == Backlog::AtJoin;
        listener.position = appends.then_some(head_seq);
        served
    }

    /// The session has ended. Returns what it got and is not reported, and what is to be dropped once it is.
    pub(super) fn detach(&mut self, id: SessionId) -> Option<(Option<Progressed>, TaskTrackerToken)> {
        let mut gone = self.sessions.remove(&id)?;
        let user = &gone.session.user;
        if let Some(sessions) = self.users.get_mut(user) {
            *sessions -= 1;
            if *sessions == 0 {
                self.users.remove(user);
                self.unread.remove(user.as_str());
            }
        }
        Some((gone.served(&self.emissions), gone.tracked))
    }

    /// What pages got and is not reported; and whether there is more that they may not have got yet.
    pub(super) fn served(&mut self) -> (Vec<Progressed>, bool) {
        let mut served = Vec::new();
        let mut more = false;
        for listener in self.sessions.values_mut().filter(|listener| listener.is_ahead()) {
            served.extend(listener.served(&self.emissions));
            more |= listener.is_ahead() && !listener.session.is_cut();
        }
        (served, more)
    }

    /// When the next session is reported to which nothing was emitted; one that could be already waits for something else.
    pub(super) fn next_report(&self) -> Option<Instant> {
        let now = Instant::now();
        let silent = self
            .sessions
            .values()
            .filter(|listener| listener.reported.is_none());
        silent
            .filter_map(|listener| listener.reports_at.filter(|at| *at > now))
            .min()
    }

    /// How many sessions are attached.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn detach_all(&mut self, conversation: ConversationId) {
        for (_, mut listener) in self.sessions.drain() {
            listener.release();
            listener.session.detached(conversation);
        }
        self.users.clear();
        self.unread.clear();
    }

    /// Nothing that comes after this reaches the user's sessions.
    pub(super) fn remove_user(&mut self, place: &Place, user: &str) {
        self.unread.remove(user);
        self.users.retain(|other, _| other.as_str() != user);
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

    /// Those who follow the conversation itself were emitted the event of this seq, which was committed at that time;
    /// `begun_at` is when the first of them began to be.
    pub(super) fn emitted(&mut self, seq: u64, at_ms: i64, begun_at: Instant) {
        self.emissions.push(begun_at, seq);
        for listener in self.sessions.values_mut() {
            if listener.joined && listener.waiting.is_none() {
                listener.session.shown(at_ms);
                listener.emitted(seq);
            }
        }
    }

    /// Emits a message to those who follow the conversation itself. The client that sent it gets its own name for the
    /// message with it, or nothing where its dialect acknowledges with the message instead.
    pub(super) fn emit_created(&mut self, place: &Place, message: &Message) {
        let mut frames = Frames::new(Outbound::MessageCreated(place, message));
        for listener in self.sessions.values_mut().filter(|listener| listener.joined) {
            let echo = listener.session.echo(place, message);
            let frames = match &echo {
                Some(echo) => echo,
                None => frames.of(listener.session.dialect()),
            };
            for frame in frames {
                listener.emit(frame);
            }
        }
    }

    /// Emits a version of a journal to those of its followers that receive it. Without its text, it is for those only
    /// that keep the document themselves.
    pub(super) fn emit_version(
        &mut self,
        edited: &JournalEdited,
        content: Option<&str>,
        receives: impl Fn(SessionId) -> bool,
    ) {
        let mut whole = Frames::new(Outbound::JournalEdited(edited, content));
        let mut updates = Frames::new(Outbound::JournalEdited(edited, None));
        for (id, listener) in &mut self.sessions {
            if !listener.joined || !receives(*id) {
                continue;
            }
            let frames = match (listener.takes_updates, content) {
                (true, _) => &mut updates,
                (false, Some(_)) => &mut whole,
                (false, None) => continue,
            };
            for frame in frames.of(listener.session.dialect()) {
                listener.emit(frame);
            }
        }
    }

    /// Those that keep the document of the journal themselves.
    pub(super) fn readers_of_updates(&self) -> HashSet<SessionId> {
        let readers = self
            .sessions
            .iter()
            .filter(|(_, listener)| listener.takes_updates);
        readers.map(|(id, _)| *id).collect()
    }

    /// The others are emitted a version of the journal later. Whether there are any.
    pub(super) fn owe_version(&mut self) -> bool {
        let mut are_any = false;
        for listener in self.sessions.values_mut() {
            listener.is_owed |= listener.joined && !listener.takes_updates;
            are_any |= listener.is_owed;
        }
        are_any
    }

    /// Those that a version is owed to, which are emitted it now.
    pub(super) fn take_owed(&mut self) -> HashSet<SessionId> {
        let owed = self.sessions.iter_mut().filter(|(_, listener)| listener.is_owed);
        owed.map(|(id, listener)| {
            listener.is_owed = false;
            *id
        })
        .collect()
    }

    /// Tells those who follow the conversation itself and have no word for what was told before.
    pub(super) fn tell_the_untold(&mut self, before: Outbound<'_>, outbound: Outbound<'_>) {
        self.tell(outbound, |session, joined| {
            joined && session.dialect().frames(before).is_empty()
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

    /// The session with this id, where it follows the conversation itself; `None` where it does not, or not any more.
    pub(super) fn joined(&self, id: SessionId) -> Option<&Arc<Session>> {
        let listener = self.sessions.get(&id).filter(|listener| listener.joined)?;
        Some(&listener.session)
    }

    /// Whether the session is attached.
    pub(super) fn is_attached(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Whether anybody who follows the conversation itself is shown messages that stream by edits.
    pub(super) fn is_shown_edits(&self) -> bool {
        let mut sessions = self.sessions.values();
        sessions
            .any(|listener| listener.joined && listener.session.dialect().streams() == Some(Streams::Edits))
    }

    /// Whether anybody but this session follows the conversation itself.
    pub(super) fn has_joined(&self, but: Option<SessionId>) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.any(|(id, listener)| listener.joined && Some(*id) != but)
    }

    /// Emits something that may be dropped to all sessions but one that follow the conversation itself.
    pub(super) fn whisper_past(&self, outbound: Outbound<'_>, but: Option<SessionId>) {
        let mut frames = Frames::new(outbound);
        for (id, listener) in &self.sessions {
            if listener.joined && Some(*id) != but {
                for frame in frames.of(listener.session.dialect()) {
                    listener.session.emit_ephemeral(frame);
                }
            }
        }
    }

    /// Emits to all who follow, but the user it comes from and those who are not shown that user, something that may be
    /// dropped.
    pub(super) fn whisper(&self, outbound: Outbound<'_>, origin: &str) {
        let mut frames = Frames::new(outbound);
        for listener in self.sessions.values() {
            let is_shown = listener.session.user.as_str() != origin && !listener.session.hidden.hides(origin);
            if listener.joined && listener.waiting.is_none() && is_shown {
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

    /// Tells the lists of these users of the latest message; sessions of equal needs share the encoding.
    pub(super) fn update_lists(&mut self, place: &Place, last: &Message, whose: impl Fn(&str) -> bool) {
        let mut made: HashMap<(&'static str, u64, Joined), Vec<Frame>> = HashMap::new();
        for listener in self.sessions.values_mut() {
            let Listener { session, joined, .. } = listener;
            if !whose(session.user.as_str()) {
                continue;
            }
            let joined = *joined;
            let unread = self
                .unread
                .get(session.user.as_str())
                .map_or(0, |unread| unread.count);
            let frames = made
                .entry((session.dialect().name(), unread, joined))
                .or_insert_with(|| {
                    session.dialect().frames(Outbound::ListUpdated {
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
            if unread.head_seq < seq {
                unread.head_seq = seq;
                unread.count += u64::from(user != sender);
            }
        }
    }

    /// Takes over a count made elsewhere, and adds what came after it; whether that changed the count. One that is
    /// older than what is remembered is left: the next one is not.
    pub(super) fn set_unread(&mut self, user: &str, counted: Unread) -> bool {
        let Some(known) = self.unread.get_mut(user) else {
            return false;
        };
        let missed = self.recent.len() == RECENT
            && self
                .recent
                .front()
                .is_some_and(|(oldest, _)| *oldest > counted.head_seq + 1);
        if missed {
            return false;
        }
        let later = self
            .recent
            .iter()
            .filter(|(seq, sender)| *seq > counted.head_seq && sender != user);
        let count = counted.count + later.count() as u64;
        known.head_seq = known.head_seq.max(counted.head_seq);
        count != std::mem::replace(&mut known.count, count)
    }

    /// Attached users who have something unread.
    pub(super) fn with_unread(&self) -> Vec<String> {
        let unread = self.unread.iter().filter(|(_, unread)| unread.count > 0);
        unread.map(|(user, _)| user.clone()).collect()
    }
}

impl Emissions {
    fn push(&mut self, at: Instant, seq: u64) {
        if self.0.len() == EMISSIONS {
            self.0.pop_front();
        }
        self.0.push_back((at, seq));
    }

    /// The latest seq that was surely emitted before; any where none is remembered.
    fn before(&self, at: Instant) -> u64 {
        let earlier = self.0.iter().rev().find(|(emitted_at, _)| *emitted_at < at);
        let oldest = self.0.front().map(|(_, seq)| seq.saturating_sub(1));
        earlier.map(|(_, seq)| *seq).or(oldest).unwrap_or(u64::MAX)
    }
}

impl Listener {
    /// Follows as is asked for. Returns what must be replayed: nothing to a session that has joined already.
    fn attach(&mut self, following: &Following, head_seq: u64) -> Option<Missed> {
        self.takes_updates = following.takes_updates.unwrap_or(self.takes_updates);
        if self.joined {
            return None;
        }
        self.joined = following.joined;
        self.is_owed = false;
        let missed = following.missed.clone();
        if !following.joined && missed.is_none() {
            return None;
        }
        let ended = self.position.replace(head_seq);
        self.joined_at_ms = now().timestamp_millis();
        let waits = match self.session.dialect().backlog() {
            // By a person.
            Backlog::AtJoin => Duration::ZERO,
            _ => STAYS,
        };
        self.reports_at = Some(Instant::now() + waits);
        match (ended, missed) {
            // It had left. What its page is known to have got elsewhere counts; what other pages of its user have does not,
            // where nothing is known of this one yet: it ended here.
            (Some(ended), Some(missed)) => Some(Missed {
                after: if missed.own_after == 0 {
                    missed.after.max(ended)
                } else {
                    ended
                },
                own_after: 0,
                ..missed
            }),
            // It joins after its backlog, or after it had left.
            (Some(ended), None) => Some(Missed {
                after: ended,
                exact: self.session.dialect().backlog() != Backlog::AtJoin,
                ..Missed::default()
            }),
            (None, missed) => missed,
        }
    }

    /// Everything up to this seq was emitted, unless the connection broke before.
    fn emitted(&mut self, seq: u64) {
        if self.joined && !self.session.is_cut() {
            if self.position.is_some_and(|position| position < seq) {
                self.reports_at = None;
            }
            self.position = Some(seq);
        }
    }

    /// Whether it got more than is reported.
    fn is_ahead(&self) -> bool {
        self.waiting.is_none()
            && self.session.is_understood()
            && self.position.is_some_and(|position| match self.reported {
                Some(reported) => position > reported,
                None => self.reports_at.is_none_or(|at| at <= Instant::now()),
            })
    }

    /// What its client has got and is not reported.
    fn served(&mut self, emissions: &Emissions) -> Option<Progressed> {
        let position = self.position.filter(|_| self.is_ahead())?;
        let got = match self.session.received() {
            Received::All => position,
            Received::Before(at) if self.replayed_at.is_none_or(|replayed_at| replayed_at < at) => {
                position.min(emissions.before(at))
            }
            Received::Before(_) | Received::Nothing => return None,
        };
        if self.reported.is_some_and(|reported| got <= reported) {
            return None;
        }
        self.reported = Some(got);
        Some(Progressed {
            user: self.session.user.clone(),
            page: self.session.page,
            reached: Reached {
                seq: got,
                joined_at_ms: self.joined_at_ms,
            },
        })
    }

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_polling_client_has_got_what_was_emitted_before_the_answer_it_followed_up() {
        let (mut emissions, start) = (Emissions::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(emissions.before(start), u64::MAX);
        for seq in 5..=7 {
            emissions.push(after(seq * 10), seq);
        }
        assert_eq!(emissions.before(after(50)), 4);
        assert_eq!(emissions.before(after(51)), 5);
        assert_eq!(emissions.before(after(100)), 7);
        for seq in 8..=300 {
            emissions.push(after(seq * 10), seq);
        }
        assert_eq!(emissions.before(after(60)), 44);
    }
}
