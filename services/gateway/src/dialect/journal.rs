//! The journal dialect: direct chats and shared journals, camelCase events, ids as numbers.

use parlance_proto::MessageId;
use parlance_proto::v1::{
    Conversation, ConversationKind, ErrorCode, JournalEdited, Message, MessageRef as StoredRef, Participant,
    ReceiptUpdated,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::contract::{Contract, Shape};
use super::place::{Place, message_number, user_number};
use super::{
    Action, Answer, ConversationRef, Decoded, Dialect, Frame, JournalChange, Outbound, Speaker, Streams,
    encode, payload, shape,
};
use crate::error::ClientError;
use crate::limits::Limits;

/// See the module.
#[derive(Debug)]
pub struct Journal(pub Streams);

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JournalSenderPayload)]
struct SenderPayload<'a> {
    #[serde(alias = "sender_id", borrow)]
    #[schema(value_type = Option<serde_json::Value>)]
    sender_id: Option<&'a RawValue>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JournalJournalPayload)]
struct JournalPayload {
    #[serde(alias = "journal_id")]
    journal_id: ConversationRef,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalContentPayload)]
struct ContentPayload {
    content: String,
}

/// The message table's columns, and what it lacks for messages of other front ends.
#[derive(Serialize, ToSchema)]
#[schema(as = JournalMessage)]
pub struct MessageJson<'a> {
    message_id: i64,
    conversation_id: i64,
    sender_id: i64,
    /// The other of a direct conversation.
    #[schema(required)]
    receiver_id: Option<i64>,
    content: &'a str,
    #[schema(format = DateTime)]
    timestamp: String,
    read_status: bool,
    #[schema(schema_with = crate::dialect::schema::message_type)]
    message_type: &'static str,
    #[schema(value_type = Object)]
    metadata: Box<RawValue>,
    sender_name: &'a str,
    #[schema(required)]
    client_msg_id: Option<&'a str>,
    #[schema(required, format = DateTime)]
    edited_at: Option<String>,
    deleted: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalRead)]
struct ReadJson {
    #[serde(rename = "messageIds")]
    message_ids: Vec<i64>,
    read_status: bool,
    #[serde(rename = "conversationId")]
    conversation_id: i64,
    #[serde(rename = "userId")]
    user_id: i64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JournalGone)]
struct GoneJson {
    message_ids: Vec<i64>,
    conversation_id: i64,
    /// `all` or `me`.
    #[schema(schema_with = crate::dialect::schema::scope)]
    scope: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JournalJournal)]
struct JournalJson<'a> {
    /// Absent in acks of changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    journal_id: i64,
    version: u64,
}

/// A conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = JournalConversation)]
pub struct ConversationJson<'a> {
    conversation_id: i64,
    #[serde(rename = "type")]
    kind: &'static str,
    #[schema(required)]
    title: Option<&'a str>,
    /// Of a direct conversation, the smaller id first.
    #[schema(required)]
    user1_id: Option<i64>,
    #[schema(required)]
    user2_id: Option<i64>,
    participants: Vec<ParticipantJson<'a>>,
    participant_count: u64,
    /// Whether these are all participants; at most a hundred are listed: the first by id, and in the place of the last
    /// of them the viewer where they come later. All are listed in pages, from the beginning.
    participants_complete: bool,
    #[schema(required)]
    last_message_id: Option<i64>,
    unread: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalParticipant)]
struct ParticipantJson<'a> {
    user_id: i64,
    username: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalFailed)]
struct FailedJson<'a> {
    /// What kind of failure.
    error: &'static str,
    details: &'a str,
    #[schema(schema_with = crate::error::code_schema)]
    code: &'static str,
    retry: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JournalFailedEvent)]
struct FailedEventJson<'a> {
    #[serde(flatten)]
    failed: FailedJson<'a>,
    event: &'a str,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = JournalAnswer)]
struct AnswerJson<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<ConversationJson<'a>>,
    #[serde(flatten)]
    #[schema(ignore)]
    read: Option<ReadJson>,
    #[serde(flatten)]
    #[schema(ignore)]
    journal: Option<JournalJson<'a>>,
    #[serde(flatten)]
    #[schema(ignore)]
    failed: Option<FailedJson<'a>>,
}

