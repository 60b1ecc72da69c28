//! The life of a session: takes its events one after the other and has them carried out.

mod journal;
mod perform;

pub use perform::send_message;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use parlance_proto::ConversationId;
use socketioxide::extract::SocketRef;
use tracing::Instrument as _;

use super::connect::Prepared;
use super::inbound::{Inbound, Queue};
use super::session::{Request, Session};
use crate::app::Shared;
use crate::commands::now;
use crate::journal::Shadow;

/// How long a client may take to leave by itself after it was told to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// A session being served.
struct Serving {
    shared: Shared,
    session: Arc<Session>,
    /// Conversations whose participants were shown that this client looks.
    shown_in: HashSet<ConversationId>,
    /// What the client may show of journals it follows or edits.
    journals: HashMap<ConversationId, Shadow>,
}

/// Serves a session that its client knows of now.
pub(super) async fn begin(socket: SocketRef) {
    let Some(Prepared {
        session,
        queue,
        shared,
        expected,
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
    shared.sessions.insert(Arc::clone(&session));
    shared.presence.arrived(&session);
    shared.users.arrived(Arc::clone(&session));
    drop(expected);
    let mut serving = Serving {
        shared,
        session,
        shown_in: HashSet::new(),
        journals: HashMap::new(),
    };
    serving.serve(queue).await;
    serving.end().await;
}

impl Serving {
    async fn serve(&mut self, mut queue: Queue) {
        let session = Arc::clone(&self.session);
        let left = u64::try_from(session.expires_at - now().timestamp()).unwrap_or_default();
        let expiry = tokio::time::sleep(Duration::from_secs(left));
        tokio::pin!(expiry);
        loop {
            let inbound = tokio::select! {
                biased;
                () = session.closed.cancelled() => return,
                () = &mut expiry => {
                    tracing::info!(user = %session.user, "the token of a connection expired");
                    session.expel();
                    tokio::time::sleep(FAREWELL).await;
                    session.close_transport();
                    return;
                }
                inbound = queue.next() => match inbound {
                    Some(inbound) => inbound,
                    None => return,
                },
            };
            if queue.done(&inbound)
                && let Some(wire) = session.wire()
            {
                wire.resume();
            }
            self.handle(inbound).await;
        }
    }

    async fn handle(&mut self, inbound: Inbound) {
        let session = &self.session;
        let decoded = inbound.event().and_then(|event| {
            let known = session.dialect.inbound_events();
            let name = known
                .iter()
                .copied()
                .find(|known| *known == event.name)
                .unwrap_or("other");
            metrics::counter!("chat_gateway_events_total", "direction" => "in", "event" => name).increment(1);
            self.shared.limits.admit(&session.user)?;
            let limits = &self.shared.limits;
            let decoded = session
                .dialect
                .decode(session.speaker(), event.name, event.payload, limits)?;
            Ok((name, decoded))
        });
        match decoded {
            Ok((name, decoded)) => {
                let span = tracing::info_span!("receive", event = name);
                self.perform(name, decoded, inbound).instrument(span).await;
            }
            Err(error) => {
                let (name, tag) = match inbound.event() {
                    Ok(event) => (
                        event.name.to_owned(),
                        session.dialect.tag(event.name, event.payload),
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

    async fn end(mut self) {
        for conversation in std::mem::take(&mut self.shown_in) {
            self.show(conversation, false).await;
        }
        let Self { shared, session, .. } = self;
        shared.sessions.remove(&session);
        shared.users.gone(&session);
        shared.presence.gone(&session);
        for conversation in session.conversations() {
            shared.rooms.detach(conversation, session.id);
        }
        tracing::debug!(user = %session.user, session = ?session.id, "disconnected");
    }
}
