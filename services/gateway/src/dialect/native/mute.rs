//! Muting a conversation in the native representation: what is asked, and what the user's sessions are notified of. Pure.

use chrono::DateTime;
use parlance_proto::v1::{Mute, MuteChanged};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dialect::shape::time;
use crate::dialect::{Action, ConversationRef};
use crate::error::ClientError;

/// How a conversation is to be muted.
#[derive(Deserialize, ToSchema)]
#[schema(as = Muting)]
pub(crate) struct MuteBody {
    /// When it ends by itself, as ISO 8601 with a zone; a time in the future. Absent: not before it is ended.
    #[schema(format = DateTime)]
    until: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MutePayload)]
pub(super) struct MutePayload {
    conversation_id: ConversationRef,
    /// When it ends by itself, as ISO 8601 with a zone; a time in the future. Absent: not before it is ended.
    #[schema(format = DateTime)]
    until: Option<String>,
}

/// How a user muted a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = MuteChanged)]
pub(super) struct MuteChangedJson<'a> {
    conversation_id: &'a str,
    muted: bool,
    /// When it ends by itself; null where it is not muted, or not before it is ended.
    #[schema(required, format = DateTime)]
    muted_until: Option<String>,
}

impl MuteBody {
    /// The muting of this conversation.
    ///
    /// # Errors
    /// `until` is no time.
    pub fn check(&self, conversation: ConversationRef) -> Result<Action, ClientError> {
        let until_ms = self.until.as_deref().map(until_ms).transpose()?;
        Ok(Action::Mute {
            conversation,
            mute: Some(Mute { until_ms }),
        })
    }
}

impl MutePayload {
    pub(super) fn action(self) -> Result<Action, ClientError> {
        let Self {
            conversation_id,
            until,
        } = self;
        MuteBody { until }.check(conversation_id)
    }
}

/// Not muted any more.
pub(crate) fn end(conversation: ConversationRef) -> Action {
    Action::Mute {
        conversation,
        mute: None,
    }
}

/// Whether it has passed is for persistence to say, whose clock it ends by.
fn until_ms(text: &str) -> Result<i64, ClientError> {
    let time = DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|_| {
        ClientError::invalid(
            "until is a text that is no time; allowed is ISO 8601 with a zone: 2030-01-31T12:00:00Z",
        )
    })?;
    Ok(time.timestamp_millis())
}

/// When a mute ends by itself.
pub(crate) fn ends(mute: Option<&Mute>) -> Option<String> {
    mute.and_then(|mute| mute.until_ms).map(time)
}

/// Writes how a user muted a conversation.
pub(super) fn changed(changed: &MuteChanged) -> MuteChangedJson<'_> {
    MuteChangedJson {
        conversation_id: &changed.conversation_id,
        muted: changed.mute.is_some(),
        muted_until: ends(changed.mute.as_ref()),
    }
}
