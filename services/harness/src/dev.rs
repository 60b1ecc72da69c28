//! The development stack behind `make up`: kept between commands, healed instead of replaced.
//!
//! Owns the `.devstack` folder. Must not start anything that is already serving, nor signal a process
//! that it did not start itself.

pub mod command;
pub mod compose;
pub mod demo;
pub mod demo_agent;
pub mod doctor;
pub mod down;
pub mod env_file;
pub mod folder;
pub mod replicas;
pub mod report;
pub mod servers;
pub mod session;
pub mod state;
pub mod status;
pub mod up;
