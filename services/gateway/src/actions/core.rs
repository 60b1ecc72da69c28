//! What the edge knows of all that is below it. Tokens, limits, sessions and users are open to it; everything else is
//! reached through actions, reads and the few methods here.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::v1::{ErrorCode, Membership, User};
use parlance_proto::{ConversationId, ErrorCodeExt as _, UserId};
use tokio_util::sync::CancellationToken;

use super::commands::Commands;
use super::idempotency::{Claim, Idempotency};
use super::resolver::{Found, Resolver};
use super::user::ActingUser;
use crate::auth::{Authenticator, Identity};
use crate::backend::{Arrival, Backend, actor};
use crate::delivery::journal::turns::Turns;
use crate::delivery::presence::Presences;
use crate::delivery::rooms::Rooms;
use crate::delivery::served::Served;
use crate::delivery::users::Users;
use crate::dialect::key::KeyedRequest;
use crate::dialect::{ConversationRef, MessageRef};
use crate::error::ClientError;
use crate::limits::Limits;
use crate::session::page::Page;
use crate::session::sessions::Sessions;

/// All that is below the edge. Cheap to clone.
#[derive(Clone)]
pub struct Core(Arc<CoreParts>);

/// The areas that actions stand on.
#[derive(Clone)]
pub struct Areas {
    /// NATS.
    pub bus: Bus,
    /// Persistence.
    pub backend: Backend,
    /// Tokens.
    pub auth: Authenticator,
    /// Connections of this replica.
    pub sessions: Sessions,
    /// What users were served.
    pub served: Served,
    /// Conversations that are followed here.
    pub rooms: Rooms,
    /// Connected users.
    pub users: Users,
    /// Presence of users.
    pub presence: Presences,
}

/// What the settings say of actions.
pub struct Rules {
    /// Sizes and rates.
    pub limits: Limits,
    /// Partitions of commands.
    pub partitions: u16,
    /// How long an outcome may take until it is called unknown.
    pub send_timeout: Duration,
    /// Whether unknown users are created.
    pub provision: bool,
    /// See `presence.large_group` in `defaults.toml`.
    pub large_group: usize,
}

/// The parts of [`Core`].
pub struct CoreParts {
    /// Tokens.
    pub auth: Authenticator,
    /// Sizes and rates.
    pub limits: Limits,
    /// Connections of this replica.
    pub sessions: Sessions,
    /// Connected users.
    pub users: Users,
    pub(super) bus: Bus,
    pub(super) backend: Backend,
    pub(super) rooms: Rooms,
    pub(super) presence: Presences,
    served: Served,
    pub(super) turns: Turns,
    pub(super) commands: Commands,
    pub(super) resolver: Resolver,
    pub(super) idempotency: Idempotency,
    pub(super) send_timeout: Duration,
    pub(super) provision: bool,
    pub(super) large_group: usize,
}

/// What of the way to the database works.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// NATS is connected.
    pub nats: bool,
    /// A replica of persistence reaches its database.
    pub database: bool,
}

impl Core {
    /// Actions on these areas; none is under way.
    pub fn new(areas: Areas, rules: Rules) -> Self {
        let Areas {
            bus,
            backend,
            auth,
            sessions,
            served,
            rooms,
            users,
            presence,
        } = areas;
        let (partitions, send_timeout) = (rules.partitions, rules.send_timeout);
        Self(Arc::new(CoreParts {
            turns: Turns::default(),
            commands: Commands::new(
                bus.clone(),
                backend.clone(),
                rooms.clone(),
                partitions,
                send_timeout,
            ),
            resolver: Resolver::new(backend.clone()),
            idempotency: Idempotency::new(backend.clone(), send_timeout),
            limits: rules.limits,
            provision: rules.provision,
            large_group: rules.large_group,
            auth,
            sessions,
            users,
            bus,
            backend,
            rooms,
            presence,
            served,
            send_timeout,
        }))
    }

    /// Receives the confirmations of commands until `stop`.
    ///
    /// # Errors
    /// The subscription cannot be made.
    pub async fn receive_confirmations(&self, stop: CancellationToken) -> anyhow::Result<()> {
        self.commands.receive(stop).await
    }

    /// The user of a token, made known where unknown users are created.
    ///
    /// # Errors
    /// Nobody knows the user, or persistence cannot be asked now.
    pub async fn acting_user(&self, identity: Identity) -> Result<ActingUser, ClientError> {
        let username = identity.username.as_deref().unwrap_or_default();
        let me = actor(&identity.user_id, username);
        let known = self.backend.provision(Some(me), self.provision).await;
        let known = known.map_err(|error| {
            if error.code == ErrorCode::NotFound.name() {
                ClientError::new(ErrorCode::Unauthenticated, "unknown user")
            } else {
                error
            }
        })?;
        Ok(ActingUser::new(identity, known))
    }

    /// Where a user stands whose client connects.
    ///
    /// # Errors
    /// Nobody knows the user, or persistence cannot be asked now.
    pub async fn arrive(&self, arrival: Arrival) -> Result<(User, Option<Membership>), ClientError> {
        self.backend.arrive(arrival, self.provision).await
    }

    /// The conversation or journal a client means.
    ///
    /// # Errors
    /// There is none of that number, or persistence cannot be asked now.
    pub async fn conversation(&self, named: ConversationRef) -> Result<ConversationId, ClientError> {
        self.resolver.conversation(named).await
    }

    /// The message a client means. A conversation named beside it must be the message's own.
    ///
    /// # Errors
    /// There is none, or persistence cannot be asked now.
    pub async fn message(
        &self,
        conversation: Option<ConversationRef>,
        named: MessageRef,
    ) -> Result<Found, ClientError> {
        self.resolver.message(conversation, named).await
    }

    /// Claims a change that a user names by an idempotency key.
    ///
    /// # Errors
    /// The key belongs to another request, the user has too many, another attempt goes on, or persistence is away.
    pub async fn claim(&self, user: &ActingUser, request: KeyedRequest) -> Result<Claim, ClientError> {
        self.idempotency.claim(user.actor(), request).await
    }

    /// Stores what a page of a user was emitted.
    pub async fn stored(&self, user: &UserId, page: Page) {
        self.served.stored(user, page).await;
    }

    /// Whether clients may come: persistence answers, and it is known which tokens are revoked.
    pub fn is_ready(&self) -> bool {
        self.backend.is_ready() && self.auth.revocations().is_read()
    }

    /// Whether NATS is connected.
    pub fn is_connected(&self) -> bool {
        self.bus.link().borrow().connected
    }

    /// What of the way to the database works now.
    pub async fn reach(&self) -> Reach {
        let nats = self.is_connected();
        let database = nats && self.backend.ping().await.is_ok();
        Reach { nats, database }
    }
}

impl Deref for Core {
    type Target = CoreParts;

    fn deref(&self) -> &CoreParts {
        &self.0
    }
}
