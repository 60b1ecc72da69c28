//! How users are seen, in the native representation. Must not decide anything.

use parlance_proto::v1::{Conversation, Presence, PresenceStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::json::{self, ConversationJson};
use crate::dialect::shape::time;

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
    /// The highest counts.
    version: u64,
}

/// A conversation as joined, and how those in it are seen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JoinedConversation)]
pub struct Joined<'a> {
    conversation: ConversationJson<'a>,
    /// Not of large groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Vec<PresenceJson<'a>>>,
}

/// How users are seen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PresenceList)]
pub struct ListJson<'a> {
    presence: Vec<PresenceJson<'a>>,
}

impl<'a> Joined<'a> {
    /// Writes a conversation as joined.
    pub fn new(conversation: &'a Conversation) -> Self {
        let seen = conversation
            .participants
            .iter()
            .filter_map(|one| one.presence.as_ref());
        let presence: Vec<_> = seen.map(self::json).collect();
        Self {
            conversation: json::conversation(conversation),
            presence: (!presence.is_empty()).then_some(presence),
        }
    }
}

/// Writes how a user is seen.
pub fn json(presence: &Presence) -> PresenceJson<'_> {
    PresenceJson {
        user_id: &presence.user_id,
        status: status_name(presence.status()),
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

/// The name of a status.
pub fn status_name(status: PresenceStatus) -> &'static str {
    match status {
        PresenceStatus::Online => "online",
        PresenceStatus::Away => "away",
        PresenceStatus::Offline | PresenceStatus::Unspecified => "offline",
    }
}
