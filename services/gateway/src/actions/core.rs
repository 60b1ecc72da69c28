//! All that is below the edge, in one place: what sockets and routes share.

use std::ops::Deref;
use std::sync::Arc;

use parlance_bus::Bus;

use super::commands::Commands;
use super::idempotency::Idempotency;
use super::resolver::Resolver;
use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::delivery::journal::turns::Turns;
use crate::delivery::presence::Presences;
use crate::delivery::rooms::Rooms;
use crate::delivery::served::Served;
use crate::delivery::users::Users;
use crate::limits::Limits;
use crate::session::sessions::Sessions;

/// All that is below the edge. Cheap to clone.
#[derive(Clone)]
pub struct Core(Arc<Parts>);

/// The parts of [`Core`].
pub struct Parts {
    /// NATS.
    pub bus: Bus,
    /// Persistence.
    pub backend: Backend,
    /// Tokens.
    pub auth: Authenticator,
    /// Sizes and rates.
    pub limits: Limits,
    /// Connections of this replica.
    pub sessions: Sessions,
    /// What users were served.
    pub served: Served,
    /// Costly work on journals.
    pub turns: Turns,
    /// Conversations that are followed here.
    pub rooms: Rooms,
    /// Connected users.
    pub users: Users,
    /// Presence of users.
    pub presence: Presences,
    /// The way in.
    pub commands: Commands,
    /// Changes that clients may repeat by a key.
    pub idempotency: Idempotency,
    /// From the ids clients have to ours.
    pub resolver: Resolver,
    /// Whether unknown users are created.
    pub provision: bool,
    /// See `presence.large_group` in `defaults.toml`.
    pub large_group: usize,
}

impl Core {
    /// Made of these.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Core {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
