//! Whom to tell of a change: local sessions that share a conversation with the user, each once, and those that
//! asked for the user. One task does all of it, so that nobody hears an older change after a newer one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parlance_bus::{Bus, Subscription};
use parlance_proto::v1::{ConversationKind, Presence, PresenceStatus};
use parlance_proto::{ConversationId, UserId};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::board::{Board, News};
use super::{Happened, Inbox};
use crate::backend::Backend;
use crate::commands::now;
use crate::dialect::{Outbound, Place};
use crate::rooms::Rooms;
use crate::rooms::frames::Frames;
use crate::socket::session::{Session, SessionId};

/// How long sessions to be greeted are gathered.
const GATHER: Duration = Duration::from_millis(30);
/// How long after a session came all of its conversations are surely followed.
const ARRIVING: Duration = Duration::from_secs(30);
/// Pause before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// Users in one question.
const CHUNK: usize = 1_000;

/// The task; see the module.
pub struct Teller {
    rooms: Rooms,
    backend: Backend,
    /// Membership in a conversation of more participants than this alone tells nothing.
    large_group: usize,
    check: Duration,
    board: Board,
    local: HashMap<UserId, Vec<Arc<Session>>>,
    watchers: HashMap<String, HashMap<SessionId, Arc<Session>>>,
    watched: HashMap<SessionId, HashSet<String>>,
    /// Sessions to be told how others are seen.
    greetings: HashMap<SessionId, Greeting>,
    /// Whom sessions that came lately were told of: their conversations are followed one after the other.
    greeted: HashMap<SessionId, (Instant, HashSet<String>)>,
    /// Where the next look for changes begins; 0 before the first.
    since_us: i64,
}

/// Whom a session is to be told of.
struct Greeting {
    session: Arc<Session>,
    /// Of everyone in these.
    conversations: HashSet<ConversationId>,
    /// Of these in any case.
    users: BTreeSet<String>,
}

