//! How users are seen, in the native representation. Must not decide anything.

use parlance_proto::v1::{Presence, PresenceStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::dialect::shape::{presence_name, time};

/// How a user is seen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Presence)]
pub struct PresenceJson<'a> {
    user_id: &'a str,
    #[schema(schema_with = crate::dialect::schema::presence)]
    status: &'static str,
    online: bool,
    /// Null while online.
    #[schema(required, format = DateTime)]
    last_seen_at: Option<String>,
    /// The highest counts, of equal ones the later: a user who blocks another goes offline without a new version.
    version: u64,
}

/// How users are seen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PresenceList)]
pub struct ListJson<'a> {
    presence: Vec<PresenceJson<'a>>,
}

/// Writes how a user is seen.
pub fn json(presence: &Presence) -> PresenceJson<'_> {
    PresenceJson {
        user_id: &presence.user_id,
        status: presence_name(presence.status()),
        online: is_online(presence),
        last_seen_at: last_seen(presence),
        version: presence.version,
    }
}

/// Writes how users are seen.
pub fn list(presences: &[Presence]) -> ListJson<'_> {
    ListJson {
        presence: presences.iter().map(json).collect(),
    }
}

/// Whether a user is here, be it without looking.
pub fn is_online(presence: &Presence) -> bool {
    matches!(presence.status(), PresenceStatus::Online | PresenceStatus::Away)
}

/// When a user who is not here was last seen, if ever.
pub fn last_seen(presence: &Presence) -> Option<String> {
    (presence.last_seen_ms > 0 && !is_online(presence)).then(|| time(presence.last_seen_ms))
}
