//! Asks the service of this machine how it is: the health check of a container that has neither shell nor curl.
//!
//! Knows the probes of [`crate::health`] and nothing of what they mean. Must not start anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use crate::startup::StartupError;

/// Shorter than what engines give a health check.
const PATIENCE: Duration = Duration::from_secs(2);
/// What of an answer is shown.
const SHOWN: usize = 300;

/// Asks the internal port of the service that is configured like this process: whether it lives, or whether it is
/// `ready` for clients.
///
/// # Errors
/// It does not say so within two seconds.
pub async fn ask(host: &str, port: u16, ready: bool) -> anyhow::Result<ExitCode> {
    let path = if ready { "readyz" } else { "livez" };
    let url = format!("http://{}:{port}/{path}", own_address(host));
    if port == 0 {
        let hint = "set internal.port: one that was picked freely is known to the service alone";
        return Err(StartupError::new("cannot ask", url, hint).into());
    }
    // A proxy would ask its own loopback.
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let hint = "read the service's log";
    let answer = client.get(&url).send().await.map_err(|error| {
        let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |one| one.source()).last();
        let cause = cause.map(ToString::to_string).unwrap_or_default();
        StartupError::new(format!("no answer ({cause})"), &url, hint)
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let text = answer.text().await.unwrap_or_default();
    let text: String = text.chars().take(SHOWN).collect();
    let what = format!("the answer is {}: {text}", status.as_u16());
    Err(StartupError::new(what, url, hint).into())
}

/// Where a listener on `host` is reached from the same machine, as a URL has it.
fn own_address(host: &str) -> String {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::health::{Health, router, serve_internal};
    use crate::telemetry::MetricsHandle;

    async fn service(health: &Health) -> (u16, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let routes = router(health.clone(), MetricsHandle::detached());
        tokio::spawn(serve_internal(listener, routes, stop.clone()));
        (port, stop)
    }

    #[tokio::test]
    async fn it_says_what_the_probes_say() {
        let health = Health::new();
        let bus = health.condition("nats");
        bus.set_unready("connecting to bus:4222");
        let (port, stop) = service(&health).await;
        assert!(ask("0.0.0.0", port, false).await.is_ok());
        let line = ask("0.0.0.0", port, true).await.unwrap_err().to_string();
        assert!(
            line.contains("503") && line.contains("connecting to bus:4222") && line.contains("/readyz"),
            "{line}"
        );
        bus.set_ready();
        assert!(ask("127.0.0.1", port, true).await.is_ok());
        stop.cancel();
    }

    #[tokio::test]
    async fn silence_and_a_port_of_chance_are_one_line_each() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let line = ask("localhost", port, false).await.unwrap_err().to_string();
        assert!(
            line.contains("no answer") && line.contains(&port.to_string()) && !line.contains('\n'),
            "{line}"
        );
        let line = ask("0.0.0.0", 0, false).await.unwrap_err().to_string();
        assert!(line.contains("internal.port"), "{line}");
    }

    #[test]
    fn every_address_becomes_one_that_answers_here() {
        for (host, address) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "[::1]"),
            ("[::]", "[::1]"),
            ("fd00::7", "[fd00::7]"),
            ("10.1.2.3", "10.1.2.3"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(own_address(host), address);
        }
    }
}
