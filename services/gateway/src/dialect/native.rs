//! The native dialect: everything Parlance can do, as JSON objects with snake_case fields.

pub mod block;
mod contract;
pub mod conversation;
pub mod journal;
pub mod json;
pub mod mute;
pub mod presence;
pub mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use parlance_proto::ConversationId;
use parlance_proto::v1::{Position, PresenceStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::contract::Contract;
use super::payload::object;
use super::place::{Place, thread_id};
use super::{
    Action, Answer, Backlog, ConversationAction, ConversationRef, Decoded, Dialect, Frame, MessageRef,
    Outbound, SendAction, Speaker, UserRef, encode, schema, shape,
};
use crate::dialect::key::{Key, KeyedPayload};
use crate::error::ClientError;
use crate::limits::{Limits, page_size};
use mute::MutePayload;
use report::ReportPayload;

/// See the module.
#[derive(Debug)]
pub struct Native;

#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationPayload)]
struct ConversationPayload {
    conversation_id: ConversationRef,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ParticipantsPayload)]
struct ParticipantsPayload {
    conversation_id: ConversationRef,
    // The `next` of the page before; without it, the first page.
    after: Option<UserRef>,
    /// 50 by default; more than 100 count as 100.
    #[schema(minimum = 1)]
    limit: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MemberPayload)]
struct MemberPayload {
    conversation_id: ConversationRef,
    user_id: UserRef,
}

impl MemberPayload {
    fn ban(self, banned: bool) -> Action {
        let UserRef(user) = self.user_id;
        let ban = ConversationAction::Ban {
            conversation: self.conversation_id,
            user,
            banned,
        };
        ban.into()
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = JournalPayload)]
struct JournalPayload {
    journal_id: ConversationRef,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = SendPayload)]
struct SendPayload<'a> {
    conversation_id: ConversationRef,
    #[schema(pattern = "^[A-Za-z0-9_-]+$", min_length = 1, max_length = 64)]
    client_msg_id: Option<String>,
    #[serde(rename = "type")]
    #[schema(schema_with = crate::dialect::schema::sendable_type)]
    kind: Option<String>,
    #[schema(min_length = 1)]
    content: String,
    #[serde(default)]
    encrypted: bool,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    reply_to: Option<MessageRef>,
    #[serde(default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = EditPayload)]
struct EditPayload {
    conversation_id: Option<ConversationRef>,
    message_id: MessageRef,
    #[schema(min_length = 1)]
    content: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = DeletePayload)]
struct DeletePayload {
    conversation_id: Option<ConversationRef>,
    message_id: MessageRef,
    #[schema(schema_with = crate::dialect::schema::scope)]
    scope: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = StopPayload)]
struct StopPayload {
    conversation_id: Option<ConversationRef>,
    message_id: MessageRef,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ReceiptPayload)]
struct ReceiptPayload {
    conversation_id: Option<ConversationRef>,
    up_to_seq: Option<u64>,
    #[serde(default)]
    message_ids: Vec<MessageRef>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ReactPayload)]
struct ReactPayload {
    conversation_id: Option<ConversationRef>,
    message_id: MessageRef,
    #[schema(min_length = 1)]
    emoji: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TypingPayload)]
struct TypingPayload {
    conversation_id: ConversationRef,
    is_typing: bool,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ThreadPayload)]
struct ThreadPayload {
    conversation_id: ConversationRef,
    #[serde(default)]
    title: String,
    root_message_id: Option<MessageRef>,
    #[serde(default, deserialize_with = "thread_id")]
    parent_thread_id: Option<Uuid>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = SwitchPayload)]
struct SwitchPayload {
    conversation_id: ConversationRef,
    #[serde(default, deserialize_with = "thread_id")]
    thread_id: Option<Uuid>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PresencePayload)]
struct PresencePayload {
    online: bool,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = StatusPayload)]
struct StatusPayload {
    #[schema(schema_with = schema::presence)]
    status: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = UsersPayload)]