impl Teller {
    /// `large_group` and the pause between two looks for changes: see `defaults.toml`.
    pub fn new(rooms: Rooms, backend: Backend, large_group: usize, check: Duration) -> Self {
        Self {
            rooms,
            backend,
            large_group,
            check,
            board: Board::default(),
            local: HashMap::new(),
            watchers: HashMap::new(),
            watched: HashMap::new(),
            greetings: HashMap::new(),
            greeted: HashMap::new(),
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
        let mut check_at = Instant::now();
        let mut greet_at: Option<Instant> = None;
        loop {
            let greeting = async {
                match greet_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.next() => match change {
                    Some(change) => self.changed(&change),
                    None => anyhow::bail!("the connection to NATS is closed"),
                },
                happened = inbox.recv() => {
                    let Some(happened) = happened else { return Ok(()) };
                    self.happened(happened).await;
                    if !self.greetings.is_empty() && greet_at.is_none() {
                        greet_at = Some(Instant::now() + GATHER);
                    }
                }
                () = greeting => {
                    greet_at = if self.greet().await { None } else { Some(Instant::now() + RETRY) };
                }
                () = sleep_until(check_at) => {
                    let looked = link.borrow().connected && self.look_for_changes().await;
                    check_at = Instant::now() + if looked { self.check } else { RETRY };
                }
                // Live changes may have been lost.
                changed = link.changed() => {
                    changed?;
                    check_at = Instant::now();
                }
            }
        }
    }

    async fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Arrived(session) => {
                if session.dialect().shows_presence() && session.dialect().joins_by_itself() {
                    self.greeted.insert(session.id, (Instant::now(), HashSet::new()));
                }
                self.local.entry(session.user.clone()).or_default().push(session);
            }
            Happened::Gone(user, id) => self.gone(&user, id),
            Happened::Attached(session, conversation) => {
                if session.dialect().shows_presence() && !session.closed.is_cancelled() {
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
            Happened::Asked(users, reply) => {
                self.learn(users.iter().cloned().collect()).await;
                drop(reply.send(self.known(&users)));
            }
            Happened::Watched(session, users, reply) => {
                for presence in &users {
                    self.changed(presence);
                    self.board.put(presence);
                    let user = &presence.user_id;
                    self.watched.entry(session.id).or_default().insert(user.clone());
                    let watchers = self.watchers.entry(user.clone()).or_default();
                    watchers.insert(session.id, Arc::clone(&session));
                }
                let users: Vec<String> = users.into_iter().map(|presence| presence.user_id).collect();
                drop(reply.send(self.known(&users)));
                if session.closed.is_cancelled() {
                    self.gone(&session.user, session.id);
                }
            }
            Happened::Unwatched(session, users) => {
                for user in &users {
                    self.unwatch(session, user);
                }
            }
        }
    }

    fn gone(&mut self, user: &UserId, id: SessionId) {
        self.greetings.remove(&id);
        self.greeted.remove(&id);
        if let Some(sessions) = self.local.get_mut(user) {
            sessions.retain(|session| session.id != id);
            if sessions.is_empty() {
                self.local.remove(user);
            }
        }
        for user in self.watched.remove(&id).unwrap_or_default() {
            self.unwatch(id, &user);
        }
    }

    fn unwatch(&mut self, id: SessionId, user: &str) {
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.remove(user);
        }
        if let Some(watchers) = self.watchers.get_mut(user) {
            watchers.remove(&id);
            if watchers.is_empty() {
                self.watchers.remove(user);
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
            .filter(|session| session.dialect().shows_presence())
            .cloned()
            .collect();
        for session in sessions {
            self.greeting(&session).users.extend(users.iter().cloned());
        }
    }

    /// A change came, live or by repair.
    fn changed(&mut self, presence: &Presence) {
        if !self.board.knows(&presence.user_id) && !self.rooms.members().is_known(&presence.user_id) {
            return;
        }
        if let News::Told(before) = self.board.put(presence) {
            self.tell(presence, before);
        }
    }

    fn tell(&mut self, seen: &Presence, before: Option<PresenceStatus>) {
        let before = before.unwrap_or(PresenceStatus::Unspecified);
        let mut frames = Frames::new(Outbound::Presence { seen, before });
        for session in self.concerned(&seen.user_id) {
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
    fn concerned(&self, user: &str) -> Vec<Arc<Session>> {
        let conversations = self.rooms.members().conversations_of(user);
        let mut users: HashSet<&UserId> = HashSet::new();
        let mut sessions = Vec::new();
        let mut places = Vec::with_capacity(conversations.len());
        for conversation in conversations {
            let Some(place) = self.rooms.place(conversation) else {
                continue;
            };
            if place.participants.len() <= self.large_group {
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
            places.push(place);
        }
        let shares = |session: &Session| {
            let with = |place: &Arc<Place>| place.participant(session.user.as_str()).is_some();
            session.user.as_str() != user && places.iter().any(with)
        };
        let watchers = self.watchers.get(user).into_iter().flat_map(HashMap::values);
        sessions.extend(
            watchers
                .filter(|session| !users.contains(&session.user) && shares(session))
                .cloned(),
        );
        sessions
    }

    /// Tells sessions how those they share conversations with are seen. False where that could not be asked.
    async fn greet(&mut self) -> bool {
        let wanted = self.greetings.values().flat_map(|greeting| self.others(greeting));
        let wanted: BTreeSet<String> = wanted.collect();
        if !self.learn(wanted).await {
            return false;
        }
        for greeting in std::mem::take(&mut self.greetings).into_values() {
            let session = &greeting.session;
            if !session.dialect().joins_by_itself() {
                continue;
            }
            let mut others = self.others(&greeting);
            let since = || (Instant::now(), HashSet::new());
            let (_, greeted) = self.greeted.entry(session.id).or_insert_with(since);
            others.retain(|user| greeted.insert(user.clone()) || greeting.users.contains(user));
            for user in others {
                if let Some(seen) = self.board.get(&user) {
                    let before = PresenceStatus::Unspecified;
                    for frame in session.dialect().encode(Outbound::Presence { seen, before }) {
                        session.emit_ephemeral(&frame);
                    }
                }
            }
        }
        true
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
        let small = place.participants.len() <= self.large_group;
        (small && place.kind != ConversationKind::Journal).then_some(place)
    }

    /// Asks how users are seen of whom nothing is known. False without an answer.
    async fn learn(&mut self, users: BTreeSet<String>) -> bool {
        let unknown: Vec<String> = users.into_iter().filter(|user| !self.board.knows(user)).collect();
        for chunk in unknown.chunks(CHUNK) {
            let Ok(answer) = self.backend.presence(None, chunk.to_vec()).await else {
                return false;
            };
            for mut presence in answer.presences {
                if presence.since_ms == 0 {
                    presence.since_ms = now().timestamp_millis();
                }
                self.board.put(&presence);
            }
        }
        true
    }

    fn known(&self, users: &[String]) -> Vec<Presence> {
        users
            .iter()
            .filter_map(|user| self.board.get(user))
            .cloned()
            .collect()
    }

    /// Asks for the changes that the bus may have lost. False without an answer.
    async fn look_for_changes(&mut self) -> bool {
        loop {
            let Ok(page) = self.backend.presence_changes(None, self.since_us).await else {
                return false;
            };
            self.since_us = page.next_us;
            for presence in &page.presences {
                // Of someone unknown nothing was told that could be wrong.
                if self.board.knows(&presence.user_id) {
                    self.changed(presence);
                }
            }
            if page.complete {
                break;
            }
        }
        self.greeted.retain(|_, (since, _)| since.elapsed() < ARRIVING);
        let (members, watchers) = (self.rooms.members(), &self.watchers);
        self.board
            .keep(|user| members.is_known(user) || watchers.contains_key(user));
        true
    }
}
