//! `make up`: brings every process of the stack to life, or back to it.

use anyhow::Context;

use super::folder::DevFolder;
use super::replicas::{Connections, Wanted, ensure, gateway_ports};
use super::report::{Report, line};
use super::session::Session;
use super::{env_file, servers};
use crate::devstack::service::{Kind, migrate};
use crate::token::Token;

/// Starts whatever is missing or does not answer, and prints how to use the stack.
///
/// # Errors
/// One line: what could not be started, where, and what to do.
pub async fn up(folder: &DevFolder, wanted: Wanted) -> anyhow::Result<()> {
    let mut session = Session::open(folder)?;
    // Found missing before anything is started.
    let persistence = Kind::Persistence.binary()?;
    Kind::Gateway.binary()?;
    let strays = session.state.end_strays(folder);
    if strays > 0 {
        session
            .report
            .done("cleaning", &format!("{strays} forgotten processes ended"));
    }
    let ports = gateway_ports(&mut session.state, wanted)?;

    let connections = Connections {
        secret: folder.secret()?,
        database_url: servers::postgres(&mut session).await?,
        nats_url: servers::nats(&mut session).await?,
    };
    migrate(&persistence, &connections.settings(Kind::Persistence))?;
    session.report.done("migrations", "applied");
    let without_port = vec![0; wanted.persistence];
    ensure(&mut session, Kind::Persistence, &without_port, &connections).await?;
    let gateways = ensure(&mut session, Kind::Gateway, &ports, &connections).await?;
    env_file::write(
        folder,
        &[
            ("PARLANCE_GATEWAYS", gateways.join(",")),
            ("PARLANCE_NATS_URL", connections.nats_url.clone()),
            ("DATABASE_URL", connections.database_url.clone()),
            ("PARLANCE_JWT_SECRET", connections.secret.clone()),
        ],
    )?;
    let logs = folder.logs().display().to_string();
    farewell(&session.report, folder, &logs, &gateways, &connections.secret)
}

/// How to use what runs now.
pub(super) fn farewell(
    report: &Report,
    folder: &DevFolder,
    logs: &str,
    gateways: &[String],
    secret: &str,
) -> anyhow::Result<()> {
    line(format_args!(
        "\nParlance is up after {:.1} s.\n",
        report.total_seconds()
    ));
    for (index, url) in gateways.iter().enumerate() {
        line(format_args!("  gateway {}    {url}", index + 1));
    }
    line(format_args!("  settings     {}", folder.env_file().display()));
    line(format_args!("  logs         {logs}"));
    if let Some(gateway) = gateways.first() {
        let token = Token::new("alice")
            .name("Alice")
            .sign(secret)
            .context("cannot mint a token")?;
        line("\nTry it: alice opens a conversation with bob.\n");
        line(format_args!(
            "  curl -sS {gateway}/api/v1/conversations/direct \\"
        ));
        line("    -H 'Content-Type: application/json' \\");
        line(format_args!("    -H 'Authorization: Bearer {token}' \\"));
        line(format_args!("    -d '{{\"user_id\":\"bob\"}}'"));
    }
    line("\n  make demo    two users talk through two gateways");
    line("  make status  what runs");
    line("  make down    stop everything");
    Ok(())
}
