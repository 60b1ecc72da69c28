//! What became of a service's message: the reply to the service, and the dead letter where it was refused.
//!
//! The letter names what the service knows: its own id and subject, and why. It holds what is needed to replay it.

use std::time::Duration;

use bytes::Bytes;
use parlance_bus::{Bus, Delivery, ErrorKind};
use parlance_proto::v1::{
    self, ErrorCode, ServiceOrigin, StreamState, SystemAccepted, SystemMessage, SystemReply, command,
    confirmation, system_reply,
};
use parlance_proto::{ErrorCodeExt as _, v1::SenderKind};
use prost::Message as _;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::database::Database;
use crate::dead_letters;
use crate::store::dead_letters::DeadLetter;

/// Longest wait for the bus client to take the replies to messages that are settled together.
const PATIENCE: Duration = Duration::from_secs(2);
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

/// The outcome of one publication of a service's message.
#[derive(Debug)]
pub struct Report {
    origin: ServiceOrigin,
    outcome: system_reply::Outcome,
    /// Of a refused one, to be parked.
    payload: Vec<u8>,
    /// Of a step of a stream: where the next text begins.
    expected_offset: Option<u64>,
}

impl Report {
    /// Of a command, by what it was made of and how it came; `None` where it was not made of a service's message.
    pub(crate) fn of(
        service: Option<&ServiceOrigin>,
        delivery: &Delivery,
        result: &confirmation::Result,
        repeated: bool,
    ) -> Option<Self> {
        match result {
            confirmation::Result::Message(message) => Some(Self {
                origin: service?.clone(),
                outcome: system_reply::Outcome::Accepted(SystemAccepted {
                    conversation_id: message.conversation_id.clone(),
                    message_id: message.id.clone(),
                    seq: message.seq,
                    repeated,
                }),
                payload: Vec::new(),
                expected_offset: (message.stream() != StreamState::Unspecified)
                    .then_some(message.content.len() as u64),
            }),
            confirmation::Result::Error(error) => Self::refused(service, delivery, error.clone()),
            _ => None,
        }
    }

    /// The same of one that is refused.
    pub(crate) fn refused(
        service: Option<&ServiceOrigin>,
        delivery: &Delivery,
        refusal: v1::Error,
    ) -> Option<Self> {
        let origin = service?.clone();
        if origin.stream {
            return Some(Self::step(origin, system_reply::Outcome::Refused(refusal), None));
        }
        let command = v1::Command::decode(delivery.payload.clone()).ok()?;
        let refusal = if refusal.code() == ErrorCode::NotFound
            && origin.subject.starts_with("chat.system.user.")
        {
            let message = "there is no conversation with the user, and none can be made: the user is deleted, or in as \
                           many conversations as are allowed";
            v1::Error::with(ErrorCode::NotFound, message)
        } else {
            refusal
        };
        let payload = message_of(command)?.encode_to_vec();
        Some(Self::refusal(origin, refusal, payload))
    }

    /// Of a message that is refused before it is a command. `payload` is the message as it came.
    pub(crate) fn refusal(origin: ServiceOrigin, refusal: v1::Error, payload: Vec<u8>) -> Self {
        Self {
            origin,
            outcome: system_reply::Outcome::Refused(refusal),
            payload,
            expected_offset: None,
        }
    }

    /// Of a step of a stream that is no command of its own. `expected_offset` is where the next text begins, where there is
    /// such a message.
    pub(crate) fn step(
        origin: ServiceOrigin,
        outcome: system_reply::Outcome,
        expected_offset: Option<u64>,
    ) -> Self {
        Self {
            origin,
            outcome,
            payload: Vec::new(),
            expected_offset,
        }
    }

    /// The letter of a refused message: the same for every redelivery and repeat, another one for a replay.
    pub(crate) fn letter(&self) -> Option<DeadLetter> {
        let system_reply::Outcome::Refused(refusal) = &self.outcome else {
            return None;
        };
        if self.origin.stream {
            // Its service goes on from where the reply says; without the steps before it, it means nothing.
            return None;
        }
        let ServiceOrigin {
            message_id,
            subject,
            replayed,
            caller_id,
            ..
        } = &self.origin;
        let mut name = subject.clone().into_bytes();
        for part in [message_id.as_bytes(), &self.payload, replayed.as_bytes()] {
            name.push(0);
            name.extend_from_slice(part);
        }
        Some(DeadLetter {
            id: Uuid::new_v5(&Uuid::NAMESPACE_URL, &name),
            partition: None,
            subject: subject.clone(),
            command_id: (!message_id.is_empty()).then(|| message_id.clone()),
            payload: self.payload.clone(),
            code: refusal.code(),
            error: if caller_id.is_empty() {
                refusal.message.clone()
            } else {
                // Postgres cannot store it.
                let caller_id = caller_id.replace('\0', "\u{FFFD}");
                format!("{} (sent by HTTP as {caller_id:?})", refusal.message)
            },
        })
    }

