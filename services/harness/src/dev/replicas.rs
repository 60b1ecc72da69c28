//! The service replicas of the development stack: which there should be, and making it so.

use std::time::Duration;

use anyhow::bail;
use futures::future::join_all;

use super::folder::DevFolder;
use super::servers::start;
use super::session::Session;
use super::state::{Record, State, fingerprint};
use crate::devstack::launch::Lifetime;
use crate::devstack::ports;
use crate::devstack::repository;
use crate::devstack::service::{Kind, Service};
use crate::environment;
use crate::eventually::eventually;

/// First gateway port unless another is asked for.
const DEFAULT_PORT: u16 = 4004;
/// Time a running replica has to become ready again, for example after NATS was restarted.
const PATIENCE: Duration = Duration::from_secs(8);
/// A replica that does not even answer is replaced sooner.
const SILENCE: Duration = Duration::from_secs(2);
/// Variables that address or describe the stack itself, never passed on from the caller.
const OWN: &[&str] = &[
    "PARLANCE_HTTP_",
    "PARLANCE_INTERNAL_",
    "PARLANCE_DEVSTACK",
    "PARLANCE_TEST_",
    "PARLANCE_BIN_DIR",
    "PARLANCE_GATEWAYS",
    "PARLANCE_NATS_URL",
    "PARLANCE_JWT_SECRET",
];

/// Pages that a developer serves on this machine may connect, on any port, unless the caller lists others.
const LOCAL_PAGES: &str = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*";
/// Where the client library lies after `npm ci`.
const CLIENT_LIBRARY: &str = "services/harness/js/node_modules/socket.io-client/dist";

/// How many replicas, and where.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Number of gateways.
    pub gateways: usize,
    /// Number of persistence replicas.
    pub persistence: usize,
    /// First gateway port, 0 for any free ones, none for the same as before.
    pub port: Option<u16>,
}

/// What every replica needs to know.
#[derive(Clone, Debug)]
pub struct Connections {
    /// `postgres://…`
    pub database_url: String,
    /// `nats://…`
    pub nats_url: String,
    /// Secret of the tokens.
    pub secret: String,
}

impl Connections {
    /// The settings of a replica of `kind`, the caller's own `PARLANCE_*` settings included.
    #[must_use]
    pub fn settings(&self, kind: Kind) -> Vec<(String, String)> {
        let mut settings = environment::variables("PARLANCE_");
        settings.retain(|(name, _)| !OWN.iter().any(|own| name.starts_with(own)));
        if !settings.iter().any(|(name, _)| name == "PARLANCE_TELEMETRY_LOG") {
            settings.push(("PARLANCE_TELEMETRY_LOG".into(), "info".into()));
        }
        if kind == Kind::Gateway {
            settings.extend(for_browsers(&settings));
        }
        settings.push(("PARLANCE_NATS_URL".into(), self.nats_url.clone()));
        settings.push(match kind {
            Kind::Gateway => ("PARLANCE_JWT_SECRET".into(), self.secret.clone()),
            Kind::Persistence => ("DATABASE_URL".into(), self.database_url.clone()),
        });
        settings
    }
}

/// What lets a page of this machine use the stack, where the caller's own `settings` do not decide it.
fn for_browsers(settings: &[(String, String)]) -> Vec<(String, String)> {
    let is_set = |wanted: &str| settings.iter().any(|(name, _)| name == wanted);
    let mut more = Vec::new();
    if !is_set("PARLANCE_CORS_ORIGINS") {
        more.push(("PARLANCE_CORS_ORIGINS".to_owned(), LOCAL_PAGES.to_owned()));
    }
    let folder = repository().join(CLIENT_LIBRARY);
    if !is_set("PARLANCE_SOCKET_CLIENT_FOLDER") && folder.is_dir() {
        let folder = folder.display().to_string();
        more.push(("PARLANCE_SOCKET_CLIENT_FOLDER".to_owned(), folder));
    }
    more
}

