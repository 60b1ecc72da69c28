//! A load balancer of a local stack: HAProxy, round robin over the gateways, without stickiness.
//!
//! Uses the one on `PATH`, else the package of this Debian or Ubuntu, unpacked into the cache and not
//! installed. Must not know what a session is: that is what it is there to test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::account::Account;
use super::launch::{Launch, Lifetime};
use super::lock::Lock;
use super::probe::Probe;
use crate::environment;

/// The executable and where the libraries of its package are.
#[derive(Clone, Debug)]
pub struct Haproxy {
    program: PathBuf,
    libraries: Option<PathBuf>,
}

/// One replica behind the balancer.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where clients are sent.
    pub port: u16,
    /// Where `/readyz` is asked.
    pub internal_port: u16,
}

/// A balancer on 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// The executable.
    pub program: Haproxy,
    /// Holds the configuration file.
    pub folder: PathBuf,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Port of its own counts, on 127.0.0.1.
    pub monitor_port: u16,
    /// The replicas, all on 127.0.0.1.
    pub targets: Vec<Target>,
    /// Log file.
    pub log: PathBuf,
}

impl Haproxy {
    /// The machine's, else the one of the machine's package sources. Safe to call from several
    /// processes at once.
    ///
    /// # Errors
    /// There is none, and the system has no `apt-get` or that finds none.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(program) = environment::program("haproxy") {
            return Ok(Self {
                program,
                libraries: None,
            });
        }
        let cache = super::cache_folder(Account::detect()?);
        let folder = cache.join("haproxy");
        if !folder.is_dir() {
            let _lock = Lock::acquire(&cache.join("haproxy.lock"), || {})?;
            if !folder.is_dir() {
                let unfinished = cache.join("haproxy.unfinished");
                if unfinished.exists() {
                    fs::remove_dir_all(&unfinished).context("cannot clear the server cache")?;
                }
                unpack(&unfinished)?;
                fs::rename(&unfinished, &folder).context("cannot fill the server cache")?;
            }
        }
        let libraries = fs::read_dir(folder.join("usr/lib"))
            .into_iter()
            .flatten()
            .flatten();
        Ok(Self {
            program: folder.join("usr/sbin/haproxy"),
            // One folder per architecture, of which there is one.
            libraries: libraries
                .map(|entry| entry.path())
                .find(|path| path.to_string_lossy().ends_with("-linux-gnu")),
        })
    }
}

/// Downloads the package with what of its dependencies is not installed, and unpacks all of it.
fn unpack(folder: &Path) -> anyhow::Result<()> {
    const REMEDY: &str = "install haproxy (Debian: `apt install haproxy`; macOS: `brew install haproxy`)";
    let packages = folder.join("packages");
    fs::create_dir_all(packages.join("partial")).context("cannot write the server cache")?;
    if environment::program("apt-get").is_none() {
        bail!("no load balancer: {REMEDY}");
    }
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
        .arg("haproxy");
        finish(apt)
    };
    if download().is_err() {
        // A fresh image has no lists of packages, and only root may fetch them.
        let mut update = Command::new("apt-get");
        update.args(["update", "--quiet"]);
        finish(update)
            .and_then(|()| download())
            .with_context(|| format!("cannot download the load balancer: {REMEDY}"))?;
    }
    for package in fs::read_dir(&packages)?.flatten() {
        if package.path().extension().is_some_and(|suffix| suffix == "deb") {
            let mut dpkg = Command::new("dpkg-deb");
            dpkg.arg("--extract").arg(package.path()).arg(folder);
            finish(dpkg).context("cannot unpack the load balancer")?;
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

impl Balancer {
    /// Writes the configuration file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn configure(&self) -> anyhow::Result<()> {
        let describe = || format!("cannot write {}", self.file().display());
        fs::create_dir_all(&self.folder).with_context(describe)?;
        fs::write(self.file(), self.configuration()).with_context(describe)
    }

    /// How it is started.
    #[must_use]
    pub fn launch(&self, lifetime: Lifetime) -> Launch {
        let libraries = self.program.libraries.iter();
        Launch {
            name: "balancer".into(),
            program: self.program.program.clone(),
            arguments: vec!["-db".into(), "-f".into(), self.file().display().to_string()],
            environment: libraries
                .map(|folder| ("LD_LIBRARY_PATH".into(), folder.display().to_string()))
                .collect(),
            stdout: None,
            log: self.log.clone(),
            lifetime,
            account: Account::Caller,
            orphan_signal: "KILL",
        }
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its own counts as CSV: one line for each replica.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}/;csv", self.monitor_port)
    }

    /// How to see that it serves: a replica is reached through it.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe::Service {
            internal_url: self.url(),
            stdout: None,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("haproxy.cfg")
    }

    /// What any installation would have. A replica is left out half a second after it says that it is
    /// unready; a connection that it refuses goes to another at once.
    fn configuration(&self) -> String {
        let servers: String = (1..)
            .zip(&self.targets)
            .map(|(number, target)| {
                format!(
                    "  server gateway-{number} 127.0.0.1:{} check port {} inter 500ms fall 1 rise 1\n",
                    target.port, target.internal_port
                )
            })
            .collect();
        format!(
            "global\n  nbthread 1\n  log stdout format raw daemon notice\n\
             defaults\n  mode http\n  log global\n  timeout connect 2s\n  timeout client 90s\n  timeout server 90s\n  \
             timeout tunnel 1h\n  timeout check 2s\n  retries 3\n  option redispatch 1\n  option forwardfor\n\
             frontend clients\n  bind 127.0.0.1:{port}\n  default_backend gateways\n\
             backend gateways\n  balance roundrobin\n  option httpchk GET /readyz\n{servers}\
             frontend monitor\n  bind 127.0.0.1:{monitor}\n  stats enable\n  stats uri /\n",
            port = self.port,
            monitor = self.monitor_port,
        )
    }
}
