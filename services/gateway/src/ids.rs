//! New ids: the one place of this crate that makes them. Ids that follow from others are derived where they are needed.

use uuid::Uuid;

/// An id no one has used.
#[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
