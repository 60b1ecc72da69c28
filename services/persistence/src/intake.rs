//! Messages of other services become commands. One replica at a time does this, under a lease of its own;
//! doing it twice is harmless, because every id is derived from the service's own `Nats-Msg-Id`.

mod json;

use std::time::Duration;

use bytes::Bytes;
use parlance_bus::{Bus, Delivery, ErrorKind, SystemTarget, subject};
use parlance_proto::v1::{
    self, Command, ConversationKind, ErrorCode, MessageType, SenderKind, SystemMessage, command,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use parlance_runtime::backoff::Backoff;
use prost::Message as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use crate::database::Database;
use crate::ingest::park_letter;
use crate::store::dead_letters::DeadLetter;

const BATCH: usize = 64;
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Patience for handing one command to the stream before it is tried anew.
const HAND_IN: Duration = Duration::from_secs(10);
const GIVE_UP: Duration = Duration::from_secs(1);
/// Longest `Nats-Msg-Id`.
const MESSAGE_ID_MAX_BYTES: usize = 256;

/// What the intake needs.
pub(crate) struct Intake {
    pub(crate) bus: Bus,
    pub(crate) database: Database,
    pub(crate) partitions: u16,
    pub(crate) limits: Limits,
}

/// How large messages of services may be; no larger than those of users.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the content.
    pub content_bytes: usize,
    /// Bytes of the metadata as JSON.
    pub metadata_bytes: usize,
}

/// A message that can never become a command.
#[derive(Debug)]
struct Unusable(String);

impl Intake {
    /// Works until `stop`.
    pub(crate) async fn run(self, epoch: u64, stop: CancellationToken) {
        let mut puller = None;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work(epoch, &mut puller) => {}
        }
        if let Some(puller) = puller
            && let Ok(Err(error)) = timeout(GIVE_UP, parlance_bus::Puller::give_up(puller)).await
        {
            tracing::debug!(%error, "intake consumer not deleted");
        }
    }

    async fn work(&self, epoch: u64, slot: &mut Option<parlance_bus::Puller>) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let puller = match slot {
                Some(puller) => puller,
                None => match self.bus.take_system(epoch).await {
                    Ok(puller) => slot.insert(puller),
                    Err(error) => {
                        tracing::warn!(%error, "cannot take services' messages yet");
                        backoff.pause().await;
                        continue;
                    }
                },
            };
            match puller.next_batch(BATCH).await {
                Ok(deliveries) => {
                    backoff.reset();
                    for delivery in deliveries {
                        let span = process_span(&delivery);
                        self.take_in(&delivery).instrument(span).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "intake interrupted");
                    if error.kind() == ErrorKind::Gone {
                        *slot = None;
                    }
                    backoff.pause().await;
                }
            }
        }
    }

    /// Turns one message into commands, for as long as it takes: the next one must not overtake it.
    async fn take_in(&self, delivery: &Delivery) {
        if let Err(Unusable(error)) = self.all_handed_in(delivery).await {
            let letter = DeadLetter {
                id: dead_letter_id(delivery),
                partition: None,
                subject: delivery.subject.clone(),
                command_id: delivery.message_id.clone(),
                payload: delivery.payload.to_vec(),
                code: ErrorCode::Invalid,
                error,
            };
            park_letter(&self.database, &letter).await;
        }
        if let Err(error) = delivery.ack().await {
            tracing::debug!(%error, "not acknowledged; it comes again");
        }
    }

    /// Hands in what a message stands for. What is refused for ever is no reason to hold up what follows.
    async fn all_handed_in(&self, delivery: &Delivery) -> Result<(), Unusable> {
        for command in &commands(delivery, &self.limits)? {
            self.hand_in(command).await?;
        }
        Ok(())
    }

    async fn hand_in(&self, command: &Command) -> Result<(), Unusable> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let deadline = Instant::now() + HAND_IN;
            match self
                .bus
                .send_command(command, self.partitions, &command.id, deadline)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::TooLarge => {
                    return Err(Unusable("its command is larger than the bus takes".to_owned()));
                }
                Err(error) => {
                    tracing::warn!(%error, command = command.id, "a service's message waits for the stream");
                    backoff.pause().await;
                }
            }
        }
    }
}

/// The span of a service's message. It begins a trace where the service has none.
fn process_span(delivery: &Delivery) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "process chat.system",
        otel.kind = "consumer",
        messaging.system = "nats",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.template = "chat.system.{target}",
    );
    // Without a tracer there is no parent to set.
    let _ = span.set_parent(delivery.context.clone());
    span
}

/// The commands a message stands for.
fn commands(delivery: &Delivery, limits: &Limits) -> Result<Vec<Command>, Unusable> {
    let is_json = delivery
        .content_type
        .as_deref()
        .is_some_and(|kind| kind.starts_with("application/json"));
    read(
        &delivery.subject,
        delivery.message_id.as_deref(),
        is_json,
        &delivery.payload,
        limits,
    )
}

/// The commands that a parked message stands for, or why it stands for none.
pub(crate) fn again(
    subject: &str,
    message_id: Option<&str>,
    payload: &Bytes,
    limits: &Limits,
) -> Result<Vec<Command>, String> {
    // The header is not kept; no protobuf of ours begins like this.
    let is_json = payload.trim_ascii_start().starts_with(b"{");
    read(subject, message_id, is_json, payload, limits).map_err(|Unusable(reason)| reason)
}

