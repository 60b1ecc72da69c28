//! What every other part of the service speaks of: checked commands, the state they work on and what becomes of it, and the
//! rules that need nothing else.
//!
//! Plain data and pure functions. Must not know SQL, the bus, clocks or settings, and nothing else of this crate: all
//! others, the store as well, stand above it.

pub mod emoji;
pub mod events;
pub mod journal;
pub mod permissions;
pub mod position;
pub mod presence;
pub mod processed;
pub mod read_set;
pub mod refusals;
pub mod state;
pub mod work;
