//! Sending, editing, deleting and hiding messages.

use parlance_proto::MessageId;
use parlance_proto::v1::{self, ErrorCode, StreamState};
use uuid::Uuid;

use super::CommandContext;
use crate::model::events::{self, EventParts};
use crate::model::permissions::Right;
use crate::model::refusals::{no_conversation, no_message, refuse};
use crate::model::state::{Change, ChangeKind, Edit, Outcome};
use crate::model::work::{JournalName, MAX_USERS, MessageName, Send};

pub(super) fn send(context: &mut CommandContext<'_>, send: &Send) -> Result<Outcome, v1::Error> {
    let actor = &context.work.actor;
    let member = context.conversation.members.get(&actor.id);
    let (username, number) = match member {
        Some(member) if actor.is_user() => (member.person.username.clone(), member.person.number),
        _ => (actor.username.clone(), 0),
    };
    let sender = v1::Sender {
        id: actor.id.to_string(),
        username,
        kind: actor.kind.into(),
        number,
    };
    let present = !actor.is_user() || member.is_some();
    let id = match identity(context, send) {
        Ok(id) => id,
        Err(original) => return repeat_of(context, send, original, &sender, present),
    };
    if !present {
        return Err(no_conversation());
    }
    if actor.is_user() {
        context.check(Right::Send)?;
    } else if context.conversation.kind == v1::ConversationKind::Journal {
        return Err(refuse("a journal has no messages"));
    }
    let reply_to = match send.reply_to {
        Some(name) => {
            let answered = context.conversation.message_id(name);
            Some(answered.ok_or_else(|| refuse("reply_to names no message of this conversation"))?)
        }
        None => None,
    };
    let is_unknown = |thread| context.conversation.thread(thread).is_none();
    if send.thread.is_some_and(is_unknown) {
        return Err(refuse("thread_id names no thread of this conversation"));
    }
    let seq = context.conversation.next_seq();
    let at_ms = context.conversation.time(context.now_ms);
    let message = v1::Message {
        id: id.to_string(),
        conversation_id: context.id().to_string(),
        conversation_number: context.conversation.number,
        seq,
        sender: Some(sender),
        r#type: send.kind.into(),
        content: send.content.clone(),
        metadata_json: send.metadata_json.clone(),
        client_msg_id: send.client_msg_id.clone(),
        reply_to: reply_to.map(|id| id.to_string()),
        created_at_ms: at_ms,
        edited_at_ms: None,
        deleted_at_ms: None,
        encrypted: send.encrypted,
        thread_id: send.thread.map(|id| id.to_string()),
        reactions: Vec::new(),
        stream: first_state(send).into(),
    };
    if let Some(id) = send.thread
        && let Some((_, thread)) = context.conversation.threads.get_mut(&id)
    {
        thread.reply_count += 1;
        thread.last_reply_at_ms = Some(at_ms);
        let moved = &mut context.effects.moved_threads;
        moved.insert((context.work.conversation, id));
    }
    context.conversation.last_message_seq = seq;
    context.conversation.updated_at_ms = at_ms;
    context.conversation.put_message(id, message.clone());
    let key = (context.id(), id);
    context.sent_by.insert(key, context.work.id);
    context.effects.new_messages.push(key);
    context.effects.moved.insert(context.id());
    Ok(Outcome::Message {
        event: Some(events::created(message.clone(), context.epoch)),
        then: open_journal(context, send),
        message: Box::new(message),
        repeated: false,
        hidden: false,
    })
}

fn first_state(send: &Send) -> StreamState {
    match send.streaming {
        true => StreamState::Open,
        false => StreamState::Unspecified,
    }
}

/// The identity of a message that is sent for the first time in this life of the conversation, or the original: what an
/// earlier life has under its id is only the same message if the same command sent it.
fn identity<'a>(context: &'a CommandContext<'_>, send: &Send) -> Result<MessageId, &'a v1::Message> {
    let conversation = &context.conversation;
    let Some(original) = conversation.messages.get(&send.message) else {
        return Ok(send.message);
    };
    let is_of_this_life = original.seq > conversation.history_from;
    if is_of_this_life
        || context.sent_by.get(&(context.work.conversation, send.message)) == Some(&context.work.id)
    {
        return Err(original);
    }
    let id = send.message.in_life(conversation.history_from);
    match conversation.messages.get(&id) {
        Some(original) => Err(original),
        None => Ok(id),
    }
}

/// The original, told once more: the first telling may have been lost.
fn repeat_of(
    context: &CommandContext<'_>,
    send: &Send,
    original: &v1::Message,
    sender: &v1::Sender,
    present: bool,
) -> Result<Outcome, v1::Error> {
    let theirs = original.sender.as_ref();
    if theirs.is_none_or(|theirs| theirs.id != sender.id || theirs.kind != sender.kind) {
        // To a stranger, nothing is here that could be taken.
        let taken = v1::Error::with(ErrorCode::Conflict, "the message id is taken");
        return Err(if present { taken } else { no_conversation() });
    }
    let is_of_this_life = original.seq > context.conversation.history_from;
    let event = is_of_this_life.then(|| events::created(original.clone(), context.epoch));
    let mut message = original.clone();
    let mut then = Vec::new();
    if present {
        then = open_journal(context, send);
    } else {
        // Who left still learns that their message is stored, but not what others did since.
        message.reactions.clear();
    }
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: true,
        event,
        hidden: false,
        then,
    })
}

