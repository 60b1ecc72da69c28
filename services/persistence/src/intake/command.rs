//! The commands that messages of services stand for. Their ids are derived: a redelivery, and a repeat by the service, makes
//! the same.

use parlance_bus::SystemTarget;
use parlance_proto::v1::{
    self, Command, ConversationKind, MessageType, SenderKind, ServiceOrigin, StreamState, StreamStep,
    SystemMessage, command,
};
use parlance_proto::{ConversationId, MessageId, UserId};

use super::stream::Write;
use crate::model::refusals::refuse;
use crate::store::streams::Key;

/// The sender of a message.
///
/// # Errors
/// It is no id of a service.
pub(super) fn sender_of(message: &SystemMessage) -> Result<UserId, v1::Error> {
    // In a namespace of its own: a service speaks for itself, and never in the name of a user.
    UserId::of_service(&message.sender_id).map_err(|e| refuse(format!("sender_id: {e}")))
}

/// Those of a message: one that makes the conversation with a user first, and one that sends it.
///
/// # Errors
/// What no conversation could take.
pub(super) fn of_message(
    target: &SystemTarget,
    id: &str,
    message: SystemMessage,
    origin: ServiceOrigin,
) -> Result<Vec<Command>, v1::Error> {
    let sender = sender_of(&message)?;
    let streaming = message.stream() == StreamStep::Start;
    let kind = match SenderKind::try_from(message.sender_kind) {
        Ok(SenderKind::Agent) => SenderKind::Agent,
        Ok(SenderKind::Unspecified | SenderKind::System) => SenderKind::System,
        Ok(SenderKind::User) => return Err(refuse("sender_kind USER is for people")),
        Err(_) => return Err(refuse("sender_kind must be AGENT or SYSTEM")),
    };
    let message_type = match MessageType::try_from(message.r#type) {
        Ok(MessageType::Unspecified) => MessageType::System,
        Ok(given) => given,
        Err(_) => return Err(refuse("type is not a known message type")),
    };
    let SystemMessage {
        sender_id: _,
        sender_name,
        content,
        metadata_json,
        reply_to,
        ..
    } = message;
    let actor = v1::Actor {
        user_id: sender.to_string(),
        username: sender_name,
        kind: kind.into(),
    };
    // A colon cannot stand in a client's own id: no user's message can have this identity.
    let scoped = format!("system:{id}");
    let mut commands = Vec::new();
    let conversation = match target {
        SystemTarget::Conversation(conversation) => *conversation,
        SystemTarget::User(user) if *user == sender => {
            return Err(refuse("the recipient is the sending service itself"));
        }
        SystemTarget::User(user) => {
            let conversation = ConversationId::direct(&sender, user);
            let create = v1::CreateConversation {
                kind: ConversationKind::Direct.into(),
                participant_ids: vec![user.to_string()],
                provision_users: true,
                ..Default::default()
            };
            let body = command::Body::CreateConversation(create);
            commands.push(new_command(
                conversation,
                &sender,
                &actor,
                &format!("create:{id}"),
                body,
            ));
            conversation
        }
    };
    let send = v1::SendMessage {
        message_id: MessageId::of_service(conversation, &sender, id).to_string(),
        r#type: message_type.into(),
        content,
        metadata_json,
        client_msg_id: None,
        reply_to,
        streaming,
        ..Default::default()
    };
    let mut send = new_command(
        conversation,
        &sender,
        &actor,
        &scoped,
        command::Body::SendMessage(send),
    );
    send.service = Some(origin);
    commands.push(send);
    Ok(commands)
}

fn new_command(
    conversation: ConversationId,
    sender: &UserId,
    actor: &v1::Actor,
    name: &str,
    body: command::Body,
) -> Command {
    Command {
        // The same for every redelivery, and for a repeat by the service.
        id: MessageId::derive(conversation, sender, name).to_string(),
        reply_to: String::new(),
        actor: Some(actor.clone()),
        conversation_id: conversation.to_string(),
        issued_at_ms: 0,
        service: None,
        body: Some(body),
    }
}

/// Appends text to a message that streams. The same for the same text.
pub(super) fn append(key: Key, sender: &UserId, write: Write) -> Command {
    let Write { offset, text, .. } = write;
    let name = format!("append:{}:{offset}:{}", key.1, text.len());
    let body = command::Body::AppendText(v1::AppendText {
        message_id: key.1.to_string(),
        offset,
        text,
    });
    new_command(key.0, sender, &actor(sender), &name, body)
}

/// Ends a message that streams, with the rest of its text.
pub(super) fn end(key: Key, sender: &UserId, rest: Write, state: StreamState) -> Command {
    let Write { offset, text, .. } = rest;
    let name = format!("end:{}:{}", key.1, state.as_str_name());
    let body = command::Body::EndStream(v1::EndStream {
        message_id: key.1.to_string(),
        offset,
        text,
        state: state.into(),
    });
    new_command(key.0, sender, &actor(sender), &name, body)
}

fn actor(sender: &UserId) -> v1::Actor {
    v1::Actor {
        user_id: sender.to_string(),
        username: String::new(),
        kind: SenderKind::System.into(),
    }
}