struct UsersPayload {
    user_ids: Vec<UserRef>,
}

/// What a client asks for that has been away.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SyncPayload)]
pub struct SyncPayload {
    /// From where on, by conversation id.
    #[schema(value_type = BTreeMap<SyncKey, PositionPayload>)]
    pub conversations: Positions,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PositionPayload)]
struct PositionPayload {
    epoch: Option<String>,
    seq: Option<u64>,
    receipts_version: Option<u64>,
}

/// How far a client is in each of its conversations, by their ids.
#[derive(Debug, Deserialize)]
pub struct Positions(BTreeMap<SyncKey, PositionPayload>);

impl Positions {
    /// As persistence reads them.
    ///
    /// # Errors
    /// There are too many.
    pub fn check(self, limits: &Limits) -> Result<Vec<Position>, ClientError> {
        limits.sync(self.0.len())?;
        let positions = self.0.into_iter().map(|(id, position)| Position {
            conversation_id: id.0.to_string(),
            epoch: position.epoch.unwrap_or_default(),
            seq: position.seq.unwrap_or_default(),
            receipts_version: position.receipts_version,
        });
        Ok(positions.collect())
    }
}

/// Positions are kept by UUID only: they hold an epoch, so their client reads what we send.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct SyncKey(ConversationId);

impl TryFrom<String> for SyncKey {
    type Error = parlance_proto::InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl PartialSchema for SyncKey {
    fn schema() -> RefOr<Schema> {
        Schema::from(schema::uuid()).into()
    }
}

impl ToSchema for SyncKey {}

#[derive(Serialize)]
struct Acknowledged<'a, T: Serialize> {
    ok: bool,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize, ToSchema)]
#[schema(as = Refused)]
struct Refused<'a> {
    ok: bool,
    error: &'a ClientError,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Failed)]
struct FailedEvent<'a> {
    event: &'a str,
    #[serde(flatten)]
    error: &'a ClientError,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Expiring)]
struct Expiring {
    expires_at: String,
}

/// A change with its place in the conversation's sequence, from which a client may sync.
#[derive(Serialize)]
struct Numbered<T: Serialize> {
    event_seq: u64,
    #[serde(flatten)]
    change: T,
}

impl<T: Serialize> Numbered<T> {
    fn of(place: &Place, change: T) -> Self {
        Self {
            event_seq: place.head_seq,
            change,
        }
    }
}

