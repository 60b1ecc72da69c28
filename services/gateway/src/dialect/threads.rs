//! The threads dialect: conversations joined by hand, `message:*` with camelCase fields, threads.

use parlance_proto::v1::Message;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::contract::{Contract, Shape};
use super::place::{Place, thread_id};
use super::{
    Action, Answer, Decoded, Dialect, Frame, MessageRef, Outbound, Speaker, Streams, camel, native, payload,
    union,
};
use crate::error::ClientError;
use crate::limits::Limits;

/// See the module.
#[derive(Debug)]
pub struct Threads(pub Streams);

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsCreateThreadPayload)]
struct CreateThreadPayload {
    #[serde(default)]
    title: Option<String>,
    #[serde(alias = "root_message_id")]
    root_message_id: Option<MessageRef>,
    #[serde(alias = "parent_thread_id", default, deserialize_with = "thread_id")]
    parent_thread_id: Option<Uuid>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsSwitchThreadPayload)]
struct SwitchThreadPayload {
    #[serde(alias = "thread_id", default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsEditPayload)]
struct EditPayload {
    #[serde(alias = "message_id")]
    message_id: MessageRef,
    #[schema(min_length = 1)]
    content: String,
}

/// What a list shows of a conversation: a client merges it into what it has.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsListUpdated)]
struct ListUpdatedJson<'a> {
    conversation_id: String,
    conversation: ListedJson<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsListed)]
struct ListedJson<'a> {
    id: String,
    #[serde(rename = "_id")]
    mongo_id: String,
    last_message: union::MessageJson<'a>,
    unread: u64,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsDeletePayload)]
struct DeletePayload {
    #[serde(alias = "message_id")]
    message_id: MessageRef,
    #[schema(schema_with = crate::dialect::schema::scope)]
    scope: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsReactPayload)]
struct ReactPayload {
    #[serde(alias = "message_id")]
    message_id: MessageRef,
    #[schema(min_length = 1)]
    emoji: String,
    #[serde(default)]
    remove: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ThreadsError)]
struct ErrorJson<'a> {
    message: &'a str,
    details: &'a str,
    #[schema(schema_with = crate::error::code_schema)]
    code: &'static str,
    retry: bool,
    event: &'a str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ThreadsMessageError)]
struct MessageErrorJson<'a> {
    #[schema(schema_with = crate::dialect::schema::tag)]
    message_id: Box<RawValue>,
    error: &'static str,
    details: &'a str,
    #[schema(schema_with = crate::error::code_schema)]
    code: &'static str,
    retry: bool,
}

