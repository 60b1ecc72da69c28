//! The awareness of a journal's room: the states that sessions here and on other gateways show.
//!
//! States are merged on both ways, and only the latest of a client travels: at most ten messages a second to the bus, and
//! ten events a second to the sessions, which share one encoded frame. Every gateway ends by itself what is not renewed,
//! so that a gateway that was killed leaves nothing behind. Nothing is stored. A bus that is away delays the room by a tenth of a second at most for each message.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parlance_journal::{Applied, AwarenessStates, ClientState, MAX_STATES, encode_awareness};
use parlance_proto::v1::{self, AwarenessRequested, AwarenessState, Ephemeral, ErrorCode, ephemeral};
use tokio::time::Instant;

use super::Room;
use crate::delivery::awareness::SentState;
use crate::dialect::Outbound;
use crate::error::ClientError;
use crate::session::{Session, SessionId};

/// Between two flushes.
const INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of states after which a flush is full; the rest waits for the next.
const FLUSH_BYTES: usize = 64 * 1024;
/// Client ids of one session.
const MAX_CLIENTS: usize = 5;
/// Longest that the bus may take a message; it is lost then.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Awareness {
    states: AwarenessStates,
    /// The sessions here that sent a state.
    sources: HashMap<u64, SessionId>,
    to_bus: Outbox,
    to_sessions: Outbox,
}

/// Clients whose states are to be sent.
struct Outbox {
    queue: VecDeque<u64>,
    queued: HashSet<u64>,
    next_at: Instant,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            queued: HashSet::new(),
            next_at: Instant::now(),
        }
    }
}

impl Outbox {
    fn add(&mut self, client: u64) {
        if self.queued.insert(client) {
            self.queue.push_back(client);
        }
    }

    fn due_at(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.next_at)
    }

    /// The clients of the next flush, if it is due.
    fn take(&mut self, states: &AwarenessStates, now: Instant) -> Vec<u64> {
        let (mut clients, mut bytes) = (Vec::new(), 0);
        if self.next_at > now {
            return clients;
        }
        while bytes < FLUSH_BYTES
            && let Some(client) = self.queue.pop_front()
        {
            self.queued.remove(&client);
            if let Some((_, state)) = states.get(client) {
                bytes += state.map_or(0, str::len);
                clients.push(client);
            }
        }
        if !clients.is_empty() {
            self.next_at = now + INTERVAL;
        }
        clients
    }
}

impl Awareness {
    /// When to flush next.
    pub(super) fn next(&self) -> Option<Instant> {
        let ends_at = self.states.next_check().map(Instant::from_std);
        let due = [self.to_bus.due_at(), self.to_sessions.due_at(), ends_at];
        due.into_iter().flatten().min()
    }

    /// Publishes the states of all sessions here.
    pub(super) fn publish_all(&mut self) {
        for client in self.sources.keys() {
            self.to_bus.add(*client);
        }
    }

    /// Takes a state that a session of this user sent. `is_echo`: it may be another's that the page was sent. Returns
    /// whether the page must be sent the present one.
    fn share(
        &mut self,
        (session, user): (SessionId, &str),
        sent: ClientState,
        is_echo: bool,
        now: Instant,
    ) -> Result<bool, ClientError> {
        let client = sent.client;
        let is_own = self.sources.get(&client) == Some(&session);
        if is_echo && !is_own {
            return Ok(false);
        }
        let is_new =
            sent.state.is_some() && !is_own && self.states.owner(client).is_none_or(|owner| owner == user);
        if is_new && self.sources.values().filter(|source| **source == session).count() >= MAX_CLIENTS {
            // What is known already is an echo, and no more than that.
            let is_known = self
                .states
                .get(client)
                .is_some_and(|(clock, _)| sent.clock <= clock);
            return if is_known {
                Ok(false)
            } else {
                Err(too_many("a connection", MAX_CLIENTS))
            };
        }
        let lives = sent.state.is_some();
        match self.states.apply(user, sent, now.into_std()) {
            Applied::Changed => {
                match lives {
                    true => self.sources.insert(client, session),
                    false => self.sources.remove(&client),
                };
                self.to_bus.add(client);
                self.to_sessions.add(client);
                Ok(false)
            }
            Applied::Known => Ok(false),
            Applied::Outdated => Ok(true),
            Applied::Foreign => Err(ClientError::new(
                ErrorCode::Conflict,
                "the client id belongs to another user at the moment",
            )),
            Applied::Full => Err(too_many("a journal", MAX_STATES)),
        }
    }

    /// Takes a state that another gateway published, or this one.
    fn merge(&mut self, published: &AwarenessState, now: Instant) {
        let client = published.client_id;
        let state = ClientState {
            client,
            clock: published.clock,
            state: Some(published.state_json.clone()).filter(|state| !state.is_empty()),
        };
        if self.states.apply(&published.user_id, state, now.into_std()) == Applied::Changed {
            // Its page is connected elsewhere now.
            self.sources.remove(&client);
            self.to_sessions.add(client);
        }
    }

    /// Ends the states of sessions here that do not follow the journal any more.
    fn end(&mut self, follows: impl Fn(SessionId) -> bool, now: Instant) {
        let gone = self.sources.extract_if(|_, session| !follows(*session));
        for (client, _) in gone {
            if self.states.remove(client, now.into_std()) {
                self.to_bus.add(client);
                self.to_sessions.add(client);
            }
        }
    }

