//! `make doctor`: each prerequisite on one line, a missing one with its fix.

use std::path::Path;
use std::process::{Command, Stdio};

use super::folder::DevFolder;
use super::report::line;
use super::state::State;
use crate::devstack::account::Account;
use crate::devstack::ports;
use crate::devstack::repository;

const NODE: u32 = 20;
const FREE_GIGABYTES: u64 = 3;
const GATEWAY_PORTS: [u16; 2] = [4004, 4005];

/// What one check found; `Err` holds the fix.
type Finding = (&'static str, Result<String, String>);

/// Prints every check; true if nothing is missing.
#[must_use]
pub fn doctor(folder: &DevFolder) -> bool {
    let findings: Vec<Finding> = vec![
        ("rust", rust()),
        (
            "C compiler",
            output(
                "cc",
                &["--version"],
                "install one (Debian: `apt install build-essential`; macOS: `xcode-select --install`)",
            ),
        ),
        (
            "git",
            output("git", &["--version"], "install git (Debian: `apt install git`)"),
        ),
        (
            "python3",
            output(
                "python3",
                &["--version"],
                "install Python 3.8 or newer (Debian: `apt install python3`)",
            ),
        ),
        (
            "pip",
            output(
                "python3",
                &["-m", "pip", "--version"],
                "install pip (Debian: `apt install python3-pip`)",
            ),
        ),
        ("node", node()),
        (
            "npm",
            output(
                "npm",
                &["--version"],
                "install npm; it comes with Node.js (Debian: `apt install npm`)",
            ),
        ),
        ("disk", disk(&repository())),
        ("ports", gateway_ports(folder)),
        (
            "account",
            Account::detect().map(describe).map_err(|error| error.to_string()),
        ),
    ];
    for (what, finding) in &findings {
        match finding {
            Ok(found) => line(format_args!("  ok       {what:<11} {found}")),
            Err(fix) => line(format_args!("  MISSING  {what:<11} {fix}")),
        }
    }
    findings.iter().all(|(_, finding)| finding.is_ok())
}

fn output(program: &str, arguments: &[&str], fix: &str) -> Result<String, String> {
    let run = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::null())
        .output();
    match run {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()),
        _ => Err(fix.to_owned()),
    }
}

fn rust() -> Result<String, String> {
    let fix =
        "install Rust from https://rustup.rs; it then takes the version in rust-toolchain.toml by itself";
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    let found = output("cargo", &["--version"], fix)?;
    if at_least(&found, wanted) {
        Ok(found)
    } else {
        Err(format!("{found} is too old, {wanted} is needed: `rustup update`"))
    }
}

fn node() -> Result<String, String> {
    let fix = "install Node.js 20 or newer (https://nodejs.org)";
    let found = output("node", &["--version"], fix)?;
    if numbers(&found).first() >= Some(&NODE) {
        Ok(found)
    } else {
        Err(format!("{found} is too old: {fix}"))
    }
}

fn disk(folder: &Path) -> Result<String, String> {
    let Ok(space) = rustix::fs::statvfs(folder) else {
        return Err(format!("cannot read the free space of {}", folder.display()));
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize) / 1_000_000_000;
    if free >= FREE_GIGABYTES {
        return Ok(format!("{free} GB free"));
    }
    Err(format!(
        "{free} GB free, {FREE_GIGABYTES} are needed: make room on the disk of {}",
        folder.display()
    ))
}

fn gateway_ports(folder: &DevFolder) -> Result<String, String> {
    let state = State::load(folder);
    let own = |port: u16| {
        state
            .processes
            .values()
            .any(|record| record.port == port && record.identity.is_alive())
    };
    let taken: Vec<_> = GATEWAY_PORTS
        .into_iter()
        .filter(|port| !own(*port) && !ports::is_free(*port))
        .collect();
    match taken.as_slice() {
        [] => Ok(format!("{GATEWAY_PORTS:?} are free or the stack's own")),
        taken => Err(format!(
            "{taken:?} are taken by another program: use `PORT=0 make up`"
        )),
    }
}

fn describe(account: Account) -> String {
    let text = match account {
        Account::Caller => "not root, Postgres runs as you",
        Account::UserNamespace => "root, Postgres runs in a user namespace",
        Account::Nobody => "root without user namespaces, Postgres runs as nobody by setpriv",
    };
    text.to_owned()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn at_least(found: &str, wanted: &str) -> bool {
    let pair = |text: &str| numbers(text).into_iter().take(2).collect::<Vec<_>>();
    pair(found) >= pair(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(at_least("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", "1.95"));
        assert!(at_least("cargo 1.100.0", "1.95"));
        assert!(!at_least("cargo 1.94.1", "1.95"));
    }
}
