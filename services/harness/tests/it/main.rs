//! System tests: real Postgres, NATS and services as child processes.

#![expect(
    clippy::unwrap_used,
    reason = "a failed assumption of a test is a failed test"
)]

mod boundaries;
mod conversations;
mod dev;
mod devstack;
mod dialects;
mod director;
mod faults;
mod kills;
mod mutants;
mod observability;
mod soak;
mod spec;
mod startup;
mod system_messages;
