//! Messages of other services become commands. One replica at a time does this, under a lease of its own;
//! doing it twice is harmless, because every id is derived from the service's own `Parlance-Message-Id`.
//!
//! Whatever becomes of a message is reported to its sender: here where it can be no command, else after the commit.

mod hearing;
mod json;
pub(crate) mod stream;
mod streaming;

use std::time::Duration;

use bytes::Bytes;
use parlance_bus::{Bus, Delivery, ErrorKind, SystemTarget, subject};
use parlance_proto::ids::SERVICE_PREFIX;
use parlance_proto::v1::{
    self, Command, ConversationKind, ErrorCode, MessageType, SenderKind, ServiceOrigin, StreamStep,
    SystemMessage, command,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use parlance_runtime::backoff::Backoff;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use crate::database::Database;
use crate::model::refusals::refuse;
use crate::model::work::Work;
use crate::report::{self, Report};
use crate::store::streams::Key;
use streaming::{Streaming, TICK};

const BATCH: usize = 64;
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Patience for handing one command to the stream before it is tried anew.
const HAND_IN: Duration = Duration::from_secs(10);
const GIVE_UP: Duration = Duration::from_secs(1);
/// Payloads of refused messages that are parked together.
const REFUSED_BYTES: usize = 4 << 20;
/// Longest `Parlance-Message-Id`.
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
    /// Messages that stream at a time.
    pub streams: stream::Limits,
}

/// A message as it was published.
struct Published<'a> {
    subject: &'a str,
    /// The header `Parlance-Message-Id`.
    own_id: Option<&'a str>,
    /// The header `Nats-Msg-Id`.
    nats_id: Option<&'a str>,
    /// The header `Parlance-Reply-To`.
    reply_to: Option<&'a str>,
    /// A header that stands there more than once.
    doubled: Option<&'a str>,
    is_json: bool,
    payload: &'a Bytes,
}

/// What a message of a service stands for.
enum Taken {
    /// Commands, to be handed in by their order.
    Commands(Vec<Command>),
    /// A step of a message that streams.
    Step(Box<Step>),
}

/// A step of a message that streams.
struct Step {
    /// Never unspecified.
    kind: StreamStep,
    /// The message.
    key: Key,
    /// The service.
    sender: UserId,
    /// Bytes of the text that come before.
    offset: Option<u64>,
    /// Without NUL.
    text: String,
    /// Of a start: what it stands for.
    start: Vec<Command>,
    /// Whom to reply to.
    origin: ServiceOrigin,
}

