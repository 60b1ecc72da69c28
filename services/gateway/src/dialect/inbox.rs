//! The inbox dialect: snake_case events with camelCase fields around a list of conversations.

use parlance_proto::v1::{Message, ReceiptUpdated};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::contract::{Contract, Shape};
use super::place::Place;
use super::{
    Action, Answer, Decoded, Dialect, Frame, Outbound, Speaker, Streams, camel, payload, shape, union,
};
use crate::error::ClientError;
use crate::limits::Limits;

/// Beyond every seq, yet a number that Postgres can hold.
const EVERYTHING: u64 = i64::MAX.unsigned_abs();

/// See the module.
#[derive(Debug)]
pub struct Inbox(pub Streams);

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxConversationUpdated)]
struct ConversationUpdatedJson<'a> {
    conversation_id: String,
    /// What a list shows of it.
    last_message: &'a str,
    message: union::MessageJson<'a>,
    #[schema(format = DateTime)]
    timestamp: String,
    unread: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxMessagesRead)]
struct MessagesReadJson<'a> {
    conversation_id: String,
    user_id: &'a str,
    message_ids: Vec<&'a str>,
    #[schema(format = DateTime)]
    read_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InboxError)]
struct ErrorJson<'a> {
    message: &'a str,
    #[schema(schema_with = crate::error::code_schema)]
    code: &'static str,
    retry: bool,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::dialect::schema::tag)]
    temp_id: Option<Box<RawValue>>,
}

