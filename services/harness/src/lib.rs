//! Local stacks of real processes: for system tests (thrown away) and for development (kept).
//!
//! Owns how Postgres, NATS and the services are found, started, watched and stopped. It must not link
//! either service: everything is driven over the same sockets, files and commands an operator has.

pub mod bench;
pub mod checker;
pub mod dev;
pub mod devstack;
pub mod environment;
pub mod eventually;
pub mod history;
pub mod load;
pub mod stack;
pub mod token;

pub use eventually::eventually;
pub use stack::{Stack, StackBuilder};
pub use token::Token;
