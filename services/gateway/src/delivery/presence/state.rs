//! Which sessions receive whose presence: a pure state machine, [`PresenceState::apply`]. What comes in, and when, leads to
//! effects, which its caller carries out in their order: no bus, no query, no clock.
//!
//! Guarantees: a session receives a change of a user once, whatever it shares with them; no older change after a newer one;
//! a change that is taken back within [`WINDOW`] leads to nothing. One query is under way at a time for all that wait, and
//! one for the changes that the bus may have lost. A session is emitted nothing of users that are hidden from it, but that
//! they go offline.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parlance_proto::v1::{ConversationKind, ErrorCode, Presence, PresenceStatus, Presences};
use parlance_proto::{ConversationId, UserId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cache::{PresenceCache, PresenceUpdate};
use super::watches::{Doubt, MOST_WATCHED, Watches};
use crate::delivery::presence_input::Happened;
use crate::dialect::Place;
use crate::error::ClientError;
use crate::session::SessionId;

/// How long sessions to be greeted are gathered.
pub(super) const GATHER: Duration = Duration::from_millis(30);
/// How long after a session began all of its conversations are surely followed.
const ARRIVING: Duration = Duration::from_secs(30);
/// How long changes are gathered: a session is emitted them together, and none that was taken back by then.
pub(super) const WINDOW: Duration = Duration::from_millis(200);

/// A session, as presence knows it.
pub(super) trait Viewer: Clone {
    fn id(&self) -> SessionId;
    fn user(&self) -> &UserId;
    /// Whether it is emitted the presence of others without asking for it.
    fn is_greeted(&self) -> bool;
    fn has_ended(&self) -> bool;
    /// Whether it is not shown this user.
    fn hides(&self, user: &str) -> bool;
}

/// The conversations that are followed here.
pub(super) trait Followed {
    fn place(&self, conversation: ConversationId) -> Option<Arc<Place>>;
    /// Those that a user is in.
    fn conversations_of(&self, user: &str) -> Vec<ConversationId>;
    /// Whether a user is in any.
    fn is_known(&self, user: &str) -> bool;
    /// How often a user has left one.
    fn removals(&self) -> u64;
}

/// When something comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// The same in milliseconds since 1970.
    pub(super) unix_ms: i64,
}

/// What comes in.
pub(super) enum PresenceInput<S> {
    /// A session or a room reports.
    Reported(Happened<S>),
    /// The bus brings a change.
    Changed(Presence),
    /// The answer to [`PresenceEffect::LookUp`].
    LookedUp(Vec<Presence>),
    /// There is none; not to be asked again before this.
    LookUpFailed(Instant),
    /// The answer to [`PresenceEffect::Recheck`]: those whom the session may watch.
    Rechecked(S, Vec<Presence>),
    /// The answer to [`PresenceEffect::ReadChanges`].
    ChangesRead(Presences),
    /// There is none; not to be asked again before this.
    ReadFailed(Instant),
    /// The bus was away, and may have lost changes.
    Reconnected,
    /// [`PresenceState::due_at`] has come.
    Due,
}

/// What follows from it.
#[derive(Debug)]
pub(super) enum PresenceEffect<S> {
    /// Emit the presence of a user; `before` is what these sessions were emitted of it.
    Emit {
        seen: Presence,
        before: PresenceStatus,
        to: Vec<S>,
    },
    /// Reply to a query.
    Reply(oneshot::Sender<Vec<Presence>>, Vec<Presence>),
    /// Reply to a session that asked to watch users.
    ReplyToWatch(
        oneshot::Sender<Result<Vec<Presence>, ClientError>>,
        Result<Vec<Presence>, ClientError>,
    ),
    /// Query the presence of these users, for all that wait.
    LookUp(Vec<String>),
    /// Query which of these users a session may still watch.
    Recheck(Doubt<S>),
    /// Query the changes since then, in microseconds since 1970.
    ReadChanges(i64),
}

