//! Reporting messages in the native representation, and the queue of reports as services read it. Pure.

use parlance_proto::v1::ReportReason;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::Object;

use crate::dialect::{Action, ConversationRef, MessageRef, ReportAction, schema};
use crate::error::ClientError;
use crate::limits::Limits;

/// Why a message is reported.
#[derive(Deserialize, ToSchema)]
#[schema(as = Reporting)]
pub(crate) struct ReportBody {
    #[schema(schema_with = reasons)]
    reason: String,
    /// At most 1,000 characters.
    #[schema(max_length = 1000)]
    comment: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ReportPayload)]
pub(super) struct ReportPayload {
    conversation_id: Option<ConversationRef>,
    message_id: MessageRef,
    #[schema(schema_with = reasons)]
    reason: String,
    /// At most 1,000 characters.
    #[schema(max_length = 1000)]
    comment: Option<String>,
}

impl ReportBody {
    /// The report of this message.
    ///
    /// # Errors
    /// The reason is unknown, or the comment breaks a limit.
    pub fn check(
        self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
        limits: &Limits,
    ) -> Result<Action, ClientError> {
        let comment = self.comment.unwrap_or_default();
        limits.comment(&comment)?;
        Ok(Action::Report(ReportAction {
            conversation,
            message,
            reason: reason(&self.reason)?,
            comment,
        }))
    }
}

impl ReportPayload {
    pub(super) fn action(self, limits: &Limits) -> Result<Action, ClientError> {
        let Self {
            conversation_id,
            message_id,
            reason,
            comment,
        } = self;
        ReportBody { reason, comment }.check(conversation_id, message_id, limits)
    }
}

/// The reasons, by name.
const REASONS: [(&str, ReportReason); 5] = [
    ("spam", ReportReason::Spam),
    ("harassment", ReportReason::Harassment),
    ("violence", ReportReason::Violence),
    ("illegal", ReportReason::Illegal),
    ("other", ReportReason::Other),
];

fn reason(name: &str) -> Result<ReportReason, ClientError> {
    let found = REASONS.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, reason)| *reason)
        .ok_or_else(|| ClientError::invalid("reason is none of spam, harassment, violence, illegal, other"))
}

/// The name of a reason.
pub(crate) fn reason_name(reason: ReportReason) -> &'static str {
    let found = REASONS.iter().find(|(_, known)| *known == reason);
    found.map_or("other", |(name, _)| name)
}

fn reasons() -> Object {
    schema::one_of(REASONS.map(|(name, _)| name))
}
