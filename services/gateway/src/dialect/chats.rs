//! The chats dialect: `message:*` and `typing:*` in chats that are followed without joining them.

use parlance_proto::v1::{Conversation, Message, Presence, Typing};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::contract::{Contract, Shape};
use super::{
    Action, Answer, Backlog, Decoded, Dialect, Frame, Outbound, Place, Speaker, Streams, camel, payload,
    shape, union,
};
use crate::error::ClientError;
use crate::limits::Limits;

/// See the module.
#[derive(Debug)]
pub struct Chats(pub Streams);

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ChatsTyping)]
struct TypingJson<'a> {
    chat_id: String,
    user_id: &'a str,
    username: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatsUserStatus)]
#[serde(rename_all = "camelCase")]
struct UserStatusJson<'a> {
    user_id: &'a str,
    /// `online` or `offline`.
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatsChat)]
struct ChatJson<'a> {
    #[serde(rename = "chatId")]
    chat_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<union::ConversationJson<'a>>,
    /// Those there are now, where they changed: the first hundred. Not of a large group.
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<Vec<union::ParticipantJson<'a>>>,
    /// With `participants`, or instead of those of a large group: how many there are, and whether all are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    participant_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participants_complete: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ChatsFailed)]
struct FailedJson<'a> {
    #[serde(flatten)]
    error: &'a ClientError,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::dialect::schema::tag)]
    temp_id: Option<Box<RawValue>>,
}

