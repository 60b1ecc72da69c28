//! The encrypted dialect: `chat:*` events, ciphertext, delivery statuses; every conversation is followed
//! without joining it.

mod json;

use parlance_proto::ids;
use parlance_proto::v1::PresenceStatus;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::contract::Contract;
use super::input::message_type;
use super::{
    Action, Answer, ConversationRef, Decoded, Dialect, Frame, MessageRef, Outbound, Place, SendAction,
    Speaker, Streams, camel, payload, shape,
};
use crate::error::ClientError;
use crate::limits::Limits;

pub use json::{MessageJson, message};

/// See the module.
#[derive(Debug)]
pub struct Encrypted(pub Streams);

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EncryptedSendPayload)]
struct SendPayload<'a> {
    #[serde(alias = "conversation_id")]
    conversation_id: ConversationRef,
    #[serde(alias = "content_encrypted")]
    #[schema(min_length = 1)]
    content_encrypted: String,
    /// The plain text of other front ends: one of the two would be lost.
    #[serde(borrow)]
    #[schema(ignore)]
    content: Option<&'a RawValue>,
    #[serde(alias = "message_type", alias = "type")]
    #[schema(schema_with = crate::dialect::schema::sendable_type)]
    message_type: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    #[serde(alias = "reply_to")]
    reply_to: Option<MessageRef>,
    /// Makes a repeat harmless, so a malformed one is refused.
    #[serde(alias = "client_msg_id")]
    #[schema(pattern = "^[A-Za-z0-9_-]+$", min_length = 1, max_length = 64)]
    client_msg_id: Option<String>,
    /// The same by a looser name.
    #[serde(alias = "client_message_id", borrow)]
    #[schema(value_type = Option<serde_json::Value>)]
    client_message_id: Option<&'a RawValue>,
}