    /// Ends what was not renewed. Other gateways do so by themselves.
    fn expire(&mut self, now: Instant) {
        for client in self.states.expire(now.into_std()) {
            self.sources.remove(&client);
            self.to_sessions.add(client);
        }
    }

    fn encode(&self, clients: &[u64]) -> Vec<u8> {
        encode_awareness(clients.iter().map(|client| {
            let (clock, state) = self.states.get(*client).unwrap_or_default();
            (*client, clock, state)
        }))
    }

    fn published(&self, clients: &[u64]) -> v1::Awareness {
        let states = clients.iter().filter_map(|client| {
            let (clock, state) = self.states.get(*client)?;
            Some(AwarenessState {
                user_id: self.states.last_owner(*client)?.to_owned(),
                client_id: *client,
                clock,
                state_json: state.unwrap_or_default().to_owned(),
            })
        });
        v1::Awareness {
            states: states.collect(),
        }
    }

    /// The one session that all of these come from.
    fn only_source(&self, clients: &[u64]) -> Option<SessionId> {
        let mut sources = clients.iter().map(|client| self.sources.get(client).copied());
        let first = sources.next()??;
        sources.all(|source| source == Some(first)).then_some(first)
    }
}

impl Room {
    /// Takes states that a session sent, as far as they are its own. The first one refused is answered, the others are
    /// taken all the same.
    pub(super) fn share_awareness(
        &mut self,
        id: SessionId,
        states: Vec<SentState>,
    ) -> Result<(), ClientError> {
        if self.journal.is_none() || !self.audience.is_attached(id) {
            return Err(ClientError::no_conversation());
        }
        let Some(session) = self.audience.joined(id).map(Arc::clone) else {
            return Err(ClientError::not_joined());
        };
        let now = Instant::now();
        let (mut outdated, mut refused) = (Vec::new(), None);
        for SentState { state, is_echo } in states {
            let (client, sender) = (state.client, (id, session.user.as_str()));
            match self.awareness.share(sender, state, is_echo, now) {
                Ok(true) => outdated.push(client),
                Ok(false) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if !outdated.is_empty() {
            let update = self.awareness.encode(&outdated);
            session.tell(self.changed_awareness(&update));
        }
        refused.map_or(Ok(()), Err)
    }

    pub(super) fn merge_awareness(&mut self, awareness: &v1::Awareness) {
        let now = Instant::now();
        for state in &awareness.states {
            self.awareness.merge(state, now);
        }
    }

    /// Sends a session that has joined the journal what is shown there.
    pub(super) fn show_awareness(&self, session: &Session) {
        if self.audience.joined(session.id).is_none() {
            return;
        }
        let mut all = Outbox::default();
        self.awareness.states.clients().for_each(|client| all.add(client));
        loop {
            let part = all.take(&self.awareness.states, all.next_at);
            if part.is_empty() {
                return;
            }
            let update = self.awareness.encode(&part);
            for frame in session.dialect().encode(self.changed_awareness(&update)) {
                session.emit_ephemeral(&frame);
            }
        }
    }

    /// Ends the states of sessions that have left, or were removed.
    pub(super) fn end_awareness(&mut self) {
        let audience = &self.audience;
        self.awareness
            .end(|session| audience.joined(session).is_some(), Instant::now());
    }

    pub(super) async fn flush_awareness(&mut self) {
        let now = Instant::now();
        self.awareness.expire(now);
        let Awareness {
            states, to_sessions, ..
        } = &mut self.awareness;
        let clients = to_sessions.take(states, now);
        let source = self.awareness.only_source(&clients);
        if !clients.is_empty() && self.audience.has_joined(source) {
            let update = self.awareness.encode(&clients);
            let changed = self.changed_awareness(&update);
            self.audience.whisper_past(changed, source);
        }
        let Awareness { states, to_bus, .. } = &mut self.awareness;
        let clients = to_bus.take(states, now);
        if !clients.is_empty() {
            let awareness = self.awareness.published(&clients);
            self.publish(ephemeral::Body::Awareness(awareness)).await;
        }
    }

    /// Asks the other gateways for the states of their sessions.
    pub(super) async fn request_awareness(&self) {
        if self.journal.is_some() {
            let request = ephemeral::Body::AwarenessRequested(AwarenessRequested {});
            self.publish(request).await;
        }
    }

    fn changed_awareness<'a>(&'a self, update: &'a [u8]) -> Outbound<'a> {
        Outbound::Awareness {
            place: &self.place,
            update,
        }
    }

    async fn publish(&self, body: ephemeral::Body) {
        let bus = &self.rooms.bus;
        // Without a connection it would be sent when nobody wants to know any more.
        if !bus.link().borrow().connected {
            return;
        }
        let ephemeral = Ephemeral {
            conversation_id: self.conversation.to_string(),
            body: Some(body),
        };
        let published = bus.publish_ephemeral(self.conversation, &ephemeral);
        if !matches!(
            tokio::time::timeout(PUBLISHED_WITHIN, published).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("an ephemeral event was lost");
        }
    }
}

fn too_many(of: &str, most: usize) -> ClientError {
    let message = format!("{of} has more than {most} awareness states");
    ClientError::new(ErrorCode::TooLarge, message)
}

#[cfg(test)]
mod tests;