impl Dialect for Inbox {
    fn name(&self) -> &'static str {
        "inbox"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "join_conversation",
            "leave_conversation",
            "send_message",
            "mark_as_read",
            "typing_start",
            "typing_stop",
        ]
    }

    fn contract(&self) -> Contract {
        use payload::contract as shapes;
        let (done, message) = (|| camel::ack(&[]), || Shape::of::<union::MessageJson<'_>>());
        let read = shapes::whole_conversation().or(shapes::reading());
        Contract::new("A list of conversations, joined one by one; snake_case events, ids as UUIDs.")
            .accepts(
                "join_conversation",
                "Follow a conversation.",
                shapes::conversation(),
                camel::ack(&["conversation"]),
            )
            .accepts(
                "leave_conversation",
                "Follow it no more.",
                shapes::conversation(),
                done(),
            )
            .accepts(
                "send_message",
                "Send a message.",
                shapes::send(),
                camel::ack(&["message"]),
            )
            .accepts(
                "mark_as_read",
                "Mark messages, or all of a conversation, as read.",
                read,
                camel::ack(&["unread"]),
            )
            .accepts("typing_start", "Begin to type.", shapes::conversation(), done())
            .accepts("typing_stop", "End to type.", shapes::conversation(), done())
            .emits("new_message", "A message was sent.", message())
            .emits("message_edited", "A message was changed.", message())
            .emits(
                "message_deleted",
                "A message is gone, for all or for this user.",
                Shape::of::<union::DeletedJson<'_>>(),
            )
            .emits(
                "message_reaction",
                "A mark was put on a message or taken back.",
                Shape::of::<union::ReactionChangedJson<'_>>(),
            )
            .emits(
                "messages_read",
                "Somebody read messages.",
                Shape::of::<MessagesReadJson<'_>>(),
            )
            .emits("typing_start", "Somebody begins to type.", camel::typing_shape())
            .emits("typing_stop", "Somebody ends to type.", camel::typing_shape())
            .emits(
                "conversation_updated",
                "A conversation has a new latest message.",
                Shape::of::<ConversationUpdatedJson<'_>>(),
            )
            .emits(
                "conversation_created",
                "The user is in a further conversation.",
                camel::conversation_shape(),
            )
            .emits(
                "conversation_changed",
                "Title, channel, status or metadata changed.",
                camel::conversation_changed_shape(),
            )
            .emits(
                "conversation_removed",
                "The user is in the conversation no more.",
                camel::named_shape(),
            )
            .emits("error", "An event failed.", Shape::of::<ErrorJson<'_>>())
    }

    fn decode(
        &self,
        _speaker: Speaker<'_>,
        event: &str,
        payload: &RawValue,
        limits: &Limits,
    ) -> Result<Decoded, ClientError> {
        let action = match event {
            "join_conversation" => Action::Join(payload::conversation(payload)?),
            "leave_conversation" => Action::Leave(payload::conversation(payload)?),
            "send_message" => Action::Send(payload::send(payload, limits)?),
            "mark_as_read" => mark_as_read(payload, limits)?,
            "typing_start" | "typing_stop" => Action::Typing {
                conversation: payload::conversation(payload)?,
                is_typing: event == "typing_start",
            },
            _ => return Err(self.unknown_event()),
        };
        Ok(Decoded {
            action,
            tag: self.tag(event, payload),
        })
    }

    fn tag(&self, event: &str, payload: &RawValue) -> Option<String> {
        (event == "send_message").then(|| payload::temp_id(payload))?
    }

    fn echo(&self, _place: &Place, message: &Message, tag: &str) -> Vec<Frame> {
        vec![Frame::new("new_message", &union::echo(message, tag))]
    }

    fn encode(&self, outbound: Outbound<'_>) -> Vec<Frame> {
        let frame = match outbound {
            Outbound::MessageCreated(_, message) => Frame::new("new_message", &union::message(message)),
            Outbound::MessageEdited(_, message) => Frame::new("message_edited", &union::message(message)),
            Outbound::MessageDeleted(place, message) => {
                Frame::new("message_deleted", &union::deleted(place, message, "all"))
            }
            Outbound::MessageHidden(place, message) => {
                Frame::new("message_deleted", &union::deleted(place, message, "me"))
            }
            Outbound::Reaction(place, change) => match union::reaction(place, change) {
                Some(change) => Frame::new("message_reaction", &change),
                None => return Vec::new(),
            },
            Outbound::Receipt(_, receipt) if receipt.read_now.is_empty() => return Vec::new(),
            Outbound::Receipt(place, receipt) => Frame::new("messages_read", &messages_read(place, receipt)),
            Outbound::Typing(place, typing) => {
                let event = if typing.is_typing {
                    "typing_start"
                } else {
                    "typing_stop"
                };
                Frame::new(event, &camel::typing(place, typing))
            }
            Outbound::ListUpdated {
                place, last, unread, ..
            } => Frame::new("conversation_updated", &conversation_updated(place, last, unread)),
            Outbound::ConversationAdded(conversation) => Frame::new(
                "conversation_created",
                &camel::conversation(conversation, union::Style::Inbox),
            ),
            Outbound::ConversationChanged(_, conversation) => {
                Frame::new("conversation_changed", &camel::conversation_changed(conversation))
            }
            Outbound::ConversationRemoved(place) => Frame::new("conversation_removed", &camel::named(place)),
            Outbound::Failed {
                event, tag, error, ..
            } => {
                let error = ErrorJson {
                    message: &error.message,
                    code: error.code,
                    retry: error.retry,
                    event,
                    temp_id: tag.map(payload::tag),
                };
                Frame::new("error", &error)
            }
            // The front end shows neither who is in a conversation nor threads nor journals, and cannot be
            // told to begin anew.
            Outbound::RoomPresence(..)
            | Outbound::Presence { .. }
            | Outbound::ThreadCreated(..)
            | Outbound::MembersAdded(..)
            | Outbound::MemberRemoved(..)
            | Outbound::RoleChanged(..)
            | Outbound::JournalEdited(..)
            | Outbound::MuteChanged(..)
            | Outbound::BlockChanged(_)
            | Outbound::MessageFinished(..)
            | Outbound::MessageChunk(..)
            | Outbound::MessageGrown(..)
            | Outbound::Awareness { .. }
            | Outbound::Resync { .. } => return Vec::new(),
        };
        vec![frame]
    }

    fn answer(&self, outcome: Result<&Answer, &ClientError>, _place: Option<&Place>) -> Box<RawValue> {
        camel::answer(outcome, union::Style::Inbox)
    }
}

/// Opening a conversation reads all of it, so naming nothing but the conversation means everything.
fn mark_as_read(payload: &RawValue, limits: &Limits) -> Result<Action, ClientError> {
    let everything_in = |conversation| Action::Receipt {
        conversation: Some(conversation),
        up_to_seq: Some(EVERYTHING),
        messages: Vec::new(),
        delivered_only: false,
        through: false,
    };
    if !payload::is_object(payload) {
        return payload::conversation(payload).map(everything_in);
    }
    let reading = payload::reading(payload, limits)?;
    match (reading.conversation, &reading.messages, reading.up_to_seq) {
        (Some(conversation), None, None) => Ok(everything_in(conversation)),
        _ => reading.action(),
    }
}

fn messages_read<'a>(place: &Place, receipt: &'a ReceiptUpdated) -> MessagesReadJson<'a> {
    MessagesReadJson {
        conversation_id: place.id.to_string(),
        user_id: &receipt.user_id,
        message_ids: receipt.read_now.iter().map(|message| &*message.id).collect(),
        read_at: shape::time(receipt.at_ms),
    }
}

fn conversation_updated<'a>(place: &Place, last: &'a Message, unread: u64) -> ConversationUpdatedJson<'a> {
    ConversationUpdatedJson {
        conversation_id: place.id.to_string(),
        last_message: union::preview(last),
        message: union::message(last),
        timestamp: shape::time(last.created_at_ms),
        unread,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn it_speaks_as_recorded() {
        samples::check(&Inbox(Streams::Finished));
    }
}