impl Dialect for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "joinRoom",
            "leaveRoom",
            "sendMessage",
            "markAsRead",
            "joinJournal",
            "leaveJournal",
            "journalEdit",
        ]
    }

    fn contract(&self) -> Contract {
        contract()
    }

    fn shows_joined_journals(&self) -> bool {
        true
    }

    fn decode(
        &self,
        speaker: Speaker<'_>,
        event: &str,
        payload: &RawValue,
        limits: &Limits,
    ) -> Result<Decoded, ClientError> {
        let action = match event {
            "joinRoom" => Action::Join(payload::conversation(payload)?),
            "leaveRoom" => Action::Leave(payload::conversation(payload)?),
            "sendMessage" => {
                check_sender(payload, speaker)?;
                Action::Send(payload::send(payload, limits)?)
            }
            "markAsRead" => payload::reading(payload, limits)?.action()?,
            "joinJournal" => Action::JoinJournal {
                journal: journal(payload)?,
                state_vector: None,
            },
            "leaveJournal" => Action::LeaveJournal(journal(payload)?),
            "journalEdit" => Action::EditJournal {
                journal: payload::object::<JournalPayload>(payload)?.journal_id,
                change: JournalChange::Content(content(payload, limits)?),
            },
            _ => return Err(self.unknown_event()),
        };
        Ok(action.into())
    }

    fn encode(&self, outbound: Outbound<'_>) -> Vec<Frame> {
        let frame = match outbound {
            Outbound::MessageCreated(place, created) => {
                Frame::new("receiveMessage", &message(created, Some(place)))
            }
            // `messageUpdated` would be taken for a change of the read mark, which this is not.
            Outbound::MessageEdited(place, edited) => {
                Frame::new("messageEdited", &message(edited, Some(place)))
            }
            Outbound::MessageDeleted(place, deleted) => {
                Frame::new("messageDeleted", &gone(place, deleted, "all"))
            }
            Outbound::MessageHidden(place, hidden) => {
                Frame::new("messageDeleted", &gone(place, hidden, "me"))
            }
            Outbound::Receipt(place, receipt) if !receipt.read_now.is_empty() => {
                Frame::new("messageUpdated", &read(place, receipt))
            }
            Outbound::JournalEdited(edited, Some(content)) => {
                Frame::new("journalUpdate", &journal_json(edited, Some(content)))
            }
            // These clients know whole texts only.
            Outbound::JournalEdited(_, None) => return Vec::new(),
            Outbound::Failed { event, error, .. } => Frame::new(
                "messageError",
                &FailedEventJson {
                    failed: failed(error),
                    event,
                },
            ),
            Outbound::Receipt(..)
            | Outbound::Reaction(..)
            | Outbound::Typing(..)
            | Outbound::RoomPresence(..)
            | Outbound::Presence { .. }
            | Outbound::MuteChanged(..)
            | Outbound::BlockChanged(_)
            | Outbound::MessageFinished(..)
            | Outbound::MessageChunk(..)
            | Outbound::MessageGrown(..)
            | Outbound::Awareness { .. }
            | Outbound::ThreadCreated(..)
            | Outbound::MembersAdded(..)
            | Outbound::MemberRemoved(..)
            | Outbound::RoleChanged(..)
            | Outbound::ConversationChanged(..)
            | Outbound::ConversationAdded(_)
            | Outbound::ConversationRemoved(_)
            | Outbound::ListUpdated { .. }
            | Outbound::Resync { .. } => return Vec::new(),
        };
        vec![frame]
    }

    fn answer(&self, outcome: Result<&Answer, &ClientError>, place: Option<&Place>) -> Box<RawValue> {
        let mut answer = AnswerJson {
            ok: outcome.is_ok(),
            ..AnswerJson::default()
        };
        match outcome {
            Ok(Answer::Message(sent)) => answer.message = Some(message(sent, place)),
            Ok(Answer::Conversation(joined)) => answer.conversation = Some(conversation(joined)),
            Ok(Answer::Receipt(receipt)) => answer.read = place.map(|place| read(place, receipt)),
            Ok(Answer::Journal(edited, content)) => {
                answer.journal = Some(journal_json(edited, content.as_deref()));
            }
            Ok(Answer::JournalSync { journal, .. }) => {
                answer.journal = Some(journal_json(journal, None));
            }
            Ok(
                Answer::Done
                | Answer::Thread(_)
                | Answer::Pages(_)
                | Answer::Presence(_)
                | Answer::Participants(_)
                | Answer::Blocks(_)
                | Answer::User(_),
            ) => {}
            Err(error) => answer.failed = Some(failed(error)),
        }
        encode(&answer)
    }
}

