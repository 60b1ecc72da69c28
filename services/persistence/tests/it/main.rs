//! The crate against a real Postgres, and the service against real servers.
//!
//! The database server is the one of `DATABASE_URL`, else one started for the test. Every test has a database
//! of its own that is dropped at its end.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod arrivals;
mod bans;
mod blocks;
mod commits;
mod database;
mod dead_letters;
mod details;
mod generated;
mod journals;
mod keys;
mod large_groups;
mod leases;
mod members;
mod messages;
mod mutes;
mod plans;
mod presence;
mod pushes;
mod queries;
mod read_only;
mod receipts;
mod reports;
mod served;
mod service;
mod startup;
mod unread;
mod works;
