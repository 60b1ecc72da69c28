//! The native representation of the domain as JSON; REST speaks it too. Must not decide anything.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use parlance_proto::v1::{
    Conversation, ConversationKind, Event, EventPage, Message, MessageType, ReceiptUpdated, Role, SeqRange,
    Typing, event,
};
use parlance_proto::{ConversationId, MessageId, ids};
use serde::Serialize;
use serde_json::value::RawValue;

use super::message_type;
use crate::dialect::SendAction;
use crate::error::ClientError;
use crate::limits::Limits;

/// A message as clients see it.
#[derive(Debug, Serialize)]
pub struct MessageJson<'a> {
    id: &'a str,
    conversation_id: &'a str,
    seq: u64,
    sender: SenderJson<'a>,
    #[serde(rename = "type")]
    kind: &'static str,
    content: &'a str,
    metadata: Box<RawValue>,
    client_msg_id: Option<&'a str>,
    reply_to: Option<&'a str>,
    created_at: String,
    edited_at: Option<String>,
    deleted_at: Option<String>,
    number: Option<i64>,
}

#[derive(Debug, Serialize)]
struct SenderJson<'a> {
    id: &'a str,
    username: &'a str,
}

/// A conversation as one of its participants sees it.
#[derive(Debug, Serialize)]
pub struct ConversationJson<'a> {
    id: &'a str,
    number: i64,
    kind: &'static str,
    title: Option<&'a str>,
    participants: Vec<ParticipantJson<'a>>,
    head_seq: u64,
    epoch: &'a str,
    unread: u64,
    last_message: Option<MessageJson<'a>>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct ParticipantJson<'a> {
    user_id: &'a str,
    username: &'a str,
    role: &'static str,
}

/// A durable change as clients see it.
#[derive(Debug, Serialize)]
pub struct EventJson<'a> {
    seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    message: MessageJson<'a>,
    at: String,
}

/// What happened in a conversation since a position.
#[derive(Debug, Serialize)]
pub struct EventPageJson<'a> {
    epoch: &'a str,
    head_seq: u64,
    events: Vec<EventJson<'a>>,
    /// The seq to ask after next; null when complete.
    next: Option<u64>,
    complete: bool,
    resync: bool,
}

/// One object under the name of what it is.
#[derive(Debug, Default, Serialize)]
pub struct Holding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<ConversationJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReadStateJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ReadStateJson<'a> {
    user_id: &'a str,
    /// Everything up to here is read.
    up_to_seq: u64,
    /// Everything that is read, as inclusive ranges of seqs.
    read: Vec<[u64; 2]>,
    version: u64,
}

#[derive(Debug, Serialize)]
struct ReceiptJson<'a> {
    conversation_id: String,
    #[serde(flatten)]
    state: ReadStateJson<'a>,
}

#[derive(Debug, Serialize)]
struct TypingJson<'a> {
    conversation_id: String,
    user_id: &'a str,
    username: &'a str,
    is_typing: bool,
}

#[derive(Debug, Serialize)]
struct ConversationUpdatedJson<'a> {
    conversation_id: &'a str,
    head_seq: u64,
    last_message: MessageJson<'a>,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct ResyncJson<'a> {
    conversation_id: String,
    epoch: &'a str,
    head_seq: u64,
}

#[derive(Debug, Serialize)]
struct SyncJson<'a> {
    conversations: BTreeMap<&'a str, EventPageJson<'a>>,
}

/// The parts of a message a client supplies, by socket or REST.
#[derive(Debug)]
pub struct MessageInput<'a> {
    /// See [`ids::check_client_msg_id`].
    pub client_msg_id: Option<String>,
    /// Name of the type.
    pub kind: Option<String>,
    /// Byte-exact.
    pub content: String,
    /// A JSON object.
    pub metadata: Option<&'a RawValue>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
}

/// Checks what a client wants to send against every limit.
///
/// # Errors
/// The first limit that is broken.
pub fn message_input(
    input: MessageInput<'_>,
    conversation: ConversationId,
    limits: &Limits,
) -> Result<SendAction, ClientError> {
    if let Some(id) = &input.client_msg_id {
        ids::check_client_msg_id(id)?;
    }
    limits.content(&input.content)?;
    Ok(SendAction {
        conversation,
        client_msg_id: input.client_msg_id,
        kind: message_type(input.kind.as_deref())?,
        metadata: limits.metadata(input.metadata)?,
        content: input.content,
        reply_to: input.reply_to,
    })
}

/// A payload or body that is not the documented JSON. Says what and where, never repeats values.
pub fn unreadable(error: &serde_json::Error) -> ClientError {
    if error.is_data() {
        // "missing field `x` at line …" and "invalid type: …, expected …": the first may be told, the
        // second repeats a value unless cut down to what was expected.
        let text = error.to_string();
        if let Some(field) = text
            .strip_prefix("missing field `")
            .and_then(|t| t.split('`').next())
        {
            return ClientError::invalid(format!("{field} is missing"));
        }
        let place = text
            .rsplit_once(" at line")
            .map_or(text.as_str(), |(before, _)| before);
        if let Some((_, expected)) = place.rsplit_once("expected ") {
            return ClientError::invalid(format!("a field is of the wrong type: expected {expected}"));
        }
        if place.len() < 80 {
            return ClientError::invalid(place);
        }
        return ClientError::invalid("a field has a wrong value");
    }
    ClientError::invalid("not valid JSON, nested too deeply, or a number or character out of range")
}

