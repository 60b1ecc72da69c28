//! Failpoints: where the fault suite crashes a service, and what its patches ask whether their flaw shall happen.
//!
//! Here because both services and the bus itself have such points. Sources have points at which a process ends
//! ([`crash_at`]) and nothing else; a wrong branch stands in a patch in `services/harness/flaws`, which `make faulty` applies to a
//! copy. Only a build with the feature `faults` reads `PARLANCE_FAILPOINTS`, as `point=actions;point=actions` in the words of the
//! crate `fail` (`return`: always; `4*off->1*return`: the fifth time only). In every other build there is no function
//! that a flaw could call, and a crash point does nothing.

/// Whether the flaw of this name shall happen now. For patches: other builds lack it, so that no source can call it.
#[cfg(feature = "faults")]
#[must_use]
pub fn happens(flaw: &str) -> bool {
    is_on(flaw)
}

/// Ends the process on the spot where that is asked for: no destructor runs, nothing is flushed.
#[cfg(feature = "faults")]
#[inline]
pub fn crash_at(point: &str) {
    if is_on(point) {
        std::process::abort();
    }
}

/// Ends the process on the spot where that is asked for: never.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn crash_at(_point: &str) {}

#[cfg(feature = "faults")]
fn is_on(point: &str) -> bool {
    configured::once();
    fail::fail_point!(point, |_| true);
    false
}

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