impl Dialect for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn inbound_events(&self) -> &'static [&'static str] {
        &[
            "conversation:join",
            "conversation:leave",
            "conversation:participants",
            "conversation:mute",
            "conversation:unmute",
            "member:ban",
            "member:unban",
            "message:send",
            "message:edit",
            "message:delete",
            "message:stop",
            "message:report",
            "message:react",
            "message:unreact",
            "receipt:read",
            "receipt:delivered",
            "typing",
            "thread:create",
            "thread:switch",
            "journal:join",
            "journal:leave",
            "journal:edit",
            "journal:awareness",
            "user:block",
            "user:unblock",
            "user:blocks",
            "presence",
            "presence:set",
            "presence:subscribe",
            "presence:unsubscribe",
            "sync",
        ]
    }

    fn contract(&self) -> Contract {
        contract::contract()
    }

    fn backlog(&self) -> Backlog {
        Backlog::UntilMarked
    }

    fn shows_presence(&self) -> bool {
        true
    }

    fn decode(
        &self,
        _: Speaker<'_>,
        event: &str,
        payload: &RawValue,
        limits: &Limits,
    ) -> Result<Decoded, ClientError> {
        let action = match event {
            "conversation:join" => Action::Join(object::<ConversationPayload>(payload)?.conversation_id),
            "conversation:leave" => Action::Leave(object::<ConversationPayload>(payload)?.conversation_id),
            "conversation:participants" => {
                let payload: ParticipantsPayload = object(payload)?;
                Action::ListParticipants {
                    conversation: payload.conversation_id,
                    after: payload
                        .after
                        .map(|UserRef(user)| user.to_string())
                        .unwrap_or_default(),
                    limit: page_size(payload.limit)?,
                }
            }
            "conversation:mute" => object::<MutePayload>(payload)?.action()?,
            "conversation:unmute" => mute::end(object::<ConversationPayload>(payload)?.conversation_id),
            "member:ban" => object::<MemberPayload>(payload)?.ban(true),
            "member:unban" => object::<MemberPayload>(payload)?.ban(false),
            "message:send" => Action::Send(decode_send(object(payload)?, limits)?),
            "message:edit" => {
                let payload: EditPayload = object(payload)?;
                Action::edit(
                    payload.conversation_id,
                    payload.message_id,
                    payload.content,
                    limits,
                )?
            }
            "message:delete" => decode_delete(object(payload)?)?,
            "message:stop" => {
                let payload: StopPayload = object(payload)?;
                Action::Stop {
                    conversation: payload.conversation_id,
                    message: payload.message_id,
                }
            }
            "message:report" => object::<ReportPayload>(payload)?.action(limits)?,
            "message:react" => decode_react(object(payload)?, false, limits)?,
            "message:unreact" => decode_react(object(payload)?, true, limits)?,
            "receipt:read" => decode_receipt(object(payload)?, false, limits)?,
            "receipt:delivered" => decode_receipt(object(payload)?, true, limits)?,
            "typing" => {
                let payload: TypingPayload = object(payload)?;
                Action::Typing {
                    conversation: payload.conversation_id,
                    is_typing: payload.is_typing,
                }
            }
            "thread:create" => decode_thread(object(payload)?, limits)?,
            "thread:switch" => {
                let payload: SwitchPayload = object(payload)?;
                Action::SwitchThread {
                    conversation: payload.conversation_id,
                    thread: payload.thread_id,
                }
            }
            "journal:join" => journal::decode_join(object(payload)?, limits)?,
            "journal:leave" => Action::LeaveJournal(object::<JournalPayload>(payload)?.journal_id),
            "journal:edit" => journal::decode_edit(object(payload)?, limits)?,
            "journal:awareness" => journal::decode_awareness_update(object(payload)?)?,
            "presence" => Action::Presence {
                status: match object::<PresencePayload>(payload)?.online {
                    true => PresenceStatus::Online,
                    false => PresenceStatus::Offline,
                },
            },
            "presence:set" => Action::Presence {
                status: presence_status(&object::<StatusPayload>(payload)?.status)?,
            },
            "presence:subscribe" => Action::WatchPresence(decode_users(object(payload)?, limits)?),
            "presence:unsubscribe" => Action::UnwatchPresence(decode_users(object(payload)?, limits)?),
            "user:block" => block::decode(object(payload)?, true),
            "user:unblock" => block::decode(object(payload)?, false),
            "user:blocks" => block::decode_list(object(payload)?)?,
            "sync" => Action::Sync(object::<SyncPayload>(payload)?.conversations.check(limits)?),
            _ => return Err(self.unknown_event()),
        };
        Ok(action.into())
    }

    fn idempotency_key(&self, payload: &RawValue) -> Result<Option<Key>, ClientError> {
        // A name that is written with escapes has a backslash.
        let text = payload.get();
        if !text.contains("idempotency_key") && !text.contains('\\') {
            return Ok(None);
        }
        let KeyedPayload { idempotency_key } = object(payload)?;
        let key = idempotency_key.map(|key| Key::parse("idempotency_key", key.as_bytes()));
        key.transpose()
    }

    fn encode(&self, outbound: Outbound<'_>) -> Vec<Frame> {
        let frame = match outbound {
            Outbound::MessageCreated(_, message) => Frame::new("message:new", &json::message(message)),
            Outbound::MessageFinished(place, message) => {
                Frame::new("message:finished", &Numbered::of(place, json::message(message)))
            }
            Outbound::MessageChunk(place, chunk) => {
                Frame::new("message:chunk", &json::chunk(place.id, chunk))
            }
            Outbound::MessageEdited(place, message) => {
                Frame::new("message:edited", &Numbered::of(place, json::message(message)))
            }
            Outbound::MessageDeleted(place, message) => {
                Frame::new("message:deleted", &Numbered::of(place, json::message(message)))
            }
            Outbound::MessageHidden(_, message) => Frame::new("message:hidden", &json::hidden(message)),
            Outbound::MuteChanged(_, changed) => Frame::new("conversation:muted", &mute::changed(changed)),
            Outbound::BlockChanged(changed) => Frame::new("user:blocked", &block::changed(changed)),
            Outbound::Reaction(place, reaction) => {
                Frame::new("message:reaction", &Numbered::of(place, json::reaction(reaction)))
            }
            Outbound::Receipt(place, receipt) => {
                Frame::new("receipt:updated", &json::receipt(place.id, receipt))
            }
            Outbound::Typing(place, typing) => Frame::new("typing", &json::typing(place.id, typing)),
            Outbound::ThreadCreated(place, thread) => {
                Frame::new("thread:created", &Numbered::of(place, json::thread(thread)))
            }
            Outbound::MembersAdded(place, added) => Frame::new(
                "member:added",
                &Numbered::of(place, json::members(place.id, &added.members)),
            ),
            Outbound::MemberRemoved(place, member) => Frame::new(
                "member:removed",
                &Numbered::of(place, json::member(place.id, member)),
            ),
            Outbound::RoleChanged(place, member) => Frame::new(
                "member:role",
                &Numbered::of(place, json::member(place.id, member)),
            ),
            Outbound::ConversationAdded(conversation) => {
                Frame::new("conversation:new", &json::conversation(conversation))
            }
            Outbound::ConversationChanged(_, conversation) => {
                Frame::new("conversation:updated", &json::conversation_changed(conversation))
            }
            Outbound::ConversationRemoved(place) => {
                Frame::new("conversation:removed", &json::removed(place.id))
            }
            // It gets the chunks.
            Outbound::MessageGrown(..) => return Vec::new(),
            // A client that follows the conversation itself has the message already.
            Outbound::ListUpdated { joined: true, .. } | Outbound::RoomPresence(..) => return Vec::new(),
            Outbound::ListUpdated {
                place, last, unread, ..
            } => Frame::new("conversation:updated", &json::list_updated(place, last, unread)),
            Outbound::JournalEdited(edited, Some(content)) => {
                Frame::new("journal:updated", &json::journal(edited, Some(content)))
            }
            Outbound::JournalEdited(edited, None) => {
                Frame::new("journal:updated", &json::journal_update(edited, None))
            }
            Outbound::Awareness { place, update } => {
                Frame::new("journal:awareness", &json::awareness(place.id, update))
            }
            Outbound::Presence { seen, .. } => Frame::new("presence:changed", &presence::json(seen)),
            Outbound::Resync {
                place,
                epoch,
                head_seq,
            } => Frame::new("resync", &json::resync(place.id, epoch, head_seq)),
            Outbound::Failed { acked: true, .. } => return Vec::new(),
            Outbound::Failed { event, error, .. } => Frame::new("error", &FailedEvent { event, error }),
        };
        vec![frame]
    }

    fn answer(&self, outcome: Result<&Answer, &ClientError>, _: Option<&Place>) -> Box<RawValue> {
        let body = match outcome {
            Err(error) => return encode(&Refused { ok: false, error }),
            Ok(answer) => answer,
        };
        match body {
            Answer::Done => acknowledged(&Nothing {}),
            Answer::Message(message) => acknowledged(&json::Holding::message(message)),
            Answer::Conversation(conversation) => acknowledged(&json::Joined::new(conversation)),
            Answer::Receipt(receipt) => acknowledged(&json::Holding::receipt(receipt)),
            Answer::Thread(thread) => acknowledged(&json::Holding::thread(thread)),
            Answer::Journal(journal, content) => {
                acknowledged(&json::Holding::journal(journal, content.as_deref()))
            }
            Answer::JournalSync {
                journal,
                state_vector,
            } => acknowledged(&json::Synced::new(journal, state_vector)),
            Answer::Pages(pages) => acknowledged(&json::sync(pages)),
            Answer::Participants(page) => acknowledged(&json::participant_page(page)),
            Answer::Blocks(page) => acknowledged(&block::page(page)),
            Answer::Presence(seen) => acknowledged(&presence::list(seen)),
            Answer::User(user) => acknowledged(&json::user(user)),
        }
    }

    fn expiring(&self, expires_at_ms: i64) -> Option<Frame> {
        let expires_at = shape::time(expires_at_ms);
        Some(Frame::new("auth:expiring", &Expiring { expires_at }))
    }
}

