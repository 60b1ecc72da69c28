//! Actions: what clients ask for is carried out here, whichever way they asked; changes become commands, the rest is asked
//! of persistence or of the rooms.
//!
//! | module | owns |
//! | --- | --- |
//! | [`perform`] | the one door: every action, of sockets and of routes |
//! | [`reads`] | what routes ask for without changing anything |
//! | [`services`] | what other services do through the internal port |
//! | [`control`] | orders of other services: disconnected users, revoked tokens |
//! | [`core`] | all of it together, as the edge knows it |
//! | [`commands`] | commands and their confirmations |
//! | [`idempotency`] | changes that clients may repeat by a key |
//! | [`resolver`] | from the ids that clients have to ours |
//! | [`user`] | on whose behalf actions are performed |
//!
//! Must not know Socket.IO or routes: the edge decodes and encodes.

pub mod commands;
pub mod control;
pub mod core;
pub mod idempotency;
pub mod perform;
pub mod reads;
pub mod resolver;
pub mod services;
pub mod user;
