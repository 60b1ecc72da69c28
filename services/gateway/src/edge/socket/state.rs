//! What connections and their sessions need.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::relay::Relay;
use super::returning::Returns;
use crate::actions::core::Core;
use crate::edge::gate::Gate;
use crate::session::transports::Transports;

/// The state of all connections. Cheap to clone.
#[derive(Clone)]
pub struct SocketState(Arc<SocketParts>);

/// The parts of [`SocketState`].
pub struct SocketParts {
    /// All that is below the edge.
    pub core: Core,
    /// What clients are judged by before they have shown a token.
    pub gate: Gate,
    /// The connection under each session.
    pub transports: Transports,
    /// Polling requests from and for other replicas.
    pub relay: Relay,
    /// Pages that are back.
    pub returns: Returns,
    /// Cancelled when this replica is to take no more clients.
    pub draining: CancellationToken,
    /// Cancelled when it refuses them: by then load balancers know.
    pub refusing: CancellationToken,
    /// How long before the end of its token a client is notified of it.
    pub expiry_notice: Duration,
    /// Open TCP connections.
    pub connections: Arc<AtomicUsize>,
    /// See `defaults.toml`.
    pub max_connections: usize,
    /// See `defaults.toml`.
    pub max_backlog_bytes: u64,
    /// See `defaults.toml`.
    pub max_waiting_events: usize,
    /// See `defaults.toml`.
    pub max_waiting_bytes: usize,
}

impl SocketState {
    /// Made of these.
    pub fn new(parts: SocketParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for SocketState {
    type Target = SocketParts;

    fn deref(&self) -> &SocketParts {
        &self.0
    }
}
