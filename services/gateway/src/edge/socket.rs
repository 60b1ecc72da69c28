//! The Socket.IO side; with `session` the only place that names socketioxide. What the engine does not do by itself
//! is made up for here, with the reason beside it.

pub mod drain;
pub mod engine;
pub mod engineio;
pub mod handshake;
pub mod http;
pub mod inbound;
pub mod listener;
pub mod polling;
pub mod relay;
pub mod returning;
pub mod session_id;
pub mod settings;
pub mod state;
pub mod tls;

mod admission;
mod connect;
mod connection;
pub mod packets;
pub mod pid;
mod serve;
mod upgrade;
mod websocket;

use std::time::Duration;

use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler as _;

use crate::edge::refusals::Refused;
use engine::{Elsewhere, Engine};
use settings::SocketSettings;
use state::SocketState;

/// The namespace that clients connect to unless they name another.
const MAIN: &str = "/";

/// A namespace that is not served. `Display` is what the client reads in `connect_error`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoNamespace(String);

/// The engine with its namespaces. Sessions are served once clients connect.
pub fn engine(settings: &SocketSettings, state: &SocketState) -> Engine {
    let ms = Duration::from_millis;
    let (engine, io) = SocketIo::builder()
        .ping_interval(ms(settings.ping_interval_ms))
        .ping_timeout(ms(settings.ping_timeout_ms))
        // The default of 45 s lets anyone without a token hold a connection that long.
        .connect_timeout(ms(settings.connect_timeout_ms))
        // The default of 128 packets loses the rest of any larger burst.
        .max_buffer_size(settings.max_backlog_packets)
        .max_payload(settings.max_message_bytes as u64)
        // The default of 64 MiB is an invitation.
        .ws_max_message_size(settings.max_message_bytes)
        .ws_max_frame_size(settings.max_message_bytes)
        // Allocated once per connection; larger events are read in several steps.
        .ws_read_buffer_size(1024)
        .build_with_inner_svc(Elsewhere);
    let served = state.gate.endpoints.namespaces();
    for namespace in served {
        let state = state.clone();
        let middleware = async move |socket, auth| connect::authenticate(&state, socket, auth).await;
        io.ns(namespace.clone(), serve::begin.with(middleware));
    }
    let refuse = || {
        let state = state.clone();
        async move |socket: SocketRef, io: SocketIo| refuse_namespace(&state, &socket, &io)
    };
    if !served.iter().any(|namespace| namespace == MAIN) {
        io.ns(MAIN, nobody.with(refuse()));
    }
    if let Err(error) = io.dyn_ns("/{*other}", nobody.with(refuse())) {
        tracing::error!(%error, "other namespaces cannot be answered");
    }
    engine
}

/// Names the namespaces that are served. The engine keeps each that was ever asked for, so this one goes again.
fn refuse_namespace(state: &SocketState, socket: &SocketRef, io: &SocketIo) -> Result<(), NoNamespace> {
    let namespace = socket.ns().to_owned();
    state.gate.refusals.note(&Refused {
        kind: "namespace",
        value: Some(&namespace),
        reason: "the namespace is not served",
        setting: Some("socket.namespaces"),
    });
    if namespace != MAIN {
        io.delete_ns(namespace);
    }
    Err(NoNamespace(state.gate.endpoints.no_namespace()))
}

/// Serves no session: none is let in.
async fn nobody() {}
