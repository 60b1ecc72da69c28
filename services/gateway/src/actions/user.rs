//! The user on whose behalf actions are performed.

use parlance_proto::UserId;
use parlance_proto::v1::{Actor, SenderKind, User};

use crate::auth::Identity;
use crate::backend::actor;

/// A verified and known user.
#[derive(Debug, Clone)]
pub struct ActingUser {
    /// From the token.
    pub id: UserId,
    /// The name others see.
    pub username: String,
    /// A person or an agent.
    pub kind: SenderKind,
}

impl ActingUser {
    /// The user of a token, as persistence knows them.
    pub fn new(identity: Identity, known: User) -> Self {
        Self {
            kind: sender_kind(&identity, &known),
            id: identity.user_id,
            username: known.username,
        }
    }

    /// As the actor of commands and queries.
    pub fn actor(&self) -> Actor {
        Actor {
            kind: self.kind.into(),
            ..actor(&self.id, &self.username)
        }
    }
}

/// The kind of a user as sender: an agent where the token or the directory says so.
pub fn sender_kind(identity: &Identity, user: &User) -> SenderKind {
    if identity.is_agent || user.agent {
        SenderKind::Agent
    } else {
        SenderKind::User
    }
}