fn acknowledged(body: &impl Serialize) -> Box<RawValue> {
    encode(&Acknowledged { ok: true, body })
}

fn decode_send(payload: SendPayload<'_>, limits: &Limits) -> Result<SendAction, ClientError> {
    Ok(SendAction {
        encrypted: payload.encrypted,
        reply_to: payload.reply_to,
        thread: payload.thread_id,
        ..SendAction::checked(
            payload.conversation_id,
            payload.client_msg_id,
            payload.kind.as_deref(),
            payload.content,
            payload.metadata,
            limits,
        )?
    })
}

fn decode_delete(payload: DeletePayload) -> Result<Action, ClientError> {
    Ok(Action::Delete {
        conversation: payload.conversation_id,
        message: payload.message_id,
        for_me: for_me(payload.scope.as_deref())?,
    })
}

/// Whether a deletion is only for the one who asks.
pub(crate) fn for_me(scope: Option<&str>) -> Result<bool, ClientError> {
    match scope {
        None | Some("all") => Ok(false),
        Some("me") => Ok(true),
        Some(_) => Err(ClientError::invalid("scope is none of all, me")),
    }
}

fn decode_react(payload: ReactPayload, remove: bool, limits: &Limits) -> Result<Action, ClientError> {
    let (conversation, message) = (payload.conversation_id, payload.message_id);
    Action::react(conversation, message, payload.emoji, remove, limits)
}