/// A message that is refused, to be acknowledged once the report is settled.
type Refused = (Delivery, Report);

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
        let mut streaming = Streaming::begin(self).await;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            // Not dropped for a tick: making the consumer anew takes longer than one.
            let batch = {
                let mut next = std::pin::pin!(puller.next_batch(BATCH));
                loop {
                    tokio::select! {
                        batch = &mut next => break batch,
                        _ = tick.tick() => streaming.tick().await,
                    }
                }
            };
            match batch {
                Ok(deliveries) => {
                    backoff.reset();
                    streaming.heard(&deliveries);
                    self.take_all_in(deliveries, &mut streaming).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "intake interrupted");
                    streaming.interrupted();
                    if error.kind() == ErrorKind::Gone {
                        *slot = None;
                    }
                    backoff.pause().await;
                }
            }
        }
    }

    /// Takes messages in by their order.
    async fn take_all_in(&self, deliveries: Vec<Delivery>, streaming: &mut Streaming<'_>) {
        let mut refused = Vec::new();
        let mut bytes = 0;
        for delivery in deliveries {
            let span = process_span(&delivery);
            bytes += delivery.payload.len();
            refused.extend(self.take_in(delivery, streaming).instrument(span).await);
            if bytes >= REFUSED_BYTES {
                self.settle(&mut refused).await;
                bytes = 0;
            }
        }
        self.settle(&mut refused).await;
    }

    /// Turns one message into commands, for as long as it takes: the next one must not overtake it. What is refused, with
    /// the report of that; anything else is acknowledged, or kept by the stream it belongs to.
    async fn take_in(&self, delivery: Delivery, streaming: &mut Streaming<'_>) -> Vec<Refused> {
        let refusal = match taken(&delivery, &self.limits) {
            Ok(Taken::Step(step)) => return streaming.take(*step, delivery).await,
            Ok(Taken::Commands(commands)) => match self.all_handed_in(&commands, delivery.place).await {
                Ok(()) => {
                    acknowledge(&delivery).await;
                    return Vec::new();
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        let origin = ServiceOrigin {
            stream: is_step(&delivery),
            ..origin(&delivery)
        };
        let report = Report::refusal(origin, refusal, delivery.payload.to_vec());
        vec![(delivery, report)]
    }

    /// Settles what was refused together, and acknowledges it after that.
    async fn settle(&self, refused: &mut Vec<Refused>) {
        let (deliveries, reports): (Vec<_>, Vec<_>) = std::mem::take(refused).into_iter().unzip();
        // A lease that is lost ends the task, and this with it.
        if report::settle(&reports, &self.database, &self.bus, || true).await {
            for delivery in &deliveries {
                acknowledge(delivery).await;
            }
        }
    }

    /// Hands in what a message stands for. What is refused for ever is no reason to hold up what follows.
    async fn all_handed_in(&self, commands: &[Command], place: u64) -> Result<(), v1::Error> {
        for command in commands {
            self.hand_in(command, place).await?;
        }
        Ok(())
    }

    /// `place` is that of the message in its stream: a service that publishes it again is answered again.
    async fn hand_in(&self, command: &Command, place: u64) -> Result<(), v1::Error> {
        self.hand_in_as(command, &format!("{}-{place}", command.id)).await
    }

    /// Hands in a command. The stream takes one of this `dedup_id` only.
    async fn hand_in_as(&self, command: &Command, dedup_id: &str) -> Result<(), v1::Error> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let deadline = Instant::now() + HAND_IN;
            match self
                .bus
                .send_command(command, self.partitions, dedup_id, deadline)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::TooLarge => {
                    let message = "its command is larger than the bus takes";
                    return Err(v1::Error::with(ErrorCode::TooLarge, message));
                }
                Err(error) => {
                    tracing::warn!(%error, command = command.id, "a service's message waits for the stream");
                    backoff.pause().await;
                }
            }
        }
    }
}

async fn acknowledge(delivery: &Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::debug!(%error, "not acknowledged; it comes again");
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

/// What a message stands for.
fn taken(delivery: &Delivery, limits: &Limits) -> Result<Taken, v1::Error> {
    let published = Published {
        subject: &delivery.subject,
        own_id: delivery.own_id.as_deref(),
        nats_id: delivery.message_id.as_deref(),
        reply_to: delivery.reply_to.as_deref(),
        doubled: delivery.doubled,
        is_json: is_json(delivery),
        payload: &delivery.payload,
    };
    read(&published, origin(delivery), limits)
}

/// The commands that a parked message stands for, or why it stands for none. The `letter` makes them others than those that
/// were refused, whose refusal is remembered; the message is the same.
pub(crate) fn again(
    subject: &str,
    message_id: Option<&str>,
    payload: &Bytes,
    letter: Uuid,
    limits: &Limits,
) -> Result<Vec<Command>, String> {
    let published = Published {
        subject,
        own_id: message_id,
        nats_id: None,
        reply_to: None,
        doubled: None,
        // The header is not kept.
        is_json: looks_like_json(payload),
        payload,
    };
    let origin = ServiceOrigin {
        message_id: message_id.unwrap_or_default().to_owned(),
        subject: subject.to_owned(),
        replayed: letter.to_string(),
        ..ServiceOrigin::default()
    };
    let mut commands = match read(&published, origin, limits).map_err(|refusal| refusal.message)? {
        Taken::Commands(commands) => commands,
        Taken::Step(_) => return Err("a step of a stream is not replayed".to_owned()),
    };
    for command in &mut commands {
        command.id = Uuid::new_v5(&letter, command.id.as_bytes()).to_string();
    }
    Ok(commands)
}

/// Whether it can be read as a step of a message that streams.
fn is_step(delivery: &Delivery) -> bool {
    let message = if is_json(delivery) {
        json::parse(&delivery.payload).ok()
    } else {
        SystemMessage::decode(delivery.payload.clone()).ok()
    };
    message.is_some_and(|message| message.stream != i32::from(StreamStep::Unspecified))
}

/// What the outcome of a message names, whether or not the message can be read.
fn origin(delivery: &Delivery) -> ServiceOrigin {
    let own_id = delivery.own_id.clone().or_else(|| delivery.message_id.clone());
    let reply_to = delivery.reply_to.clone().unwrap_or_default();
    ServiceOrigin {
        message_id: own_id.map(cut).unwrap_or_default(),
        subject: delivery.subject.clone(),
        reply_to: if subject::is_service_reply(&reply_to) {
            reply_to
        } else {
            String::new()
        },
        json: is_json(delivery) || looks_like_json(&delivery.payload),
        replayed: String::new(),
        caller_id: delivery.caller_id.clone().map(cut).unwrap_or_default(),
        stream: false,
    }
}

/// An id that is too long is refused, and need not be kept whole. What is left of it is still too long, so that no replay
/// takes it for an id.
fn cut(mut id: String) -> String {
    let end = id
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| *at > MESSAGE_ID_MAX_BYTES);
    id.truncate(end.unwrap_or(id.len()));
    id
}

