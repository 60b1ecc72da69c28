//! Sending, editing, deleting and hiding messages.

use parlance_proto::MessageId;
use parlance_proto::v1::{self, ErrorCode, StreamState};
use uuid::Uuid;

use super::Scene;
use crate::model::events::{self, Parts};
use crate::model::permissions::Right;
use crate::model::refusals::{no_conversation, no_message, refuse};
use crate::model::state::{Change, ChangeKind, Edit, Outcome};
use crate::model::work::{JournalName, MAX_USERS, MessageName, Send};

pub(super) fn send(scene: &mut Scene<'_>, send: &Send) -> Result<Outcome, v1::Error> {
    let actor = &scene.work.actor;
    let member = scene.conversation.members.get(&actor.id);
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
    let id = match identity(scene, send) {
        Ok(id) => id,
        Err(original) => return repeat_of(scene, send, original, &sender, present),
    };
    if !present {
        return Err(no_conversation());
    }
    if actor.is_user() {
        scene.check(Right::Send)?;
    } else if scene.conversation.kind == v1::ConversationKind::Journal {
        return Err(refuse("a journal has no messages"));
    }
    let reply_to = match send.reply_to {
        Some(name) => {
            let answered = scene.conversation.message_id(name);
            Some(answered.ok_or_else(|| refuse("reply_to names no message of this conversation"))?)
        }
        None => None,
    };
    if send
        .thread
        .is_some_and(|thread| scene.conversation.thread(thread).is_none())
    {
        return Err(refuse("thread_id names no thread of this conversation"));
    }
    let seq = scene.conversation.next_seq();
    let at_ms = scene.conversation.time(scene.now_ms);
    let message = v1::Message {
        id: id.to_string(),
        conversation_id: scene.id().to_string(),
        conversation_number: scene.conversation.number,
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
        && let Some((_, thread)) = scene.conversation.threads.get_mut(&id)
    {
        thread.reply_count += 1;
        thread.last_reply_at_ms = Some(at_ms);
        scene.effects.moved_threads.insert((scene.work.conversation, id));
    }
    scene.conversation.last_message_seq = seq;
    scene.conversation.updated_at_ms = at_ms;
    scene.conversation.put_message(id, message.clone());
    let key = (scene.id(), id);
    scene.sent_by.insert(key, scene.work.id);
    scene.effects.new_messages.push(key);
    scene.effects.moved.insert(scene.id());
    Ok(Outcome::Message {
        event: Some(events::created(message.clone(), scene.epoch)),
        then: open_journal(scene, send),
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
fn identity<'a>(scene: &'a Scene<'_>, send: &Send) -> Result<MessageId, &'a v1::Message> {
    let conversation = &scene.conversation;
    let Some(original) = conversation.messages.get(&send.message) else {
        return Ok(send.message);
    };
    let is_of_this_life = original.seq > conversation.history_from;
    if is_of_this_life || scene.sent_by.get(&(scene.work.conversation, send.message)) == Some(&scene.work.id)
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
    scene: &Scene<'_>,
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
    let is_of_this_life = original.seq > scene.conversation.history_from;
    let event = is_of_this_life.then(|| events::created(original.clone(), scene.epoch));
    let mut message = original.clone();
    let mut then = Vec::new();
    if present {
        then = open_journal(scene, send);
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
fn open_journal(scene: &Scene<'_>, send: &Send) -> Vec<v1::Command> {
    let journal = match send.journal {
        Some(JournalName::Id(id)) => id,
        Some(JournalName::Number(number)) => match scene.journals_by_number.get(&number) {
            Some(&id) => id,
            None => return Vec::new(),
        },
        None => return Vec::new(),
    };
    let actor = &scene.work.actor;
    let mut users: Vec<String> = scene
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
            issued_at_ms: scene.now_ms,
            service: None,
            body: Some(v1::command::Body::AddMembers(v1::AddMembers {
                user_ids: users.to_vec(),
                role: v1::Role::Viewer.into(),
                provision_users: false,
                // A share opens a journal; it never takes away what a user may do with it.
                change_present: false,
            })),
        })
        .collect()
}

/// Edits with `content`, deletes without.
pub(super) fn change(
    scene: &mut Scene<'_>,
    name: MessageName,
    content: Option<&String>,
) -> Result<Outcome, v1::Error> {
    scene.member()?;
    let id = scene.conversation.message_id(name).ok_or_else(no_message)?;
    let message = scene.conversation.messages.get(&id).ok_or_else(no_message)?;
    let own = message
        .sender
        .as_ref()
        .is_some_and(|sender| sender.id == scene.actor().as_str());
    scene.check(match (content.is_some(), own) {
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
        return delete(scene, id);
    };
    let message_seq = message.seq;
    let change = scene.log(ChangeKind::Edited, message_seq, Vec::new());
    let conversation = scene.work.conversation;
    let message = scene.conversation.messages.get_mut(&id).ok_or_else(no_message)?;
    let at_ms = message.edited_at_ms.unwrap_or(message.created_at_ms);
    let earlier = std::mem::replace(&mut message.content, content.clone());
    let edit = Edit {
        conversation,
        message_seq,
        edit_seq: change.seq,
        content: earlier,
        at_ms,
    };
    scene.effects.edits.push(edit);
    message.edited_at_ms = Some(change.at_ms);
    let message = message.clone();
    Ok(changed(scene, &change, id, message))
}

/// Empties a message for all.
pub(super) fn delete(scene: &mut Scene<'_>, id: MessageId) -> Result<Outcome, v1::Error> {
    let conversation = scene.work.conversation;
    let message_seq = scene.conversation.messages.get(&id).ok_or_else(no_message)?.seq;
    let change = scene.log(ChangeKind::Deleted, message_seq, Vec::new());
    let message = scene.conversation.messages.get_mut(&id).ok_or_else(no_message)?;
    message.content.clear();
    message.metadata_json.clear();
    message.deleted_at_ms = Some(change.at_ms);
    if message.stream() == StreamState::Open {
        message.set_stream(StreamState::Cancelled);
    }
    for v1::Reaction { user_id, emoji } in std::mem::take(&mut message.reactions) {
        if let Ok(user) = user_id.parse() {
            scene
                .effects
                .reactions
                .insert((conversation, message_seq, user, emoji), None);
        }
    }
    scene.effects.scrubbed.insert((conversation, message_seq));
    let message = message.clone();
    Ok(changed(scene, &change, id, message))
}

/// A message is written as it is now, and its change is announced.
pub(super) fn changed(
    scene: &mut Scene<'_>,
    change: &Change,
    id: MessageId,
    message: v1::Message,
) -> Outcome {
    scene
        .effects
        .changed_messages
        .insert((scene.work.conversation, id));
    let event = scene.event(
        change,
        Parts {
            message: Some(message.clone()),
            ..Parts::default()
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

pub(super) fn hide(scene: &mut Scene<'_>, name: MessageName) -> Result<Outcome, v1::Error> {
    scene.check(Right::Hide)?;
    let message = scene.conversation.message(name).ok_or_else(no_message)?.clone();
    let key = (scene.id(), scene.actor().clone(), message.seq);
    scene.effects.hidden.insert(key);
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
