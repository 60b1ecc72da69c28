//! All SQL of the service, one file per noun, and in `kept` what was read and is worth keeping. Row structs are private beside their query and become proto
//! or batch types by full destructuring. Statements are few and static; arrays are passed as parameters.
//!
//! Rows asked for by an array of two-part keys are fetched by `LATERAL (… LIMIT 1)`: in a plain join of three
//! tables the planner was seen to use one part of the key only, and so to read whole conversations. Those of whole
//! conversations by `LATERAL (… OFFSET 0)`: then each is looked up in its own partition, and nothing before it.

pub mod arrivals;
pub mod attempts;
pub mod bans;
pub mod batch;
pub mod blocks;
pub mod changes;
pub mod conversations;
pub mod dead_letters;
pub mod edits;
pub mod epoch;
pub mod events;
pub mod feed;
pub mod hidden;
pub mod journals;
pub mod kept;
pub mod keys;
pub mod leases;
pub mod messages;
pub mod missed;
pub mod mutes;
pub mod participants;
pub mod presence;
pub mod processed;
pub mod pushes;
pub mod reactions;
pub mod receipts;
pub mod reports;
pub mod resolve;
pub mod served;
pub mod sessions;
pub mod streams;
pub mod stretch;
pub mod threads;
pub mod users;
pub mod writes;

use chrono::{DateTime, Utc};
use sqlx::error::BoxDynError;

/// A stored number that is negative or of an unknown kind: the database was changed by other hands.
fn corrupt(what: &'static str) -> sqlx::Error {
    let error: BoxDynError = what.into();
    sqlx::Error::Decode(error)
}

fn seq_from(stored: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(stored).map_err(|_| corrupt("a negative seq or version"))
}

/// Seqs beyond what Postgres can count do not exist; as a bound they mean "no bound".
fn seq_to(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn millis(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

/// The stored number of an enum value.
fn small(number: impl Into<i32>) -> i16 {
    i16::try_from(number.into()).unwrap_or_default()
}

/// Metadata as the wire shows them: nothing for an empty object.
fn metadata_from(stored: String) -> String {
    if stored == "{}" { String::new() } else { stored }
}

/// Metadata as Postgres takes them.
fn metadata_to(wire: &str) -> &str {
    if wire.is_empty() { "{}" } else { wire }
}

fn from_millis(at_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at_ms).unwrap_or_default()
}
