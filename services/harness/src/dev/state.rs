//! `.devstack/state.json`: which processes the stack has started, and on which ports.
//!
//! Says nothing about health. A lost or damaged file is an empty one: processes are then found by
//! the mark in their environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::folder::{DevFolder, MARK, write_private};
use crate::devstack::identity::{self, Identity};
use crate::eventually::eventually_blocking;

/// Time a process has to end in its own way.
const GRACE: Duration = Duration::from_secs(10);

/// A process that the stack started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Which process.
    pub identity: Identity,
    /// Changes when the process would be started differently now: other binary, other settings.
    pub fingerprint: String,
    /// Port for clients.
    pub port: u16,
    /// Port for operators, 0 if there is none.
    pub internal_port: u16,
}

/// Everything remembered between commands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Processes by name, such as `gateway-1`.
    pub processes: BTreeMap<String, Record>,
    /// Last port of the stack's own Postgres, kept while it is down.
    pub postgres_port: Option<u16>,
    /// Last ports of the stack's own NATS: clients, monitoring.
    pub nats_ports: Option<(u16, u16)>,
    /// First gateway port last asked for; 0 for any free ones.
    pub port_base: Option<u16>,
}

impl State {
    /// Reads the state; a missing or damaged file is an empty state.
    #[must_use]
    pub fn load(folder: &DevFolder) -> Self {
        let text = fs::read_to_string(folder.state_file()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Writes the state.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &DevFolder) -> anyhow::Result<()> {
        write_private(&folder.state_file(), &serde_json::to_string_pretty(self)?)
    }

    /// Ends the named processes together and forgets them; returns how many lived.
    pub fn stop(&mut self, names: &[String]) -> usize {
        let records: Vec<_> = names
            .iter()
            .filter_map(|name| Some((name, self.processes.remove(name)?)))
            .collect();
        let living: Vec<_> = records
            .into_iter()
            .filter(|(_, record)| record.identity.is_alive())
            .collect();
        for (name, record) in &living {
            // For Postgres SIGTERM means to wait until its clients leave.
            let ask = if *name == "postgres" {
                Signal::INT
            } else {
                Signal::TERM
            };
            record.identity.signal(ask);
            identity::descendants(record.identity.pid)
                .into_iter()
                .for_each(|pid| identity::send(pid, Signal::CONT));
            record.identity.signal(Signal::CONT);
        }
        let gone = || living.iter().all(|(_, record)| !record.identity.is_alive());
        if !eventually_blocking(GRACE, gone) {
            living.iter().for_each(|(_, record)| end(&record.identity));
        }
        living.len()
    }

    /// Ends processes of this stack that the state does not know; returns how many there were.
    #[must_use]
    pub fn end_strays(&self, folder: &DevFolder) -> usize {
        let known: Vec<_> = self
            .processes
            .values()
            .filter(|record| record.identity.is_alive())
            .collect();
        let mut family: Vec<u32> = known.iter().map(|record| record.identity.pid).collect();
        family.extend(
            known
                .iter()
                .flat_map(|record| identity::descendants(record.identity.pid)),
        );
        // The caller itself may run with the mark in its environment, and so may its shell.
        let ours = |pid: u32| is_stack_program(pid) && pid != std::process::id() && !family.contains(&pid);
        let root = folder.root().display().to_string();
        let strays = identity::with_environment(MARK, &root)
            .into_iter()
            .filter(|pid| ours(*pid));
        let strays: Vec<_> = strays.filter_map(Identity::of).collect();
        strays.iter().for_each(end);
        strays.len()
    }
}

fn is_stack_program(pid: u32) -> bool {
    let Ok(executable) = fs::read_link(format!("/proc/{pid}/exe")) else {
        return false;
    };
    let name = executable
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // The kernel adds a word to the name of a program whose file was replaced by a newer build.
    let name = name.trim_end_matches(" (deleted)");
    [
        "postgres",
        "nats-server",
        "parlance-gateway",
        "parlance-persistence",
    ]
    .contains(&name)
}

fn end(process: &Identity) {
    let family: Vec<_> = identity::descendants(process.pid)
        .into_iter()
        .filter_map(Identity::of)
        .collect();
    process.signal(Signal::KILL);
    family.iter().for_each(|child| child.signal(Signal::KILL));
    let all_gone = || !process.is_alive() && family.iter().all(|child| !child.is_alive());
    // A process that survives SIGKILL hangs in the kernel; nothing more can be done here.
    let _gone = eventually_blocking(GRACE, all_gone);
}

/// A fingerprint of how a program would be started: the file and the settings.
#[must_use]
pub fn fingerprint(program: &Path, settings: &[(String, String)]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    program.hash(&mut hasher);
    if let Ok(meta) = program.metadata() {
        meta.len().hash(&mut hasher);
        meta.modified().ok().hash(&mut hasher);
    }
    settings.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
