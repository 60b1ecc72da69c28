//! The life of a session: takes its events one after the other, decodes them and has them performed.

mod renewal;

use std::sync::{Arc, PoisonError};

use serde_json::value::RawValue;
use socketioxide::extract::SocketRef;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::connect::Prepared;
use super::inbound::{Event, Inbound, Queue};
use crate::actions::perform::session::{Beginning, ClientEvent, SessionActions};
use crate::backend;
use crate::dialect::key::KeyedRequest;
use crate::dialect::{self, Action, Dialect};
use crate::edge::socket::state::SocketState;
use crate::error::ClientError;
use crate::session::{Request, Session};
use renewal::Expiry;

/// A session being served.
struct Serving {
    state: SocketState,
    session: Arc<Session>,
    /// Performs its actions.
    actions: SessionActions,
    /// Whether the next event that only one dialect understands decides what the session speaks.
    learns: bool,
    /// Attaches the session to its user's conversations.
    arrival: Option<JoinHandle<()>>,
}

/// Serves a session that its client knows of now.
pub(super) async fn begin(socket: SocketRef) {
    let Some(Prepared {
        session,
        queue,
        state,
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
    let beginning = Beginning {
        returns,
        since,
        emitted: &emitted,
    };
    let (actions, arrival) = SessionActions::begin(state.core.clone(), Arc::clone(&session), beginning);
    drop(expected);
    let mut serving = Serving {
        actions,
        state,
        session,
        learns,
        arrival,
    };
    serving.serve(queue).await;
    serving.end().await;
}

impl Serving {
    async fn serve(&mut self, mut queue: Queue) {
        let session = Arc::clone(&self.session);
        let mut expiry = Expiry::new(&session, self.state.expiry_notice);
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

    async fn handle(&mut self, Inbound { at, ack, packet }: Inbound) {
        let event = match packet.event() {
            Ok(event) => event,
            Err(error) => {
                let (event, tag) = ("", None);
                return self
                    .session
                    .answer(Request { ack, event, tag }, Err(&error), None);
            }
        };
        if event.name == renewal::EVENT {
            let outcome = self.renew(event.payload).await;
            return self.renewed(outcome, ack);
        }
        let bytes = event.name.len() + event.payload.get().len();
        let admitted = self.state.core.limits.admit(&self.session.user, bytes);
        if self.learns && admitted.is_ok() {
            self.listen(&event).await;
        }
        let (session, limits) = (&self.session, &self.state.core.limits);
        let dialect = session.dialect();
        let mut known = dialect.inbound_events().iter().copied();
        let name = known.find(|known| *known == event.name).unwrap_or("other");
        metrics::counter!("chat_gateway_events_total", "direction" => "in", "event" => name).increment(1);
        let decoded = admitted
            .and_then(|()| dialect.decode(session.speaker(), event.name, event.payload, limits))
            .and_then(|decoded| Ok((keyed(dialect, name, &decoded.action, event.payload)?, decoded)));
        match decoded {
            Ok((keyed, decoded)) => {
                let span = tracing::info_span!(
                    "receive",
                    otel.name = %format_args!("receive {name}"),
                    otel.kind = "server",
                    otel.status_code = tracing::field::Empty,
                    event = name,
                    dialect = dialect.name(),
                );
                let received = ClientEvent {
                    event: name,
                    at,
                    ack,
                    keyed,
                };
                let performed = self.actions.perform(received, decoded);
                backend::together(performed).instrument(span).await;
            }
            Err(error) => {
                let tag = dialect.tag(event.name, event.payload);
                let request = Request {
                    ack,
                    event: event.name,
                    tag: tag.as_deref(),
                };
                session.answer(request, Err(&error), None);
            }
        }
    }

    /// Takes over the dialect that an event shows.
    async fn listen(&mut self, event: &Event<'_>) {
        let (session, limits) = (&self.session, &self.state.core.limits);
        let assumed = session.dialect();
        if let Some(dialect) =
            dialect::shown_by(assumed, session.speaker(), event.name, event.payload, limits)
        {
            let streams = self.state.gate.dialects.streams;
            self.learn(dialect::by_name(dialect.name(), streams).unwrap_or(dialect))
                .await;
        }
    }

    /// The client has shown what it speaks. What that dialect does by itself at connect happens now.
    async fn learn(&mut self, dialect: &'static dyn Dialect) {
        self.learns = false;
        let arrival = self.arrival.take();
        let session = &self.session;
        if session.dialect().name() == dialect.name() {
            session.learn(dialect);
            return;
        }
        if let Some(arrival) = arrival {
            // A session that is attached later would be told once more what it missed. It ends by itself.
            drop(arrival.await);
        }
        tracing::debug!(user = %session.user, session = ?session.id, dialect = dialect.name(), "learned a dialect");
        self.actions.learn(dialect).await;
    }

    async fn end(self) {
        // A token that expired ends it before its connection does: nothing is attached any more.
        self.session.closed.cancel();
        self.actions.end().await;
    }
}

/// The idempotency key of an event that changes something, where it has one.
fn keyed(
    dialect: &dyn Dialect,
    name: &str,
    action: &Action,
    payload: &RawValue,
) -> Result<Option<KeyedRequest>, ClientError> {
    if !action.is_change() {
        return Ok(None);
    }
    let key = dialect.idempotency_key(payload)?;
    let parts: [&[u8]; 3] = [b"event", dialect.name().as_bytes(), name.as_bytes()];
    Ok(key.map(|key| KeyedRequest::new(key, &parts, payload.get().as_bytes())))
}
