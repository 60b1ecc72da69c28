//! A lock between processes, held on a file until dropped or until the holder dies.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;

/// An exclusive lock. The file stays: removing it would let two holders in.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock on `path`, creating the file and its folder; calls `busy` once before waiting.
    ///
    /// # Errors
    /// The file cannot be created or locked.
    pub fn acquire(path: &Path, busy: impl FnOnce()) -> anyhow::Result<Self> {
        let describe = || format!("cannot lock {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(describe)?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(describe)?;
        if file.try_lock().is_err() {
            busy();
            file.lock().with_context(describe)?;
        }
        Ok(Self { _file: file })
    }
}
