//! What native clients and those of REST say of journals.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parlance_journal::decode_awareness;
use parlance_proto::v1::Role;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::Object;

use crate::dialect::{Action, ConversationRef, JournalAction, JournalChange, UserRef, schema};
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

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalCreation)]
pub(crate) struct CreateBody {
    #[schema(pattern = "\\S")]
    title: String,
    #[serde(default)]
    content: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalUpdate)]
pub(crate) struct UpdateBody {
    #[schema(pattern = "\\S")]
    title: Option<String>,
    content: Option<String>,
    #[serde(alias = "baseVersion", default)]
    base_version: u64,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalShare)]
pub(crate) struct ShareBody {
    #[serde(alias = "userId")]
    user_id: UserRef,
    #[schema(schema_with = permissions)]
    permission: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalPermission)]
pub(crate) struct PermissionBody {
    #[schema(schema_with = permissions)]
    permission: String,
}

impl CreateBody {
    /// The journal to be made.
    ///
    /// # Errors
    /// Title or text breaks a limit.
    pub fn check(self, limits: &Limits) -> Result<JournalAction, ClientError> {
        limits.title(&self.title)?;
        limits.journal(&self.content)?;
        Ok(JournalAction::Create {
            title: self.title,
            content: self.content,
        })
    }
}

impl UpdateBody {
    /// The change of this journal.
    ///
    /// # Errors
    /// Nothing is given, or title or text breaks a limit.
    pub fn check(self, journal: ConversationRef, limits: &Limits) -> Result<JournalAction, ClientError> {
        if self.title.is_none() && self.content.is_none() {
            return Err(ClientError::invalid("neither title nor content is given"));
        }
        if let Some(title) = &self.title {
            limits.title(title)?;
        }
        if let Some(content) = &self.content {
            limits.journal(content)?;
        }
        Ok(JournalAction::Update {
            journal,
            title: self.title,
            content: self.content,
            base_version: self.base_version,
        })
    }
}

impl ShareBody {
    /// The share of this journal.
    ///
    /// # Errors
    /// The permission is unknown.
    pub fn check(self, journal: ConversationRef) -> Result<JournalAction, ClientError> {
        let role = permission(&self.permission)?;
        let UserRef(user) = self.user_id;
        Ok(JournalAction::Share { journal, user, role })
    }
}

impl PermissionBody {
    /// The other role of a collaborator.
    ///
    /// # Errors
    /// The permission is unknown.
    pub fn check(&self) -> Result<Role, ClientError> {
        permission(&self.permission)
    }
}

fn permission(name: &str) -> Result<Role, ClientError> {
    match name {
        "viewer" => Ok(Role::Viewer),
        "editor" => Ok(Role::Editor),
        _ => Err(ClientError::invalid("permission is none of viewer, editor")),
    }
}

fn permissions() -> Object {
    schema::roles(|name| permission(name).is_ok())
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
