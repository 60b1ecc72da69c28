//! What native clients say of journals.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parlance_journal::decode_awareness;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::dialect::{Action, ConversationRef, JournalChange};
use crate::error::ClientError;
use crate::limits::Limits;

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalJoinPayload)]
pub(super) struct JournalJoinPayload {
    journal_id: ConversationRef,
    /// What the client knows of the document: a Yjs (v1) state vector in base64.
    state_vector: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalEditPayload)]
pub(super) struct JournalEditPayload {
    journal_id: ConversationRef,
    content: Option<String>,
    /// Base64.
    update: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = AwarenessPayload)]
pub(super) struct AwarenessPayload {
    journal_id: ConversationRef,
    /// A y-protocols awareness update in base64.
    update: String,
}

pub(super) fn decode_edit(payload: JournalEditPayload, limits: &Limits) -> Result<Action, ClientError> {
    let change = match (payload.content, payload.update) {
        (Some(content), None) => {
            limits.journal(&content)?;
            JournalChange::Content(content)
        }
        (None, Some(update)) => {
            let bytes = BASE64
                .decode(update)
                .map_err(|_| ClientError::invalid("update is not base64"))?;
            limits.journal_update(&bytes)?;
            JournalChange::Update(bytes)
        }
        _ => return Err(ClientError::invalid("exactly one of content, update is needed")),
    };
    Ok(Action::EditJournal {
        journal: payload.journal_id,
        change,
    })
}

pub(super) fn decode_join(payload: JournalJoinPayload, limits: &Limits) -> Result<Action, ClientError> {
    let decode = |text| {
        let bytes = BASE64
            .decode(text)
            .map_err(|_| ClientError::invalid("state_vector is not base64"))?;
        limits.state_vector(&bytes)?;
        Ok::<_, ClientError>(bytes)
    };
    Ok(Action::JoinJournal {
        journal: payload.journal_id,
        state_vector: payload.state_vector.map(decode).transpose()?,
    })
}

pub(super) fn decode_awareness_update(payload: AwarenessPayload) -> Result<Action, ClientError> {
    let update = BASE64
        .decode(payload.update)
        .map_err(|_| ClientError::invalid("update is not base64"))?;
    Ok(Action::ShareAwareness {
        journal: payload.journal_id,
        states: decode_awareness(&update)?,
    })
}
