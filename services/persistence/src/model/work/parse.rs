//! From the wire to [`Work`]: every field is checked here and nowhere later.

use std::collections::BTreeSet;

use parlance_proto::text::shown;
use parlance_proto::v1::{
    self, Channel, Command, ConversationKind, ConversationStatus, MessageType, Role, SenderKind, StreamState,
    command,
};
use parlance_proto::{ConversationId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Action, Actor, AddMembers, Create, JournalName, MAX_USERS, Mute, React, Receive, Report, Send,
    StartThread, StreamText, Update, Work, needs_title,
};
use crate::model::emoji::bare;
use crate::model::refusals::refuse;

/// Longest title in characters.
const TITLE_MAX_CHARS: usize = 200;
/// Longest comment of a report in characters.
const COMMENT_MAX_CHARS: usize = 1_000;
/// The end of the year 9999, unix milliseconds: later times have no ISO 8601 form.
const UNTIL_MAX_MS: i64 = 253_402_300_799_999;
/// Longest emoji in bytes: families and flags are sequences of many characters.
const EMOJI_MAX_BYTES: usize = 64;

impl Work {
    /// Checks a command.
    ///
    /// # Errors
    /// What the emitter may learn: always [`v1::ErrorCode::Invalid`].
    pub fn parse(command: Command) -> Result<Self, v1::Error> {
        let Command {
            id,
            reply_to,
            actor,
            conversation_id,
            issued_at_ms: _,
            service: _,
            body,
        } = command;
        let id = id.parse().map_err(invalid)?;
        let mut actor = Actor::parse(actor)?;
        let conversation = conversation_id.parse().map_err(invalid)?;
        let body = body.ok_or_else(|| refuse("the command has no body"))?;
        // Made of a service's message before services had ids of their own: gateways wait for what their users did.
        if reply_to.is_empty()
            && actor.kind == SenderKind::Agent
            && matches!(body, command::Body::SendMessage(_))
        {
            actor.id = UserId::of_service(actor.id.as_str()).map_err(invalid)?;
        }
        let action = match body {
            command::Body::CreateConversation(create) => {
                Action::Create(Create::parse(create, &actor, conversation)?)
            }
            command::Body::SendMessage(send) => Action::Send(Send::parse(send, &actor)?),
            command::Body::EditMessage(v1::EditMessage { message_id, content }) => Action::Edit {
                message: message_id.parse()?,
                content: storable(content, "content")?,
            },
            command::Body::DeleteMessage(v1::DeleteMessage { message_id }) => {
                Action::Delete(message_id.parse()?)
            }
            command::Body::HideMessage(v1::HideMessage { message_id }) => Action::Hide(message_id.parse()?),
            command::Body::MuteConversation(v1::MuteConversation { mute }) => {
                Action::Mute(mute.map(Mute::parse).transpose()?)
            }
            command::Body::ReportMessage(report) => Action::Report(Report::parse(report)?),
            command::Body::MarkRead(read) => Action::Receive(Receive::parse(read)?),
            command::Body::React(react) => Action::React(React::parse(react)?),
            command::Body::CreateThread(create) => Action::StartThread(StartThread::parse(create)?),
            command::Body::UpdateConversation(update) => Action::Update(Update::parse(update)?),
            command::Body::AddMembers(add) => Action::AddMembers(AddMembers::parse(add)?),
            command::Body::RemoveMember(remove) => Action::RemoveMember(user(remove.user_id)?),
            command::Body::BanMember(ban) => Action::Ban(user(ban.user_id)?),
            command::Body::UnbanMember(unban) => Action::Unban(user(unban.user_id)?),
            command::Body::ChangeRole(change) => {
                let role = change.role();
                if role == Role::Unspecified {
                    return Err(refuse("the role is missing"));
                }
                Action::ChangeRole(user(change.user_id)?, role)
            }
            command::Body::DeleteConversation(v1::DeleteConversation {}) => Action::DeleteConversation,
            command::Body::EditJournal(edit) => Action::EditJournal(edit.update),
            command::Body::AppendText(v1::AppendText {
                message_id,
                offset,
                text,
            }) => Action::Append(StreamText::parse(&actor, &message_id, offset, text)?),
            command::Body::EndStream(end) => {
                let state = end.state();
                if matches!(state, StreamState::Unspecified | StreamState::Open) {
                    return Err(refuse("the end of a stream is missing"));
                }
                let text = StreamText::parse(&actor, &end.message_id, end.offset, end.text)?;
                Action::EndStream(text, state)
            }
        };
        Ok(Work {
            id,
            actor,
            conversation,
            action,
        })
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
        let username = match &*shown(&storable(actor.username, "username")?) {
            "" => id.to_string(),
            name => name.to_owned(),
        };
        Ok(Self { id, username, kind })
    }
}