impl Dialect for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "conversation:join",
            "conversation:leave",
            "message:send",
            "message:edit",
            "message:delete",
            "message:read",
            "message:react",
            "typing",
            "thread:create",
            "thread:switch",
        ]
    }

    fn contract(&self) -> Contract {
        emitted(accepted(Contract::new(
            "Conversations joined one by one, with threads; camelCase fields, ids as UUIDs.",
        )))
    }

    fn announces_room_presence(&self) -> bool {
        true
    }

    fn decode(
        &self,
        _speaker: Speaker<'_>,
        event: &str,
        payload: &RawValue,
        limits: &Limits,
    ) -> Result<Decoded, ClientError> {
        let action = match event {
            "conversation:join" => Action::Join(payload::conversation(payload)?),
            "conversation:leave" => Action::Leave(payload::conversation(payload)?),
            "message:send" => {
                return Ok(Decoded {
                    action: Action::Send(payload::send(payload, limits)?),
                    tag: payload::temp_id(payload),
                });
            }
            "message:edit" => edit(payload, limits)?,
            "message:delete" => delete(payload)?,
            "message:read" => payload::reading(payload, limits)?.action()?,
            "message:react" => react(payload, limits)?,
            "typing" => payload::typing(payload)?,
            "thread:create" => create_thread(payload, limits)?,
            "thread:switch" => Action::SwitchThread {
                conversation: payload::conversation(payload)?,
                thread: payload::object::<SwitchThreadPayload>(payload)?.thread_id,
            },
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
        match outbound {
            Outbound::MessageCreated(_, message) => one("message:new", &union::message(message)),
            Outbound::MessageEdited(_, message) => one("message:edited", &union::message(message)),
            Outbound::MessageDeleted(place, message) => {
                one("message:deleted", &union::deleted(place, message, "all"))
            }
            Outbound::MessageHidden(place, message) => {
                one("message:deleted", &union::deleted(place, message, "me"))
            }
            Outbound::Reaction(place, change) => {
                let change = union::reaction(place, change);
                change
                    .iter()
                    .map(|change| Frame::new("message:reaction", change))
                    .collect()
            }
            Outbound::Receipt(place, receipt) => {
                let read = |id| union::read(place, id, &receipt.user_id, receipt.at_ms);
                let now = receipt.read_now.iter();
                now.map(|message| Frame::new("message:read", &read(&message.id)))
                    .collect()
            }
            Outbound::Typing(place, typing) => one("user:typing", &camel::typing(place, typing)),
            Outbound::RoomPresence(place, presence) => {
                let event = if presence.joined {
                    "user:joined"
                } else {
                    "user:left"
                };
                one(event, &camel::looking(place, presence))
            }
            Outbound::ThreadCreated(_, thread) => one("thread:created", &camel::thread_created(thread)),
            Outbound::MembersAdded(place, added) => {
                let joined = |member| Frame::new("user:joined", &camel::membership(place, member));
                added.members.iter().map(joined).collect()
            }
            Outbound::MemberRemoved(place, member) => one("user:left", &camel::membership(place, member)),
            Outbound::RoleChanged(place, member) => one("user:role", &camel::role(place, member)),
            Outbound::ConversationChanged(_, conversation) => {
                one("conversation:updated", &camel::conversation_changed(conversation))
            }
            Outbound::ConversationAdded(conversation) => one(
                "conversation:created",
                &camel::conversation(conversation, union::Style::Threads),
            ),
            Outbound::ConversationRemoved(place) => one("conversation:removed", &camel::named(place)),
            Outbound::Failed {
                event, tag, error, ..
            } => failed(event, tag, error),
            // A client that follows the conversation itself has the message already.
            Outbound::ListUpdated { joined: true, .. } => Vec::new(),
            Outbound::ListUpdated {
                place, last, unread, ..
            } => one("conversation:updated", &list_updated(place, last, unread)),
            // The front end has no journals, and no way to be told to begin anew.
            Outbound::JournalEdited(..)
            | Outbound::MuteChanged(..)
            | Outbound::BlockChanged(_)
            | Outbound::MessageFinished(..)
            | Outbound::MessageChunk(..)
            | Outbound::MessageGrown(..)
            | Outbound::Awareness { .. }
            | Outbound::Presence { .. }
            | Outbound::Resync { .. } => Vec::new(),
        }
    }

    fn answer(&self, outcome: Result<&Answer, &ClientError>, _place: Option<&Place>) -> Box<RawValue> {
        camel::answer(outcome, union::Style::Threads)
    }

    fn refusal(&self, _reason: &str) -> String {
        // The front end compares the text.
        "Authentication failed".to_owned()
    }
}

fn list_updated<'a>(place: &Place, last: &'a Message, unread: u64) -> ListUpdatedJson<'a> {
    let id = place.id.to_string();
    ListUpdatedJson {
        conversation_id: id.clone(),
        conversation: ListedJson {
            id: id.clone(),
            mongo_id: id,
            last_message: union::message(last),
            unread,
        },
    }
}

fn accepted(contract: Contract) -> Contract {
    use payload::contract as shapes;
    let (done, message) = (|| camel::ack(&[]), || camel::ack(&["message"]));
    let (here, maybe_here) = (shapes::conversation_in_object, shapes::conversation_if_named);
    contract
        .accepts(
            "conversation:join",
            "Follow a conversation.",
            shapes::conversation(),
            camel::ack(&["conversation"]),
        )
        .accepts(
            "conversation:leave",
            "Follow it no more.",
            shapes::conversation(),
            done(),
        )
        .accepts("message:send", "Send a message.", shapes::send(), message())
        .accepts(
            "message:edit",
            "Change the content of a message.",
            maybe_here().and(Shape::of::<EditPayload>()),
            message(),
        )
        .accepts(
            "message:delete",
            "Delete a message for all, or hide it from oneself.",
            maybe_here().and(Shape::of::<DeletePayload>()),
            message(),
        )
        .accepts(
            "message:read",
            "Mark messages as read.",
            shapes::reading(),
            camel::ack(&["unread"]),
        )
        .accepts(
            "message:react",
            "Put a mark on a message or take it back.",
            maybe_here().and(Shape::of::<ReactPayload>()),
            message(),
        )
        .accepts(
            "typing",
            "Tell the others that one types, or ends to.",
            shapes::typing(),
            done(),
        )
        .accepts(
            "thread:create",
            "Begin a thread.",
            here().and(Shape::of::<CreateThreadPayload>()),
            camel::ack(&["thread"]),
        )
        .accepts(
            "thread:switch",
            "Look at a thread, or at the main line again; nobody else is told.",
            here().and(Shape::of::<SwitchThreadPayload>()),
            done(),
        )
}

