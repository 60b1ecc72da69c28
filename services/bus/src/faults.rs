//! Deliberate crashes and flaws at named points, so that the fault suite can show that it notices them.
//!
//! Here because both services and the bus itself have such points. Only a build with the feature `faults` has
//! any: there `PARLANCE_FAILPOINTS` switches them on, as `point=actions;point=actions` in the words of the crate
//! `fail` (`return`: always; `4*off->1*return`: the fifth time only). In every other build nothing is read and
//! nothing happens.

/// Whether what is named shall happen now.
#[cfg(feature = "faults")]
#[must_use]
pub fn happens(point: &str) -> bool {
    configured::once();
    fail::fail_point!(point, |_| true);
    false
}

/// Whether what is named shall happen now: never.
#[cfg(not(feature = "faults"))]
#[inline(always)]
#[must_use]
pub const fn happens(_point: &str) -> bool {
    false
}

/// Ends the process on the spot where that is asked for: no destructor runs, nothing is flushed.
#[inline]
pub fn crash_at(point: &str) {
    if happens(point) {
        std::process::abort();
    }
}

/// Keeps the thread busy, as a long computation does.
#[cfg(feature = "faults")]
pub fn stall(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Keeps the thread busy: never.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn stall(_time: std::time::Duration) {}

#[cfg(feature = "faults")]
mod configured {
    use std::sync::Once;

    const VARIABLE: &str = "PARLANCE_FAILPOINTS";

    /// Reads the variable at the first point that is reached.
    ///
    /// # Panics
    /// It cannot be read: a test that misspells a point must notice.
    #[expect(clippy::disallowed_methods, reason = "no setting of the product")]
    pub(super) fn once() {
        static READ: Once = Once::new();
        READ.call_once(|| {
            let points = std::env::var(VARIABLE).unwrap_or_default();
            for point in points.split(';').filter(|point| !point.is_empty()) {
                let (name, actions) = point.split_once('=').unwrap_or((point, "return"));
                if let Err(error) = fail::cfg(name, actions) {
                    panic!("{VARIABLE}: {point}: {error}");
                }
            }
        });
    }
}
