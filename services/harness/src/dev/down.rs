//! `make down`: ends every process of the stack and frees its ports.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::folder::DevFolder;
use super::report::line;
use super::state::State;
use crate::devstack::ports;
use crate::eventually::eventually_blocking;

const PORT_LIMIT: Duration = Duration::from_secs(5);

/// Stops everything that `up` started; with `purge` also deletes data, logs and the secret. Does
/// nothing where nothing runs. Downloaded servers stay.
///
/// # Errors
/// A port stays taken or a file cannot be removed.
pub fn down(folder: &DevFolder, purge: bool) -> anyhow::Result<()> {
    if !folder.root().is_dir() {
        line("Nothing runs here.");
        return Ok(());
    }
    let _lock = folder.lock(|| line("  … another command works on this stack, waiting for it"))?;
    let mut state = State::load(folder);
    let living = state
        .processes
        .values()
        .filter(|record| record.identity.is_alive());
    let taken: Vec<u16> = living
        .flat_map(|record| [record.port, record.internal_port])
        .filter(|port| *port > 0)
        .collect();
    let mut stopped = 0;
    // Those who need a server go before it.
    for group in ["gateway", "persistence", "nats", "postgres"] {
        let names: Vec<_> = state
            .processes
            .keys()
            .filter(|name| name.starts_with(group))
            .cloned()
            .collect();
        stopped += state.stop(&names);
    }
    stopped += state.end_strays(folder);
    fs::remove_file(folder.env_file()).ok();
    state.save(folder)?;
    let busy = || {
        taken
            .iter()
            .copied()
            .filter(|port| !ports::is_free(*port))
            .collect::<Vec<_>>()
    };
    let freed = eventually_blocking(PORT_LIMIT, || busy().is_empty());
    ensure!(
        freed,
        "ports {:?} are still taken although every process of the stack has ended",
        busy()
    );
    match stopped {
        0 => line("Nothing runs here."),
        count => line(format_args!("Stopped {count} processes.")),
    }
    if purge {
        delete(folder)?;
        line("Deleted data, logs and the secret.");
    }
    Ok(())
}

fn delete(folder: &DevFolder) -> anyhow::Result<()> {
    for path in [folder.data(), folder.open_data(), folder.logs()] {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for path in [folder.state_file(), folder.secret_file()] {
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
