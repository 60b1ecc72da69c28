//! The roles of `deploy/nats.conf` on a local NATS server: that very file, and a password for each role.
//!
//! Knows the names of the roles, nothing of what each may do.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::repository;

/// A user of the account file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The service that holds the connections.
    Gateway,
    /// The service that owns the database.
    Persistence,
    /// A service that sends messages into conversations.
    Emitter,
    /// The service that reaches the absent.
    Push,
    /// A service that follows what happens.
    Feed,
    /// Operators.
    Operator,
}

/// The passwords of one server's roles.
#[derive(Clone, Debug)]
pub struct Accounts {
    secret: String,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Gateway,
        Self::Persistence,
        Self::Emitter,
        Self::Push,
        Self::Feed,
        Self::Operator,
    ];

    /// Its user name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persistence => "persistence",
            Self::Emitter => "emitter",
            Self::Push => "push",
            Self::Feed => "feed",
            Self::Operator => "operator",
        }
    }

    /// What its inboxes begin with.
    #[must_use]
    pub fn inbox(self) -> String {
        match self {
            Self::Emitter => "_INBOX.emitter.shop".to_owned(),
            role => format!("_INBOX.{}", role.name()),
        }
    }
}

impl Accounts {
    /// What a server's own configuration begins with.
    pub(super) const INCLUDE: &str = "include \"accounts.conf\"\n";

    /// Passwords that nobody knows who does not know `secret`.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
        }
    }

    /// The password of a role; it begins with a letter, because the server reads digits as a number.
    #[must_use]
    pub fn password(&self, role: Role) -> String {
        format!("{}-{}", role.name(), self.secret)
    }

    /// What the server needs to know.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let variable = |role: Role| format!("NATS_{}_PASSWORD", role.name().to_uppercase());
        Role::ALL
            .map(|role| (variable(role), self.password(role)))
            .to_vec()
    }

    /// Puts the file into `folder`.
    pub(super) fn install(folder: &Path) -> anyhow::Result<()> {
        let file = repository().join("deploy/nats.conf");
        fs::copy(&file, folder.join("accounts.conf"))
            .map(drop)
            .with_context(|| format!("cannot copy {}", file.display()))
    }
}