impl Report {
    fn parse(report: v1::ReportMessage) -> Result<Self, v1::Error> {
        let reason = report.reason();
        if reason == v1::ReportReason::Unspecified {
            return Err(refuse("the reason is missing"));
        }
        if report.comment.chars().count() > COMMENT_MAX_CHARS {
            return Err(refuse(format!(
                "comment is longer than {COMMENT_MAX_CHARS} characters"
            )));
        }
        Ok(Self {
            message: report.message_id.parse()?,
            reason,
            comment: storable(report.comment, "comment")?,
        })
    }
}

impl Mute {
    fn parse(v1::Mute { until_ms }: v1::Mute) -> Result<Self, v1::Error> {
        match until_ms {
            Some(until_ms) if !(1..=UNTIL_MAX_MS).contains(&until_ms) => {
                Err(refuse("until is no time between 1970 and 9999"))
            }
            until_ms => Ok(Self { until_ms }),
        }
    }
}

impl Create {
    fn parse(create: v1::CreateConversation, actor: &Actor, id: ConversationId) -> Result<Self, v1::Error> {
        let kind = create.kind();
        let channel = match create.channel() {
            Channel::Unspecified => Channel::Chat,
            channel => channel,
        };
        let v1::CreateConversation {
            kind: _,
            title,
            participant_ids,
            provision_users,
            channel: _,
            metadata_json,
            journal,
            open,
        } = create;
        let mut others = users(participant_ids)?;
        others.remove(&actor.id);
        let title = self::title(title)?;
        // Derived ids belong to direct conversations: nothing else may sit on one.
        if kind != ConversationKind::Direct && id.uuid().get_version_num() == 5 {
            return Err(refuse("the id is that of a direct conversation"));
        }
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
            ConversationKind::Group if others.is_empty() && !open => {
                return Err(refuse("a group needs at least one other participant"));
            }
            ConversationKind::Group | ConversationKind::Journal => needs_title(kind, open, &title)?,
        }
        if open && kind != ConversationKind::Group {
            return Err(refuse("only a group can be open"));
        }
        Ok(Self {
            kind,
            open,
            title,
            others,
            provision: provision_users,
            channel,
            metadata_json: metadata(metadata_json)?,
            journal,
        })
    }
}

impl Send {
    fn parse(send: v1::SendMessage, sender: &Actor) -> Result<Self, v1::Error> {
        let kind = match (send.r#type(), sender.is_user()) {
            (MessageType::Unspecified, _) => MessageType::Text,
            (MessageType::System, true) => {
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
            encrypted,
            thread_id,
            streaming,
        } = send;
        if streaming && !sender.is_service() {
            return Err(refuse("only services stream messages"));
        }
        let metadata_json = metadata(metadata_json)?;
        let journal = match kind {
            // Only what users send themselves does more than being sent.
            MessageType::JournalShare if !sender.is_service() => {
                Some(JournalName::in_metadata(&metadata_json)?)
            }
            _ => None,
        };
        Ok(Self {
            message: message_id.parse().map_err(invalid)?,
            kind,
            content: storable(content, "content")?,
            metadata_json,
            client_msg_id: client_msg_id
                .map(|id| storable(id, "client_msg_id"))
                .transpose()?,
            reply_to: reply_to
                .map(|id| id.parse())
                .transpose()
                .map_err(|_: v1::Error| {
                    refuse("reply_to is neither a message id (a UUID) nor # and the seq of a message")
                })?,
            encrypted,
            thread: thread_id.map(|id| uuid(&id, "thread_id")).transpose()?,
            journal,
            streaming,
        })
    }
}

impl StreamText {
    fn parse(actor: &Actor, message: &str, offset: u64, text: String) -> Result<Self, v1::Error> {
        if !actor.is_service() {
            return Err(refuse("only services stream messages"));
        }
        Ok(Self {
            message: message.parse().map_err(invalid)?,
            offset,
            text: storable(text, "text")?,
        })
    }
}

impl JournalName {
    fn in_metadata(metadata: &str) -> Result<Self, v1::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Id {
            Number(i64),
            Text(String),
        }
        #[derive(Deserialize)]
        struct Share {
            #[serde(default, rename = "journalId")]
            camel: Option<Id>,
            #[serde(default, rename = "journal_id")]
            snake: Option<Id>,
        }
        let missing = || refuse("a journal_share needs journalId in its metadata, a UUID or a number");
        let share: Share = serde_json::from_str(metadata).map_err(|_| missing())?;
        match share.camel.or(share.snake).ok_or_else(missing)? {
            Id::Number(number) => Ok(Self::Number(number)),
            Id::Text(text) => match text.parse() {
                Ok(id) => Ok(Self::Id(id)),
                Err(_) => text.parse().map(Self::Number).map_err(|_| missing()),
            },
        }
    }
}

