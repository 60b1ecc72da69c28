//! Client libraries of other languages, for tests that act as services of other teams.
//!
//! Those for Node.js are packages of `services/harness/js`; those for Python are pinned here and unpacked into the cache.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use uuid::Uuid;

use super::account::Account;
use super::lock::Lock;

/// Names, versions and hashes.
const PINS: &str = include_str!("../../clients.lock");

/// A folder for `PYTHONPATH` with the pinned packages. Safe to call from several processes at once.
///
/// # Errors
/// Python 3 or its pip is missing, the download fails, or a hash does not match.
pub fn python() -> anyhow::Result<PathBuf> {
    let cache = super::cache_folder(Account::detect()?);
    let folder = cache.join(format!(
        "python-clients-{}",
        Uuid::new_v5(&Uuid::NAMESPACE_OID, PINS.as_bytes())
    ));
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = Lock::acquire(&cache.join("python-clients.lock"), || {})?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = cache.join("python-clients.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("cannot clear the cache")?;
    }
    fs::create_dir_all(&unfinished).context("cannot write the cache")?;
    let pins = cache.join("python-clients.pins");
    fs::write(&pins, PINS).context("cannot write the cache")?;
    // Patience for one connection, and for all of it.
    let output = Command::new("timeout")
        .args([
            "300",
            "python3",
            "-m",
            "pip",
            "install",
            "--timeout=30",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "--no-deps",
        ])
        .arg("--requirement")
        .arg(&pins)
        .arg("--target")
        .arg(&unfinished)
        .stdin(Stdio::null())
        .output()
        .context("python3 is not installed: `make doctor` says how")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cannot download the clients for Python: {said}"
    );
    fs::rename(&unfinished, &folder).context("cannot fill the cache")?;
    Ok(folder)
}
