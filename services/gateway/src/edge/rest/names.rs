//! What a path names: conversations and messages in any form of their ids, threads, users.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use parlance_proto::v1::ErrorCode;
use parlance_proto::{ConversationId, UserId};
use uuid::Uuid;

use crate::actions::core::Core;
use crate::dialect::{ConversationRef, MessageRef};
use crate::edge::rest::state::RestState;
use crate::error::ClientError;

/// The variable parts of a path.
pub struct Names(HashMap<String, String>);

/// The conversation or journal `id`.
pub struct Named(pub ConversationId);

/// The message `mid` of the conversation `id`.
pub struct NamedMessage(pub ConversationId, pub MessageRef);

impl Names {
    /// The part of that name.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The message `id`, whatever conversation it is in.
    ///
    /// # Errors
    /// There is none, or persistence cannot be asked now.
    pub async fn message_alone(&self, core: &Core) -> Result<MessageRef, ClientError> {
        let message = MessageRef::parse(self.text("id"))?;
        core.message(None, message).await?;
        Ok(message)
    }

    /// The user `user_id`.
    ///
    /// # Errors
    /// It is no user id.
    pub fn user(&self) -> Result<UserId, ClientError> {
        Ok(UserId::parse(self.text("user_id"))?)
    }

    /// The version `version` of a journal.
    ///
    /// # Errors
    /// It is no number.
    pub fn version(&self) -> Result<u64, ClientError> {
        let version = self.text("version").parse().ok().filter(|version| *version > 0);
        version.ok_or_else(|| ClientError::invalid("version is not a whole number from 1 on"))
    }

    /// The thread `tid`.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn thread(&self) -> Result<Uuid, ClientError> {
        Uuid::try_parse(self.text("tid")).map_err(|_| no_thread())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Path(names) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|_| ClientError::invalid("the path is not UTF-8"))?;
        Ok(Self(names))
    }
}

impl FromRequestParts<RestState> for Named {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, Self::Rejection> {
        let names = Names::from_request_parts(parts, state).await?;
        let asked = ConversationRef::parse(names.text("id"))?;
        Ok(Self(state.core.conversation(asked).await?))
    }
}

impl FromRequestParts<RestState> for NamedMessage {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, Self::Rejection> {
        let names = Names::from_request_parts(parts, state).await?;
        let conversation = ConversationRef::parse(names.text("id"))?;
        let message = MessageRef::parse(names.text("mid"))?;
        let found = state.core.message(Some(conversation), message).await?;
        Ok(Self(found.conversation, message))
    }
}

/// One answer for a thread that does not exist and one that is of another conversation.
pub fn no_thread() -> ClientError {
    ClientError::new(ErrorCode::NotFound, "no such thread")
}
