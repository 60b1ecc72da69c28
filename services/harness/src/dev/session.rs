//! One command's exclusive hold on the development stack.

use super::folder::DevFolder;
use super::report::Report;
use super::state::State;
use crate::devstack::lock::Lock;

/// The folder, what is remembered about it, and what is printed at the terminal.
#[derive(Debug)]
pub struct Session {
    /// The stack's folder.
    pub folder: DevFolder,
    /// What runs; saved after each change.
    pub state: State,
    /// Progress lines.
    pub report: Report,
    _lock: Lock,
}

impl Session {
    /// Waits for other commands on this stack, then reads its state.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(folder: &DevFolder) -> anyhow::Result<Self> {
        let report = Report::default();
        let lock = folder.lock(|| report.note("another command works on this stack, waiting for it"))?;
        Ok(Self {
            folder: folder.clone(),
            state: State::load(folder),
            report,
            _lock: lock,
        })
    }

    /// Saves the state.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        self.state.save(&self.folder)
    }
}
