//! Programs of the distribution: the one on `PATH`, else the package of this Debian or Ubuntu, unpacked into the
//! cache and not installed. Must not start them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::account::Account;
use super::lock::Lock;
use crate::environment;

/// An executable and where the libraries of its package are.
#[derive(Clone, Debug)]
pub struct Packaged {
    /// The executable.
    pub program: PathBuf,
    libraries: Option<PathBuf>,
}

impl Packaged {
    /// HAProxy.
    ///
    /// # Errors
    /// As [`Packaged::redis`].
    pub fn haproxy() -> anyhow::Result<Self> {
        Self::find("haproxy", "haproxy", "usr/sbin/haproxy")
    }

    /// Redis. Safe to call from several processes at once.
    ///
    /// # Errors
    /// There is none, and the system has no `apt-get` or that finds none.
    pub fn redis() -> anyhow::Result<Self> {
        Self::find("redis-server", "redis-server", "usr/bin/redis-server")
    }

    /// What a process needs in its environment to find the libraries.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let libraries = self.libraries.iter();
        libraries
            .map(|folder| ("LD_LIBRARY_PATH".into(), folder.display().to_string()))
            .collect()
    }

    fn find(name: &str, package: &str, path: &str) -> anyhow::Result<Self> {
        if let Some(program) = environment::program(name) {
            return Ok(Self {
                program,
                libraries: None,
            });
        }
        let cache = super::cache_folder(Account::detect()?);
        let folder = cache.join(package);
        if !folder.is_dir() {
            let _lock = Lock::acquire(&cache.join(format!("{package}.lock")), || {})?;
            if !folder.is_dir() {
                let unfinished = cache.join(format!("{package}.unfinished"));
                if unfinished.exists() {
                    fs::remove_dir_all(&unfinished).context("cannot clear the server cache")?;
                }
                unpack(package, &unfinished)?;
                fs::rename(&unfinished, &folder).context("cannot fill the server cache")?;
            }
        }
        let libraries = fs::read_dir(folder.join("usr/lib"))
            .into_iter()
            .flatten()
            .flatten();
        Ok(Self {
            program: folder.join(path),
            // One folder per architecture, of which there is one.
            libraries: libraries
                .map(|entry| entry.path())
                .find(|path| path.to_string_lossy().ends_with("-linux-gnu")),
        })
    }
}

/// Downloads the package with what of its dependencies is not installed, and unpacks all of it.
fn unpack(package: &str, folder: &Path) -> anyhow::Result<()> {
    let remedy = format!("install {package} (Debian: `apt install {package}`)");
    let packages = folder.join("packages");
    fs::create_dir_all(packages.join("partial")).context("cannot write the server cache")?;
    ensure!(
        environment::program("apt-get").is_some(),
        "{package} is missing: {remedy}"
    );
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args([
            "install",
            "--download-only",
            "--yes",
            "--no-install-recommends",
            "--quiet",
            "-o",
            "Debug::NoLocking=1",
            "-o",
        ])
        .arg(format!("Dir::Cache::archives={}", packages.display()))
        .arg(package);
        finish(apt)
    };
    if download().is_err() {
        // A fresh image has no lists of packages, and only root may fetch them.
        let mut update = Command::new("apt-get");
        update.args(["update", "--quiet"]);
        finish(update)
            .and_then(|()| download())
            .with_context(|| format!("cannot download {package}: {remedy}"))?;
    }
    for file in fs::read_dir(&packages)?.flatten() {
        if file.path().extension().is_some_and(|suffix| suffix == "deb") {
            let mut dpkg = Command::new("dpkg-deb");
            dpkg.arg("--extract").arg(file.path()).arg(folder);
            finish(dpkg).with_context(|| format!("cannot unpack {package}"))?;
        }
    }
    Ok(fs::remove_dir_all(packages)?)
}

fn finish(mut command: Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{}",
        text.trim().lines().last().unwrap_or("no message").to_owned()
    )
}
