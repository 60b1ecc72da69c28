//! What a throw-away stack consists of, before it is started.

use crate::devstack::TlsFiles;
use crate::devstack::nats::Nats;

/// What a [`Stack`](super::Stack) consists of.
#[derive(Clone, Debug)]
pub struct StackBuilder {
    pub(super) gateways: usize,
    pub(super) persistence: usize,
    pub(super) migrate: bool,
    pub(super) fsync: bool,
    pub(super) max_payload: u32,
    pub(super) max_pending: u32,
    pub(super) faulty: bool,
    pub(super) nats_servers: usize,
    pub(super) accounts: bool,
    pub(super) balanced: bool,
    pub(super) tls: Option<TlsFiles>,
    pub(super) shared: Vec<(String, String)>,
    pub(super) gateway: Vec<(String, String)>,
    pub(super) persist: Vec<(String, String)>,
}

impl StackBuilder {
    /// Number of gateways; 1 by default.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// Number of persistence replicas; 1 by default.
    #[must_use]
    pub fn persistence(mut self, count: usize) -> Self {
        self.persistence = count;
        self
    }

    /// Postgres and NATS only: no service, an empty database.
    #[must_use]
    pub fn servers_only(mut self) -> Self {
        self.migrate = false;
        self.gateways(0).persistence(0)
    }

    /// Sets a variable for every service.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.shared.push((name.into(), value.to_string()));
        self
    }

    /// Sets a variable for the gateways.
    #[must_use]
    pub fn gateway_env(mut self, name: &str, value: impl ToString) -> Self {
        self.gateway.push((name.into(), value.to_string()));
        self
    }

    /// Sets a variable for the persistence replicas.
    #[must_use]
    pub fn persistence_env(mut self, name: &str, value: impl ToString) -> Self {
        self.persist.push((name.into(), value.to_string()));
        self
    }

    /// Gateways that wait 55 s for the outcome of a command instead of 10 s: where nothing is broken on purpose, nothing may
    /// become unknown because the machine is slow. The clients of the specifications wait a minute.
    #[must_use]
    pub fn patient(self) -> Self {
        self.gateway_env("PARLANCE_SEND_TIMEOUT_MS", 55_000)
    }

    /// Whether Postgres waits for the disk at each commit; off by default. A killed process loses
    /// nothing either way, only a power cut would.
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Services that were built with failpoints, these switched on in all of them; none with an empty text.
    #[must_use]
    pub fn failpoints(mut self, points: &str) -> Self {
        self.faulty = true;
        self.env("PARLANCE_FAILPOINTS", points)
    }

    /// Bytes that NATS keeps for a connection that does not read before it cuts it off; 64 MB by default.
    #[must_use]
    pub fn max_pending(mut self, bytes: u32) -> Self {
        self.max_pending = bytes;
        self
    }

    /// Three NATS servers in a cluster, and three copies of every stream.
    #[must_use]
    pub fn nats_cluster(mut self) -> Self {
        self.nats_servers = 3;
        self.persistence_env("PARLANCE_NATS_STREAM_REPLICAS", 3)
    }

    /// Everything over TLS: the gateways show this certificate to clients, NATS and Postgres show it to the
    /// services, and these show it to NATS.
    #[must_use]
    pub fn tls(mut self, files: &TlsFiles) -> Self {
        self.tls = Some(files.clone());
        self.gateway_env("PARLANCE_HTTP_TLS_CERT_FILE", files.certificate.display())
            .gateway_env("PARLANCE_HTTP_TLS_KEY_FILE", files.key.display())
            .env("PARLANCE_NATS_CA_FILE", files.root.display())
            .env("PARLANCE_NATS_CERT_FILE", files.certificate.display())
            .env("PARLANCE_NATS_KEY_FILE", files.key.display())
    }

    /// NATS with the roles of `deploy/nats.conf`, each service under its own.
    #[must_use]
    pub fn accounts(mut self) -> Self {
        self.accounts = true;
        self
    }

    /// A load balancer without stickiness in front of the gateways: [`Stack::balancer`](super::Stack::balancer).
    #[must_use]
    pub fn balanced(mut self) -> Self {
        self.balanced = true;
        self
    }

    /// Largest NATS payload in bytes; 1 MB by default.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = bytes;
        self
    }
}

impl Default for StackBuilder {
    fn default() -> Self {
        Self {
            gateways: 1,
            persistence: 1,
            migrate: true,
            fsync: false,
            max_payload: Nats::MAX_PAYLOAD,
            max_pending: Nats::MAX_PENDING,
            faulty: false,
            nats_servers: 1,
            accounts: false,
            balanced: false,
            tls: None,
            shared: vec![],
            gateway: vec![],
            persist: vec![],
        }
    }
}
