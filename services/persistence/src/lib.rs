//! Owner of the Postgres data of Parlance: commands become committed, ordered changes; questions get answers.
//!
//! The only crate that names sqlx. Must not know sockets, HTTP routes of clients, or tokens.

pub mod config;
pub mod database;
mod dead_letters;
pub mod error;
pub mod expiry;
pub mod feed;
pub mod identity;
pub mod ingest;
mod intake;
pub mod leases;
pub mod liveness;
pub mod measures;
pub mod model;
mod operations;
pub mod ownership;
mod payload_limit;
pub mod presence;
mod push;
pub mod queries;
pub mod report;
pub mod service;
mod signals;
pub mod startup;
pub mod store;
mod thread;