/// See the module. `S` is a session.
pub(super) struct PresenceState<S> {
    /// Membership in a conversation of more participants than this alone shows nobody's presence.
    large_group: usize,
    /// The pause between two looks for lost changes.
    check: Duration,
    cache: PresenceCache,
    local: HashMap<UserId, Vec<S>>,
    watches: Watches<S>,
    /// Sessions to be emitted the presence of others.
    greetings: HashMap<SessionId, Greeting<S>>,
    /// Of whom sessions that began lately were emitted the presence: their conversations are followed one after the other.
    greeted: HashMap<SessionId, (Instant, HashSet<String>)>,
    /// Users whose presence changed, with what was emitted of each before; emitted together at `deliver_at`.
    changes: HashMap<String, Option<PresenceStatus>>,
    deliver_at: Option<Instant>,
    /// When the sessions to be greeted have been gathered for long enough.
    greet_at: Option<Instant>,
    /// Those whose greeting waits for the query that is under way.
    greeting: HashMap<SessionId, Greeting<S>>,
    /// Queries for users that are not known here: to be looked up next, and under way.
    asking: Vec<Asking>,
    asked: Vec<Asking>,
    is_looking_up: bool,
    /// When changes that the bus may have lost are read; `None` while that is under way.
    check_at: Option<Instant>,
    is_reading: bool,
    /// Where the next reading begins; 0 before the first.
    since_us: i64,
}

/// A query for the presence of users.
struct Asking {
    users: Vec<String>,
    reply: oneshot::Sender<Vec<Presence>>,
}

/// Whose presence a session is to be emitted.
struct Greeting<S> {
    session: S,
    /// Of everyone in these.
    conversations: HashSet<ConversationId>,
    /// Of these in any case.
    users: BTreeSet<String>,
}

/// One input under way.
struct Applying<'a, S, F> {
    state: &'a mut PresenceState<S>,
    followed: &'a F,
    now: Moment,
    effects: Vec<PresenceEffect<S>>,
}

impl<S: Viewer> PresenceState<S> {
    /// Without sessions. Lost changes are read at once, then every `check`.
    pub(super) fn new(large_group: usize, check: Duration, now: Instant) -> Self {
        Self {
            large_group,
            check,
            cache: PresenceCache::default(),
            local: HashMap::new(),
            watches: Watches::default(),
            greetings: HashMap::new(),
            greeted: HashMap::new(),
            changes: HashMap::new(),
            deliver_at: None,
            greet_at: None,
            greeting: HashMap::new(),
            asking: Vec::new(),
            asked: Vec::new(),
            is_looking_up: false,
            check_at: Some(now),
            is_reading: false,
            since_us: 0,
        }
    }

    /// Takes an input in. Returns what follows from it.
    pub(super) fn apply(
        &mut self,
        input: PresenceInput<S>,
        followed: &impl Followed,
        now: Moment,
    ) -> Vec<PresenceEffect<S>> {
        let mut applying = Applying {
            state: self,
            followed,
            now,
            effects: Vec::new(),
        };
        applying.take(input);
        applying.begin_queries();
        applying.effects
    }

    /// When [`PresenceInput::Due`] is to come in.
    pub(super) fn due_at(&self) -> Option<Instant> {
        // Where a query is under way the greetings are part of the next.
        let greet_at = self.greet_at.filter(|_| !self.is_looking_up);
        let check_at = self.check_at.filter(|_| !self.is_reading);
        [self.deliver_at, greet_at, check_at].into_iter().flatten().min()
    }

    fn gone(&mut self, user: &UserId, id: SessionId) {
        self.greetings.remove(&id);
        self.greeting.remove(&id);
        self.greeted.remove(&id);
        self.watches.gone(id);
        if let Some(sessions) = self.local.get_mut(user) {
            sessions.retain(|session| session.id() != id);
            if sessions.is_empty() {
                self.local.remove(user);
            }
        }
    }

    fn greeting(&mut self, session: &S) -> &mut Greeting<S> {
        self.greetings.entry(session.id()).or_insert_with(|| Greeting {
            session: session.clone(),
            conversations: HashSet::new(),
            users: BTreeSet::new(),
        })
    }

    fn known(&self, users: &[String]) -> Vec<Presence> {
        users
            .iter()
            .filter_map(|user| self.cache.get(user))
            .cloned()
            .collect()
    }
}

