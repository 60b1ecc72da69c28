//! What other services do through a gateway instead of over NATS, where it takes the same way: a message goes to
//! `chat.system.…`, an order to `chat.control.…`. Names of users, and whether they are agents, go to persistence.

use parlance_bus::SystemTarget;
use parlance_proto::v1::{Control, MessageType, ReportPage, SenderKind, SystemMessage, User, control};
use parlance_proto::{ConversationId, MessageId, UserId};
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::control::Checked;
use super::core::Core;
use crate::auth::Identity;
use crate::dialect::input::message_type;
use crate::error::ClientError;

/// Longest id of a service's message.
const MESSAGE_ID_MAX_BYTES: usize = 200;

/// Where a service's message goes.
pub enum ServiceTarget {
    /// To this conversation.
    Conversation(ConversationId),
    /// To this user, in the direct conversation with the service.
    User(UserId),
}

/// A message of a service.
pub struct ServiceMessage<'a> {
    /// The service's own: the same id is the same message, for ever.
    pub id: String,
    /// Byte-exact.
    pub content: String,
    /// Name of the type; `system` where none is given.
    pub kind: Option<String>,
    /// A JSON object.
    pub metadata: Option<&'a RawValue>,
    /// The message it answers.
    pub reply_to: Option<Uuid>,
    /// The service speaks as an agent and not as the system.
    pub agent: bool,
}

/// As whom a service sends.
///
/// # Errors
/// Its own id is too long for one.
pub fn sender(service: &Identity) -> Result<UserId, ClientError> {
    UserId::of_service(service.user_id.as_str())
        .map_err(|error| ClientError::invalid(format!("the service's own id: {error}")))
}

impl Core {
    /// Sends a message of a service. Returns the ids of its conversation and of the message, once the stream has it.
    ///
    /// # Errors
    /// It breaks a limit; it was not accepted, or perhaps was.
    pub async fn send_for_service(
        &self,
        service: &Identity,
        target: ServiceTarget,
        message: ServiceMessage<'_>,
    ) -> Result<(ConversationId, MessageId), ClientError> {
        let own_id = message.id;
        if own_id.is_empty() || own_id.len() > MESSAGE_ID_MAX_BYTES {
            return Err(ClientError::invalid("id is empty or longer than 200 bytes"));
        }
        self.limits.content(&message.content)?;
        let sender = sender(service)?;
        let kind = match message.kind.as_deref() {
            None | Some("system") => MessageType::System,
            other => message_type(other)?,
        };
        let sender_kind = if message.agent {
            SenderKind::Agent
        } else {
            SenderKind::System
        };
        let (conversation, target) = match target {
            ServiceTarget::Conversation(id) => (id, SystemTarget::Conversation(id)),
            ServiceTarget::User(user) => (ConversationId::direct(&sender, &user), SystemTarget::User(user)),
        };
        let message = SystemMessage {
            sender_id: sender.to_string(),
            sender_name: service.username.clone().unwrap_or_default(),
            sender_kind: sender_kind.into(),
            r#type: kind.into(),
            content: message.content,
            metadata_json: self.limits.metadata(message.metadata)?,
            reply_to: message.reply_to.map(|id| id.to_string()),
            ..SystemMessage::default()
        };
        // Apart from what the service publishes itself.
        let id = MessageId::derive(conversation, &sender, &format!("service:{own_id}")).to_string();
        let sent = self
            .bus
            .send_system(&target, &message, &id, &own_id, self.deadline());
        sent.await.map_err(|error| ClientError::from_send(&error))?;
        Ok((conversation, MessageId::of_service(conversation, &sender, &id)))
    }

    /// A page of the reports of messages that nobody has settled, the oldest first.
    ///
    /// # Errors
    /// The cursor is none, or persistence cannot be asked now.
    pub async fn reports(&self, cursor: String, limit: u32) -> Result<ReportPage, ClientError> {
        self.backend.reports(None, cursor, limit).await
    }

    /// Settles a report in the name of a service.
    ///
    /// # Errors
    /// There is none, or persistence cannot be asked now.
    pub async fn resolve_report(
        &self,
        service: &Identity,
        id: String,
        resolution: String,
    ) -> Result<(), ClientError> {
        let by = service.user_id.to_string();
        self.backend
            .resolve_report(None, id, by, resolution)
            .await
            .map(drop)
    }

    /// Whether there is such a conversation. Persistence would park a message to none; a route can say so.
    ///
    /// # Errors
    /// There is none, or persistence cannot be asked now.
    pub async fn check_conversation(&self, id: ConversationId) -> Result<(), ClientError> {
        self.backend.room(None, id).await.map(drop)
    }

    /// Publishes an order to all gateways.
    ///
    /// # Errors
    /// It makes no sense, or was not accepted.
    pub async fn order(&self, body: control::Body) -> Result<(), ClientError> {
        let control = Control { body: Some(body) };
        Checked::of(control.clone()).map_err(ClientError::invalid)?;
        let published = self.bus.publish_control(&control, self.deadline()).await;
        published.map_err(|error| ClientError::from_send(&error))
    }

    /// Gives a user a name.
    ///
    /// # Errors
    /// Nobody knows the user, the name breaks a limit, or persistence cannot be asked now.
    pub async fn name_user(&self, user: &UserId, name: String) -> Result<User, ClientError> {
        self.backend.set_name(None, user, name, self.provision).await
    }

    /// Marks a user as an agent, or as a person.
    ///
    /// # Errors
    /// Nobody knows the user, or persistence cannot be asked now.
    pub async fn mark_agent(&self, user: &UserId, agent: bool) -> Result<User, ClientError> {
        self.backend.set_agent(None, user, agent, self.provision).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.send_timeout
    }
}