/// Chooses the gateway ports, before anything is started.
///
/// # Errors
/// A port is taken by another program.
pub fn gateway_ports(state: &mut State, wanted: Wanted) -> anyhow::Result<Vec<u16>> {
    let base = wanted.port.or(state.port_base).unwrap_or(DEFAULT_PORT);
    state.port_base = Some(base);
    let alive = |record: &&Record| record.identity.is_alive();
    let held: Vec<u16> = state
        .processes
        .values()
        .filter(alive)
        .map(|record| record.port)
        .collect();
    let mut chosen = Vec::new();
    for index in 0..wanted.gateways {
        let recorded = state
            .processes
            .get(&format!("gateway-{}", index + 1))
            .map(|record| record.port);
        let port = match base {
            0 => match recorded.filter(|port| held.contains(port) || ports::is_free(*port)) {
                Some(port) => port,
                None => ports::free()?,
            },
            base => match u16::try_from(index)
                .ok()
                .and_then(|index| base.checked_add(index))
            {
                Some(port) => port,
                None => bail!(
                    "port {base} leaves no room for {} gateways: choose a lower PORT",
                    wanted.gateways
                ),
            },
        };
        if !held.contains(&port) && !ports::is_free(port) {
            bail!(
                "port {port} is taken by another program: `PORT=0 make up` picks free ports, `PORT=n` others"
            );
        }
        chosen.push(port);
    }
    Ok(chosen)
}

/// Makes the replicas of `kind` exactly those in `ports`, one per entry: those that serve and would be
/// started in the same way again stay, all others are stopped or started. Returns their addresses.
///
/// # Errors
/// A replica does not get ready.
pub async fn ensure(
    session: &mut Session,
    kind: Kind,
    ports: &[u16],
    connections: &Connections,
) -> anyhow::Result<Vec<String>> {
    let Session {
        folder,
        state,
        report,
        ..
    } = session;
    let binary = kind.binary()?;
    let mut services = Vec::new();
    for (index, http_port) in ports.iter().enumerate() {
        let number = index + 1;
        let recorded = state.processes.get(&format!("{}-{number}", kind.label()));
        let internal = recorded.map(|record| record.internal_port);
        services.push(Service {
            kind,
            number,
            binary: binary.clone(),
            http_port: *http_port,
            internal_port: internal.map_or_else(ports::free, Ok)?,
            environment: connections.settings(kind),
            logs: folder.logs(),
        });
    }
    let stays = join_all(services.iter().map(|service| stays(folder, state, service))).await;
    let kept: Vec<String> = services
        .iter()
        .zip(&stays)
        .filter(|(_, stays)| **stays)
        .map(|(service, _)| service.name())
        .collect();
    let prefix = format!("{}-", kind.label());
    let others = state
        .processes
        .keys()
        .filter(|name| name.starts_with(&prefix) && !kept.contains(name));
    let others: Vec<_> = others.cloned().collect();
    let stopped = state.stop(&others);
    state.save(folder)?;

    let starting = services
        .iter_mut()
        .filter(|service| !kept.contains(&service.name()));
    let starting = starting.map(|service| async {
        if !ports::is_free(service.internal_port) {
            service.internal_port = ports::free()?;
        }
        let ports = (service.http_port, service.internal_port);
        let record = start(folder, service.launch(Lifetime::Detached), service.probe(), ports).await?;
        anyhow::Ok((service.name(), record))
    });
    let outcomes = join_all(starting).await;
    let started = outcomes.len();
    let mut failure = None;
    for outcome in outcomes {
        match outcome {
            Ok((name, record)) => drop(state.processes.insert(name, record)),
            Err(error) => failure = Some(error),
        }
    }
    // Whatever did start must be remembered even if another did not.
    state.save(folder)?;
    if let Some(error) = failure {
        return Err(error);
    }
    report.done(kind.label(), &summary(kept.len(), started, stopped));
    Ok(services.iter().map(Service::base_url).collect())
}

fn summary(kept: usize, started: usize, stopped: usize) -> String {
    let parts = [
        (kept, "already running"),
        (started, "started"),
        (stopped, "stopped"),
    ];
    let said = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"));
    said.collect::<Vec<_>>().join(", ")
}

async fn stays(folder: &DevFolder, state: &State, service: &Service) -> bool {
    let Some(record) = state.processes.get(&service.name()) else {
        return false;
    };
    let launch = service.launch(Lifetime::Detached);
    let mut settings = launch.environment;
    settings.push(folder.mark());
    if !record.identity.is_alive() || record.fingerprint != fingerprint(&launch.program, &settings) {
        return false;
    }
    let probe = service.probe();
    let answers = || async {
        match probe.look().await {
            Ok(()) => Ok(()),
            // An answer that says "not ready" is an answer.
            Err(error) if error.to_string().contains("/readyz answers") => Ok(()),
            Err(error) => Err(error),
        }
    };
    eventually(SILENCE, "an answer", answers).await.is_ok()
        && eventually(PATIENCE, "readiness", || probe.look()).await.is_ok()
}
