//! The life of a session: takes its events one after the other and has them carried out.

mod journal;
mod perform;
mod renewal;

pub use perform::send_message;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use parlance_proto::ConversationId;
use socketioxide::extract::SocketRef;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::connect::Prepared;
use super::inbound::{Event, Inbound, Queue};
use super::session::{Request, Session};
use crate::app::Shared;
use crate::backend;
use crate::dialect::{self, Dialect};
use crate::idempotency::KeyedRequest;
use crate::journal::OpenJournal;
use renewal::Expiry;

/// A session being served.
struct Serving {
    shared: Shared,
    session: Arc<Session>,
    /// Conversations the client joined at least once.
    joined: HashSet<ConversationId>,
    /// Conversations whose participants were shown that this client looks.
    shown_in: HashSet<ConversationId>,
    /// Whether the next event that only one dialect understands decides what the session speaks.
    learns: bool,
    /// Attaches the session to its user's conversations.
    arrival: Option<JoinHandle<()>>,
    /// Conversations in which the client's user began to type.
    typing_in: HashSet<ConversationId>,
    /// Journals that the client follows or edits.
    journals: HashMap<ConversationId, Arc<OpenJournal>>,
}

/// Serves a session that its client knows of now.
pub(super) async fn begin(socket: SocketRef) {
    let Some(Prepared {
        session,
        queue,
        shared,
        learns,
        expected,
        since,
        returns,
        emitted,
    }) = socket.extensions.remove::<Prepared>()
    else {
        return;
    };
    // Taken once: this handler runs once per connect.
    let Some(queue) = queue.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    drop(socket);
    tracing::debug!(user = %session.user, session = ?session.id, "connected");
    if let Some(oldest) = shared.sessions.insert(Arc::clone(&session), returns) {
        oldest.displace(shared.sessions.per_user());
    }
    shared.presence.arrived(&session);
    let arrival = shared.users.arrived(Arc::clone(&session), since, &emitted);
    drop(expected);
    // Revoked between its check and now, when nobody could find it among the sessions.
    if session.is_revoked(shared.auth.revocations()) {
        session.dismiss();
    } else if let Some(for_good) = shared.sessions.sent_away(&session) {
        session.send_away(for_good);
    }
    let mut serving = Serving {
        shared,
        session,
        joined: HashSet::new(),
        shown_in: HashSet::new(),
        learns,
        arrival,
        typing_in: HashSet::new(),
        journals: HashMap::new(),
    };
    serving.serve(queue).await;
    serving.end().await;
}

impl Serving {
    async fn serve(&mut self, mut queue: Queue) {
        let session = Arc::clone(&self.session);
        let mut expiry = Expiry::new(&session, self.shared.expiry_notice);
        loop {
            let inbound = tokio::select! {
                biased;
                () = session.closed.cancelled() => return,
                () = expiry.comes() => {
                    if expiry.is_over(&session) {
                        tracing::info!(user = %session.user, "the token of a connection expired");
                        session.dismiss();
                        return;
                    }
                    continue;
                }
                inbound = queue.next() => match inbound {
                    Some(inbound) => inbound,
                    None => return,
                },
            };
            queue.taken(&inbound);
            self.handle(inbound).await;
            expiry.follow(&session);
        }
    }

