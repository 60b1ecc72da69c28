//! A command in checked, typed form. Whoever wrote it to the bus, past this point every id is valid and
//! every text can be stored. Pure.

use std::collections::BTreeSet;

use parlance_proto::v1::{self, Command, ConversationKind, ErrorCode, MessageType, SenderKind, command};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use serde_json::{Map, Value};

/// One command to carry out.
#[derive(Debug, Clone)]
pub struct Work {
    /// The same across redeliveries.
    pub id: CommandId,
    /// Who wants it.
    pub actor: Actor,
    /// Where.
    pub conversation: ConversationId,
    /// What.
    pub action: Action,
}

/// Who acts.
#[derive(Debug, Clone)]
pub struct Actor {
    /// User or service.
    pub id: UserId,
    /// As the token or the service says.
    pub username: String,
    /// User, agent or system.
    pub kind: SenderKind,
}

/// What a command wants.
#[derive(Debug, Clone)]
pub enum Action {
    /// See [`Create`].
    Create(Create),
    /// See [`Send`].
    Send(Send),
    /// New content for a message.
    Edit {
        /// Which.
        message: MessageId,
        /// Byte-exact.
        content: String,
    },
    /// Empty a message.
    Delete {
        /// Which.
        message: MessageId,
    },
    /// Mark messages as read by the actor.
    Read {
        /// Everything up to this seq; 0 for none.
        up_to: u64,
        /// And these.
        messages: Vec<MessageId>,
    },
}

/// Create a conversation.
#[derive(Debug, Clone)]
pub struct Create {
    /// Direct or group.
    pub kind: ConversationKind,
    /// Of a group; empty for direct.
    pub title: String,
    /// Without the actor; not empty.
    pub others: BTreeSet<UserId>,
    /// Whether unknown users are created.
    pub provision: bool,
}

/// Send a message.
#[derive(Debug, Clone)]
pub struct Send {
    /// Its identity for ever.
    pub message: MessageId,
    /// Never unspecified.
    pub kind: MessageType,
    /// Byte-exact.
    pub content: String,
    /// A JSON object as text; empty for `{}`.
    pub metadata_json: String,
    /// The client's own id.
    pub client_msg_id: Option<String>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
}

impl Work {
    /// Checks a command.
    ///
    /// # Errors
    /// What the emitter may be told: always [`ErrorCode::Invalid`].
    pub fn parse(command: Command) -> Result<Self, v1::Error> {
        let Command {
            id,
            reply_to: _,
            actor,
            conversation_id,
            issued_at_ms: _,
            body,
        } = command;
        let actor = Actor::parse(actor)?;
        let conversation = conversation_id.parse().map_err(invalid)?;
        let body = body.ok_or_else(|| refuse("the command has no body"))?;
        let action = match body {
            command::Body::CreateConversation(create) => {
                Action::Create(Create::parse(create, &actor, conversation)?)
            }
            command::Body::SendMessage(send) => Action::Send(Send::parse(send, actor.kind)?),
            command::Body::EditMessage(v1::EditMessage { message_id, content }) => Action::Edit {
                message: message_id.parse().map_err(invalid)?,
                content: storable(content, "content")?,
            },
            command::Body::DeleteMessage(v1::DeleteMessage { message_id }) => Action::Delete {
                message: message_id.parse().map_err(invalid)?,
            },
            command::Body::MarkRead(v1::MarkRead {
                up_to_seq,
                message_ids,
            }) => {
                if up_to_seq == 0 && message_ids.is_empty() {
                    return Err(refuse("up_to_seq or message_ids must be given"));
                }
                let messages = message_ids
                    .iter()
                    .map(|id| id.parse().map_err(invalid))
                    .collect::<Result<_, _>>()?;
                Action::Read {
                    up_to: up_to_seq,
                    messages,
                }
            }
        };
        Ok(Self {
            id: id.parse().map_err(invalid)?,
            actor,
            conversation,
            action,
        })
    }

    /// A name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match &self.action {
            Action::Create(_) => "create_conversation",
            Action::Send(_) => "send_message",
            Action::Edit { .. } => "edit_message",
            Action::Delete { .. } => "delete_message",
            Action::Read { .. } => "mark_read",
        }
    }
}

impl Actor {
    fn parse(actor: Option<v1::Actor>) -> Result<Self, v1::Error> {
        let actor = actor.ok_or_else(|| refuse("the command has no actor"))?;
        let kind = match actor.kind() {
            SenderKind::Unspecified => SenderKind::User,
            kind => kind,
        };
        let id = UserId::parse(actor.user_id).map_err(invalid)?;
        let username = storable(actor.username, "username")?;
        let username = if username.is_empty() {
            id.to_string()
        } else {
            username
        };
        Ok(Self { id, username, kind })
    }

    /// Whether membership decides what the actor may do; services may write anywhere.
    pub fn is_user(&self) -> bool {
        self.kind == SenderKind::User
    }
}

impl Create {
    fn parse(create: v1::CreateConversation, actor: &Actor, id: ConversationId) -> Result<Self, v1::Error> {
        let kind = create.kind();
        let v1::CreateConversation {
            kind: _,
            title,
            participant_ids,
            provision_users,
        } = create;
        let mut others = participant_ids
            .into_iter()
            .map(UserId::parse)
            .collect::<Result<BTreeSet<_>, _>>()
            .map_err(invalid)?;
        others.remove(&actor.id);
        let title = storable(title, "title")?;
        match kind {
            ConversationKind::Unspecified => return Err(refuse("the kind of the conversation is missing")),
            ConversationKind::Direct => {
                let (Some(other), 1) = (others.first(), others.len()) else {
                    return Err(refuse("a direct conversation has exactly one other participant"));
                };
                if id != ConversationId::direct(&actor.id, other) {
                    return Err(refuse("the id is not that of these two users' conversation"));
                }
            }
            ConversationKind::Group => {
                if title.trim().is_empty() {
                    return Err(refuse("a group needs a title"));
                }
                if others.is_empty() {
                    return Err(refuse("a group needs at least one other participant"));
                }
                // Derived ids belong to direct conversations: no group may sit on one.
                if id.uuid().get_version_num() == 5 {
                    return Err(refuse("the id is that of a direct conversation"));
                }
            }
        }
        Ok(Self {
            kind,
            title,
            others,
            provision: provision_users,
        })
    }
}