fn decode_receipt(
    payload: ReceiptPayload,
    delivered_only: bool,
    limits: &Limits,
) -> Result<Action, ClientError> {
    if payload.up_to_seq.is_none() && payload.message_ids.is_empty() {
        return Err(ClientError::invalid("up_to_seq or message_ids is missing"));
    }
    if payload.up_to_seq.is_some() && payload.conversation_id.is_none() {
        return Err(ClientError::invalid("conversation_id is missing"));
    }
    let (up_to_seq, messages) = (payload.up_to_seq, payload.message_ids);
    Action::receipt(
        payload.conversation_id,
        up_to_seq,
        messages,
        delivered_only,
        limits,
    )
}

fn decode_thread(payload: ThreadPayload, limits: &Limits) -> Result<Action, ClientError> {
    let (root, parent) = (payload.root_message_id, payload.parent_thread_id);
    Action::create_thread(payload.conversation_id, payload.title, root, parent, limits)
}

fn presence_status(name: &str) -> Result<PresenceStatus, ClientError> {
    match name {
        "online" => Ok(PresenceStatus::Online),
        "away" => Ok(PresenceStatus::Away),
        "offline" => Ok(PresenceStatus::Offline),
        _ => Err(ClientError::invalid("status is none of online, away, offline")),
    }
}

fn decode_users(payload: UsersPayload, limits: &Limits) -> Result<Vec<String>, ClientError> {
    limits.watched(payload.user_ids.len())?;
    Ok(payload
        .user_ids
        .into_iter()
        .map(|UserRef(id)| id.to_string())
        .collect())
}