impl<S: Viewer, F: Followed> Applying<'_, S, F> {
    fn take(&mut self, input: PresenceInput<S>) {
        let at = self.now.at;
        match input {
            PresenceInput::Reported(happened) => {
                self.reported(happened);
                if !self.state.greetings.is_empty() {
                    self.state.greet_at.get_or_insert(at + GATHER);
                }
            }
            PresenceInput::Changed(presence) => self.changed(&presence),
            PresenceInput::LookedUp(found) => {
                self.learned(found);
                // What a greeting says, or a reply, needs no event of its own afterwards.
                self.deliver();
                self.greet();
                self.reply();
            }
            PresenceInput::LookUpFailed(again_at) => {
                self.deliver();
                // Greetings wait for an answer; queries are replied to with what is known.
                for greeting in std::mem::take(&mut self.state.greeting).into_values() {
                    let merged = self.state.greeting(&greeting.session);
                    merged.conversations.extend(greeting.conversations);
                    merged.users.extend(greeting.users);
                }
                self.state.greet_at = Some(again_at);
                self.reply();
            }
            PresenceInput::Rechecked(session, allowed) => {
                self.rechecked(&session, allowed);
                self.state.greet_at.get_or_insert(at + GATHER);
            }
            PresenceInput::ChangesRead(page) => self.changes_read(&page),
            PresenceInput::ReadFailed(again_at) => {
                self.state.is_reading = false;
                // A loss that was noticed meanwhile comes first.
                self.state.check_at.get_or_insert(again_at);
            }
            PresenceInput::Reconnected => self.state.check_at = Some(at),
            PresenceInput::Due => {
                if self.state.deliver_at.is_some_and(|due| due <= at) {
                    self.deliver();
                }
            }
        }
    }

    fn reported(&mut self, happened: Happened<S>) {
        match happened {
            Happened::Arrived(session) => {
                if session.is_greeted() {
                    let began = (self.now.at, HashSet::new());
                    self.state.greeted.insert(session.id(), began);
                }
                let local = self.state.local.entry(session.user().clone());
                local.or_default().push(session);
            }
            Happened::Gone(user, id) => self.state.gone(&user, id),
            Happened::Attached(session, conversation) => {
                if session.is_greeted() && !session.has_ended() {
                    self.state.greeting(&session).conversations.insert(conversation);
                }
            }
            Happened::Looked(session, conversation) => {
                if let Some(place) = self.small(conversation) {
                    let ids = place.participants.iter().map(|one| one.user_id.clone());
                    self.state.greeting(&session).users.extend(ids);
                }
            }
            Happened::Joined(conversation, users) => self.joined(conversation, &users),
            Happened::Left(user) => self.state.watches.left(&user),
            Happened::Hidden { user, hidden, shown } => {
                self.hide(&user, &hidden);
                self.show_again(&user, &shown);
            }
            Happened::Asked(users, reply) => {
                if users.iter().all(|user| self.state.cache.knows(user)) {
                    // What is replied needs no event afterwards, and no change back may be left out.
                    self.deliver();
                    let known = self.state.known(&users);
                    self.effects.push(PresenceEffect::Reply(reply, known));
                } else {
                    self.state.asking.push(Asking { users, reply });
                }
            }
            Happened::Watched {
                session,
                users,
                removals,
                reply,
            } => {
                let outcome = self.watched(&session, &users, removals);
                self.effects.push(PresenceEffect::ReplyToWatch(reply, outcome));
                if session.has_ended() {
                    self.state.gone(session.user(), session.id());
                }
            }
            Happened::Unwatched(session, users) => {
                for user in &users {
                    self.state.watches.unwatch(session, user);
                }
            }
        }
    }

    /// Has a session watch users. What allowed it may be older than a removal that came since.
    fn watched(
        &mut self,
        session: &S,
        users: &[Presence],
        removals: u64,
    ) -> Result<Vec<Presence>, ClientError> {
        for presence in users {
            self.changed(presence);
            self.state.cache.put(presence);
        }
        // What is replied is emitted to those only that watched before.
        self.deliver();
        let ids: Vec<String> = users.iter().map(|presence| presence.user_id.clone()).collect();
        let in_doubt = removals != self.followed.removals();
        let watches = &mut self.state.watches;
        if !watches.watch(session.id(), session, session.user(), &ids, in_doubt) {
            let message =
                format!("a connection watches {MOST_WATCHED} users at most; end watching others first");
            return Err(ClientError::new(ErrorCode::TooLarge, message));
        }
        Ok(self.state.known(&ids))
    }

    /// Goes on with what a session may still watch; what changed meanwhile is emitted to it.
    fn rechecked(&mut self, session: &S, allowed: Vec<Presence>) {
        let ids = allowed.iter().map(|presence| presence.user_id.clone());
        let restored = self.state.watches.answered(session.id(), ids);
        for presence in allowed {
            if restored.contains(&presence.user_id) {
                self.changed(&presence);
                self.state.cache.put(&presence);
                self.state.greeting(session).users.insert(presence.user_id);
            }
        }
    }

    /// The presence of new members of a conversation is emitted to those in it. The new members are greeted when they are
    /// attached.
    fn joined(&mut self, conversation: ConversationId, users: &[String]) {
        let Some(place) = self.small(conversation) else {
            return;
        };
        let there = |id: &&str| !users.iter().any(|user| user == id);
        let ids = place.participants.iter().map(|one| one.user_id.as_str());
        let sessions: Vec<S> = ids
            .filter(there)
            .filter_map(|id| self.state.local.get(&UserId::parse(id).ok()?))
            .flatten()
            .filter(|session| session.is_greeted())
            .cloned()
            .collect();
        for session in sessions {
            let greeting = self.state.greeting(&session);
            greeting.users.extend(users.iter().cloned());
        }
    }

    /// A change came, live or by repair.
    fn changed(&mut self, presence: &Presence) {
        let user = &presence.user_id;
        let state = &mut *self.state;
        let is_of_interest =
            state.cache.knows(user) || self.followed.is_known(user) || state.watches.is_watched(user);
        if !is_of_interest {
            return;
        }
        if let PresenceUpdate::Newer(before) = state.cache.put(presence) {
            state.changes.entry(user.clone()).or_insert(before);
            state.deliver_at.get_or_insert(self.now.at + WINDOW);
        }
    }

    /// Emits the changes of the window that are left of it.
    fn deliver(&mut self) {
        self.state.deliver_at = None;
        for (user, before) in std::mem::take(&mut self.state.changes) {
            let Some(seen) = self.state.cache.get(&user).cloned() else {
                continue;
            };
            if before == Some(seen.status()) {
                continue;
            }
            let before = before.unwrap_or(PresenceStatus::Unspecified);
            let mut to = self.watchers(&user);
            to.retain(|session| !session.hides(&user));
            for session in &to {
                // A greeting that comes later would say the same once more.
                if let Some((_, greeted)) = self.state.greeted.get_mut(&session.id()) {
                    greeted.insert(user.clone());
                }
            }
            self.effects.push(PresenceEffect::Emit { seen, before, to });
        }
    }

    /// To the sessions of a user these others go offline: they are hidden from now on.
    fn hide(&mut self, user: &UserId, others: &[String]) {
        for other in others {
            let Some(seen) = self.state.cache.get(other) else {
                continue;
            };
            // A change that is gathered was not emitted yet, and is not emitted to them.
            if seen.status() == PresenceStatus::Offline && !self.state.changes.contains_key(other) {
                continue;
            }
            let seen = Presence {
                status: PresenceStatus::Offline.into(),
                last_seen_ms: 0,
                ..seen.clone()
            };
            let before = PresenceStatus::Unspecified;
            let to = self.watching(user, other);
            self.effects.push(PresenceEffect::Emit { seen, before, to });
        }
    }

    /// The sessions of a user are emitted the presence of these others, who are hidden no more.
    fn show_again(&mut self, user: &UserId, others: &[String]) {
        for other in others {
            for session in self.watching(user, other) {
                self.state.greeting(&session).users.insert(other.clone());
            }
        }
    }

    /// Those of the watchers of a user that are sessions of this one.
    fn watching(&self, user: &UserId, other: &str) -> Vec<S> {
        let mut sessions = self.watchers(other);
        sessions.retain(|session| session.user() == user);
        sessions
    }

    /// Local sessions of others that share a conversation with a user or watch the user, each once.
    fn watchers(&self, user: &str) -> Vec<S> {
        let conversations = self.followed.conversations_of(user);
        let mut users: HashSet<&UserId> = HashSet::new();
        let mut sessions = Vec::new();
        for place in conversations.into_iter().filter_map(|id| self.small(id)) {
            for participant in &place.participants {
                let id = UserId::parse(participant.user_id.as_str()).ok();
                let found = id.and_then(|id| self.state.local.get_key_value(&id));
                if let Some((id, local)) = found
                    && id.as_str() != user
                    && users.insert(id)
                {
                    sessions.extend(local.iter().cloned());
                }
            }
        }
        let watchers = self.state.watches.watchers(user);
        let is_other = |session: &&S| !users.contains(session.user()) && session.user().as_str() != user;
        sessions.extend(watchers.filter(is_other).cloned());
        sessions
    }

    /// Emits to sessions the presence of those they share conversations with.
    fn greet(&mut self) {
        for greeting in std::mem::take(&mut self.state.greeting).into_values() {
            let session = &greeting.session;
            let mut others = self.others(&greeting);
            let began = (self.now.at, HashSet::new());
            let (_, greeted) = self.state.greeted.entry(session.id()).or_insert(began);
            others.retain(|user| !session.hides(user));
            others.retain(|user| greeted.insert(user.clone()) || greeting.users.contains(user));
            for seen in others.iter().filter_map(|user| self.state.cache.get(user)) {
                self.effects.push(PresenceEffect::Emit {
                    seen: seen.clone(),
                    before: PresenceStatus::Unspecified,
                    to: vec![session.clone()],
                });
            }
        }
    }

    /// Whom a greeting is about, each once.
    fn others(&self, greeting: &Greeting<S>) -> BTreeSet<String> {
        let me = greeting.session.user().as_str();
        let places = greeting.conversations.iter().filter_map(|id| self.small(*id));
        let mut others = greeting.users.clone();
        for place in places.filter(|place| place.participant(me).is_some()) {
            let ids = place.participants.iter().map(|participant| &participant.user_id);
            others.extend(ids.cloned());
        }
        others.remove(me);
        others
    }

    /// A conversation whose members see each other's presence.
    fn small(&self, conversation: ConversationId) -> Option<Arc<Place>> {
        let place = self.followed.place(conversation)?;
        let small = place.is_whole() && place.participants.len() <= self.state.large_group;
        (small && place.kind != ConversationKind::Journal).then_some(place)
    }

    /// Ends the query that was under way: replies to all that waited for it.
    fn reply(&mut self) {
        self.state.is_looking_up = false;
        for Asking { users, reply } in std::mem::take(&mut self.state.asked) {
            let known = self.state.known(&users);
            self.effects.push(PresenceEffect::Reply(reply, known));
        }
    }

    fn learned(&mut self, presences: Vec<Presence>) {
        for mut presence in presences {
            if presence.since_ms == 0 {
                presence.since_ms = self.now.unix_ms;
            }
            // A change that came meanwhile is emitted: so is what is newer than it.
            if self.state.cache.knows(&presence.user_id) {
                self.changed(&presence);
            } else {
                self.state.cache.put(&presence);
            }
        }
    }

    /// Takes in changes that the bus may have lost.
    fn changes_read(&mut self, page: &Presences) {
        self.state.is_reading = false;
        self.state.since_us = page.next_us;
        for presence in &page.presences {
            self.changed(presence);
        }
        let at = self.now.at;
        let state = &mut *self.state;
        if !page.complete {
            state.check_at.get_or_insert(at);
            return;
        }
        state
            .greeted
            .retain(|_, (since, _)| at.duration_since(*since) < ARRIVING);
        let watches = &state.watches;
        state
            .cache
            .keep(|user| self.followed.is_known(user) || watches.is_watched(user));
        state.check_at.get_or_insert(at + state.check);
    }

    /// Begins the queries that are due and not under way.
    fn begin_queries(&mut self) {
        while let Some(doubt) = self.state.watches.next_doubt() {
            self.effects.push(PresenceEffect::Recheck(doubt));
        }
        if !self.state.is_looking_up {
            self.look_up();
        }
        let at = self.now.at;
        if !self.state.is_reading && self.state.check_at.is_some_and(|due| due <= at) {
            self.state.check_at = None;
            self.state.is_reading = true;
            self.effects
                .push(PresenceEffect::ReadChanges(self.state.since_us));
        }
    }

    /// Begins the query for all that wait: queries, and sessions that are to be greeted by now.
    fn look_up(&mut self) {
        let at = self.now.at;
        if self.state.greet_at.is_some_and(|due| due <= at) {
            self.state.greet_at = None;
            self.state.greeting = std::mem::take(&mut self.state.greetings);
        }
        if self.state.asking.is_empty() && self.state.greeting.is_empty() {
            return;
        }
        self.state.is_looking_up = true;
        self.state.asked = std::mem::take(&mut self.state.asking);
        let asked = self.state.asked.iter().flat_map(|asking| asking.users.clone());
        let greeted = self
            .state
            .greeting
            .values()
            .flat_map(|greeting| self.others(greeting));
        let unknown: BTreeSet<String> = asked
            .chain(greeted)
            .filter(|user| !self.state.cache.knows(user))
            .collect();
        self.effects
            .push(PresenceEffect::LookUp(unknown.into_iter().collect()));
    }
}

#[cfg(test)]
mod tests;
