//! A load balancer of a local stack: HAProxy, round robin over the gateways, without stickiness.
//!
//! Must not know what a session is: that is what it is there to test.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::account::Account;
use super::launch::{Launch, Lifetime};
use super::packages::Packaged;
use super::probe::Probe;

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
    pub program: Packaged,
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
        Launch {
            name: "balancer".into(),
            program: self.program.program.clone(),
            arguments: vec!["-db".into(), "-f".into(), self.file().display().to_string()],
            environment: self.program.environment(),
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
        Probe::Http {
            url: format!("{}/health", self.url()),
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
