//! Under which account Postgres runs, because it refuses to run as root.
//!
//! Must not touch data; it only says how a program is wrapped and where its files may live.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::bail;

use crate::environment;

/// `nobody` exists with this number on every system; Postgres refuses numbers without a passwd entry.
const NOBODY: u32 = 65534;

/// How a server that refuses root is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// As the caller, not root.
    Caller,
    /// As root seen as `nobody` inside a user namespace: files stay the caller's.
    UserNamespace,
    /// As `nobody`, where user namespaces are refused (containers): files must be reachable for it.
    Nobody,
}

impl Account {
    /// The way that works on this machine, found once per process.
    ///
    /// # Errors
    /// The caller is root and neither user namespaces nor `setpriv` are available.
    pub fn detect() -> anyhow::Result<Self> {
        static FOUND: OnceLock<Option<Account>> = OnceLock::new();
        match FOUND.get_or_init(Self::probe) {
            Some(account) => Ok(*account),
            None => bail!(
                "Postgres refuses to run as root, and neither user namespaces (`unshare --user`) nor `setpriv` \
                 are available: run as another user, install util-linux, or set DATABASE_URL"
            ),
        }
    }

    fn probe() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return Some(Self::Caller);
        }
        let candidates: &[Self] = match environment::variable("PARLANCE_DEVSTACK_ACCOUNT").as_deref() {
            Some("nobody") => &[Self::Nobody],
            _ => &[Self::UserNamespace, Self::Nobody],
        };
        candidates.iter().copied().find(|candidate| {
            let mut words = candidate.wrapper();
            words.push("true".into());
            succeeds(&words)
        })
    }

    /// The words to put before a command so that it runs under this account; they end in `exec`, so the
    /// process id stays the same.
    #[must_use]
    pub fn wrapper(self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Caller => &[],
            Self::UserNamespace => &["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"],
            Self::Nobody => &[
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--",
            ],
        };
        words.iter().map(ToString::to_string).collect()
    }

    /// Hands `folder` to the account where it would not own it otherwise.
    ///
    /// # Errors
    /// The owner cannot be changed.
    pub fn adopt(self, folder: &Path) -> std::io::Result<()> {
        match self {
            Self::Caller | Self::UserNamespace => Ok(()),
            Self::Nobody => std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)),
        }
    }
}

/// A folder that every account may enter, one per `owner` path.
#[must_use]
pub fn open_folder(owner: &Path) -> PathBuf {
    let mut hasher = std::hash::DefaultHasher::new();
    owner.hash(&mut hasher);
    PathBuf::from(format!("/var/tmp/parlance-{:016x}", hasher.finish()))
}

/// Runs a command without input or output and returns whether it succeeded.
pub(crate) fn succeeds(words: &[String]) -> bool {
    let Some((program, arguments)) = words.split_first() else {
        return false;
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