impl Dialect for Chats {
    fn name(&self) -> &'static str {
        "chats"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "chat:join",
            "chat:leave",
            "message:send",
            "message:read",
            "typing:start",
            "typing:stop",
        ]
    }

    fn contract(&self) -> Contract {
        use payload::contract as shapes;
        let done = || camel::ack(&[]);
        let typing = || Shape::of::<TypingJson<'_>>();
        let contract = Contract::new("Chats that are followed without joining them; ids as UUIDs.")
            .accepts(
                "chat:join",
                "Follow a chat.",
                shapes::conversation(),
                camel::ack(&["conversation"]),
            )
            .accepts("chat:leave", "Follow it no more.", shapes::conversation(), done())
            .accepts(
                "message:send",
                "Send a message.",
                shapes::send(),
                camel::ack(&["message"]),
            )
            .accepts(
                "message:read",
                "Mark messages as read.",
                shapes::reading(),
                camel::ack(&["unread"]),
            )
            .accepts("typing:start", "Begin to type.", shapes::conversation(), done())
            .accepts("typing:stop", "End to type.", shapes::conversation(), done());
        union::message_events(contract)
            .emits(
                "user:status",
                "A user one shares a chat with came or went.",
                Shape::of::<UserStatusJson<'_>>(),
            )
            .emits("typing:start", "Somebody begins to type.", typing())
            .emits("typing:stop", "Somebody ends to type.", typing())
            .emits(
                "chat:new",
                "The user is in a further chat.",
                Shape::of::<ChatJson<'_>>(),
            )
            .emits(
                "chat:updated",
                "What changed of a chat, or who is in it now.",
                camel::conversation_changed_shape().or(Shape::of::<ChatJson<'_>>()),
            )
            .emits(
                "chat:removed",
                "The user is in the chat no more.",
                Shape::of::<ChatJson<'_>>(),
            )
            .emits("error", "An event failed.", Shape::of::<FailedJson<'_>>())
    }

    fn joins_by_itself(&self) -> bool {
        true
    }

    fn backlog(&self) -> Backlog {
        Backlog::Uncounted
    }

    fn shows_presence(&self) -> bool {
        true
    }

    fn decode(
        &self,
        _speaker: Speaker<'_>,
        event: &str,
        payload: &RawValue,
        limits: &Limits,
    ) -> Result<Decoded, ClientError> {
        let typing = |is_typing| {
            Ok::<_, ClientError>(Action::Typing {
                conversation: payload::conversation(payload)?,
                is_typing,
            })
        };
        let action = match event {
            "chat:join" => Action::Join(payload::conversation(payload)?),
            "chat:leave" => Action::Leave(payload::conversation(payload)?),
            "message:send" => {
                return Ok(Decoded {
                    action: Action::Send(payload::send(payload, limits)?),
                    tag: payload::temp_id(payload),
                });
            }
            "message:read" => read(payload, limits)?,
            "typing:start" => typing(true)?,
            "typing:stop" => typing(false)?,
            _ => return Err(self.unknown_event()),
        };
        Ok(action.into())
    }

    fn tag(&self, event: &str, payload: &RawValue) -> Option<String> {
        (event == "message:send").then(|| payload::temp_id(payload))?
    }

    fn echo(&self, _place: &Place, message: &Message, tag: &str) -> Vec<Frame> {
        vec![Frame::new("message:new", &union::echo(message, tag))]
    }

    fn encode(&self, outbound: Outbound<'_>) -> Vec<Frame> {
        let frame = match outbound {
            Outbound::MessageCreated(_, message) => Frame::new("message:new", &union::message(message)),
            Outbound::MessageEdited(_, message) => Frame::new("message:edited", &union::message(message)),
            Outbound::MessageDeleted(place, message) => {
                Frame::new("message:deleted", &union::deleted(place, message, "all"))
            }
            Outbound::MessageHidden(place, message) => {
                Frame::new("message:deleted", &union::deleted(place, message, "me"))
            }
            Outbound::Reaction(place, change) => match union::reaction(place, change) {
                Some(change) => Frame::new("message:reaction", &change),
                None => return Vec::new(),
            },
            Outbound::Receipt(place, receipt) => {
                let read = |id| union::read(place, id, &receipt.user_id, receipt.at_ms);
                let messages = receipt.read_now.iter();
                return messages
                    .map(|message| Frame::new("message:read", &read(&message.id)))
                    .collect();
            }
            Outbound::Typing(place, typing) => {
                let event = if typing.is_typing {
                    "typing:start"
                } else {
                    "typing:stop"
                };
                Frame::new(event, &typing_json(place, typing))
            }
            Outbound::ConversationAdded(added) => Frame::new("chat:new", &chat(added)),
            Outbound::ConversationChanged(_, changed) => {
                Frame::new("chat:updated", &camel::conversation_changed(changed))
            }
            Outbound::MembersAdded(place, _)
            | Outbound::MemberRemoved(place, _)
            | Outbound::RoleChanged(place, _) => {
                let changed = ChatJson {
                    participants: place.listed().map(union::participants),
                    participant_count: Some(place.participant_count),
                    participants_complete: Some(place.lists_all()),
                    ..named(place)
                };
                Frame::new("chat:updated", &changed)
            }
            Outbound::ConversationRemoved(place) => Frame::new("chat:removed", &named(place)),
            Outbound::Presence { seen, before } => match shape::came_or_went(seen, before) {
                Some(status) => Frame::new("user:status", &user_status(seen, status)),
                None => return Vec::new(),
            },
            Outbound::Failed {
                event, tag, error, ..
            } => Frame::new(
                "error",
                &FailedJson {
                    error,
                    event,
                    temp_id: tag.map(payload::tag),
                },
            ),
            // A chat is told of by its messages; there is no word for the rest.
            Outbound::RoomPresence(..)
            | Outbound::ThreadCreated(..)
            | Outbound::ListUpdated { .. }
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
        camel::answer(outcome, union::Style::Chats)
    }
}

fn typing_json<'a>(place: &Place, typing: &'a Typing) -> TypingJson<'a> {
    TypingJson {
        chat_id: place.id.to_string(),
        user_id: &typing.user_id,
        username: &typing.username,
    }
}

fn user_status<'a>(seen: &'a Presence, status: &'static str) -> UserStatusJson<'a> {
    UserStatusJson {
        user_id: &seen.user_id,
        status,
    }
}

fn chat(conversation: &Conversation) -> ChatJson<'_> {
    ChatJson {
        chat_id: conversation.id.clone(),
        chat: Some(union::conversation(conversation, union::Style::Chats)),
        participants: None,
        participant_count: None,
        participants_complete: None,
    }
}

fn named(place: &Place) -> ChatJson<'static> {
    ChatJson {
        chat_id: place.id.to_string(),
        chat: None,
        participants: None,
        participant_count: None,
        participants_complete: None,
    }
}

/// A chat is read up to a message: its unread count is what came later.
fn read(payload: &RawValue, limits: &Limits) -> Result<Action, ClientError> {
    let mut action = payload::reading(payload, limits)?.action()?;
    if let Action::Receipt { through, .. } = &mut action {
        *through = true;
    }
    Ok(action)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn it_speaks_as_recorded() {
        samples::check(&Chats(Streams::Finished));
    }
}