/// A shared journal is opened for those who are members now: commands of the sender to the journal, under
/// ids that are the same for every repeat. Its own rules decide whether the sender may.
fn open_journal(context: &CommandContext<'_>, send: &Send) -> Vec<v1::Command> {
    let journal = match send.journal {
        Some(JournalName::Id(id)) => id,
        Some(JournalName::Number(number)) => match context.journals_by_number.get(&number) {
            Some(&id) => id,
            None => return Vec::new(),
        },
        None => return Vec::new(),
    };
    let actor = &context.work.actor;
    let mut users: Vec<String> = context
        .conversation
        .members
        .keys()
        .filter(|id| **id != actor.id)
        .map(ToString::to_string)
        .collect();
    users.sort_unstable();
    users
        .chunks(MAX_USERS)
        .enumerate()
        .map(|(part, users)| v1::Command {
            id: Uuid::new_v5(&send.message.uuid(), format!("share:{part}").as_bytes()).to_string(),
            reply_to: String::new(),
            actor: Some(v1::Actor {
                user_id: actor.id.to_string(),
                username: actor.username.clone(),
                kind: actor.kind.into(),
            }),
            conversation_id: journal.to_string(),
            issued_at_ms: context.now_ms,
            service: None,
            body: Some(v1::command::Body::AddMembers(v1::AddMembers {
                user_ids: users.to_vec(),
                role: v1::Role::Viewer.into(),
                provision_users: false,
                // A share opens a journal; it never takes away what a user may do with it.
                change_present: false,
                leave_out_blocking: true,
            })),
        })
        .collect()
}

/// Edits with `content`, deletes without.
pub(super) fn change(
    context: &mut CommandContext<'_>,
    name: MessageName,
    content: Option<&String>,
) -> Result<Outcome, v1::Error> {
    context.member()?;
    let id = context.conversation.message_id(name).ok_or_else(no_message)?;
    let message = context.conversation.messages.get(&id).ok_or_else(no_message)?;
    let own = message
        .sender
        .as_ref()
        .is_some_and(|sender| sender.id == context.actor().as_str());
    context.check(match (content.is_some(), own) {
        (true, true) => Right::EditOwn,
        (true, false) => Right::EditForeign,
        (false, true) => Right::DeleteOwn,
        (false, false) => Right::DeleteForeign,
    })?;
    if message.deleted_at_ms.is_some() {
        if content.is_some() {
            return Err(no_message());
        }
        return Ok(quiet(message.clone()));
    }
    if content.is_some() && message.stream() == StreamState::Open {
        let message = "the message streams; it can be edited once it has ended";
        return Err(v1::Error::with(ErrorCode::Conflict, message));
    }
    let Some(content) = content else {
        return delete(context, id);
    };
    let message_seq = message.seq;
    let change = context.log(ChangeKind::Edited, message_seq, Vec::new());
    let conversation = context.work.conversation;
    let message = context
        .conversation
        .messages
        .get_mut(&id)
        .ok_or_else(no_message)?;
    let at_ms = message.edited_at_ms.unwrap_or(message.created_at_ms);
    let earlier = std::mem::replace(&mut message.content, content.clone());
    let edit = Edit {
        conversation,
        message_seq,
        edit_seq: change.seq,
        content: earlier,
        at_ms,
    };
    context.effects.edits.push(edit);
    message.edited_at_ms = Some(change.at_ms);
    let message = message.clone();
    Ok(changed(context, &change, id, message))
}

/// Empties a message for all.
pub(super) fn delete(context: &mut CommandContext<'_>, id: MessageId) -> Result<Outcome, v1::Error> {
    let conversation = context.work.conversation;
    let message_seq = context.conversation.messages.get(&id).ok_or_else(no_message)?.seq;
    let change = context.log(ChangeKind::Deleted, message_seq, Vec::new());
    let message = context
        .conversation
        .messages
        .get_mut(&id)
        .ok_or_else(no_message)?;
    message.content.clear();
    message.metadata_json.clear();
    message.deleted_at_ms = Some(change.at_ms);
    if message.stream() == StreamState::Open {
        message.set_stream(StreamState::Cancelled);
    }
    for v1::Reaction { user_id, emoji } in std::mem::take(&mut message.reactions) {
        if let Ok(user) = user_id.parse() {
            context
                .effects
                .reactions
                .insert((conversation, message_seq, user, emoji), None);
        }
    }
    context.effects.scrubbed.insert((conversation, message_seq));
    let message = message.clone();
    Ok(changed(context, &change, id, message))
}

/// A message is written as it is now, and its change is announced.
pub(super) fn changed(
    context: &mut CommandContext<'_>,
    change: &Change,
    id: MessageId,
    message: v1::Message,
) -> Outcome {
    context
        .effects
        .changed_messages
        .insert((context.work.conversation, id));
    let event = context.event(
        change,
        EventParts {
            message: Some(message.clone()),
            ..EventParts::default()
        },
    );
    Outcome::Message {
        message: Box::new(message),
        repeated: false,
        event,
        hidden: false,
        then: Vec::new(),
    }
}

pub(super) fn hide(context: &mut CommandContext<'_>, name: MessageName) -> Result<Outcome, v1::Error> {
    context.check(Right::Hide)?;
    let message = context.conversation.message(name).ok_or_else(no_message)?.clone();
    let key = (context.id(), context.actor().clone(), message.seq);
    context.effects.hidden.insert(key);
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: false,
        event: None,
        hidden: true,
        then: Vec::new(),
    })
}

/// Nothing to do and nothing to tell.
pub(super) fn quiet(message: v1::Message) -> Outcome {
    Outcome::Message {
        message: Box::new(message),
        repeated: true,
        event: None,
        hidden: false,
        then: Vec::new(),
    }
}
