//! Whom to tell of a change: local sessions that share a conversation with the user, each once, and those that
//! asked for the user. One task does all of it, so that nobody hears an older change after a newer one. It never waits
//! for persistence: questions are under way beside it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parlance_bus::{Bus, Subscription};
use parlance_proto::v1::{ConversationKind, ErrorCode, Presence, PresenceStatus, Presences};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::backoff::Backoff;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cache::{PresenceCache, PresenceUpdate};
use super::watches::{Doubt, MOST_WATCHED, Watches};
use crate::backend::Backend;
use crate::backend::actor;
use crate::clock::now;
use crate::delivery::presence_input::{Happened, Inbox};
use crate::delivery::rooms::Rooms;
use crate::delivery::rooms::frames::Frames;
use crate::dialect::{Outbound, Place};
use crate::error::ClientError;
use crate::session::{Session, SessionId};

/// How long sessions to be greeted are gathered.
const GATHER: Duration = Duration::from_millis(30);
/// How long after a session came all of its conversations are surely followed.
const ARRIVING: Duration = Duration::from_secs(30);
/// Pause before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest of these pauses.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Users in one question.
const CHUNK: usize = 1_000;
/// How long changes are gathered: a session is emitted them together, and none that was taken back by then.
const WINDOW: Duration = Duration::from_millis(200);

/// The task; see the module.
pub struct PresenceFanout {
    rooms: Rooms,
    backend: Backend,
    /// Membership in a conversation of more participants than this alone tells nothing.
    large_group: usize,
    check: Duration,
    cache: PresenceCache,
    local: HashMap<UserId, Vec<Arc<Session>>>,
    watches: Watches<Arc<Session>>,
    /// Sessions to be told how others are seen.
    greetings: HashMap<SessionId, Greeting>,
    /// Whom sessions that came lately were told of: their conversations are followed one after the other.
    greeted: HashMap<SessionId, (Instant, HashSet<String>)>,
    /// Users whose presence changed, with what was emitted of each before; emitted together at `deliver_at`.
    changes: HashMap<String, Option<PresenceStatus>>,
    deliver_at: Option<Instant>,
    /// When the sessions to be greeted have been gathered for long enough.
    greet_at: Option<Instant>,
    /// Those whose greeting waits for how others are seen.
    greeting: HashMap<SessionId, Greeting>,
    /// Those who wait for how users are seen that are not known here: asked for next, and under way.
    asking: Vec<Asking>,
    asked: Vec<Asking>,
    retries: Backoff,
    /// Where the next look for changes begins; 0 before the first.
    since_us: i64,
}

/// Somebody who wants to know how users are seen.
struct Asking {
    users: Vec<String>,
    reply: oneshot::Sender<Vec<Presence>>,
}

/// An answer that is under way; `None` where none came. Nothing else waits for it.
type Lookup = BoxFuture<'static, Option<Vec<Presence>>>;
/// The same of the next changes that the bus may have lost.
type Look = BoxFuture<'static, Option<Presences>>;

/// The answer to what a session may watch.
type Recheck = BoxFuture<'static, (Arc<Session>, Vec<Presence>)>;

/// Whom a session is to be told of.
struct Greeting {
    session: Arc<Session>,
    /// Of everyone in these.
    conversations: HashSet<ConversationId>,
    /// Of these in any case.
    users: BTreeSet<String>,
}

impl PresenceFanout {
    /// `large_group` and the pause between two looks for changes: see `defaults.toml`.
    pub fn new(rooms: Rooms, backend: Backend, large_group: usize, check: Duration) -> Self {
        Self {
            rooms,
            backend,
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
            retries: Backoff::new(RETRY, LONGEST_RETRY),
            since_us: 0,
        }
    }