    /// Replies to the service, where it asked for that.
    pub(crate) async fn answer(&self, bus: &Bus) {
        if self.origin.reply_to.is_empty() {
            return;
        }
        let (content_type, payload) = self.reply();
        match bus
            .answer_service(&self.origin.reply_to, content_type, payload)
            .await
        {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Refused => {
                tracing::warn!(
                    "a service's message asks to be answered elsewhere than in its inbox: not answered"
                );
            }
            Err(error) => tracing::debug!(%error, "a service is not answered"),
        }
    }

    fn reply(&self) -> (&'static str, Bytes) {
        let id = &self.origin.message_id;
        if !self.origin.json {
            let reply = SystemReply {
                id: id.clone(),
                outcome: Some(self.outcome.clone()),
                expected_offset: self.expected_offset,
            };
            return (PROTOBUF, reply.encode_to_vec().into());
        }
        let mut reply = match &self.outcome {
            system_reply::Outcome::Accepted(accepted) => json!({ "id": id, "accepted": {
                "conversation_id": accepted.conversation_id, "message_id": accepted.message_id, "seq": accepted.seq,
                "repeated": accepted.repeated,
            }}),
            system_reply::Outcome::Refused(refusal) => json!({ "id": id, "refused": {
                "code": refusal.code().name(), "message": refusal.message, "retry": refusal.code().retry(),
            }}),
        };
        if let Some(offset) = self.expected_offset {
            reply["expected_offset"] = offset.into();
        }
        (JSON, reply.to_string().into())
    }
}

/// Parks what is refused, all of it together and for as long as `ours` says so, and replies. A reply that is lost is had again
/// by publishing the message again. False where nothing was parked: the messages must come again.
pub(crate) async fn settle(
    reports: &[Report],
    database: &Database,
    bus: &Bus,
    ours: impl Fn() -> bool,
) -> bool {
    let letters: Vec<DeadLetter> = reports.iter().filter_map(Report::letter).collect();
    if !dead_letters::park_all(database, &letters, ours).await {
        return false;
    }
    let answers = async {
        for report in reports {
            report.answer(bus).await;
        }
    };
    if timeout(PATIENCE, answers).await.is_err() {
        tracing::debug!("services are not answered: the bus client is blocked");
    }
    true
}

/// The message that a command was made of, as protobuf whatever it came as.
fn message_of(command: v1::Command) -> Option<SystemMessage> {
    let actor = command.actor?;
    let Some(command::Body::SendMessage(send)) = command.body else {
        return None;
    };
    let kind = SenderKind::try_from(actor.kind).unwrap_or(SenderKind::System);
    Some(SystemMessage {
        sender_id: actor.user_id,
        sender_name: actor.username,
        sender_kind: kind.into(),
        r#type: send.r#type,
        content: send.content,
        metadata_json: send.metadata_json,
        reply_to: send.reply_to,
        ..SystemMessage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(json: bool, replayed: &str) -> ServiceOrigin {
        ServiceOrigin {
            message_id: "order-1".into(),
            subject: "chat.system.user.bob".into(),
            reply_to: "_INBOX.emitter.x".into(),
            json,
            replayed: replayed.into(),
            caller_id: String::new(),
            stream: false,
        }
    }

    fn refusal(json: bool, replayed: &str) -> Report {
        let error = v1::Error::with(ErrorCode::NotFound, "no such thing");
        Report::refusal(origin(json, replayed), error, b"as it came".to_vec())
    }

    #[test]
    fn a_refusal_is_parked_under_what_the_service_knows_and_a_replay_of_it_apart() {
        let letter = refusal(true, "").letter().unwrap();
        assert_eq!(letter.command_id.as_deref(), Some("order-1"));
        assert_eq!(letter.subject, "chat.system.user.bob");
        assert_eq!(
            (letter.code, letter.error.as_str()),
            (ErrorCode::NotFound, "no such thing")
        );
        assert_eq!(letter.id, refusal(false, "").letter().unwrap().id);
        assert_ne!(letter.id, refusal(true, "a letter").letter().unwrap().id);
        let mut by_http = refusal(true, "");
        by_http.origin.caller_id = "order-1".into();
        let error = by_http.letter().unwrap().error;
        assert_eq!(error, "no such thing (sent by HTTP as \"order-1\")");
    }

    #[test]
    fn the_reply_speaks_as_the_message_did() {
        let (kind, payload) = refusal(true, "").reply();
        let text: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(kind, JSON);
        assert_eq!(
            text,
            json!({"id": "order-1", "refused": {"code": "not_found", "message": "no such thing", "retry": false}})
        );
        let accepted = Report {
            origin: origin(false, ""),
            outcome: system_reply::Outcome::Accepted(SystemAccepted {
                seq: 7,
                ..SystemAccepted::default()
            }),
            payload: Vec::new(),
            expected_offset: None,
        };
        let (kind, payload) = accepted.reply();
        let reply = SystemReply::decode(payload).unwrap();
        assert_eq!((kind, reply.id.as_str()), (PROTOBUF, "order-1"));
        assert!(matches!(reply.outcome, Some(system_reply::Outcome::Accepted(at)) if at.seq == 7));
        assert!(accepted.letter().is_none());
    }
}
