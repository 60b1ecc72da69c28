//! What requests are judged by before anybody has shown a token, on sockets and routes alike.

use std::ops::Deref;
use std::sync::Arc;

use super::addresses::Addresses;
use super::endpoints::Endpoints;
use super::headers::AllowedHeaders;
use super::origins::{OriginMap, Origins};
use super::refusals::Refusals;
use crate::dialect::{self, Dialect, Streams};

/// The rules. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<GateRules>);

/// The parts of [`Gate`].
pub struct GateRules {
    /// Web pages that may connect.
    pub origins: Origins,
    /// What those may send.
    pub allowed_headers: AllowedHeaders,
    /// Where Socket.IO is served.
    pub endpoints: Endpoints,
    /// What clients may do that have shown no token.
    pub addresses: Addresses,
    /// Writes down what is refused.
    pub refusals: Refusals,
    /// Dialects of connections that name none.
    pub dialects: Dialects,
    /// See `auth.query_token` in `defaults.toml`.
    pub query_token: String,
}

/// The dialects of connections that name none.
pub struct Dialects {
    /// Where nothing else decides.
    pub default: String,
    /// By the web page's origin.
    pub origins: OriginMap<String>,
    /// Whether the first event may show the dialect of a client that nothing names one for.
    pub learn: bool,
    /// How messages that stream are shown by dialects without an event for their chunks.
    pub streams: Streams,
}

impl Dialects {
    /// The dialect of that name, as the settings have it.
    pub fn named(&self, name: &str) -> Option<&'static dyn Dialect> {
        dialect::by_name(name, self.streams)
    }
}

impl Gate {
    /// Made of these.
    pub fn new(rules: GateRules) -> Self {
        Self(Arc::new(rules))
    }
}

impl Deref for Gate {
    type Target = GateRules;

    fn deref(&self) -> &GateRules {
        &self.0
    }
}
