//! Distinguishing a process from a later one with the same number, and sending it signals.
//!
//! A bare process id must never be signalled: it may belong to another program by now.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process id together with the moment the process started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// Opaque: start time and boot of the machine.
    pub started: String,
}

impl Identity {
    /// The identity of a living process; none for a dead one or one that only awaits being reaped.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            started: started(pid)?,
        })
    }

    /// Whether this very process still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        started(self.pid).as_deref() == Some(&self.started)
    }

    /// Sends `signal` to this very process; nothing happens if it is gone.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }
}

/// Sends `signal` to a process that the caller knows to be its own. Errors mean that it is gone.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // ESRCH is the only possible error for an own process and means that the goal is reached.
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// Every living descendant of `pid`. Postgres puts each of its children into a session of its own, so
/// a process group does not reach them.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Process ids of living processes whose environment holds exactly `NAME=value` (Linux only).
#[must_use]
pub fn with_environment(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}");
    all()
        .into_iter()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == wanted.as_bytes())
        })
        .collect()
}

/// Living processes that work in `folder` (Linux only).
#[must_use]
pub fn working_in(folder: &Path) -> Vec<Identity> {
    let Ok(folder) = folder.canonicalize() else {
        return Vec::new();
    };
    let here = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    all().into_iter().filter(here).filter_map(Identity::of).collect()
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn parents() -> Vec<(u32, u32)> {
    if fs::exists("/proc/self/stat").unwrap_or(false) {
        let parent = |pid: u32| stat(pid)?.get(1)?.parse().ok();
        return all()
            .into_iter()
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
    }
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
    let text = listed
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The fields of `/proc/<pid>/stat` from the state on; the program name before them may hold anything.
/// Whether no thread of the process runs, because of SIGSTOP; also where that cannot be found out.
pub fn is_stopped(pid: u32) -> bool {
    let family = descendants(pid).into_iter().chain([pid]);
    family.into_iter().all(|pid| {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return true;
        };
        threads.flatten().all(|thread| {
            let fields = fields_of(&thread.path().join("stat"));
            fields.is_none_or(|fields| {
                fields
                    .first()
                    .is_none_or(|state| matches!(state.as_str(), "T" | "t" | "Z" | "X"))
            })
        })
    })
}

fn stat(pid: u32) -> Option<Vec<String>> {
    fields_of(Path::new(&format!("/proc/{pid}/stat")))
}

fn fields_of(stat: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(stat).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn started(pid: u32) -> Option<String> {
    const START_TIME: usize = 19;
    if let Ok(boot) = fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        let fields = stat(pid)?;
        let dead = matches!(fields.first()?.as_str(), "Z" | "X");
        return (!dead).then(|| Some(format!("{} {}", fields.get(START_TIME)?, boot.trim())))?;
    }
    let output = Command::new("ps")
        .args(["-o", "stat=,lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (state, start) = text.split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| start.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_process_is_itself_until_it_dies() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.is_alive());
        assert!(descendants(std::process::id()).contains(&child.id()));
        let impostor = Identity {
            started: "another time".into(),
            ..identity.clone()
        };
        impostor.signal(Signal::KILL);
        assert!(
            identity.is_alive(),
            "a process with the same number was signalled"
        );
        identity.signal(Signal::KILL);
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }
}
