//! System tests: real Postgres, NATS and services as child processes.

#![expect(
    clippy::unwrap_used,
    reason = "a failed assumption of a test is a failed test"
)]

mod accounts;
mod anywhere;
mod awareness;
mod boundaries;
mod conformance;
mod contract;
mod control;
mod conversations;
mod dashboard;
mod dev;
mod devstack;
mod dialects;
mod director;
mod edge;
mod faults;
mod feed;
mod flaws;
mod foreign_events;
mod frontends;
mod handover;
mod healthcheck;
mod hostile;
mod hostile_edge;
mod hostile_ways;
mod idempotency;
mod journals;
mod kills;
mod layers;
mod matrix;
mod measures;
mod metrics;
mod mutants;
mod observability;
mod observers;
mod operations;
mod operator;
mod presence;
mod push;
mod redelivery;
mod relations;
mod restore;
mod rollout;
mod services;
mod settings;
mod shared_connections;
mod soak;
mod spec;
mod startup;
mod streams;
mod system_messages;
mod tables;
mod thresholds;
mod tls;
mod traces;