fn emitted(contract: Contract) -> Contract {
    union::message_events(contract)
        .emits(
            "message:error",
            "A message with a tempId could not be sent.",
            Shape::of::<MessageErrorJson<'_>>(),
        )
        .emits(
            "user:typing",
            "Somebody types, or ends to.",
            camel::typing_shape(),
        )
        .emits(
            "user:joined",
            "Somebody became a participant, or opened the conversation.",
            camel::came_or_went_shape(),
        )
        .emits(
            "user:left",
            "Somebody is a participant no more, or closed the conversation.",
            camel::came_or_went_shape(),
        )
        .emits("user:role", "Somebody has another role.", camel::role_shape())
        .emits(
            "thread:created",
            "A thread was begun.",
            camel::thread_created_shape(),
        )
        .emits(
            "conversation:created",
            "The user is in a further conversation.",
            camel::conversation_shape(),
        )
        .emits(
            "conversation:updated",
            "Title, channel, status or metadata changed; or, where it is not joined, its latest message or what is unread.",
            camel::conversation_changed_shape().or(Shape::of::<ListUpdatedJson<'_>>()),
        )
        .emits(
            "conversation:removed",
            "The user is in the conversation no more.",
            camel::named_shape(),
        )
        .emits("error", "An event failed.", Shape::of::<ErrorJson<'_>>())
}

fn one(event: &'static str, payload: &impl Serialize) -> Vec<Frame> {
    vec![Frame::new(event, payload)]
}

fn edit(payload: &RawValue, limits: &Limits) -> Result<Action, ClientError> {
    let conversation = payload::conversation_if_named(payload)?;
    let EditPayload { message_id, content } = payload::object(payload)?;
    Action::edit(conversation, message_id, content, limits)
}

fn delete(payload: &RawValue) -> Result<Action, ClientError> {
    let conversation = payload::conversation_if_named(payload)?;
    let DeletePayload { message_id, scope } = payload::object(payload)?;
    Ok(Action::Delete {
        conversation,
        message: message_id,
        for_me: native::for_me(scope.as_deref())?,
    })
}

fn react(payload: &RawValue, limits: &Limits) -> Result<Action, ClientError> {
    let conversation = payload::conversation_if_named(payload)?;
    let ReactPayload {
        message_id,
        emoji,
        remove,
    } = payload::object(payload)?;
    Action::react(conversation, message_id, emoji, remove, limits)
}

fn create_thread(payload: &RawValue, limits: &Limits) -> Result<Action, ClientError> {
    let conversation = payload::conversation(payload)?;
    let parts: CreateThreadPayload = payload::object(payload)?;
    let title = parts.title.unwrap_or_default();
    let (root, parent) = (parts.root_message_id, parts.parent_thread_id);
    Action::create_thread(conversation, title, root, parent, limits)
}

fn failed(event: &str, tag: Option<&str>, error: &ClientError) -> Vec<Frame> {
    let is_send = event == "message:send";
    let (code, retry) = (error.code, error.retry);
    let mut frames = vec![Frame::new(
        "error",
        &ErrorJson {
            message: if is_send {
                "Failed to send message"
            } else {
                &error.message
            },
            details: &error.message,
            code,
            retry,
            event,
        },
    )];
    if let Some(tag) = tag.filter(|_| is_send) {
        let failed = MessageErrorJson {
            message_id: payload::tag(tag),
            error: "Message could not be sent",
            details: &error.message,
            code,
            retry,
        };
        frames.push(Frame::new("message:error", &failed));
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn it_speaks_as_recorded() {
        samples::check(&Threads(Streams::Finished));
    }

    #[test]
    fn a_refused_client_reads_what_it_compares_with() {
        assert_eq!(
            Threads(Streams::Finished).refusal("token is expired"),
            "Authentication failed"
        );
    }
}
