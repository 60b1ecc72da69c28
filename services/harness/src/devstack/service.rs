//! The two services as programs: where their binaries are and how they are started.
//!
//! Knows only their command line, environment and announcements, nothing of what they do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::account::Account;
use super::launch::{Launch, Lifetime};
use super::probe::Probe;
use crate::environment;

/// Which of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Socket.IO and REST front.
    Gateway,
    /// Owner of the database.
    Persistence,
}

impl Kind {
    /// The name used for processes: `gateway-1`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persistence => "persistence",
        }
    }

    /// The binary of the service.
    ///
    /// # Errors
    /// It has not been built; the message says how.
    pub fn binary(self) -> anyhow::Result<PathBuf> {
        self.binary_in(&binary_folder()?, "cargo build --workspace --bins")
    }

    /// The binary with failpoints: in `PARLANCE_FAULTY_DIR`, else in `faulty` beside this build's folder.
    ///
    /// # Errors
    /// As [`Kind::binary`].
    pub fn faulty_binary(self) -> anyhow::Result<PathBuf> {
        let folder = match environment::variable("PARLANCE_FAULTY_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => binary_folder()?.with_file_name("faulty"),
        };
        self.binary_in(&folder, "make faulty")
    }

    fn binary_in(self, folder: &Path, remedy: &str) -> anyhow::Result<PathBuf> {
        let binary = folder.join(format!("parlance-{}", self.label()));
        if !binary.is_file() {
            bail!("{} is missing: run `{remedy}` first", binary.display());
        }
        Ok(binary)
    }
}

/// The folder with this build's binaries: `PARLANCE_BIN_DIR`, else the profile folder of this executable.
fn binary_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = environment::variable("PARLANCE_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let executable = std::env::current_exe().context("cannot find where this program is")?;
    let folder = executable.parent().unwrap_or(Path::new("."));
    let in_deps = folder.file_name().is_some_and(|name| name == "deps");
    Ok(if in_deps {
        folder.parent().unwrap_or(folder).to_path_buf()
    } else {
        folder.to_path_buf()
    })
}

/// One replica of a service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which service.
    pub kind: Kind,
    /// Counted from 1.
    pub number: usize,
    /// The executable.
    pub binary: PathBuf,
    /// Public port on 127.0.0.1; meaningless for persistence.
    pub http_port: u16,
    /// Internal port on 127.0.0.1.
    pub internal_port: u16,
    /// Settings beyond the addresses.
    pub environment: Vec<(String, String)>,
    /// Folder for the log and the standard output.
    pub logs: PathBuf,
}

impl Service {
    /// The name of the process, such as `gateway-1`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.kind.label(), self.number)
    }

    /// How the replica is started.
    #[must_use]
    pub fn launch(&self, lifetime: Lifetime) -> Launch {
        let mut environment = vec![
            ("PARLANCE_INTERNAL_HOST".to_owned(), "127.0.0.1".to_owned()),
            (
                "PARLANCE_INTERNAL_PORT".to_owned(),
                self.internal_port.to_string(),
            ),
        ];
        if self.kind == Kind::Gateway {
            environment.push(("PARLANCE_HTTP_HOST".into(), "127.0.0.1".into()));
            environment.push(("PARLANCE_HTTP_PORT".into(), self.http_port.to_string()));
        }
        environment.extend(self.environment.iter().cloned());
        Launch {
            name: self.name(),
            program: self.binary.clone(),
            arguments: vec!["run".into()],
            environment,
            stdout: Some(self.stdout()),
            log: self.logs.join(format!("{}.log", self.name())),
            lifetime,
            account: Account::Caller,
            orphan_signal: "KILL",
        }
    }

    /// How to see that the replica serves.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe::Service {
            internal_url: self.internal_url(),
            stdout: Some(self.stdout()),
        }
    }

    /// Where clients reach it; for persistence its internal listener.
    #[must_use]
    pub fn base_url(&self) -> String {
        match self.kind {
            Kind::Gateway if self.encrypts() => format!("https://127.0.0.1:{}", self.http_port),
            Kind::Gateway => format!("http://127.0.0.1:{}", self.http_port),
            Kind::Persistence => self.internal_url(),
        }
    }

    /// Where operators look.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal_port)
    }

    fn encrypts(&self) -> bool {
        let mut settings = self.environment.iter();
        settings.any(|(name, value)| name == "PARLANCE_HTTP_TLS_CERT_FILE" && !value.is_empty())
    }

    fn stdout(&self) -> PathBuf {
        self.logs.join(format!("{}.stdout", self.name()))
    }
}

/// Applies the migrations by `parlance-persistence migrate`.
///
/// # Errors
/// The command fails; carries its last line.
pub fn migrate(binary: &Path, environment: &[(String, String)]) -> anyhow::Result<()> {
    let mut command = Command::new(binary);
    for (name, _) in crate::environment::variables("PARLANCE_") {
        command.env_remove(name);
    }
    command
        .arg("migrate")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "migrations failed: {}",
            text.trim().lines().last().unwrap_or("no message")
        );
    }
    Ok(())
}
