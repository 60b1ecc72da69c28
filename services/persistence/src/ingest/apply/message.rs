//! Sending, editing and deleting messages.

use parlance_proto::MessageId;
use parlance_proto::v1::{self, ErrorCode};

use super::no_conversation;
use crate::ingest::state::{Change, ChangeKind, ConversationState, Effects, Outcome, Told};
use crate::ingest::work::{Send, Work, refuse};
use crate::permissions::{MessageAction, may};

pub(super) fn send(
    conversation: &mut ConversationState,
    effects: &mut Effects,
    work: &Work,
    send: &Send,
    now_ms: i64,
) -> Result<Outcome, v1::Error> {
    let member = conversation.members.get(&work.actor.id);
    let username = match member {
        Some(member) if work.actor.is_user() => member.username.clone(),
        None if work.actor.is_user() => return Err(no_conversation()),
        _ => work.actor.username.clone(),
    };
    let sender = v1::Sender {
        id: work.actor.id.to_string(),
        username,
        kind: work.actor.kind.into(),
    };
    if let Some(original) = conversation.messages.get(&send.message) {
        return repeat_of(original, &sender);
    }
    if let Some(answered) = send.reply_to
        && !conversation.messages.contains_key(&answered)
    {
        return Err(refuse("reply_to names no message of this conversation"));
    }
    let seq = conversation.next_seq();
    let at_ms = conversation.time(now_ms);
    let message = v1::Message {
        id: send.message.to_string(),
        conversation_id: work.conversation.to_string(),
        conversation_number: conversation.number,
        seq,
        sender: Some(sender),
        r#type: send.kind.into(),
        content: send.content.clone(),
        metadata_json: send.metadata_json.clone(),
        client_msg_id: send.client_msg_id.clone(),
        reply_to: send.reply_to.map(|id| id.to_string()),
        created_at_ms: at_ms,
        edited_at_ms: None,
        deleted_at_ms: None,
    };
    conversation.last_message_seq = seq;
    conversation.updated_at_ms = at_ms;
    conversation.messages.insert(send.message, message.clone());
    effects.new_messages.push((work.conversation, send.message));
    effects.moved.insert(work.conversation);
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: false,
        event: Some(Told {
            seq,
            at_ms,
            change: None,
        }),
    })
}

/// The original, told once more: the first telling may have been lost.
fn repeat_of(original: &v1::Message, sender: &v1::Sender) -> Result<Outcome, v1::Error> {
    let theirs = original.sender.as_ref();
    if theirs.is_none_or(|theirs| theirs.id != sender.id || theirs.kind != sender.kind) {
        return Err(v1::Error::with(ErrorCode::Conflict, "the message id is taken"));
    }
    Ok(Outcome::Message {
        message: Box::new(original.clone()),
        repeated: true,
        event: Some(Told {
            seq: original.seq,
            at_ms: original.created_at_ms,
            change: None,
        }),
    })
}

/// Edits with `content`, deletes without.
pub(super) fn change(
    conversation: &mut ConversationState,
    effects: &mut Effects,
    work: &Work,
    id: MessageId,
    content: Option<&String>,
    now_ms: i64,
) -> Result<Outcome, v1::Error> {
    let member = conversation
        .members
        .get(&work.actor.id)
        .ok_or_else(no_conversation)?;
    let role = member.role;
    let message = conversation.messages.get(&id).ok_or_else(no_message)?;
    if let Some(done) = conversation.changes.get(&work.id) {
        return repeat_of_change(message, done, work);
    }
    let own = message
        .sender
        .as_ref()
        .is_some_and(|sender| sender.id == work.actor.id.as_str());
    let action = if content.is_some() {
        MessageAction::Edit
    } else {
        MessageAction::Delete
    };
    if !may(role, conversation.kind, action, own) {
        let message = "you may not change what someone else wrote";
        return Err(v1::Error::with(ErrorCode::Forbidden, message));
    }
    if message.deleted_at_ms.is_some() {
        return match action {
            MessageAction::Edit => Err(no_message()),
            MessageAction::Delete => Ok(Outcome::Message {
                message: Box::new(message.clone()),
                repeated: true,
                event: None,
            }),
        };
    }
    let at_ms = conversation.time(now_ms);
    let seq = conversation.next_seq();
    let message = conversation.messages.get_mut(&id).ok_or_else(no_message)?;
    let kind = match content {
        Some(content) => {
            message.content.clone_from(content);
            message.edited_at_ms = Some(at_ms);
            ChangeKind::Edited
        }
        None => {
            message.content.clear();
            message.metadata_json.clear();
            message.deleted_at_ms = Some(at_ms);
            ChangeKind::Deleted
        }
    };
    let message = message.clone();
    let change = Change {
        seq,
        kind,
        target_seq: message.seq,
        actor: work.actor.id.to_string(),
        at_ms,
    };
    conversation.changes.insert(work.id, change.clone());
    effects.changed_messages.insert((work.conversation, id));
    effects.new_changes.push((work.conversation, work.id, change));
    effects.moved.insert(work.conversation);
    let event = Some(Told {
        seq,
        at_ms,
        change: Some(kind),
    });
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: false,
        event,
    })
}

fn repeat_of_change(message: &v1::Message, done: &Change, work: &Work) -> Result<Outcome, v1::Error> {
    if done.actor != work.actor.id.as_str() || done.target_seq != message.seq {
        return Err(v1::Error::with(ErrorCode::Conflict, "the command id is taken"));
    }
    let event = Some(Told {
        seq: done.seq,
        at_ms: done.at_ms,
        change: Some(done.kind),
    });
    Ok(Outcome::Message {
        message: Box::new(message.clone()),
        repeated: true,
        event,
    })
}

fn no_message() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such message")
}