impl Send {
    fn parse(send: v1::SendMessage, sender: SenderKind) -> Result<Self, v1::Error> {
        let kind = match (send.r#type(), sender) {
            (MessageType::Unspecified, _) => MessageType::Text,
            (MessageType::System, SenderKind::User) => {
                return Err(refuse("messages of type system are reserved to services"));
            }
            (kind, _) => kind,
        };
        let v1::SendMessage {
            message_id,
            r#type: _,
            content,
            metadata_json,
            client_msg_id,
            reply_to,
        } = send;
        Ok(Self {
            message: message_id.parse().map_err(invalid)?,
            kind,
            content: storable(content, "content")?,
            metadata_json: metadata(metadata_json)?,
            client_msg_id: client_msg_id
                .map(|id| storable(id, "client_msg_id"))
                .transpose()?,
            reply_to: reply_to.map(|id| id.parse().map_err(invalid)).transpose()?,
        })
    }
}

/// An answer for a malformed command.
pub fn refuse(message: impl Into<String>) -> v1::Error {
    v1::Error::with(ErrorCode::Invalid, message)
}

fn invalid(error: parlance_proto::InvalidId) -> v1::Error {
    refuse(error.to_string())
}

/// Postgres cannot store NUL in text.
fn storable(text: String, field: &str) -> Result<String, v1::Error> {
    if text.contains('\0') {
        Err(refuse(format!("{field} holds a NUL character")))
    } else {
        Ok(text)
    }
}

/// A JSON object or nothing.
fn metadata(text: String) -> Result<String, v1::Error> {
    if text.is_empty() {
        return Ok(text);
    }
    let object: Map<String, Value> =
        serde_json::from_str(&text).map_err(|_| refuse("metadata is not a JSON object"))?;
    Ok(if object.is_empty() { String::new() } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(metadata_json: &str, content: &str) -> Result<Work, v1::Error> {
        Work::parse(Command {
            id: "00000000-0000-4000-8000-000000000001".into(),
            conversation_id: "00000000-0000-4000-8000-000000000002".into(),
            actor: Some(v1::Actor {
                user_id: "alice".into(),
                ..Default::default()
            }),
            body: Some(command::Body::SendMessage(v1::SendMessage {
                message_id: "00000000-0000-4000-8000-000000000003".into(),
                content: content.into(),
                metadata_json: metadata_json.into(),
                ..Default::default()
            })),
            ..Default::default()
        })
    }

    #[test]
    fn what_cannot_be_stored_is_invalid() {
        for (metadata, content) in [
            ("", "a\0b"),
            ("[1]", ""),
            ("{\"a\":", ""),
            ("null", ""),
            ("{\"a\":\"\\ud800\"}", ""),
        ] {
            let error = send(metadata, content).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Invalid, "{metadata} {content:?}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(send(&deep, "").is_err());
    }

    #[test]
    fn content_stays_as_it_is() {
        let text = "  \u{202E}😀 <b>&amp;</b>\n";
        let work = send("{}", text).unwrap();
        let Action::Send(send) = work.action else {
            panic!("a send")
        };
        assert_eq!((send.content.as_str(), send.metadata_json.as_str()), (text, ""));
        assert_eq!(
            (send.kind, work.actor.username.as_str()),
            (MessageType::Text, "alice")
        );
    }

    fn create(
        kind: ConversationKind,
        id: ConversationId,
        title: &str,
        others: &[&str],
    ) -> Result<Work, v1::Error> {
        Work::parse(Command {
            id: "00000000-0000-4000-8000-000000000001".into(),
            conversation_id: id.to_string(),
            actor: Some(v1::Actor {
                user_id: "alice".into(),
                ..Default::default()
            }),
            body: Some(command::Body::CreateConversation(v1::CreateConversation {
                kind: kind.into(),
                title: title.into(),
                participant_ids: others.iter().map(|&id| id.to_owned()).collect(),
                provision_users: true,
            })),
            ..Default::default()
        })
    }

    #[test]
    fn a_direct_conversation_has_the_id_of_its_pair_and_a_group_never_such_an_id() {
        use ConversationKind::{Direct, Group};
        let user = |id: &str| UserId::parse(id).unwrap();
        let pair = ConversationId::direct(&user("alice"), &user("bob"));
        let other = ConversationId::direct(&user("alice"), &user("carol"));
        let free: ConversationId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
        assert!(create(Direct, pair, "", &["bob"]).is_ok());
        assert!(create(Direct, pair, "", &["alice", "bob"]).is_ok());
        assert!(create(Direct, other, "", &["bob"]).is_err());
        assert!(create(Direct, pair, "", &[]).is_err());
        assert!(create(Direct, pair, "", &["bob", "carol"]).is_err());
        assert!(create(Group, free, "t", &["bob"]).is_ok());
        assert!(create(Group, other, "t", &["bob"]).is_err());
        assert!(create(Group, free, " ", &["bob"]).is_err());
        assert!(create(Group, free, "t", &["alice"]).is_err());
    }
}
