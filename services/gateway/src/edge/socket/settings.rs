//! The settings of Socket.IO; `defaults.toml` documents each. Must not act on them.

use std::num::{NonZeroU32, NonZeroUsize};

use parlance_runtime::config::{Invalid, Validate, in_range};
use serde::Deserialize;

use super::packets::MessageLimit;
use crate::edge::endpoints::Endpoints;

/// Socket.IO.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketSettings {
    /// HTTP paths, all for the same.
    pub path: Vec<String>,
    /// Namespaces, all for the same.
    pub namespaces: Vec<String>,
    /// Folder with the client library; empty for none.
    pub client_folder: String,
    /// Admission limit.
    pub max_connections: usize,
    /// Admission limit.
    pub handshakes_per_second: NonZeroU32,
    /// Admission limit of one address.
    pub handshakes_per_address: NonZeroU32,
    /// Admission limit.
    pub handshakes_under_way: usize,
    /// Sessions of one user on this replica.
    pub sessions_per_user: NonZeroUsize,
    /// Heartbeat.
    pub ping_interval_ms: u64,
    /// Heartbeat.
    pub ping_timeout_ms: u64,
    /// Until the token.
    pub connect_timeout_ms: u64,
    /// Inbound event.
    pub max_message_bytes: usize,
    /// Inbound, until the token was accepted.
    pub max_connect_bytes: usize,
    /// Without progress of a write.
    pub write_stall_ms: u64,
    /// Outbound.
    pub max_backlog_bytes: u64,
    /// Outbound.
    pub max_backlog_packets: usize,
    /// Inbound.
    pub max_waiting_events: usize,
    /// Inbound.
    pub max_waiting_bytes: usize,
}

impl SocketSettings {
    /// How large messages of clients may be.
    pub fn message_limit(&self) -> MessageLimit {
        MessageLimit {
            connected: self.max_message_bytes,
            connecting: self.max_connect_bytes,
        }
    }
}

impl Validate for SocketSettings {
    fn validate(&self) -> Result<(), Invalid> {
        Endpoints::new(&self.path, &self.namespaces)?;
        in_range("socket.max_connections", self.max_connections, 1..=10_000_000)?;
        in_range(
            "socket.handshakes_per_second",
            self.handshakes_per_second.get(),
            1..=1_000_000,
        )?;
        in_range(
            "socket.handshakes_per_address",
            self.handshakes_per_address.get(),
            1..=1_000_000,
        )?;
        in_range(
            "socket.sessions_per_user",
            self.sessions_per_user.get(),
            1..=100_000,
        )?;
        in_range(
            "socket.max_connect_bytes",
            self.max_connect_bytes,
            1_024..=67_108_864,
        )?;
        in_range(
            "socket.handshakes_under_way",
            self.handshakes_under_way,
            16..=1_000_000,
        )?;
        in_range("socket.ping_interval_ms", self.ping_interval_ms, 100..=300_000)?;
        in_range("socket.ping_timeout_ms", self.ping_timeout_ms, 100..=300_000)?;
        in_range("socket.connect_timeout_ms", self.connect_timeout_ms, 100..=60_000)?;
        in_range(
            "socket.max_message_bytes",
            self.max_message_bytes,
            1_024..=67_108_864,
        )?;
        in_range("socket.write_stall_ms", self.write_stall_ms, 100..=60_000)?;
        in_range(
            "socket.max_backlog_bytes",
            self.max_backlog_bytes,
            65_536..=1_073_741_824,
        )?;
        in_range(
            "socket.max_backlog_packets",
            self.max_backlog_packets,
            128..=1_000_000,
        )?;
        in_range(
            "socket.max_waiting_events",
            self.max_waiting_events,
            1..=1_000_000,
        )?;
        in_range(
            "socket.max_waiting_bytes",
            self.max_waiting_bytes,
            1_024..=1_073_741_824,
        )
    }
}
