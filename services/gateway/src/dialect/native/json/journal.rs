//! Journals as clients see them that keep the Yjs document themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parlance_proto::ConversationId;
use parlance_proto::v1::JournalEdited;
use serde::Serialize;
use utoipa::ToSchema;

use crate::dialect::shape::time;

/// A journal's change as clients see it that keep the document themselves.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JournalDifference)]
pub(in crate::dialect::native) struct JournalUpdateJson<'a> {
    journal_id: &'a str,
    number: i64,
    version: u64,
    /// What the client lacks: a Yjs (v1) update in base64.
    update: String,
    /// What the server knows, in base64; where the journal is joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_vector: Option<String>,
    user_id: &'a str,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// The answer to a client that joins a journal with its state vector.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Synced)]
pub(in crate::dialect::native) struct Synced<'a> {
    journal: JournalUpdateJson<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Awareness)]
pub(in crate::dialect::native) struct AwarenessJson {
    journal_id: String,
    /// A y-protocols awareness update in base64.
    update: String,
}

/// Writes a journal's change without its text.
pub(in crate::dialect::native) fn journal_update<'a>(
    edited: &'a JournalEdited,
    state_vector: Option<&[u8]>,
) -> JournalUpdateJson<'a> {
    JournalUpdateJson {
        journal_id: &edited.journal_id,
        number: edited.journal_number,
        version: edited.version,
        update: BASE64.encode(&edited.update),
        state_vector: state_vector.map(|bytes| BASE64.encode(bytes)),
        user_id: &edited.actor_id,
        updated_at: time(edited.at_ms),
    }
}

/// Writes that the awareness of a journal changed.
pub fn awareness(journal: ConversationId, update: &[u8]) -> impl Serialize {
    AwarenessJson {
        journal_id: journal.to_string(),
        update: BASE64.encode(update),
    }
}

impl<'a> Synced<'a> {
    pub(in crate::dialect::native) fn new(journal: &'a JournalEdited, state_vector: &[u8]) -> Self {
        Self {
            journal: journal_update(journal, Some(state_vector)),
        }
    }
}
