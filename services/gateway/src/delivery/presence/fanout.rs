//! The task that emits the presence of users: feeds [`PresenceState`] with what sessions, rooms, the bus and persistence
//! report, and carries out what follows. One task does all of it, so that no session receives an older change after a newer
//! one. It never waits for persistence: queries are under way beside it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parlance_bus::{Bus, Subscription};
use parlance_proto::v1::{Presence, PresenceStatus, Presences};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::backoff::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::state::{Followed, Moment, PresenceEffect, PresenceInput, PresenceState, Viewer};
use super::watches::Doubt;
use crate::backend::Backend;
use crate::backend::actor;
use crate::clock::{at, now};
use crate::delivery::presence_input::Inbox;
use crate::delivery::rooms::Rooms;
use crate::delivery::rooms::frames::Frames;
use crate::dialect::{Outbound, Place};
use crate::session::{Session, SessionId};

/// Pause before a query that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest of these pauses.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Users in one query.
const CHUNK: usize = 1_000;

/// The task; see the module.
pub struct PresenceFanout {
    rooms: Rooms,
    backend: Backend,
    state: PresenceState<Arc<Session>>,
    retries: Backoff,
    lookup: Option<Lookup>,
    reading: Option<Reading>,
    rechecks: FuturesUnordered<Recheck>,
}

/// The presence of users, under way; `None` where no answer came.
type Lookup = BoxFuture<'static, Option<Vec<Presence>>>;
/// The same of the next changes that the bus may have lost.
type Reading = BoxFuture<'static, Option<Presences>>;
/// The answer to what a session may watch.
type Recheck = BoxFuture<'static, (Arc<Session>, Vec<Presence>)>;

impl Viewer for Arc<Session> {
    fn id(&self) -> SessionId {
        self.id
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn is_greeted(&self) -> bool {
        self.dialect().shows_presence() && self.dialect().joins_by_itself()
    }

    fn has_ended(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn hides(&self, user: &str) -> bool {
        self.hidden.hides(user)
    }
}

impl Followed for Rooms {
    fn place(&self, conversation: ConversationId) -> Option<Arc<Place>> {
        self.place(conversation)
    }

    fn conversations_of(&self, user: &str) -> Vec<ConversationId> {
        self.members().conversations_of(user)
    }

    fn is_known(&self, user: &str) -> bool {
        self.members().is_known(user)
    }

    fn removals(&self) -> u64 {
        self.members().removals()
    }
}

impl PresenceFanout {
    /// `large_group` and the pause between two readings of changes: see `defaults.toml`.
    pub fn new(rooms: Rooms, backend: Backend, large_group: usize, check: Duration) -> Self {
        Self {
            rooms,
            backend,
            state: PresenceState::new(large_group, check, Instant::now()),
            retries: Backoff::new(RETRY, LONGEST_RETRY),
            lookup: None,
            reading: None,
            rechecks: FuturesUnordered::new(),
        }
    }

    /// Works until `stop`.
    ///
    /// # Errors
    /// The subscription cannot be made, or NATS is gone for good.
    pub async fn run(mut self, bus: Bus, mut inbox: Inbox, stop: CancellationToken) -> anyhow::Result<()> {
        let mut changes: Subscription<Presence> = bus.subscribe_presence().await?;
        let mut link = bus.link();
        let mut input = PresenceInput::Due;
        loop {
            let moment = Moment {
                at: Instant::now(),
                unix_ms: now().timestamp_millis(),
            };
            for effect in self.state.apply(input, &self.rooms, moment) {
                self.carry_out(effect);
            }
            input = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.next() => match change {
                    Some(change) => PresenceInput::Changed(change),
                    None => anyhow::bail!("the connection to NATS is closed"),
                },
                happened = inbox.recv() => match happened {
                    Some(happened) => PresenceInput::Reported(happened),
                    None => return Ok(()),
                },
                Some((session, allowed)) = self.rechecks.next(), if !self.rechecks.is_empty() => {
                    PresenceInput::Rechecked(session, allowed)
                }
                found = under_way(&mut self.lookup) => {
                    self.lookup = None;
                    self.looked_up(found)
                }
                found = under_way(&mut self.reading) => {
                    self.reading = None;
                    match found {
                        Some(page) => PresenceInput::ChangesRead(page),
                        None => PresenceInput::ReadFailed(Instant::now() + self.retries.next_pause()),
                    }
                }
                () = at(self.state.due_at()) => PresenceInput::Due,
                changed = link.changed() => {
                    changed?;
                    PresenceInput::Reconnected
                }
            };
        }
    }

    fn looked_up(&mut self, found: Option<Vec<Presence>>) -> PresenceInput<Arc<Session>> {
        match found {
            Some(found) => {
                self.retries.reset();
                PresenceInput::LookedUp(found)
            }
            None => PresenceInput::LookUpFailed(Instant::now() + self.retries.next_pause()),
        }
    }

    fn carry_out(&mut self, effect: PresenceEffect<Arc<Session>>) {
        match effect {
            PresenceEffect::Emit { seen, before, to } => emit(&seen, before, &to),
            // Clients that asked may have gone.
            PresenceEffect::Reply(reply, known) => drop(reply.send(known)),
            PresenceEffect::ReplyToWatch(reply, outcome) => drop(reply.send(outcome)),
            PresenceEffect::LookUp(users) => self.lookup = Some(self.look_up(users)),
            PresenceEffect::Recheck(doubt) => self.rechecks.push(self.recheck(doubt)),
            PresenceEffect::ReadChanges(since_us) => {
                let backend = self.backend.clone();
                let reading = async move { backend.presence_changes(None, since_us).await.ok() };
                self.reading = Some(Box::pin(reading));
            }
        }
    }

    fn look_up(&self, users: Vec<String>) -> Lookup {
        let backend = self.backend.clone();
        Box::pin(async move {
            let mut found = Vec::with_capacity(users.len());
            for chunk in users.chunks(CHUNK) {
                found.extend(backend.presence(None, chunk.to_vec()).await.ok()?.presences);
            }
            Some(found)
        })
    }

    /// Queries which of the users a session may watch. Where that cannot be answered, it is none of them.
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
}

/// Emits the presence of a user, encoded once per dialect.
fn emit(seen: &Presence, before: PresenceStatus, to: &[Arc<Session>]) {
    let mut frames = Frames::new(Outbound::Presence { seen, before });
    for session in to {
        for frame in frames.of(session.dialect()) {
            session.emit_ephemeral(frame);
        }
    }
}

/// Completes with the answer that is under way; never without one.
async fn under_way<T>(answer: &mut Option<BoxFuture<'static, T>>) -> T {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}
