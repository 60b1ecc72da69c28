//! What any service needs to stand up: settings, telemetry, lifecycle, tasks, health, start-up errors, pauses
//! between attempts.
//!
//! This crate knows nothing of chat: no ids, no subjects, no SQL, no sockets beyond the internal
//! HTTP port. It must not depend on any other crate of the workspace.

pub mod backoff;
pub mod config;
pub mod health;
pub mod healthcheck;
pub mod lifecycle;
pub mod startup;
pub mod tasks;
pub mod telemetry;
