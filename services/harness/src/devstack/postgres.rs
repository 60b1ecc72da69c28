//! A Postgres server of a local stack: its data folder, its command line and its database.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use sqlx::{ConnectOptions, Connection};

use super::TlsFiles;
use super::account::Account;
use super::identity;
use super::launch::{Launch, Lifetime};
use super::probe::Probe;
use super::programs::PostgresPrograms;
use crate::eventually::eventually_blocking;

/// User and database of a local stack.
const NAME: &str = "parlance";
const REMAINS_LIMIT: Duration = Duration::from_secs(10);

/// A server in a folder, listening on loopback only.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// The installation.
    pub programs: PostgresPrograms,
    /// Account the server runs under.
    pub account: Account,
    /// Data folder, created by [`Postgres::initialise`].
    pub data: PathBuf,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Whether a commit waits for the disk. Off is for tests that do not cut the power.
    pub fsync: bool,
    /// Speaks TLS too. Who must not do without says so in its URL.
    pub tls: Option<TlsFiles>,
    /// Log file.
    pub log: PathBuf,
}

impl Postgres {
    /// Creates the data folder unless it exists. One that was interrupted is created again.
    ///
    /// # Errors
    /// `initdb` fails.
    pub fn initialise(&self) -> anyhow::Result<()> {
        if self.data.join("PG_VERSION").is_file() {
            return Ok(());
        }
        let describe = || format!("cannot create the database in {}", self.data.display());
        let unfinished = self.data.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(describe)?;
        }
        fs::create_dir_all(&unfinished).with_context(describe)?;
        self.account.adopt(&unfinished).with_context(describe)?;
        let mut words = self.account.wrapper();
        words.push(self.programs.folder.join("initdb").display().to_string());
        words.extend(
            [
                "--username",
                NAME,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ]
            .map(str::to_owned),
        );
        if self.programs.major >= 17 {
            // Characters are classed alike on every system; sorting is by code point in any case.
            words.extend(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"].map(str::to_owned));
        }
        words.extend([
            "--no-sync".into(),
            "--pgdata".into(),
            unfinished.display().to_string(),
        ]);
        let mut command = Command::new(&words[0]);
        let output = command
            .args(&words[1..])
            .stdin(Stdio::null())
            .output()
            .with_context(describe)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: initdb: {}",
                describe(),
                text.trim().lines().last().unwrap_or("no message")
            );
        }
        if let Some(files) = &self.tls {
            for (from, name) in [(&files.certificate, "server.crt"), (&files.key, "server.key")] {
                let own = unfinished.join(name);
                fs::copy(from, &own).with_context(describe)?;
                // A key that others can read is refused.
                fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).with_context(describe)?;
                self.account.adopt(&own).with_context(describe)?;
            }
        }
        fs::rename(&unfinished, &self.data).with_context(describe)
    }

    /// Ends what a killed server left in its data folder: children of it, and the file with its
    /// process id. That id may still be known to the system, or be another program's by now, and the
    /// next server would refuse to start. The caller knows that its server is dead.
    ///
    /// # Errors
    /// A child does not end.
    pub fn clear_remains(&self) -> anyhow::Result<()> {
        if !fs::exists("/proc/self/cwd").unwrap_or(false) {
            // Without a way to see who works in the folder the server's own check is the safer one.
            return Ok(());
        }
        let ended = eventually_blocking(REMAINS_LIMIT, || {
            let remains = identity::working_in(&self.data);
            remains.iter().for_each(|process| process.signal(Signal::KILL));
            remains.is_empty()
        });
        ensure!(
            ended,
            "processes of a dead Postgres still use {}",
            self.data.display()
        );
        fs::remove_file(self.data.join("postmaster.pid")).ok();
        Ok(())
    }

    /// How the server is started.
    #[must_use]
    pub fn launch(&self, lifetime: Lifetime) -> Launch {
        let onoff = |on| if on { "on" } else { "off" };
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            // Socket paths are limited to 107 bytes, which folders of projects exceed.
            "unix_socket_directories=".to_owned(),
            "max_connections=100".to_owned(),
            format!("fsync={}", onoff(self.fsync)),
            format!("full_page_writes={}", onoff(self.fsync)),
            format!("ssl={}", onoff(self.tls.is_some())),
            // Files instead of shared memory objects: a killed server leaves nothing outside its folder.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ];
        let mut arguments = vec!["-D".to_owned(), self.data.display().to_string()];
        arguments.extend(
            settings
                .into_iter()
                .flat_map(|setting| ["-c".to_owned(), setting]),
        );
        Launch {
            name: "postgres".into(),
            program: self.programs.folder.join("postgres"),
            arguments,
            environment: Vec::new(),
            stdout: None,
            log: self.log.clone(),
            lifetime,
            account: self.account,
            orphan_signal: "QUIT",
        }
    }

    /// URL of the stack's database.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url(NAME)
    }

    /// URL of the database `name` on this server.
    #[must_use]
    pub fn database_url(&self, name: &str) -> String {
        format!("postgres://{NAME}@127.0.0.1:{}/{name}", self.port)
    }

    /// How to see that the server answers.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe::Postgres {
            url: self.database_url("postgres"),
        }
    }

    /// Creates the stack's database unless it exists.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_database(&self) -> anyhow::Result<()> {
        let options: sqlx::postgres::PgConnectOptions = self.database_url("postgres").parse()?;
        let mut connection = options.disable_statement_logging().connect().await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'parlance')")
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            sqlx::query("CREATE DATABASE parlance")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await.ok();
        Ok(())
    }
}