impl Dialect for Encrypted {
    fn name(&self) -> &'static str {
        "encrypted"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "presence:online",
            "presence:offline",
            "chat:message_send",
            "chat:message_delivered",
            "chat:message_read",
            "chat:typing",
        ]
    }

    fn contract(&self) -> Contract {
        json::contract()
    }

    fn joins_by_itself(&self) -> bool {
        true
    }

    fn echoes(&self) -> bool {
        false
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
        let action = match event {
            "presence:online" => Action::Presence {
                status: PresenceStatus::Online,
            },
            "presence:offline" => Action::Presence {
                status: PresenceStatus::Offline,
            },
            "chat:message_send" => {
                return Ok(Decoded {
                    action: Action::Send(send(payload::object(payload)?, limits)?),
                    tag: payload::temp_id(payload),
                });
            }
            "chat:message_delivered" => receipt(payload, limits, true)?,
            "chat:message_read" => receipt(payload, limits, false)?,
            "chat:typing" => payload::typing(payload)?,
            _ => return Err(self.unknown_event()),
        };
        Ok(action.into())
    }

    fn tag(&self, event: &str, payload: &RawValue) -> Option<String> {
        (event == "chat:message_send").then(|| payload::temp_id(payload))?
    }

    fn encode(&self, outbound: Outbound<'_>) -> Vec<Frame> {
        let frame = match outbound {
            Outbound::MessageCreated(place, message) => {
                Frame::new("chat:message_received", &json::message(message, Some(place)))
            }
            Outbound::MessageEdited(place, message) => {
                Frame::new("chat:message_edited", &json::message(message, Some(place)))
            }
            Outbound::MessageDeleted(place, message) => {
                Frame::new("chat:message_deleted", &json::gone(place, message, "all"))
            }
            Outbound::MessageHidden(place, message) => {
                Frame::new("chat:message_deleted", &json::gone(place, message, "me"))
            }
            Outbound::Reaction(place, change) => match json::reaction(place, change) {
                Some(change) => Frame::new("chat:reaction_updated", &change),
                None => return Vec::new(),
            },
            Outbound::Receipt(place, receipt) => {
                return json::statuses(place, receipt)
                    .iter()
                    .map(|status| Frame::new("chat:message_status_updated", status))
                    .collect();
            }
            Outbound::Typing(place, typing) => Frame::new("chat:user_typing", &json::typing(place, typing)),
            Outbound::ConversationAdded(added) => {
                Frame::new("chat:conversation_created", &json::conversation(added))
            }
            Outbound::ConversationChanged(_, changed) => {
                Frame::new("chat:conversation_updated", &camel::conversation_changed(changed))
            }
            Outbound::MembersAdded(place, _)
            | Outbound::MemberRemoved(place, _)
            | Outbound::RoleChanged(place, _) => {
                Frame::new("chat:conversation_updated", &json::participants(place))
            }
            Outbound::ConversationRemoved(place) => {
                Frame::new("chat:conversation_removed", &json::removed(place))
            }
            Outbound::Presence { seen, before } => match shape::came_or_went(seen, before) {
                Some(status) => Frame::new("user:status_changed", &json::user_status(seen, status)),
                None => return Vec::new(),
            },
            // Here the ack is how a client learns of a failure.
            Outbound::Failed { acked: true, .. } => return Vec::new(),
            Outbound::Failed {
                event, tag, error, ..
            } => Frame::new("chat:error", &json::failed_event(event, tag, error)),
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

    fn answer(&self, outcome: Result<&Answer, &ClientError>, place: Option<&Place>) -> Box<RawValue> {
        json::answer(outcome, place)
    }
}

fn send(payload: SendPayload<'_>, limits: &Limits) -> Result<SendAction, ClientError> {
    if let Some(id) = &payload.client_msg_id {
        ids::check_client_msg_id(id)?;
    }
    // The looser name may hold anything; only what can serve as an id does.
    let loose = payload
        .client_message_id
        .and_then(|id| serde_json::from_str::<String>(id.get()).ok())
        .filter(|id| ids::check_client_msg_id(id).is_ok());
    if payload.content.is_some() {
        return Err(ClientError::both_contents());
    }
    limits.content(&payload.content_encrypted)?;
    Ok(SendAction {
        conversation: payload.conversation_id,
        client_msg_id: payload.client_msg_id.or(loose),
        kind: message_type(payload.message_type.as_deref())?,
        content: payload.content_encrypted,
        encrypted: true,
        metadata: limits.metadata(payload.metadata)?,
        reply_to: payload.reply_to,
        thread: None,
    })
}

fn receipt(payload: &RawValue, limits: &Limits, only_delivered: bool) -> Result<Action, ClientError> {
    let mut action = payload::reading(payload, limits)?.action()?;
    if let Action::Receipt { delivered_only, .. } = &mut action {
        *delivered_only = only_delivered;
    }
    Ok(action)
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::{MessageRef as StoredRef, ReceiptUpdated};

    use super::super::samples;
    use super::*;

    #[test]
    fn it_speaks_as_recorded() {
        samples::check(&Encrypted(Streams::Finished));
    }

    #[test]
    fn a_status_is_told_once_and_at_its_best() {
        let named = |seq: u64| StoredRef {
            id: seq.to_string(),
            seq,
            sender_id: String::new(),
        };
        let receipt = ReceiptUpdated {
            read_now: vec![named(1)],
            delivered_now: vec![named(1), named(2)],
            ..ReceiptUpdated::default()
        };
        let told = Encrypted(Streams::Finished).encode(Outbound::Receipt(samples::direct(), &receipt));
        let status = |frame: &Frame| {
            let payload: serde_json::Value = serde_json::from_str(frame.payload.get()).unwrap();
            format!("{} {}", payload["messageId"], payload["status"])
        };
        assert_eq!(
            told.iter().map(status).collect::<Vec<_>>(),
            [r#""2" "delivered""#, r#""1" "read""#]
        );
    }
}
