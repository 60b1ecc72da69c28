//! Where the development stack keeps its files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::devstack::account::{Account, open_folder};
use crate::devstack::lock::Lock;
use crate::devstack::repository;
use crate::environment;

/// Marks every process of the stack, so that it is recognised even when the state file is lost.
pub const MARK: &str = "PARLANCE_DEVSTACK_DIR";

/// The `.devstack` folder of the repository, or the folder named by `PARLANCE_DEVSTACK_DIR`.
#[derive(Clone, Debug)]
pub struct DevFolder {
    root: PathBuf,
}

impl Default for DevFolder {
    fn default() -> Self {
        let named = environment::variable(MARK).map(PathBuf::from);
        Self {
            root: named.unwrap_or_else(|| repository().join(".devstack")),
        }
    }
}

impl DevFolder {
    /// The stack in a given folder.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What every process of the stack has in its environment.
    #[must_use]
    pub fn mark(&self) -> (String, String) {
        (MARK.to_owned(), self.root.display().to_string())
    }

    /// Logs of all processes.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Settings for other programs, see [`super::env_file`].
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.root.join("env")
    }

    /// What runs, see [`super::state`].
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Data of the servers.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Data of Postgres, which needs a place that its account can reach.
    #[must_use]
    pub fn postgres_data(&self, account: Account, major: u32) -> PathBuf {
        let data = if account == Account::Nobody {
            self.open_data()
        } else {
            self.data()
        };
        data.join(format!("postgres-{major}"))
    }

    /// Data of servers that run as another account.
    #[must_use]
    pub fn open_data(&self) -> PathBuf {
        open_folder(&self.root).join("data")
    }

    /// Waits until no other command changes the stack.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn lock(&self, busy: impl FnOnce()) -> anyhow::Result<Lock> {
        Lock::acquire(&self.root.join("lock"), busy)
    }

    /// The secret that tokens are signed with, made once; `PARLANCE_JWT_SECRET` goes first.
    ///
    /// # Errors
    /// The secret cannot be written.
    pub fn secret(&self) -> anyhow::Result<String> {
        if let Some(secret) = environment::variable("PARLANCE_JWT_SECRET") {
            return Ok(secret);
        }
        let path = self.secret_file();
        if let Ok(secret) = fs::read_to_string(&path)
            && !secret.trim().is_empty()
        {
            return Ok(secret.trim().to_owned());
        }
        let secret = environment::random_hex() + &environment::random_hex();
        write_private(&path, &secret)?;
        Ok(secret)
    }

    /// Holds the secret between runs.
    #[must_use]
    pub fn secret_file(&self) -> PathBuf {
        self.root.join("jwt-secret")
    }
}

/// Replaces a file as a whole; only its owner can read it.
///
/// # Errors
/// The folder cannot be written.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let describe = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(describe)?;
    }
    let unfinished = path.with_extension("unfinished");
    // A left-over file could have another mode, which opening would keep.
    fs::remove_file(&unfinished).ok();
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)
        .with_context(describe)?;
    file.write_all(text.as_bytes()).with_context(describe)?;
    fs::rename(&unfinished, path).with_context(describe)
}
