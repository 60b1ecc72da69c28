//! The Socket.IO side, and the only folder that names socketioxide. What the engine does not do by itself
//! is made up for here, with the reason beside it.

pub mod drain;
pub mod handshake;
pub mod inbound;
pub mod listener;
pub mod relay;
pub mod session;
pub mod sessions;
pub mod tls;

mod connect;
mod serve;

pub use serve::send_message;

use std::time::Duration;

use socketioxide::SocketIo;
use socketioxide::handler::ConnectHandler as _;

use crate::app::Shared;
use crate::config::Socket;
use handshake::{Elsewhere, Engine};

/// The engine with its one namespace. Sessions are served once clients connect.
pub fn engine(settings: &Socket, shared: &Shared) -> Engine {
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
    let middleware = {
        let shared = shared.clone();
        async move |socket, auth| connect::authenticate(&shared, socket, auth).await
    };
    io.ns("/", serve::begin.with(middleware));
    engine
}
