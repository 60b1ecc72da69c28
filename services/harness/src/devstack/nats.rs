//! A NATS server of a local stack: its configuration file and its command line.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::TlsFiles;
use super::account::Account;
use super::accounts::Accounts;
use super::launch::{Launch, Lifetime};
use super::probe::Probe;

/// A server with JetStream in a folder, listening on loopback only. The server does not lock its
/// store: the caller sees to it that only one runs per folder.
#[derive(Clone, Debug)]
pub struct Nats {
    /// The executable.
    pub program: PathBuf,
    /// Holds the configuration file and the store.
    pub folder: PathBuf,
    /// Client port on 127.0.0.1.
    pub port: u16,
    /// Monitoring port on 127.0.0.1.
    pub monitor_port: u16,
    /// Largest payload, in bytes.
    pub max_payload: u32,
    /// Bytes that may wait for one connection before it is cut off.
    pub max_pending: u32,
    /// The cluster it is part of.
    pub cluster: Option<Cluster>,
    /// Speaks TLS only, and only with clients that show a certificate of the same root.
    pub tls: Option<TlsFiles>,
    /// The roles that may connect; without them everybody may do everything.
    pub accounts: Option<Accounts>,
    /// Log file.
    pub log: PathBuf,
}

/// A server's place in a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The server's own name.
    pub server: String,
    /// Cluster port on 127.0.0.1.
    pub port: u16,
    /// Cluster ports of all servers.
    pub routes: Vec<u16>,
}

impl Nats {
    /// Largest payload by default: 1 MB.
    pub const MAX_PAYLOAD: u32 = 1024 * 1024;

    /// What may wait for a connection by default: 64 MB, as the server has it.
    pub const MAX_PENDING: u32 = 64 * 1024 * 1024;

    /// Writes the configuration file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn configure(&self) -> anyhow::Result<()> {
        let describe = || format!("cannot write {}", self.file().display());
        fs::create_dir_all(&self.folder).with_context(describe)?;
        if self.accounts.is_some() {
            Accounts::install(&self.folder)?;
        }
        fs::write(self.file(), self.configuration()).with_context(describe)
    }

    /// How the server is started.
    #[must_use]
    pub fn launch(&self, lifetime: Lifetime) -> Launch {
        Launch {
            name: self
                .cluster
                .as_ref()
                .map_or("nats", |cluster| &cluster.server)
                .into(),
            program: self.program.clone(),
            arguments: vec!["--config".into(), self.file().display().to_string()],
            environment: self
                .accounts
                .as_ref()
                .map(Accounts::environment)
                .unwrap_or_default(),
            stdout: None,
            log: self.log.clone(),
            lifetime,
            account: Account::Caller,
            orphan_signal: "KILL",
        }
    }

    /// URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Base URL of the monitoring pages.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// How to see that the server answers.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe::Nats { url: self.url() }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("nats.conf")
    }

    fn configuration(&self) -> String {
        let name = self
            .cluster
            .as_ref()
            .map_or("parlance-local", |cluster| &cluster.server);
        format!(
            "{accounts}server_name: {name}\n\
             listen: \"127.0.0.1:{port}\"\n\
             http: \"127.0.0.1:{monitor}\"\n\
             max_payload: {payload}\n\
             max_pending: {pending}\n\
             jetstream {{\n  store_dir: {store:?}\n  max_memory_store: 256MB\n  max_file_store: 16GB\n}}\n\
             {tls}{cluster}",
            tls = self.tls.as_ref().map(tls_configuration).unwrap_or_default(),
            accounts = self.accounts.as_ref().map_or("", |_| Accounts::INCLUDE),
            cluster = self
                .cluster
                .as_ref()
                .map(Cluster::configuration)
                .unwrap_or_default(),
            port = self.port,
            monitor = self.monitor_port,
            payload = self.max_payload,
            pending = self.max_pending,
            store = self.folder.join("store").display().to_string(),
        )
    }
}

fn tls_configuration(files: &TlsFiles) -> String {
    format!(
        "tls {{\n  cert_file: {:?}\n  key_file: {:?}\n  ca_file: {:?}\n  verify: true\n}}\n",
        files.certificate, files.key, files.root
    )
}

impl Cluster {
    fn configuration(&self) -> String {
        let routes = self.routes.iter().map(|port| format!("nats://127.0.0.1:{port}"));
        format!(
            "cluster {{\n  name: parlance\n  listen: \"127.0.0.1:{port}\"\n  routes: {routes:?}\n}}\n",
            port = self.port,
            routes = routes.collect::<Vec<_>>(),
        )
    }
}
