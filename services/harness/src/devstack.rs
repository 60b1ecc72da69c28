//! Building blocks of a local stack: servers and services as child processes.
//!
//! Owns finding programs, starting and signalling processes, and finding out by connecting whether they
//! serve. Must not decide which processes a stack has: that is [`crate::stack`] for tests and
//! [`crate::dev`] for development.

pub mod account;
pub mod accounts;
pub mod balancer;
pub mod clients;
pub mod identity;
pub mod launch;
pub mod lock;
pub mod nats;
pub mod packages;
pub mod ports;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod programs;
pub mod service;
pub mod wheels;

use std::path::{Path, PathBuf};

use crate::environment;

/// PEM files of a server or service that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signed the certificate.
    pub root: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The repository this crate was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// Where downloaded servers are kept: `PARLANCE_DEVSTACK_CACHE`, else `.devstack/cache` of the repository.
///
/// An account without rights to the caller's home needs a folder that everyone may enter.
#[must_use]
pub fn cache_folder(account: account::Account) -> PathBuf {
    match (environment::variable("PARLANCE_DEVSTACK_CACHE"), account) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, account::Account::Nobody) => account::open_folder(&repository()).join("cache"),
        (None, _) => repository().join(".devstack/cache"),
    }
}