fn is_json(delivery: &Delivery) -> bool {
    let kind = delivery.content_type.as_deref().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// No protobuf of ours begins like this.
fn looks_like_json(payload: &[u8]) -> bool {
    payload.trim_ascii_start().starts_with(b"{")
}

fn read(published: &Published<'_>, origin: ServiceOrigin, limits: &Limits) -> Result<Taken, v1::Error> {
    let target = subject::parse_system(published.subject).map_err(|error| refuse(error.to_string()))?;
    if let Some(name) = published.doubled {
        return Err(refuse(format!("the header {name} is set more than once")));
    }
    if published
        .reply_to
        .is_some_and(|subject| !subject::is_service_reply(subject))
    {
        return Err(refuse("Parlance-Reply-To is no subject below _INBOX.emitter"));
    }
    let message = if published.is_json {
        json::parse(published.payload).map_err(refuse)?
    } else {
        SystemMessage::decode(published.payload.clone())
            .map_err(|_| refuse("the payload is no SystemMessage; for JSON set Content-Type"))?
    };
    let id = identity(published, &message)?;
    let Ok(kind) = StreamStep::try_from(message.stream) else {
        return Err(refuse("stream must be START, APPEND, FINISH or CANCEL"));
    };
    if message.content.is_empty() && kind == StreamStep::Unspecified {
        return Err(refuse("content is empty"));
    }
    fits("content", message.content.len(), limits.content_bytes)?;
    fits(
        "metadata_json",
        message.metadata_json.len(),
        limits.metadata_bytes,
    )?;
    if kind != StreamStep::Unspecified {
        return Step::read(kind, &target, id, message, origin).map(|step| Taken::Step(Box::new(step)));
    }
    let commands = commands_of(&target, id, message, origin)?;
    // What only the conversation can tell is refused where the command is carried out, everything else here.
    for command in &commands {
        Work::parse(command.clone())?;
    }
    Ok(Taken::Commands(commands))
}

impl Step {
    fn read(
        kind: StreamStep,
        target: &SystemTarget,
        id: &str,
        message: SystemMessage,
        origin: ServiceOrigin,
    ) -> Result<Self, v1::Error> {
        let sender = sender_of(&message)?;
        let conversation = match target {
            SystemTarget::Conversation(conversation) => *conversation,
            SystemTarget::User(user) => ConversationId::direct(&sender, user),
        };
        if message.content.contains('\0') {
            return Err(refuse("content holds a NUL character"));
        }
        let origin = ServiceOrigin {
            stream: true,
            ..origin
        };
        let offset = message.offset;
        let (text, start) = if kind == StreamStep::Start {
            let text = message.content.clone();
            let commands = commands_of(target, id, message, origin.clone())?;
            for command in &commands {
                Work::parse(command.clone())?;
            }
            (text, commands)
        } else {
            (message.content, Vec::new())
        };
        Ok(Self {
            kind,
            key: (conversation, MessageId::of_service(conversation, &sender, id)),
            sender,
            offset,
            text,
            start,
            origin,
        })
    }
}

fn sender_of(message: &SystemMessage) -> Result<UserId, v1::Error> {
    // In a namespace of its own: a service speaks for itself, and never in the name of a user.
    UserId::of_service(&message.sender_id).map_err(|e| refuse(format!("sender_id: {e}")))
}

/// The service's own id of the message.
fn identity<'a>(published: &Published<'a>, message: &SystemMessage) -> Result<&'a str, v1::Error> {
    let id = match (published.own_id, published.nats_id) {
        // Services that set both get on with the version before as well. Ours counts.
        (Some(id), _) => id,
        // Gateways of the version before publish for services: under an id that no other message has. To be refused like any
        // other from the first version on whose predecessor has gateways that set Parlance-Message-Id.
        (None, Some(id)) if is_derived(id) && message.sender_id.starts_with(SERVICE_PREFIX) => id,
        (None, Some(_)) => {
            return Err(refuse(
                "the header Parlance-Message-Id is missing; Nats-Msg-Id alone is no id of a message: the stream takes the \
                 message of one conversation for a repeat of another's",
            ));
        }
        (None, None) => return Err(refuse("the header Parlance-Message-Id is missing")),
    };
    if id.is_empty() || id.len() > MESSAGE_ID_MAX_BYTES {
        return Err(refuse(
            "the header Parlance-Message-Id is empty or longer than 256 bytes",
        ));
    }
    Ok(id)
}

