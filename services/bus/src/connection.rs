//! The connection to NATS and what is known about its health.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::{Client, ConnectOptions, Event, jetstream};
use bytes::Bytes;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::subject;

/// Longest pause between two attempts to reach NATS again.
const RECONNECT_CAP: Duration = Duration::from_secs(2);
/// How often a silent peer is probed; two missed answers end the connection.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long NATS may be away until the reason is looked for, and between two looks.
const AWAY_LIMIT: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long one JetStream answer is awaited before the publish is tried again with the same id. An R3
/// stream was seen to take 6.3 s for a new leader, so a caller's whole deadline must stay above that.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Where NATS is and who we are there.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// One or more `nats://host:port` or `tls://host:port`, comma-separated.
    pub url: String,
    /// Connection name shown in NATS' monitoring; also the gateway's or replica's instance name.
    pub name: String,
    /// What the subjects of answers begin with: each role has its own, so that none may read the answers of others.
    pub inbox_prefix: String,
    /// Empty for none.
    pub user: String,
    /// Empty for none.
    pub password: String,
    /// File with a NATS `.creds`; empty for none.
    pub credentials_file: String,
    /// How both sides prove who they are.
    pub tls: Tls,
}

/// PEM files for TLS. They are read at every connection made, so a renewed one needs no restart.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Who signs the server's certificate; empty for whom the system trusts. Asks for TLS in any case.
    pub ca_file: String,
    /// Own certificate; empty for none.
    pub cert_file: String,
    /// Its key; empty for none.
    pub key_file: String,
}

impl ConnectSettings {
    async fn options(&self) -> Result<ConnectOptions, Error> {
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(Duration::from_secs(5));
        if !self.user.is_empty() {
            options = options.user_and_password(self.user.clone(), self.password.clone());
        }
        if !self.credentials_file.is_empty() {
            options = options
                .credentials_file(&self.credentials_file)
                .await
                .map_err(|e| Error::with(ErrorKind::Other, "cannot read the NATS credentials", e))?;
        }
        let Tls {
            ca_file,
            cert_file,
            key_file,
        } = &self.tls;
        if !ca_file.is_empty() {
            options = options.add_root_certificates(ca_file.into()).require_tls(true);
        }
        if !cert_file.is_empty() {
            options = options.add_client_certificate(cert_file.into(), key_file.into());
        }
        Ok(options)
    }

    fn servers(&self) -> Vec<String> {
        self.url
            .split(',')
            .map(|server| server.trim().to_owned())
            .collect()
    }
}

impl Tls {
    /// What would only show at the first attempt to connect, which may be repeated for ever.
    fn check(&self) -> Result<(), Error> {
        let holds = |file: &str, what, parts: fn(&str) -> bool| {
            let text = match file.is_empty() {
                true => return Ok(()),
                false => std::fs::read_to_string(file),
            };
            match text {
                Ok(text) if parts(&text) => Ok(()),
                Ok(_) => Err(Error::with(ErrorKind::Other, what, PemError(file.into()))),
                Err(error) => Err(Error::with(ErrorKind::Other, what, error)),
            }
        };
        let certificate = |text: &str| {
            let mut found = CertificateDer::pem_slice_iter(text.as_bytes());
            found.next().is_some_and(|found| found.is_ok())
        };
        let key = |text: &str| PrivateKeyDer::from_pem_slice(text.as_bytes()).is_ok();
        holds(&self.ca_file, "cannot use nats.ca_file", certificate)?;
        holds(&self.cert_file, "cannot use nats.cert_file", certificate)?;
        holds(&self.key_file, "cannot use nats.key_file", key)
    }
}

/// A file without what it should hold.
#[derive(Debug, thiserror::Error)]
#[error("{0} holds no such thing in PEM")]
struct PemError(String);

/// The state of the connection, as far as it matters to those who must repair after a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether NATS is reachable now.
    pub connected: bool,
    /// Grows with every connection made: a change means that live messages may have been lost.
    pub generation: u64,
    /// Grows whenever a subscription dropped messages because its reader was too slow.
    pub slow_consumers: u64,
}