fn contract() -> Contract {
    use payload::contract as shapes;
    let journal_named = || Shape::of::<ConversationRef>().or(Shape::of::<JournalPayload>());
    let edit = Shape::of::<JournalPayload>().and(Shape::of::<ContentPayload>());
    let send = shapes::send().and(Shape::of::<SenderPayload<'_>>());
    let (message, gone) = (|| Shape::of::<MessageJson<'_>>(), Shape::of::<GoneJson>());
    let (none, journal) = (|| Shape::raw(json!({})), || Shape::of::<JournalJson<'_>>());
    // Without the conversation at hand, the ack of a receipt says only that it is done.
    let read = none().or(Shape::of::<ReadJson>());
    let failed = Shape::of::<FailedEventJson<'_>>();
    Contract::new("Direct chats and shared journals; camelCase events, ids as numbers.")
        .accepts(
            "joinRoom",
            "Follow a conversation.",
            shapes::conversation(),
            ack(&["conversation"], none()),
        )
        .accepts(
            "leaveRoom",
            "Follow it no more.",
            shapes::conversation(),
            ack(&[], none()),
        )
        .accepts(
            "sendMessage",
            "Send a message; a senderId must be the connected user.",
            send,
            ack(&["message"], none()),
        )
        .accepts(
            "markAsRead",
            "Mark messages as read.",
            shapes::reading(),
            ack(&[], read),
        )
        .accepts(
            "joinJournal",
            "Follow a journal.",
            journal_named(),
            ack(&[], journal()),
        )
        .accepts(
            "leaveJournal",
            "Follow it no more.",
            journal_named(),
            ack(&[], none()),
        )
        .accepts(
            "journalEdit",
            "The whole text as this client now shows it.",
            edit,
            ack(&[], journal()),
        )
        .emits("receiveMessage", "A message was sent.", message())
        .emits("messageEdited", "A message was changed.", message())
        .emits(
            "messageDeleted",
            "Messages are gone, for all or for this user.",
            gone,
        )
        .emits(
            "messageUpdated",
            "Somebody read messages.",
            Shape::of::<ReadJson>(),
        )
        .emits("journalUpdate", "A journal has another text.", journal())
        .emits("messageError", "An event failed.", failed)
}

/// The ack: with these fields and all of `body`, or what failed.
fn ack(fields: &[&str], body: Shape) -> Shape {
    let answer = || Shape::of::<AnswerJson<'_>>();
    let good = answer().answering("ok", true, fields).and(body);
    let failed = Shape::of::<FailedJson<'_>>();
    good.or(answer().answering("ok", false, &[]).and(failed))
}

/// The client says who it is in every message; the token knows better.
fn check_sender(payload: &RawValue, speaker: Speaker<'_>) -> Result<(), ClientError> {
    let Some(given) = payload::object::<SenderPayload<'_>>(payload)?.sender_id else {
        return Ok(());
    };
    let given = given.get();
    let text: String = serde_json::from_str(given).unwrap_or_else(|_| given.to_owned());
    let (own, number) = (
        speaker.user.as_str(),
        user_number(speaker.user.as_str(), speaker.number),
    );
    if text == own || text == number.to_string() {
        return Ok(());
    }
    Err(ClientError::new(
        ErrorCode::Forbidden,
        "senderId is not the connected user",
    ))
}

fn journal(payload: &RawValue) -> Result<ConversationRef, ClientError> {
    if payload::is_object(payload) {
        return Ok(payload::object::<JournalPayload>(payload)?.journal_id);
    }
    payload::bare(payload)
}

/// The whole text of a journal; unlike a message's it may become empty.
fn content(payload: &RawValue, limits: &Limits) -> Result<String, ClientError> {
    let content = payload::object::<ContentPayload>(payload)?.content;
    limits.journal(&content)?;
    Ok(content)
}

/// Writes a message; who gets it and has read it, where its place is at hand.
pub fn message<'a>(message: &'a Message, place: Option<&Place>) -> MessageJson<'a> {
    let (sender, sender_name) = shape::sender(message);
    let sender_number = message.sender.as_ref().map_or(0, |sender| sender.number);
    let (content, metadata) = shape::readable(message);
    // A service that writes into a direct conversation addresses both.
    let receiver = place
        .filter(|place| place.participant(sender).is_some())
        .and_then(|place| place.other_than(sender));
    let mut recipients = place
        .into_iter()
        .flat_map(|place| shape::recipients(place, message))
        .peekable();
    MessageJson {
        message_id: message_number(message),
        conversation_id: message.conversation_number,
        sender_id: user_number(sender, sender_number),
        receiver_id: receiver.map(participant_number),
        content,
        timestamp: shape::time(message.created_at_ms),
        read_status: recipients.peek().is_some()
            && recipients.all(|recipient| shape::delivery(recipient, message.seq) == "read"),
        message_type: shape::type_name(message.r#type()),
        metadata,
        sender_name,
        client_msg_id: message.client_msg_id.as_deref(),
        edited_at: message.edited_at_ms.map(shape::time),
        deleted: message.deleted_at_ms.is_some(),
    }
}

fn gone(place: &Place, message: &Message, scope: &'static str) -> GoneJson {
    GoneJson {
        message_ids: MessageId::number(place.number, message.seq).into_iter().collect(),
        conversation_id: place.number,
        scope,
    }
}

fn read(place: &Place, receipt: &ReceiptUpdated) -> ReadJson {
    let number = |message: &StoredRef| MessageId::number(place.number, message.seq);
    ReadJson {
        message_ids: receipt.read_now.iter().filter_map(number).collect(),
        read_status: true,
        conversation_id: place.number,
        user_id: user_number(&receipt.user_id, receipt.user_number),
    }
}

fn journal_json<'a>(edited: &'a JournalEdited, content: Option<&'a str>) -> JournalJson<'a> {
    JournalJson {
        content,
        journal_id: edited.journal_number,
        version: edited.version,
    }
}

/// Writes a conversation.
pub fn conversation(conversation: &Conversation) -> ConversationJson<'_> {
    let direct = conversation.kind() != ConversationKind::Group;
    let mut pair: Vec<i64> = conversation.participants.iter().map(participant_number).collect();
    pair.sort_unstable();
    let user = |index: usize| pair.get(index).copied().filter(|_| direct);
    ConversationJson {
        conversation_id: conversation.number,
        kind: if direct { "direct" } else { "group" },
        title: Some(&*conversation.title).filter(|title| !title.is_empty()),
        user1_id: user(0),
        user2_id: user(1),
        participants: conversation
            .participants
            .iter()
            .map(|participant| ParticipantJson {
                user_id: participant_number(participant),
                username: &participant.username,
            })
            .collect(),
        participant_count: conversation.participant_count,
        participants_complete: conversation.participants_complete,
        last_message_id: conversation.last_message.as_ref().map(message_number),
        unread: conversation.unread,
    }
}

fn participant_number(participant: &Participant) -> i64 {
    user_number(&participant.user_id, participant.number)
}

fn failed(error: &ClientError) -> FailedJson<'_> {
    FailedJson {
        error: match error.code {
            "invalid" | "too_large" | "too_costly" | "unprocessable" => "Invalid data",
            "unauthenticated" => "Not authenticated",
            "forbidden" => "Not allowed",
            "not_found" => "Not found",
            "conflict" => "Exists already",
            "rate_limited" => "Too many requests",
            "unknown_event" => "Unknown event",
            "unknown" => "Outcome unknown",
            _ => "Server error",
        },
        details: &error.message,
        code: error.code,
        retry: error.retry,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn it_speaks_as_recorded() {
        samples::check(&Journal(Streams::Finished));
    }
}
