//! The Socket.IO and REST front of Parlance. Holds no database connection and no truth of its own: any
//! other replica could take its place.
//!
//! | module | owns |
//! | --- | --- |
//! | [`app`] | assembly: what is made from what, and the order of start and end |
//! | [`edge`] | requests before they have a route: Origins, paths, the client library |
//! | [`auth`] | from a token to an identity |
//! | [`socket`] | connections and sessions; the only place that names socketioxide |
//! | [`dialect`] | vocabularies: pure translation between client events and actions |
//! | [`journal`] | journals that are open here: their versions, and what whole-text clients may show |
//! | [`awareness`] | whose name the states of a page in a journal bear |
//! | [`commands`] | the only way in: commands and their confirmations |
//! | [`backend`], [`resolver`] | questions to persistence |
//! | [`rooms`], [`users`], [`repair`] | the way out: who follows what, and that nothing is missed |
//! | [`operations`] | what operators ask over the bus |
//! | [`control`] | orders of other services: disconnected users, revoked tokens |
//! | [`presence`] | who is here: the lease of this replica, and who is told of whom |
//! | [`rest`] | HTTP routes |
//! | `signals` | metrics that no event brings about |
//! | [`limits`], [`error`], [`config`] | what may be asked, what is answered, what is set |
//! | [`measures`] | the metrics, described |

pub mod app;
pub mod auth;
pub mod awareness;
pub mod backend;
pub mod commands;
pub mod config;
pub mod contract;
pub mod control;
pub mod dialect;
pub mod edge;
pub mod error;
pub mod idempotency;
pub mod journal;
pub mod limits;
pub mod measures;
pub mod metadata;
pub mod operations;
pub mod presence;
pub mod repair;
pub mod resolver;
pub mod rest;
pub mod rooms;
pub mod served;
mod signals;
mod slots;
pub mod socket;
pub mod users;