/// A connection to NATS. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    link: watch::Receiver<Link>,
    name: Arc<str>,
}

impl Bus {
    /// Starts connecting and keeps connecting for ever; [`Bus::link`] tells when it is there.
    ///
    /// # Errors
    /// The address, the credentials or the files for TLS cannot be read.
    pub async fn connect(settings: &ConnectSettings) -> Result<Self, Error> {
        let (tx, link) = watch::channel(Link::default());
        settings.tls.check()?;
        let options = settings
            .options()
            .await?
            .retry_on_initial_connect()
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                observe(&tx, &event);
                async {}
            });
        let client = options
            .connect(settings.servers())
            .await
            .map_err(|e| Error::with(ErrorKind::Other, "cannot use the NATS address", e))?;
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .ack_timeout(ACK_TIMEOUT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            link,
            name: settings.name.as_str().into(),
        })
    }

    /// The state of the connection and its changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// The name given at connect.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until NATS is reachable.
    pub async fn connected(&self) {
        let mut link = self.link.clone();
        // An error means the client is gone, and with it everyone who could wait.
        let _ = link.wait_for(|link| link.connected).await;
    }

    /// Whether the server itself answers within `patience`: [`Link::connected`] stays true for a while when
    /// the network just swallows everything.
    pub async fn answers(&self, patience: Duration) -> bool {
        let asked = self.client.request(subject::PROBE, Bytes::new());
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == RequestErrorKind::NoResponders,
            Err(_) => false,
        }
    }

    /// Hands everything queued to the kernel; no proof that the server has seen it.
    ///
    /// # Errors
    /// The connection is away.
    pub async fn flush(&self) -> Result<(), Error> {
        self.client
            .flush()
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "flush failed", e))
    }
}

fn observe(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!("connected to NATS");
            link.send_modify(|link| {
                link.connected = true;
                link.generation += 1;
            });
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!("lost the connection to NATS; reconnecting");
            link.send_modify(|link| link.connected = false);
        }
        Event::SlowConsumer(_) => {
            link.send_modify(|link| link.slow_consumers += 1);
        }
        Event::LameDuckMode | Event::Draining => {
            tracing::info!(%event, "NATS announces a change");
        }
        // A refused publish or subscribe shows up only here.
        Event::ServerError(_) | Event::ClientError(_) => {
            tracing::error!(%event, "NATS refused an operation; check address, account and permissions");
        }
    }
}

impl ConnectSettings {
    /// Says why NATS is away, as long as anybody holds the connection that these settings made.
    pub fn explain(&self, bus: &Bus) -> impl Future<Output = ()> + Send + 'static {
        explain(self.clone(), bus.link())
    }
}

/// Says why NATS is away. The client itself tries again and again without a word, also where a certificate or a
/// password is wrong and no attempt will succeed.
async fn explain(settings: ConnectSettings, mut link: watch::Receiver<Link>) {
    loop {
        // The client and with it the sender are gone: nobody wants to know any more.
        if link.wait_for(|link| !link.connected).await.is_err() {
            return;
        }
        let mut wait = AWAY_LIMIT;
        loop {
            match tokio::time::timeout(wait, link.wait_for(|link| link.connected)).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return,
                Err(_) => wait = LOOK_INTERVAL,
            }
            let Ok(options) = settings.options().await else {
                continue;
            };
            if let Err(error) = options.connect(settings.servers()).await {
                let cause = chain(&error);
                tracing::error!(cause, "cannot connect to NATS; still trying");
            }
        }
    }
}

/// The error with everything beneath it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// Exponential with full spread, so that replicas do not return in step.
fn reconnect_delay(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let exponent = u32::try_from(attempt.min(10)).unwrap_or(10);
    let ceiling = Duration::from_millis(4 << exponent).min(RECONNECT_CAP);
    ceiling.mul_f64(0.5 + spread() / 2.0)
}

/// A number in 0..1 that differs between processes and calls; not for secrets.
fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}
