//! `make status`: what runs and whether it serves.

use super::folder::DevFolder;
use super::report::line;
use super::state::{Record, State};
use crate::devstack::probe::Probe;

/// Prints one line per process; true if all of them serve and there is at least one.
pub async fn status(folder: &DevFolder) -> bool {
    let state = State::load(folder);
    if state.processes.is_empty() {
        line("Nothing runs here: start it with `make up`.");
        return false;
    }
    let mut healthy = true;
    for (name, record) in &state.processes {
        let (address, probe) = describe(name, record);
        let health = match (record.identity.is_alive(), probe.look().await) {
            (false, _) => "dead".to_owned(),
            (true, Ok(())) => "serving".to_owned(),
            (true, Err(error)) => format!("not serving: {error:#}"),
        };
        healthy &= health == "serving";
        line(format_args!(
            "  {name:<14} pid {:<8} {address:<28} {health}",
            record.identity.pid
        ));
    }
    if !healthy {
        line("\n`make up` starts what is missing.");
    }
    healthy
}

fn describe(name: &str, record: &Record) -> (String, Probe) {
    let port = record.port;
    match name {
        "postgres" => {
            let url = format!("postgres://parlance@127.0.0.1:{port}/postgres");
            (format!("127.0.0.1:{port}"), Probe::Postgres { url })
        }
        "nats" => {
            let url = format!("nats://127.0.0.1:{port}");
            (url.clone(), Probe::Nats { url })
        }
        _ => {
            let internal_url = format!("http://127.0.0.1:{}", record.internal_port);
            let address = if port == 0 {
                internal_url.clone()
            } else {
                format!("http://127.0.0.1:{port}")
            };
            (
                address,
                Probe::Service {
                    internal_url,
                    stdout: None,
                },
            )
        }
    }
}