/// Whether an id is a UUID made of a name.
fn is_derived(id: &str) -> bool {
    id.len() == 36 && Uuid::try_parse(id).is_ok_and(|id| id.get_version_num() == 5)
}

fn fits(field: &str, bytes: usize, most: usize) -> Result<(), v1::Error> {
    if bytes > most {
        let message = format!("{field} has {bytes} bytes; {most} are allowed");
        return Err(v1::Error::with(ErrorCode::TooLarge, message));
    }
    Ok(())
}

fn commands_of(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::Action;

    fn message() -> SystemMessage {
        SystemMessage {
            sender_id: "weather".into(),
            sender_name: "Weather".into(),
            content: "rain".into(),
            ..Default::default()
        }
    }

    fn made(target: &SystemTarget, id: &str, message: SystemMessage) -> Result<Vec<Command>, v1::Error> {
        commands_of(target, id, message, ServiceOrigin::default())
    }

    const LIMITS: Limits = Limits {
        content_bytes: 100,
        metadata_bytes: 100,
        streams: stream::Limits::DEFAULT,
    };
    const TO_BOB: &str = "chat.system.user.bob";

    /// What persistence makes of a message with these headers.
    fn taken(
        subject: &str,
        own_id: Option<&str>,
        nats_id: Option<&str>,
        message: &SystemMessage,
    ) -> Result<Vec<Command>, v1::Error> {
        let payload = Bytes::from(message.encode_to_vec());
        let published = Published {
            subject,
            own_id,
            nats_id,
            reply_to: None,
            doubled: None,
            is_json: false,
            payload: &payload,
        };
        match read(&published, ServiceOrigin::default(), &LIMITS)? {
            Taken::Commands(commands) => Ok(commands),
            Taken::Step(step) => Ok(step.start),
        }
    }

    #[test]
    fn the_header_of_nats_is_no_id_of_a_message_and_may_stand_beside_one() {
        let ours = taken(TO_BOB, Some("m1"), None, &message()).unwrap();
        assert_eq!(ours.len(), 2);
        for beside in ["m1", "m2", "5f0c4d4c-6dbb-5a3c-8f5b-000000000001"] {
            assert_eq!(taken(TO_BOB, Some("m1"), Some(beside), &message()).unwrap(), ours);
        }
        for (own_id, nats_id, cause) in [
            (None, None, "missing"),
            (None, Some("m1"), "Nats-Msg-Id alone"),
            (Some(""), None, "empty"),
            (
                None,
                Some("5f0c4d4c-6dbb-5a3c-8f5b-000000000001"),
                "Nats-Msg-Id alone",
            ),
        ] {
            let refusal = taken(TO_BOB, own_id, nats_id, &message()).unwrap_err();
            assert!(refusal.message.contains(cause), "{}", refusal.message);
        }
        // As a gateway of the version before publishes.
        let by_gateway = SystemMessage {
            sender_id: "service:weather".into(),
            ..message()
        };
        let derived = Some("5f0c4d4c-6dbb-5a3c-8f5b-000000000001");
        assert!(taken(TO_BOB, None, derived, &by_gateway).is_ok());
        assert!(taken(TO_BOB, None, Some("m1"), &by_gateway).is_err());
    }

    #[test]
    fn what_no_conversation_could_take_is_refused_before_it_is_a_command() {
        let conversation = "chat.system.0190a6e0-0000-7000-8000-000000000001";
        let broken: [(&str, SystemMessage, &str); 9] = [
            (
                conversation,
                SystemMessage {
                    content: String::new(),
                    ..message()
                },
                "content is empty",
            ),
            (
                conversation,
                SystemMessage {
                    content: "a\0b".into(),
                    ..message()
                },
                "NUL",
            ),
            (
                conversation,
                SystemMessage {
                    sender_name: "a\0b".into(),
                    ..message()
                },
                "NUL",
            ),
            (
                conversation,
                SystemMessage {
                    metadata_json: "[1".into(),
                    ..message()
                },
                "JSON object",
            ),
            (
                conversation,
                SystemMessage {
                    reply_to: Some("x".into()),
                    ..message()
                },
                "reply_to is neither",
            ),
            (
                conversation,
                SystemMessage {
                    r#type: 99,
                    ..message()
                },
                "message type",
            ),
            (
                conversation,
                SystemMessage {
                    sender_kind: 99,
                    ..message()
                },
                "sender_kind",
            ),
            (
                conversation,
                SystemMessage {
                    content: "x".repeat(101),
                    ..message()
                },
                "100 are allowed",
            ),
            ("chat.system.user.service_3Aweather", message(), "itself"),
        ];
        for (subject, message, cause) in broken {
            let refusal = taken(subject, Some("m1"), None, &message).unwrap_err();
            assert!(refusal.message.contains(cause), "{cause}: {}", refusal.message);
        }
    }

    #[test]
    fn a_replay_sends_the_same_message_by_other_commands() {
        let payload = Bytes::from(message().encode_to_vec());
        let first = taken(TO_BOB, Some("m1"), None, &message()).unwrap();
        let again = again(TO_BOB, Some("m1"), &payload, Uuid::from_u128(7), &LIMITS).unwrap();
        assert!(
            first
                .iter()
                .zip(&again)
                .all(|(a, b)| a.id != b.id && a.body == b.body)
        );
        let origin = again[1].service.as_ref().unwrap();
        assert_eq!((origin.message_id.as_str(), origin.reply_to.as_str()), ("m1", ""));
    }

    #[test]
    fn an_id_is_cut_between_characters() {
        let id = cut("\u{e9}".repeat(300));
        assert_eq!(id.len(), MESSAGE_ID_MAX_BYTES + 2);
        assert!(id.chars().all(|c| c == '\u{e9}'));
        assert_eq!(cut("m1".into()), "m1");
        assert_eq!(cut("x".repeat(256)).len(), 256);
    }

    #[test]
    fn a_letter_whose_id_was_cut_is_not_replayed() {
        let payload = Bytes::from(message().encode_to_vec());
        let id = cut("x".repeat(300));
        let refused = again(TO_BOB, Some(&id), &payload, Uuid::from_u128(7), &LIMITS);
        assert!(refused.unwrap_err().contains("longer than 256"));
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn the_same_message_id_makes_the_same_commands_and_another_other_ones() {
        let target = SystemTarget::User(user("bob"));
        let first = made(&target, "m1", message()).unwrap();
        assert_eq!(first, made(&target, "m1", message()).unwrap());
        let other = made(&target, "m2", message()).unwrap();
        assert!(first.iter().all(|a| other.iter().all(|b| a.id != b.id)));
    }

    #[test]
    fn a_message_to_a_user_makes_its_conversation_first_and_both_commands_are_valid() {
        let commands = made(&SystemTarget::User(user("bob")), "m1", message()).unwrap();
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
        let mut commands = made(&target, "m1", share).unwrap();
        let Action::Send(send) = Work::parse(commands.remove(0)).unwrap().action else {
            panic!("a send")
        };
        assert!(send.journal.is_none());
    }

    #[test]
    fn a_service_cannot_take_the_identity_of_a_user_s_message_nor_pose_as_one() {
        let conversation = ConversationId::direct(&user("weather"), &user("bob"));
        let commands = made(&SystemTarget::Conversation(conversation), "m1", message()).unwrap();
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
        let commands = made(&SystemTarget::Conversation(conversation), "m1", named).unwrap();
        assert_eq!(commands[0].actor.as_ref().unwrap().user_id, "service:bob");
        let posing = SystemMessage {
            sender_kind: SenderKind::User.into(),
            ..message()
        };
        assert!(made(&SystemTarget::Conversation(conversation), "m1", posing).is_err());
    }
}
