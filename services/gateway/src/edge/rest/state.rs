//! What routes need.

use axum::extract::FromRef;

use crate::actions::core::Core;
use crate::edge::compression::Compression;
use crate::edge::gate::Gate;
use crate::slots::Slots;

/// The state of all routes. Cheap to clone.
#[derive(Clone)]
pub struct RestState {
    /// All that is below the edge.
    pub core: Core,
    /// What requests are judged by before a token is read.
    pub gate: Gate,
    /// Requests that are under way.
    pub requests: Slots,
    /// Of answers.
    pub compression: Compression,
}

impl FromRef<RestState> for Core {
    fn from_ref(state: &RestState) -> Self {
        state.core.clone()
    }
}
