//! Reads what services publish: what a message stands for, or why it is refused. What depends on the conversation is
//! refused where the command is carried out, everything else here. Pure: no bus, no database.

use bytes::Bytes;
use parlance_bus::{Delivery, SystemTarget, subject};
use parlance_proto::ids::SERVICE_PREFIX;
use parlance_proto::v1::{self, Command, ErrorCode, ServiceOrigin, StreamStep, SystemMessage};
use parlance_proto::{ConversationId, MessageId, UserId};
use prost::Message as _;
use uuid::Uuid;

use super::{command, json, stream};
use crate::model::refusals::refuse;
use crate::model::work::Work;
use crate::store::streams::Key;

/// Longest `Parlance-Message-Id`.
const MESSAGE_ID_MAX_BYTES: usize = 256;

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
pub(super) enum Taken {
    /// Commands, to be handed in by their order.
    Commands(Vec<Command>),
    /// A step of a message that streams.
    Step(Box<Step>),
}

/// A step of a message that streams.
pub(super) struct Step {
    /// Never unspecified.
    pub(super) kind: StreamStep,
    /// The message.
    pub(super) key: Key,
    /// The service.
    pub(super) sender: UserId,
    /// Bytes of the text that come before.
    pub(super) offset: Option<u64>,
    /// Without NUL.
    pub(super) text: String,
    /// Of a start: what it stands for.
    pub(super) start: Vec<Command>,
    /// Whom to reply to.
    pub(super) origin: ServiceOrigin,
}

/// What a message stands for.
///
/// # Errors
/// Why it is refused for good.
pub(super) fn taken(delivery: &Delivery, limits: &Limits) -> Result<Taken, v1::Error> {
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
pub(crate) fn replayed(
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
pub(super) fn is_step(delivery: &Delivery) -> bool {
    let message = if is_json(delivery) {
        json::parse(&delivery.payload).ok()
    } else {
        SystemMessage::decode(delivery.payload.clone()).ok()
    };
    message.is_some_and(|message| message.stream != i32::from(StreamStep::Unspecified))
}

/// What the outcome of a message names, whether or not the message can be read.
pub(super) fn origin(delivery: &Delivery) -> ServiceOrigin {
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
    let commands = command::of_message(&target, id, message, origin)?;
    // What depends on the conversation is refused where the command is carried out, everything else here.
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
        let sender = command::sender_of(&message)?;
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
            let commands = command::of_message(target, id, message, origin.clone())?;
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

#[cfg(test)]
mod tests;
