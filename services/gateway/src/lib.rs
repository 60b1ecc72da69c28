//! The Socket.IO and REST front of Parlance. Holds no database connection and no truth of its own: any
//! other replica could take its place.
//!
//! Each layer knows only those below it:
//!
//! | layer | module | owns |
//! | --- | --- | --- |
//! | assembly | [`app`] | what is made from what, and the order of start and end |
//! | | [`operations`] | what operators ask over the bus |
//! | | [`contract`] | the documents of events and routes |
//! | | [`config`] | what is set |
//! | edge | [`edge`] | what clients send is decoded, what they receive is encoded: sockets, routes, and what precedes both |
//! | actions | [`actions`] | what clients ask for is carried out: the only way in |
//! | delivery | [`delivery`] | which sessions receive what, and that nothing is missed: rooms, users, presence |
//! | session | [`session`] | one connected client: what is delivered to it |
//! | dialect | [`dialect`] | pure translation between client events and actions |
//! | backend | [`backend`] | queries to persistence |
//! | leaves | [`auth`] | from a token to an identity |
//! | | [`limits`], [`metadata`] | what may be asked in size and rate |
//! | | `signals`, [`measures`] | metrics that no event brings about; all metrics, described |
//! | | `slots` | room for what each user may have under way |
//! | | [`error`] | what a client may learn of a failure |
//! | | [`clock`], [`ids`], [`query`] | the time of day, new ids, the query of a URI |

pub mod actions;
pub mod app;
pub mod auth;
pub mod backend;
pub mod clock;
pub mod config;
pub mod contract;
pub mod delivery;
pub mod dialect;
pub mod edge;
pub mod error;
pub mod ids;
pub mod limits;
pub mod measures;
pub mod metadata;
pub mod operations;
pub mod query;
pub mod session;
mod signals;
mod slots;