/// Writes a message.
pub fn message(message: &Message) -> MessageJson<'_> {
    let (sender, username) = message
        .sender
        .as_ref()
        .map_or(("", ""), |sender| (&*sender.id, &*sender.username));
    MessageJson {
        id: &message.id,
        conversation_id: &message.conversation_id,
        seq: message.seq,
        sender: SenderJson { id: sender, username },
        kind: type_name(message.r#type()),
        content: &message.content,
        metadata: metadata(&message.metadata_json),
        client_msg_id: message.client_msg_id.as_deref(),
        reply_to: message.reply_to.as_deref(),
        created_at: time(message.created_at_ms),
        edited_at: message.edited_at_ms.map(time),
        deleted_at: message.deleted_at_ms.map(time),
        number: MessageId::number(message.conversation_number, message.seq),
    }
}

/// Writes a conversation.
pub fn conversation(conversation: &Conversation) -> ConversationJson<'_> {
    ConversationJson {
        id: &conversation.id,
        number: conversation.number,
        kind: match conversation.kind() {
            ConversationKind::Group => "group",
            ConversationKind::Direct | ConversationKind::Unspecified => "direct",
        },
        title: Some(conversation.title.as_str()).filter(|title| !title.is_empty()),
        participants: conversation
            .participants
            .iter()
            .map(|participant| ParticipantJson {
                user_id: &participant.user_id,
                username: &participant.username,
                role: match participant.role() {
                    Role::Admin => "admin",
                    Role::Moderator => "moderator",
                    Role::Member | Role::Unspecified => "member",
                },
            })
            .collect(),
        head_seq: conversation.head_seq,
        epoch: &conversation.epoch,
        unread: conversation.unread,
        last_message: conversation.last_message.as_ref().map(message),
        created_at: time(conversation.created_at_ms),
        updated_at: time(conversation.updated_at_ms),
    }
}

/// Writes a page of changes.
pub fn event_page(page: &EventPage) -> EventPageJson<'_> {
    let events: Vec<_> = page.events.iter().filter_map(event).collect();
    let next = page.events.last().map(|event| event.seq);
    EventPageJson {
        epoch: &page.epoch,
        head_seq: page.head_seq,
        events,
        next: next.filter(|_| !page.complete),
        complete: page.complete,
        resync: page.resync,
    }
}

/// Writes the pages of a sync under their conversations.
pub fn sync(pages: &[EventPage]) -> impl Serialize {
    SyncJson {
        conversations: pages
            .iter()
            .map(|page| (page.conversation_id.as_str(), event_page(page)))
            .collect(),
    }
}

fn event(event: &Event) -> Option<EventJson<'_>> {
    let (kind, changed) = match event.body.as_ref()? {
        event::Body::MessageCreated(body) => ("message:new", body.message.as_ref()?),
        event::Body::MessageEdited(body) => ("message:edited", body.message.as_ref()?),
        event::Body::MessageDeleted(body) => ("message:deleted", body.message.as_ref()?),
        // Receipts have no place in the sequence.
        event::Body::ReceiptUpdated(_) => return None,
    };
    Some(EventJson {
        seq: event.seq,
        kind,
        message: message(changed),
        at: time(event.at_ms),
    })
}

/// Writes a reader's state.
pub fn receipt(conversation: ConversationId, receipt: &ReceiptUpdated) -> impl Serialize {
    ReceiptJson {
        conversation_id: conversation.to_string(),
        state: read_state(receipt),
    }
}

/// Writes that somebody types.
pub fn typing(conversation: ConversationId, typing: &Typing) -> impl Serialize {
    TypingJson {
        conversation_id: conversation.to_string(),
        user_id: &typing.user_id,
        username: &typing.username,
        is_typing: typing.is_typing,
    }
}

/// Writes the new head of a conversation for a list of conversations.
pub fn conversation_updated(last: &Message) -> impl Serialize {
    ConversationUpdatedJson {
        conversation_id: &last.conversation_id,
        head_seq: last.seq,
        updated_at: time(last.created_at_ms),
        last_message: message(last),
    }
}

/// Writes that a conversation must be read anew.
pub fn resync(conversation: ConversationId, epoch: &str, head_seq: u64) -> impl Serialize {
    ResyncJson {
        conversation_id: conversation.to_string(),
        epoch,
        head_seq,
    }
}

impl<'a> Holding<'a> {
    /// `{message}`.
    pub fn message(held: &'a Message) -> Self {
        Self {
            message: Some(message(held)),
            ..Self::default()
        }
    }

    /// `{conversation}`.
    pub fn conversation(held: &'a Conversation) -> Self {
        Self {
            conversation: Some(conversation(held)),
            ..Self::default()
        }
    }

    /// `{receipt}`.
    pub fn receipt(held: &'a ReceiptUpdated) -> Self {
        Self {
            receipt: Some(read_state(held)),
            ..Self::default()
        }
    }
}

fn read_state(receipt: &ReceiptUpdated) -> ReadStateJson<'_> {
    let whole = |range: &&SeqRange| range.first <= 1;
    ReadStateJson {
        user_id: &receipt.user_id,
        up_to_seq: receipt.read.first().filter(whole).map_or(0, |range| range.last),
        read: receipt
            .read
            .iter()
            .map(|range| [range.first, range.last])
            .collect(),
        version: receipt.version,
    }
}

fn metadata(text: &str) -> Box<RawValue> {
    if text.is_empty() {
        return super::encode(&serde_json::Map::new());
    }
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn type_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Text | MessageType::Unspecified => "text",
        MessageType::Image => "image",
        MessageType::File => "file",
        MessageType::Voice => "voice",
        MessageType::System => "system",
        MessageType::JournalShare => "journal_share",
    }
}
