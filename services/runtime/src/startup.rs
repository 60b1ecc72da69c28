//! The first and last words of a process: what went wrong before it could serve, that it serves,
//! and the exit code. It must not log: at this point telemetry may not exist.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

use crate::config::{ConfigError, Invalid};

/// The exit code for settings that cannot work (`EX_USAGE`): restarting will not help.
pub const EXIT_BAD_CONFIGURATION: u8 = 64;

/// Connections that may wait to be accepted: many clients reconnect at once when a replica goes.
const BACKLOG: u32 = 4096;

/// Why a process cannot start. Displays as one line, "what: where: what to do".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupError {
    /// What failed.
    pub what: String,
    /// Where: an address, a file, a table; without secrets.
    pub place: String,
    /// What the operator can do.
    pub hint: String,
}

impl StartupError {
    /// An error with its three parts.
    pub fn new(what: impl Into<String>, place: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            place: place.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, place, hint } = self;
        f.write_str(&one_line(&format!("{what}: {place}: {hint}")))
    }
}

impl std::error::Error for StartupError {}

/// Lets the process open as many files as it may: container runtimes begin with a soft limit of 1,024, for programs
/// that cannot count further. Returns the limit; `None` where there is none.
///
/// # Errors
/// The system refuses.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(limit.maximum)
}

/// Turns the outcome of a program into its exit code: 64 for bad configuration, 1 for any other
/// error, which is printed as one line `parlance-<service>: …` on stderr.
pub fn exit_with(service: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    let (code, line) = last_words(service, &error);
    // Nothing is left to report to when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{line}");
    ExitCode::from(code)
}

/// Prints one JSON line on stdout once the process accepts connections:
/// `{"ready_to_serve":true,"http":"address","internal":"address"}`, `http` left out when `None`.
pub fn announce(http: Option<SocketAddr>, internal: SocketAddr) {
    let mut stdout = io::stdout().lock();
    // A closed stdout is no reason not to serve.
    let _ = writeln!(stdout, "{}", announcement(http, internal)).and_then(|()| stdout.flush());
}

/// Listens on `host`:`port` (0 for any free port). `key` is the setting that holds the port, for
/// the hint.
///
/// # Errors
/// The host does not resolve, or the port is taken or not allowed.
pub async fn bind(host: &str, port: u16, key: &str) -> Result<TcpListener, StartupError> {
    let place = format!("{host}:{port}");
    let addresses = lookup_host((host, port)).await.map_err(|error| {
        let hint = format!("set the host beside {key} to an address of this machine");
        StartupError::new(
            format!("cannot resolve the host to listen on ({error})"),
            &place,
            hint,
        )
    })?;
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        ErrorKind::AddrInUse => {
            let hint =
                format!("stop the process that listens there, or set {key} to a free port (0 picks one)");
            StartupError::new(format!("port {port} is already in use"), place, hint)
        }
        ErrorKind::PermissionDenied => {
            let hint = format!("set {key} to a port above 1023");
            StartupError::new(format!("not allowed to listen on port {port}"), place, hint)
        }
        _ => {
            let hint = format!("check {key} and the host beside it");
            StartupError::new(format!("cannot listen ({last})"), place, hint)
        }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted process must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn last_words(service: &str, error: &anyhow::Error) -> (u8, String) {
    let is_configuration = error.is::<ConfigError>() || error.is::<Invalid>();
    let code = if is_configuration {
        EXIT_BAD_CONFIGURATION
    } else {
        1
    };
    (code, one_line(&format!("parlance-{service}: {error:#}")))
}

fn announcement(http: Option<SocketAddr>, internal: SocketAddr) -> String {
    match http {
        Some(http) => json!({ "ready_to_serve": true, "http": http, "internal": internal }).to_string(),
        None => json!({ "ready_to_serve": true, "internal": internal }).to_string(),
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_setting_to_change() {
        let holder = bind("127.0.0.1", 0, "http.port").await.unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = bind("127.0.0.1", port, "http.port").await.unwrap_err();
        let line = error.to_string();
        assert!(line.contains(&format!("port {port} is already in use")), "{line}");
        assert!(line.contains("set http.port to a free port"), "{line}");
    }

    #[tokio::test]
    async fn a_foreign_address_is_refused_in_one_line() {
        // 192.0.2.0/24 is reserved for documentation: no machine has it.
        let error = bind("192.0.2.1", 0, "internal.port").await.unwrap_err();
        let line = error.to_string();
        assert!(
            line.contains("192.0.2.1:0") && line.contains("internal.port"),
            "{line}"
        );
    }

    #[test]
    fn bad_configuration_exits_64_and_anything_else_1() {
        let bad = anyhow::Error::from(Invalid::new("http.port", "x", "a port"));
        assert_eq!(last_words("gateway", &bad).0, 64);
        let bad = anyhow::Error::from(ConfigError::from(Invalid::hidden("jwt.secret", "set")));
        let expected = "parlance-gateway: bad configuration: jwt.secret: must be set";
        assert_eq!(last_words("gateway", &bad), (64, expected.to_owned()));
        let wrapped = Err::<(), _>(ConfigError::from(Invalid::hidden("jwt.secret", "set")))
            .context("while starting")
            .unwrap_err();
        assert_eq!(last_words("gateway", &wrapped).0, 64);
        let other = anyhow::Error::from(StartupError::new("no\nbus", "bus:4222", "start it"));
        let expected = "parlance-gateway: no bus: bus:4222: start it";
        assert_eq!(last_words("gateway", &other), (1, expected.to_owned()));
    }

    #[test]
    fn the_announcement_is_one_json_object() {
        let http = SocketAddr::from(([127, 0, 0, 1], 4004));
        let internal = SocketAddr::from(([127, 0, 0, 1], 9100));
        let both: serde_json::Value = serde_json::from_str(&announcement(Some(http), internal)).unwrap();
        let expected = json!({
            "ready_to_serve": true, "http": "127.0.0.1:4004", "internal": "127.0.0.1:9100",
        });
        assert_eq!(both, expected);
        let one: serde_json::Value = serde_json::from_str(&announcement(None, internal)).unwrap();
        assert_eq!(
            one,
            json!({ "ready_to_serve": true, "internal": "127.0.0.1:9100" })
        );
    }
}
