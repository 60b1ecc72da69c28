//! Choosing loopback ports.
//!
//! Must not choose from the range the system gives to outgoing connections: a server that is
//! restarted on its old port would now and then find it in use by a client.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

use crate::environment;

const FIRST: u16 = 20_000;
const COUNT: u64 = 10_000;
const ATTEMPTS: usize = 200;

/// A port of the loopback interface on which nobody listens now.
///
/// # Errors
/// Nearly all ports are in use.
pub fn free() -> anyhow::Result<u16> {
    for _ in 0..ATTEMPTS {
        let offset = u16::try_from(environment::scatter() % COUNT).unwrap_or_default();
        if is_free(FIRST + offset) {
            return Ok(FIRST + offset);
        }
    }
    bail!(
        "no free port between {FIRST} and {}: stop programs that listen there",
        u64::from(FIRST) + COUNT
    )
}

/// Whether a server could listen on `port` now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