impl Receive {
    fn parse(read: v1::MarkRead) -> Result<Self, v1::Error> {
        let v1::MarkRead {
            up_to_seq,
            message_ids,
            delivered_only,
            through,
        } = read;
        if up_to_seq == 0 && message_ids.is_empty() {
            return Err(refuse("up_to_seq or message_ids must be given"));
        }
        let messages = message_ids
            .iter()
            .map(|id| id.parse())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            up_to: up_to_seq,
            messages,
            delivered_only,
            through,
        })
    }
}

impl React {
    fn parse(react: v1::React) -> Result<Self, v1::Error> {
        let v1::React {
            message_id,
            emoji,
            remove,
        } = react;
        if emoji.is_empty() || emoji.len() > EMOJI_MAX_BYTES {
            return Err(refuse(format!("an emoji has 1 to {EMOJI_MAX_BYTES} bytes")));
        }
        let unseen = emoji.chars().any(|c| c.is_whitespace() || c.is_control());
        if unseen || bare(&emoji).bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(refuse("that is not an emoji"));
        }
        Ok(Self {
            message: message_id.parse()?,
            emoji,
            remove,
        })
    }
}

impl StartThread {
    fn parse(create: v1::CreateThread) -> Result<Self, v1::Error> {
        let v1::CreateThread {
            thread_id,
            title,
            root_message_id,
            parent_thread_id,
        } = create;
        Ok(Self {
            thread: uuid(&thread_id, "thread_id")?,
            title: self::title(title)?,
            root: root_message_id.map(|id| id.parse()).transpose()?,
            parent: parent_thread_id
                .map(|id| uuid(&id, "parent_thread_id"))
                .transpose()?,
        })
    }
}

impl Update {
    fn parse(update: v1::UpdateConversation) -> Result<Self, v1::Error> {
        let v1::UpdateConversation {
            title,
            status,
            channel,
            metadata_json,
            read_only,
        } = update;
        let status = status.map(ConversationStatus::try_from).transpose();
        let channel = channel.map(Channel::try_from).transpose();
        let update = Self {
            title: title.map(self::title).transpose()?,
            status: status.map_err(|_| refuse("no such status"))?,
            channel: channel.map_err(|_| refuse("no such channel"))?,
            metadata_json: metadata_json.map(metadata).transpose()?,
            read_only,
        };
        if update.status == Some(ConversationStatus::Unspecified)
            || update.channel == Some(Channel::Unspecified)
        {
            return Err(refuse("an unspecified status or channel means nothing"));
        }
        Ok(update)
    }
}

impl AddMembers {
    fn parse(add: v1::AddMembers) -> Result<Self, v1::Error> {
        let role = add.role();
        let users = users(add.user_ids)?;
        if users.is_empty() {
            return Err(refuse("user_ids must be given"));
        }
        Ok(Self {
            users,
            role,
            provision: add.provision_users,
            change_present: add.change_present && role != Role::Unspecified,
            leave_out_blocking: add.leave_out_blocking,
        })
    }
}

fn users(ids: Vec<String>) -> Result<BTreeSet<UserId>, v1::Error> {
    if ids.len() > MAX_USERS {
        return Err(refuse(format!("more than {MAX_USERS} users at once")));
    }
    ids.into_iter()
        .map(UserId::parse)
        .collect::<Result<_, _>>()
        .map_err(invalid)
}

fn user(id: String) -> Result<UserId, v1::Error> {
    UserId::parse(id).map_err(invalid)
}

pub(super) fn invalid(error: parlance_proto::InvalidId) -> v1::Error {
    refuse(error.to_string())
}

/// Only the hyphenated form, as for every id.
fn uuid(text: &str, field: &str) -> Result<Uuid, v1::Error> {
    let id = if text.len() == 36 {
        Uuid::try_parse(text).ok()
    } else {
        None
    };
    id.ok_or_else(|| refuse(format!("{field} is not a UUID")))
}

fn title(text: String) -> Result<String, v1::Error> {
    let title = shown(&storable(text, "title")?).into_owned();
    if title.chars().count() > TITLE_MAX_CHARS {
        return Err(refuse(format!(
            "a title has at most {TITLE_MAX_CHARS} characters"
        )));
    }
    Ok(title)
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