    /// Tells until `stop`.
    ///
    /// # Errors
    /// The subscription cannot be made, or NATS is gone for good.
    pub async fn run(mut self, bus: Bus, mut inbox: Inbox, stop: CancellationToken) -> anyhow::Result<()> {
        let mut changes: Subscription<Presence> = bus.subscribe_presence().await?;
        let mut link = bus.link();
        let mut check_at = Some(Instant::now());
        let mut lookup: Option<Lookup> = None;
        let mut rechecks: FuturesUnordered<Recheck> = FuturesUnordered::new();
        let mut look: Option<Look> = None;
        loop {
            while let Some(doubt) = self.watches.next_doubt() {
                rechecks.push(self.recheck(doubt));
            }
            if lookup.is_none() {
                lookup = self.next_lookup();
            }
            if look.is_none() && check_at.is_some_and(|at| at <= Instant::now()) {
                check_at = None;
                look = Some(self.next_look());
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.next() => match change {
                    Some(change) => self.changed(&change),
                    None => anyhow::bail!("the connection to NATS is closed"),
                },
                happened = inbox.recv() => {
                    let Some(happened) = happened else { return Ok(()) };
                    self.happened(happened);
                    if !self.greetings.is_empty() && self.greet_at.is_none() {
                        self.greet_at = Some(Instant::now() + GATHER);
                    }
                }
                Some((session, allowed)) = rechecks.next(), if !rechecks.is_empty() => {
                    self.rechecked(&session, allowed);
                    self.greet_at = self.greet_at.or(Some(Instant::now() + GATHER));
                }
                found = under_way(&mut lookup) => {
                    lookup = None;
                    self.looked_up(found);
                }
                found = under_way(&mut look) => {
                    look = None;
                    let pause = self.looked(found);
                    // A loss that was noticed meanwhile comes first.
                    check_at = check_at.or_else(|| Some(Instant::now() + pause));
                }
                () = at(self.deliver_at) => self.deliver(),
                // Where a question is under way the greetings are part of the next.
                () = at(self.greet_at), if lookup.is_none() => {}
                () = at(check_at), if look.is_none() => {}
                // Live changes may have been lost.
                changed = link.changed() => {
                    changed?;
                    check_at = Some(Instant::now());
                }
            }
        }
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Arrived(session) => {
                if greets(&session) {
                    self.greeted.insert(session.id, (Instant::now(), HashSet::new()));
                }
                self.local.entry(session.user.clone()).or_default().push(session);
            }
            Happened::Gone(user, id) => self.gone(&user, id),
            Happened::Attached(session, conversation) => {
                if greets(&session) && !session.closed.is_cancelled() {
                    self.greeting(&session).conversations.insert(conversation);
                }
            }
            Happened::Looked(session, conversation) => {
                if let Some(place) = self.small(conversation) {
                    let ids = place.participants.iter().map(|one| one.user_id.clone());
                    self.greeting(&session).users.extend(ids);
                }
            }
            Happened::Joined(conversation, users) => self.joined(conversation, &users),
            Happened::Left(user) => self.watches.left(&user),
            Happened::Asked(users, reply) => {
                if users.iter().all(|user| self.cache.knows(user)) {
                    // What is answered needs no event afterwards, and no change back may be left out.
                    self.deliver();
                    drop(reply.send(self.known(&users)));
                } else {
                    self.asking.push(Asking { users, reply });
                }
            }
            Happened::Watched {
                session,
                users,
                removals,
                reply,
            } => {
                drop(reply.send(self.watched(&session, &users, removals)));
                if session.closed.is_cancelled() {
                    self.gone(&session.user, session.id);
                }
            }
            Happened::Unwatched(session, users) => {
                for user in &users {
                    self.watches.unwatch(session, user);
                }
            }
        }
    }

    fn gone(&mut self, user: &UserId, id: SessionId) {
        self.greetings.remove(&id);
        self.greeting.remove(&id);
        self.greeted.remove(&id);
        self.watches.gone(id);
        if let Some(sessions) = self.local.get_mut(user) {
            sessions.retain(|session| session.id != id);
            if sessions.is_empty() {
                self.local.remove(user);
            }
        }
    }

    /// Has a session watch users. What allowed it may be older than a removal that came since.
    fn watched(
        &mut self,
        session: &Arc<Session>,
        users: &[Presence],
        removals: u64,
    ) -> Result<Vec<Presence>, ClientError> {
        for presence in users {
            self.changed(presence);
            self.cache.put(presence);
        }
        // What is answered is emitted to those only who watched before.
        self.deliver();
        let ids: Vec<String> = users.iter().map(|presence| presence.user_id.clone()).collect();
        let in_doubt = removals != self.rooms.members().removals();
        if !self
            .watches
            .watch(session.id, session, &session.user, &ids, in_doubt)
        {
            let message =
                format!("a connection watches {MOST_WATCHED} users at most; end watching others first");
            return Err(ClientError::new(ErrorCode::TooLarge, message));
        }
        Ok(self.known(&ids))
    }

    /// Asks which of the users a session may watch. Where that cannot be answered, it is none of them.
    fn recheck(&self, doubt: Doubt<Arc<Session>>) -> Recheck {
        let Doubt { session, users } = doubt;
        let backend = self.backend.clone();
        Box::pin(async move {
            let me = actor(&session.user, &session.username);
            let mut allowed = Vec::new();
            for chunk in users.chunks(CHUNK) {
                let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
                while !session.closed.is_cancelled() {
                    match backend.presence(Some(me.clone()), chunk.to_vec()).await {
                        Ok(found) => {
                            allowed.extend(found.presences);
                            break;
                        }
                        Err(error) if !error.retry => {
                            tracing::debug!(code = error.code, "watches in doubt end");
                            break;
                        }
                        Err(_) if !backend.pause(&mut backoff).await => break,
                        Err(_) => {}
                    }
                }
            }
            (session, allowed)
        })
    }

    /// Goes on with what a session may still watch; what changed meanwhile is emitted to it.
    fn rechecked(&mut self, session: &Arc<Session>, allowed: Vec<Presence>) {
        let ids = allowed.iter().map(|presence| presence.user_id.clone());
        let restored = self.watches.answered(session.id, ids);
        for presence in allowed {
            if restored.contains(&presence.user_id) {
                self.changed(&presence);
                self.cache.put(&presence);
                self.greeting(session).users.insert(presence.user_id);
            }
        }
    }

    fn greeting(&mut self, session: &Arc<Session>) -> &mut Greeting {
        self.greetings.entry(session.id).or_insert_with(|| Greeting {
            session: Arc::clone(session),
            conversations: HashSet::new(),
            users: BTreeSet::new(),
        })
    }

    /// Newcomers of a conversation are shown to those in it. The newcomers are greeted when they are attached.
    fn joined(&mut self, conversation: ConversationId, users: &[String]) {
        let Some(place) = self.small(conversation) else {
            return;
        };
        let there = |id: &&str| !users.iter().any(|user| user == id);
        let ids = place.participants.iter().map(|one| one.user_id.as_str());
        let sessions: Vec<Arc<Session>> = ids
            .filter(there)
            .filter_map(|id| self.local.get(&UserId::parse(id).ok()?))
            .flatten()
            .filter(|session| greets(session))
            .cloned()
            .collect();
        for session in sessions {
            self.greeting(&session).users.extend(users.iter().cloned());
        }
    }

    /// A change came, live or by repair.
    fn changed(&mut self, presence: &Presence) {
        let user = &presence.user_id;
        let is_of_interest =
            self.cache.knows(user) || self.rooms.members().is_known(user) || self.watches.is_watched(user);
        if !is_of_interest {
            return;
        }
        if let PresenceUpdate::Newer(before) = self.cache.put(presence) {
            self.changes.entry(presence.user_id.clone()).or_insert(before);
            self.deliver_at = self.deliver_at.or_else(|| Some(Instant::now() + WINDOW));
        }
    }

    /// Emits the changes of the window that are left of it.
    fn deliver(&mut self) {
        self.deliver_at = None;
        for (user, before) in std::mem::take(&mut self.changes) {
            let Some(seen) = self.cache.get(&user).cloned() else {
                continue;
            };
            if before != Some(seen.status()) {
                self.tell(&seen, before);
            }
        }
    }

    fn tell(&mut self, seen: &Presence, before: Option<PresenceStatus>) {
        let before = before.unwrap_or(PresenceStatus::Unspecified);
        let mut frames = Frames::new(Outbound::Presence { seen, before });
        for session in self.watchers(&seen.user_id) {
            for frame in frames.of(session.dialect()) {
                session.emit_ephemeral(frame);
            }
            // A greeting that comes later would say the same once more.
            if let Some((_, greeted)) = self.greeted.get_mut(&session.id) {
                greeted.insert(seen.user_id.clone());
            }
        }
    }

    /// Local sessions of others that share a conversation with a user, each once.
    fn watchers(&self, user: &str) -> Vec<Arc<Session>> {
        let conversations = self.rooms.members().conversations_of(user);
        let mut users: HashSet<&UserId> = HashSet::new();
        let mut sessions = Vec::new();
        for place in conversations.into_iter().filter_map(|id| self.small(id)) {
            for participant in &place.participants {
                let id = UserId::parse(participant.user_id.as_str()).ok();
                let found = id.and_then(|id| self.local.get_key_value(&id));
                if let Some((id, local)) = found
                    && id.as_str() != user
                    && users.insert(id)
                {
                    sessions.extend(local.iter().cloned());
                }
            }
        }
        let watchers = self.watches.watchers(user);
        let is_other =
            |session: &&Arc<Session>| !users.contains(&session.user) && session.user.as_str() != user;
        sessions.extend(watchers.filter(is_other).cloned());
        sessions
    }

    /// Tells sessions how those they share conversations with are seen.
    fn greet(&mut self) {
        for greeting in std::mem::take(&mut self.greeting).into_values() {
            let session = &greeting.session;
            let mut others = self.others(&greeting);
            let since = || (Instant::now(), HashSet::new());
            let (_, greeted) = self.greeted.entry(session.id).or_insert_with(since);
            others.retain(|user| greeted.insert(user.clone()) || greeting.users.contains(user));
            for user in others {
                if let Some(seen) = self.cache.get(&user) {
                    let before = PresenceStatus::Unspecified;
                    for frame in session.dialect().encode(Outbound::Presence { seen, before }) {
                        session.emit_ephemeral(&frame);
                    }
                }
            }
        }
    }

    /// Whom a greeting is about, each once.
    fn others(&self, greeting: &Greeting) -> BTreeSet<String> {
        let me = greeting.session.user.as_str();
        let places = greeting.conversations.iter().filter_map(|id| self.small(*id));
        let mut others = greeting.users.clone();
        for place in places.filter(|place| place.participant(me).is_some()) {
            let ids = place.participants.iter().map(|participant| &participant.user_id);
            others.extend(ids.cloned());
        }
        others.remove(me);
        others
    }

    fn small(&self, conversation: ConversationId) -> Option<Arc<Place>> {
        let place = self.rooms.place(conversation)?;
        let small = place.is_whole() && place.participants.len() <= self.large_group;
        (small && place.kind != ConversationKind::Journal).then_some(place)
    }

    /// The question for all who wait: those who asked, and sessions that are to be greeted by now.
    fn next_lookup(&mut self) -> Option<Lookup> {
        if self.greet_at.is_some_and(|at| at <= Instant::now()) {
            self.greet_at = None;
            self.greeting = std::mem::take(&mut self.greetings);
        }
        if self.asking.is_empty() && self.greeting.is_empty() {
            return None;
        }
        self.asked = std::mem::take(&mut self.asking);
        let asked = self.asked.iter().flat_map(|asking| asking.users.clone());
        let greeted = self.greeting.values().flat_map(|greeting| self.others(greeting));
        let unknown: BTreeSet<String> = asked
            .chain(greeted)
            .filter(|user| !self.cache.knows(user))
            .collect();
        let unknown: Vec<String> = unknown.into_iter().collect();
        let backend = self.backend.clone();
        Some(Box::pin(async move {
            let mut found = Vec::with_capacity(unknown.len());
            for chunk in unknown.chunks(CHUNK) {
                found.extend(backend.presence(None, chunk.to_vec()).await.ok()?.presences);
            }
            Some(found)
        }))
    }

    /// Answers those who waited; without an answer with what is known. Greetings wait for one.
    fn looked_up(&mut self, found: Option<Vec<Presence>>) {
        let is_answered = found.is_some();
        self.learned(found.unwrap_or_default());
        // What a greeting says, or an answer, needs no event of its own afterwards.
        self.deliver();
        if is_answered {
            self.retries.reset();
            self.greet();
        } else {
            for (id, greeting) in std::mem::take(&mut self.greeting) {
                let merged = self.greeting(&greeting.session);
                debug_assert_eq!(merged.session.id, id);
                merged.conversations.extend(greeting.conversations);
                merged.users.extend(greeting.users);
            }
            self.greet_at = Some(Instant::now() + self.retries.next_pause());
        }
        for Asking { users, reply } in std::mem::take(&mut self.asked) {
            // The asker may have gone.
            drop(reply.send(self.known(&users)));
        }
    }

    fn learned(&mut self, presences: Vec<Presence>) {
        for mut presence in presences {
            if presence.since_ms == 0 {
                presence.since_ms = now().timestamp_millis();
            }
            // A change that came meanwhile is emitted: so is what is newer than it.
            if self.cache.knows(&presence.user_id) {
                self.changed(&presence);
            } else {
                self.cache.put(&presence);
            }
        }
    }

    fn known(&self, users: &[String]) -> Vec<Presence> {
        users
            .iter()
            .filter_map(|user| self.cache.get(user))
            .cloned()
            .collect()
    }

    /// Asks for the next changes that the bus may have lost.
    fn next_look(&self) -> Look {
        let (backend, since_us) = (self.backend.clone(), self.since_us);
        Box::pin(async move { backend.presence_changes(None, since_us).await.ok() })
    }

    /// Takes them in. Returns the pause before the next look.
    fn looked(&mut self, found: Option<Presences>) -> Duration {
        let Some(page) = found else {
            return self.retries.next_pause();
        };
        self.since_us = page.next_us;
        for presence in &page.presences {
            self.changed(presence);
        }
        if !page.complete {
            return Duration::ZERO;
        }
        self.greeted.retain(|_, (since, _)| since.elapsed() < ARRIVING);
        let (members, watches) = (self.rooms.members(), &self.watches);
        self.cache
            .keep(|user| members.is_known(user) || watches.is_watched(user));
        self.check
    }
}

/// Whether a session is told by itself how others are seen.
fn greets(session: &Session) -> bool {
    session.dialect().shows_presence() && session.dialect().joins_by_itself()
}

/// Completes with the answer that is under way; never without one.
async fn under_way<T>(answer: &mut Option<BoxFuture<'static, T>>) -> T {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

/// Completes at that time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
