//! The clock: the one place of this crate that reads the time of day.

use chrono::{DateTime, Utc};

/// The time of day; never used for order.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
