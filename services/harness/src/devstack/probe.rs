//! Finding out whether a process serves, by connecting to it.
//!
//! Process ids say nothing here: a dead process can keep its id for seconds, a stopped one for ever.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use sqlx::{ConnectOptions, Connection};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

/// Longest wait for one answer.
const ONE_LOOK: Duration = Duration::from_secs(2);

/// How to see that a process serves.
#[derive(Clone, Debug)]
pub enum Probe {
    /// Answers a query at this URL.
    Postgres {
        /// `postgres://…`
        url: String,
    },
    /// Greets at this address.
    Nats {
        /// `nats://host:port`
        url: String,
    },
    /// Accepts connections at this address.
    Port {
        /// `host:port`
        address: String,
    },
    /// Answers a request of this URL with success.
    Http {
        /// `http://…`
        url: String,
    },
    /// Says on standard output that it serves, and answers `/readyz` with 200.
    Service {
        /// Base URL of the internal listener.
        internal_url: String,
        /// Where its standard output is written; none to skip that check.
        stdout: Option<PathBuf>,
    },
}

/// The line a service prints once its listeners are bound.
#[derive(Debug, Deserialize)]
struct Announcement {
    ready_to_serve: bool,
    internal: String,
}

impl Probe {
    /// Looks once.
    ///
    /// # Errors
    /// Says what was seen instead of a serving process. Never names a password.
    pub async fn look(&self) -> anyhow::Result<()> {
        let look = async {
            match self {
                Self::Postgres { url } => answers_query(url).await,
                Self::Nats { url } => greets(url).await,
                Self::Port { address } => TcpStream::connect(address).await.map(drop).map_err(Into::into),
                Self::Http { url } => succeeds(url).await,
                Self::Service { internal_url, stdout } => {
                    if let Some(stdout) = stdout {
                        announced(stdout, internal_url)?;
                    }
                    succeeds(&format!("{internal_url}/readyz")).await
                }
            }
        };
        tokio::time::timeout(ONE_LOOK, look).await.context("no answer")?
    }
}

async fn answers_query(url: &str) -> anyhow::Result<()> {
    let options: sqlx::postgres::PgConnectOptions = url.parse().context("not a postgres:// URL")?;
    let mut connection = options.disable_statement_logging().connect().await?;
    sqlx::query("SELECT 1").execute(&mut connection).await?;
    connection.close().await.ok();
    Ok(())
}

/// The `host:port` of a `nats://` URL (the first one of a list), with the default port filled in.
///
/// # Errors
/// The text names no host.
pub fn nats_address(url: &str) -> anyhow::Result<String> {
    let first = url.split(',').next().unwrap_or_default().trim();
    let rest = first.split_once("://").map_or(first, |(_, rest)| rest);
    let host = rest
        .rsplit_once('@')
        .map_or(rest, |(_, host)| host)
        .trim_end_matches('/');
    ensure!(!host.is_empty(), "names no host");
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port {
        host.to_owned()
    } else {
        format!("{host}:4222")
    })
}

async fn greets(url: &str) -> anyhow::Result<()> {
    let stream = TcpStream::connect(nats_address(url)?).await?;
    let mut greeting = String::new();
    BufReader::new(stream).read_line(&mut greeting).await?;
    let Some(info) = greeting.strip_prefix("INFO ") else {
        bail!("what answers is not NATS")
    };
    let info: serde_json::Value = serde_json::from_str(info).context("what answers is not NATS")?;
    ensure!(
        info["jetstream"] == true,
        "NATS runs without JetStream: enable it (`jetstream {{}}` in its configuration)"
    );
    Ok(())
}

fn announced(stdout: &PathBuf, internal_url: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(stdout).context("no standard output yet")?;
    let line = text
        .lines()
        .find_map(|line| serde_json::from_str::<Announcement>(line).ok());
    let announcement = line.context("has not announced its listeners yet")?;
    ensure!(
        announcement.ready_to_serve && internal_url.ends_with(&announcement.internal),
        "announced {} instead of {internal_url}",
        announcement.internal
    );
    Ok(())
}

async fn succeeds(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.get(url).send().await?;
    let status = response.status();
    let response_path = response.url().path().to_owned();
    if status.is_success() {
        return Ok(());
    }
    let body = response.text().await.unwrap_or_default();
    bail!(
        "{} answers {}: {}",
        response_path,
        status.as_u16(),
        body.chars().take(300).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nats_server_of_a_list_is_probed_without_credentials() {
        for (url, address) in [
            ("nats://127.0.0.1:4333", "127.0.0.1:4333"),
            ("nats://user:pass@bus.example/", "bus.example:4222"),
            ("bus.example, nats://other:1", "bus.example:4222"),
        ] {
            assert_eq!(nats_address(url).unwrap(), address);
        }
        assert!(nats_address("nats://").is_err());
    }
}
