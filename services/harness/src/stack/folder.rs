//! The folder of a throw-away stack.
//!
//! Removes what stacks of killed test processes left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

use crate::devstack::account::Account;
use crate::devstack::identity::Identity;

const PREFIX: &str = "parlance-test-";

/// A temporary folder whose name names the process it belongs to.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Creates a folder, after removing those of processes that no longer live.
    ///
    /// # Errors
    /// The temporary folder of the system cannot be written.
    pub fn create() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let describe = || format!("cannot create a folder in {}", parent.display());
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .with_context(describe)?;
        if Account::detect()? == Account::Nobody {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).with_context(describe)?;
        }
        Ok(Self(folder))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        let Some(pid) = owner.and_then(|(pid, _)| pid.parse().ok()) else {
            continue;
        };
        if Identity::of(pid).is_none() {
            // Another test process may be removing it at the same moment.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