fn read(
    subject: &str,
    message_id: Option<&str>,
    is_json: bool,
    payload: &Bytes,
    limits: &Limits,
) -> Result<Vec<Command>, Unusable> {
    let id = message_id.unwrap_or_default();
    if id.is_empty() || id.len() > MESSAGE_ID_MAX_BYTES {
        return Err(Unusable(
            "the header Nats-Msg-Id is missing or longer than 256 bytes".to_owned(),
        ));
    }
    let target = subject::parse_system(subject).map_err(|error| Unusable(error.to_string()))?;
    let message = if is_json {
        json::parse(payload).map_err(Unusable)?
    } else {
        SystemMessage::decode(payload.clone())
            .map_err(|_| Unusable("the payload is no SystemMessage; for JSON set Content-Type".to_owned()))?
    };
    fits("content", message.content.len(), limits.content_bytes)?;
    fits("metadata", message.metadata_json.len(), limits.metadata_bytes)?;
    commands_of(&target, id, message)
}

fn fits(field: &str, bytes: usize, most: usize) -> Result<(), Unusable> {
    if bytes > most {
        return Err(Unusable(format!("{field} has {bytes} bytes; {most} are allowed")));
    }
    Ok(())
}

fn commands_of(target: &SystemTarget, id: &str, message: SystemMessage) -> Result<Vec<Command>, Unusable> {
    // In a namespace of its own: a service speaks for itself, and never in the name of a user.
    let sender = UserId::of_service(&message.sender_id).map_err(|e| Unusable(format!("sender_id: {e}")))?;
    let kind = match message.sender_kind() {
        SenderKind::Agent => SenderKind::Agent,
        SenderKind::Unspecified | SenderKind::System => SenderKind::System,
        SenderKind::User => return Err(Unusable("sender_kind USER is for people".to_owned())),
    };
    let message_type = match message.r#type() {
        MessageType::Unspecified => MessageType::System,
        given => given,
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
        ..Default::default()
    };
    commands.push(new_command(
        conversation,
        &sender,
        &actor,
        &scoped,
        command::Body::SendMessage(send),
    ));
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
        body: Some(body),
    }
}

/// The same for every redelivery, so that a message is parked once.
fn dead_letter_id(delivery: &Delivery) -> Uuid {
    let mut name = delivery.subject.clone().into_bytes();
    name.push(0);
    name.extend_from_slice(delivery.message_id.as_deref().unwrap_or_default().as_bytes());
    name.push(0);
    name.extend_from_slice(&delivery.payload);
    Uuid::new_v5(&Uuid::NAMESPACE_URL, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::work::{Action, Work};

    fn message() -> SystemMessage {
        SystemMessage {
            sender_id: "weather".into(),
            sender_name: "Weather".into(),
            content: "rain".into(),
            ..Default::default()
        }
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn the_same_message_id_makes_the_same_commands_and_another_other_ones() {
        let target = SystemTarget::User(user("bob"));
        let first = commands_of(&target, "m1", message()).unwrap();
        assert_eq!(first, commands_of(&target, "m1", message()).unwrap());
        let other = commands_of(&target, "m2", message()).unwrap();
        assert!(first.iter().all(|a| other.iter().all(|b| a.id != b.id)));
    }

    #[test]
    fn a_message_to_a_user_makes_its_conversation_first_and_both_commands_are_valid() {
        let commands = commands_of(&SystemTarget::User(user("bob")), "m1", message()).unwrap();
        let works: Vec<Work> = commands
            .into_iter()
            .map(|command| Work::parse(command).unwrap())
            .collect();
        assert!(matches!(works[0].action, Action::Create(_)) && matches!(works[1].action, Action::Send(_)));
        assert_eq!(
            works[0].conversation,
            ConversationId::direct(&user("service:weather"), &user("bob"))
        );
        assert!(!works[1].actor.is_user());
    }

    #[test]
    fn what_a_service_sends_opens_no_journal() {
        let share = SystemMessage {
            sender_id: "alice".into(),
            sender_kind: SenderKind::Agent.into(),
            r#type: MessageType::JournalShare.into(),
            metadata_json: r#"{"journalId":7}"#.into(),
            ..message()
        };
        let target = SystemTarget::Conversation(ConversationId::direct(&user("alice"), &user("bob")));
        let mut commands = commands_of(&target, "m1", share).unwrap();
        let Action::Send(send) = Work::parse(commands.remove(0)).unwrap().action else {
            panic!("a send")
        };
        assert!(send.journal.is_none());
    }

    #[test]
    fn a_service_cannot_take_the_identity_of_a_user_s_message_nor_pose_as_one() {
        let conversation = ConversationId::direct(&user("weather"), &user("bob"));
        let commands = commands_of(&SystemTarget::Conversation(conversation), "m1", message()).unwrap();
        let Some(command::Body::SendMessage(send)) = &commands[0].body else {
            panic!("a send")
        };
        assert_ne!(
            send.message_id,
            MessageId::derive(conversation, &user("service:weather"), "m1").to_string()
        );
        // A user of the name that the service gives itself is somebody else.
        let named = SystemMessage {
            sender_id: "bob".into(),
            ..message()
        };
        let commands = commands_of(&SystemTarget::Conversation(conversation), "m1", named).unwrap();
        assert_eq!(commands[0].actor.as_ref().unwrap().user_id, "service:bob");
        let posing = SystemMessage {
            sender_kind: SenderKind::User.into(),
            ..message()
        };
        assert!(commands_of(&SystemTarget::Conversation(conversation), "m1", posing).is_err());
    }
}
