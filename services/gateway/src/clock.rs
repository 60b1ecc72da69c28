//! The clock: the one place of this crate that reads the time of day, and how a loop waits for the next of its times.

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// The time of day; never used for order.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Completes at that time; never without one.
pub async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