    async fn handle(&mut self, inbound: Inbound) {
        let event = inbound.event();
        if let Ok(event) = &event
            && event.name == renewal::EVENT
        {
            let outcome = self.renew(event.payload).await;
            return self.renewed(outcome, inbound.ack);
        }
        let admitted = match &event {
            Ok(event) => {
                let bytes = event.name.len() + event.payload.get().len();
                self.shared.limits.admit(&self.session.user, bytes)
            }
            Err(_) => Ok(()),
        };
        if self.learns
            && admitted.is_ok()
            && let Ok(event) = &event
        {
            self.listen(event).await;
        }
        let session = &self.session;
        let decoded = event.and_then(|event| {
            let known = session.dialect().inbound_events();
            let name = known
                .iter()
                .copied()
                .find(|known| *known == event.name)
                .unwrap_or("other");
            metrics::counter!("chat_gateway_events_total", "direction" => "in", "event" => name).increment(1);
            admitted?;
            let limits = &self.shared.limits;
            let dialect = session.dialect();
            let decoded = dialect.decode(session.speaker(), event.name, event.payload, limits)?;
            let key = match decoded.action.is_change() {
                true => dialect.idempotency_key(event.payload)?,
                false => None,
            };
            let json = event.payload.get().as_bytes();
            let keyed = key.map(|key| {
                KeyedRequest::new(key, &[b"event", dialect.name().as_bytes(), name.as_bytes()], json)
            });
            Ok((name, decoded, keyed))
        });
        match decoded {
            Ok((name, decoded, keyed)) => {
                let span = tracing::info_span!(
                    "receive",
                    otel.name = %format_args!("receive {name}"),
                    otel.kind = "server",
                    otel.status_code = tracing::field::Empty,
                    event = name,
                    dialect = session.dialect().name(),
                );
                let performed = self.perform(name, decoded, keyed, inbound);
                backend::together(performed).instrument(span).await;
            }
            Err(error) => {
                let (name, tag) = match inbound.event() {
                    Ok(event) => (
                        event.name.to_owned(),
                        session.dialect().tag(event.name, event.payload),
                    ),
                    Err(_) => (String::new(), None),
                };
                let request = Request {
                    ack: inbound.ack,
                    event: &name,
                    tag: tag.as_deref(),
                };
                session.answer(request, Err(&error), None);
            }
        }
    }

    /// Takes over the dialect that an event shows.
    async fn listen(&mut self, event: &Event<'_>) {
        let (session, limits) = (&self.session, &self.shared.limits);
        let assumed = session.dialect();
        if let Some(dialect) =
            dialect::shown_by(assumed, session.speaker(), event.name, event.payload, limits)
        {
            self.learn(dialect.showing(self.shared.dialects.streams)).await;
        }
    }

    /// The client has shown what it speaks. What that dialect does by itself at connect happens now.
    async fn learn(&mut self, dialect: &'static dyn Dialect) {
        self.learns = false;
        let arrival = self.arrival.take();
        let Self { shared, session, .. } = self;
        if session.dialect().name() == dialect.name() {
            session.learn(dialect);
            return;
        }
        if let Some(arrival) = arrival {
            // A session that is attached later would be told once more what it missed. It ends by itself.
            drop(arrival.await);
        }
        tracing::debug!(user = %session.user, session = ?session.id, dialect = dialect.name(), "learned a dialect");
        session.learn(dialect);
        for conversation in session.conversations() {
            // What the client joined by name it goes on to follow.
            if !self.joined.contains(&conversation) {
                session.detached(conversation);
                shared.rooms.detach(conversation, session.id);
            }
        }
        // Before the event: a conversation that it joins begins with what the client missed.
        shared.users.arrives_again(Arc::clone(session)).await;
    }

    async fn end(mut self) {
        // A token that expired ends it before its connection does: nothing is attached any more.
        self.session.closed.cancel();
        for conversation in std::mem::take(&mut self.typing_in) {
            self.shows_typing(conversation, false).await;
        }
        for conversation in std::mem::take(&mut self.shown_in) {
            self.show(conversation, false).await;
        }
        let Self {
            shared,
            session,
            journals,
            ..
        } = self;
        session.leave();
        shared.sessions.ends(&session);
        shared.users.gone(&session);
        shared.presence.gone(&session);
        tokio::time::sleep(session.last_poll()).await;
        for conversation in session.conversations() {
            shared.rooms.detach(conversation, session.id);
        }
        session.close_tracking();
        for journal in journals.into_values() {
            journal::forget(journal, session.id);
        }
        tracing::debug!(user = %session.user, session = ?session.id, "disconnected");
        session.forgotten().await;
        shared.sessions.ended(&session);
    }
}
