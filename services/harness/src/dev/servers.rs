//! Postgres and NATS of the development stack: the ones named in the environment, or own ones.

use std::time::Duration;

use anyhow::{Context, anyhow};

use super::folder::DevFolder;
use super::session::Session;
use super::state::Record;
use crate::devstack::account::Account;
use crate::devstack::launch::{Launch, Lifetime};
use crate::devstack::nats::Nats;
use crate::devstack::ports;
use crate::devstack::postgres::Postgres;
use crate::devstack::probe::Probe;
use crate::devstack::process::Process;
use crate::devstack::programs::{PostgresPrograms, nats_for_development};
use crate::environment;
use crate::eventually::eventually;

/// Time a server that should be there has to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Another program may take a port between choosing and binding it.
const ATTEMPTS: usize = 3;

/// Makes sure that Postgres answers; returns the URL of the database.
///
/// # Errors
/// The database named by `DATABASE_URL` does not answer, or an own one cannot be started.
pub async fn postgres(session: &mut Session) -> anyhow::Result<String> {
    let Session {
        folder,
        state,
        report,
        ..
    } = session;
    let account = Account::detect();
    let own_url = |port| format!("postgres://parlance@127.0.0.1:{port}/parlance");
    let own = state.postgres_port.map(own_url);
    if let Some(url) = environment::variable("DATABASE_URL").filter(|url| Some(url) != own.as_ref()) {
        external("DATABASE_URL", &url, &Probe::Postgres { url: url.clone() }).await?;
        state.stop(&["postgres".to_owned()]);
        report.done("postgres", "used as named by DATABASE_URL");
        return Ok(url);
    }
    let account = account?;
    let programs =
        PostgresPrograms::for_development(|| report.note("downloading Postgres and NATS (32 MB, once)"))?;
    let mut server = Postgres {
        account,
        data: folder.postgres_data(account, programs.major),
        port: 0,
        fsync: true,
        tls: None,
        log: folder.logs().join("postgres.log"),
        programs,
    };
    if let Some(record) = state.processes.get("postgres") {
        server.port = record.port;
        if serves(record, &server.probe()).await {
            server.create_database().await?;
            report.done("postgres", &format!("already running, port {}", server.port));
            return Ok(server.url());
        }
    }
    state.stop(&["postgres".to_owned()]);
    server.clear_remains()?;
    if !server.data.join("PG_VERSION").is_file() {
        report.note(&format!("creating a Postgres {} database", server.programs.major));
        server.initialise()?;
    }
    for attempt in 1.. {
        server.port = usable(state.postgres_port)?;
        let started = start(
            folder,
            server.launch(Lifetime::Detached),
            server.probe(),
            (server.port, 0),
        )
        .await;
        match started {
            Ok(record) => {
                state.postgres_port = Some(server.port);
                state.processes.insert("postgres".into(), record);
                state.save(folder)?;
                break;
            }
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => state.postgres_port = None,
        }
    }
    server
        .create_database()
        .await
        .context("cannot create the database")?;
    report.done(
        "postgres",
        &format!("Postgres {} started, port {}", server.programs.major, server.port),
    );
    Ok(server.url())
}

/// Makes sure that NATS answers; returns its URL.
///
/// # Errors
/// The server named by `PARLANCE_NATS_URL` does not answer, or an own one cannot be started.
pub async fn nats(session: &mut Session) -> anyhow::Result<String> {
    let Session {
        folder,
        state,
        report,
        ..
    } = session;
    let own = state
        .nats_ports
        .map(|(port, _)| format!("nats://127.0.0.1:{port}"));
    if let Some(url) = environment::variable("PARLANCE_NATS_URL").filter(|url| Some(url) != own.as_ref()) {
        external("PARLANCE_NATS_URL", &url, &Probe::Nats { url: url.clone() }).await?;
        state.stop(&["nats".to_owned()]);
        report.done("nats", "used as named by PARLANCE_NATS_URL");
        return Ok(url);
    }
    let mut server = Nats {
        program: nats_for_development(|| report.note("downloading Postgres and NATS (32 MB, once)"))?,
        folder: folder.data().join("nats"),
        port: 0,
        monitor_port: 0,
        max_payload: Nats::MAX_PAYLOAD,
        max_pending: Nats::MAX_PENDING,
        cluster: None,
        tls: None,
        accounts: None,
        log: folder.logs().join("nats.log"),
    };
    if let Some(record) = state.processes.get("nats") {
        server.port = record.port;
        if serves(record, &server.probe()).await {
            report.done("nats", &format!("already running, port {}", server.port));
            return Ok(server.url());
        }
    }
    state.stop(&["nats".to_owned()]);
    for attempt in 1.. {
        server.port = usable(state.nats_ports.map(|(port, _)| port))?;
        server.monitor_port = usable(state.nats_ports.map(|(_, port)| port))?;
        server.configure()?;
        let ports = (server.port, server.monitor_port);
        match start(folder, server.launch(Lifetime::Detached), server.probe(), ports).await {
            Ok(record) => {
                state.nats_ports = Some(ports);
                state.processes.insert("nats".into(), record);
                state.save(folder)?;
                break;
            }
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => state.nats_ports = None,
        }
    }
    report.done(
        "nats",
        &format!(
            "started, port {}, monitoring {}",
            server.port, server.monitor_port
        ),
    );
    Ok(server.url())
}

/// Whether a recorded process still lives and answers within a short time.
pub(super) async fn serves(record: &Record, probe: &Probe) -> bool {
    record.identity.is_alive() && eventually(PATIENCE, "an answer", || probe.look()).await.is_ok()
}

/// Starts a process that outlives this one and waits until it serves.
pub(super) async fn start(
    folder: &DevFolder,
    mut launch: Launch,
    probe: Probe,
    (port, internal_port): (u16, u16),
) -> anyhow::Result<Record> {
    launch.environment.push(folder.mark());
    let fingerprint = super::state::fingerprint(&launch.program, &launch.environment);
    let log = launch.log.display().to_string();
    let process = Process::new(launch, probe, String::new(), String::new());
    process.start().await.map_err(|error| one_line(&error, &log))?;
    let identity = process
        .release()
        .with_context(|| format!("a process ended right after it started; see {log}"))?;
    Ok(Record {
        identity,
        fingerprint,
        port,
        internal_port,
    })
}

/// The first line of a failure and the last of the log beside it.
fn one_line(error: &anyhow::Error, log: &str) -> anyhow::Error {
    let text = format!("{error:#}");
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("failed").trim_end_matches(':');
    match lines.next_back() {
        Some(last) => anyhow!("{first}: {last} (more in {log})"),
        None => anyhow!("{first} (log: {log})"),
    }
}

async fn external(name: &str, url: &str, probe: &Probe) -> anyhow::Result<()> {
    let outcome = eventually(PATIENCE, "it does not answer", || probe.look()).await;
    outcome.map_err(|error| {
        let place = without_credentials(url);
        anyhow!("{name} names {place}, but {error:#}: start it, or unset {name} to use the stack's own")
    })
}

fn usable(port: Option<u16>) -> anyhow::Result<u16> {
    port.filter(|port| ports::is_free(*port))
        .map_or_else(ports::free, Ok)
}

/// A URL without user and password, for messages.
fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_no_password() {
        assert_eq!(
            without_credentials("postgres://me:p@ss@db:5432/chat"),
            "postgres://db:5432/chat"
        );
        assert_eq!(
            without_credentials("nats://127.0.0.1:4222"),
            "nats://127.0.0.1:4222"
        );
    }
}
