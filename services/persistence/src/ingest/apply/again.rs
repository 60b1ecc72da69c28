//! Commands that were processed before and left nothing but that: answered as before, and nothing changes.

use parlance_proto::v1::{self, confirmation};

use super::{CommandContext, create, journal, message, mute};
use crate::model::events;
use crate::model::refusals::{no_conversation, no_message};
use crate::model::state::{Effects, Loaded, Outcome, Reader};
use crate::model::work::{Action, Work};

/// The outcome of a command that was not refused; `seq` is that of the message it was answered with.
pub(super) fn again(loaded: &mut Loaded, effects: &mut Effects, work: &Work, seq: u64) -> Outcome {
    if let Action::Create(wanted) = &work.action {
        let is_theirs = loaded
            .conversations
            .get(&work.conversation)
            .is_some_and(|existing| {
                !existing.deleted
                    && existing.created_by_command == work.id
                    && existing.members.contains_key(&work.actor.id)
            });
        if is_theirs {
            // Who was told may not have heard.
            let again = create::create(loaded, effects, work, wanted);
            return again.unwrap_or_else(Outcome::Rejected);
        }
    }
    match CommandContext::of(loaded, effects, work) {
        Some(mut context) => in_conversation(&mut context, seq),
        None => Outcome::Rejected(no_conversation()),
    }
}

fn in_conversation(context: &mut CommandContext<'_>, seq: u64) -> Outcome {
    match &context.work.action {
        Action::Send(_)
        | Action::Edit { .. }
        | Action::Delete(_)
        | Action::React(_)
        | Action::Report(_)
        | Action::Append(_)
        | Action::EndStream(..) => of_message(context, seq, false),
        Action::Hide(_) => of_message(context, seq, true),
        Action::Mute(_) if is_member(context) => mute::muted(context, true),
        Action::Receive(_) => of_receipt(context),
        Action::StartThread(start) => match context.conversation.threads.get(&start.thread) {
            Some((_, thread)) => Outcome::Thread {
                thread: thread.clone(),
                repeated: true,
                event: None,
            },
            None => Outcome::Rejected(no_conversation()),
        },
        Action::EditJournal(_) => match journal::unchanged(context) {
            Ok(edited) => Outcome::Journal {
                edited: Box::new(edited),
                repeated: true,
                event: None,
            },
            Err(error) => Outcome::Rejected(error),
        },
        Action::Create(_)
        | Action::Mute(_)
        | Action::Update(_)
        | Action::AddMembers(_)
        | Action::RemoveMember(_)
        | Action::Ban(_)
        | Action::Unban(_)
        | Action::ChangeRole(..)
        | Action::DeleteConversation => {
            let mut bare = events::bare(context.id(), context.conversation, context.epoch);
            if !is_member(context) {
                bare.title.clear();
                bare.metadata_json.clear();
            }
            Outcome::Conversation {
                bare: Box::new(bare),
                repeated: true,
                events: Vec::new(),
                added: Vec::new(),
                joined_seq: 0,
                removed: Vec::new(),
            }
        }
    }
}

fn is_member(context: &CommandContext<'_>) -> bool {
    !context.work.actor.is_user() || context.conversation.members.contains_key(context.actor())
}

/// The message as it is, whichever life it is of; for those who left, only where it is.
fn of_message(context: &CommandContext<'_>, seq: u64, hidden: bool) -> Outcome {
    let conversation = &*context.conversation;
    let id = conversation.places.get(&seq);
    let Some(found) = id.and_then(|id| conversation.messages.get(id)) else {
        return Outcome::Rejected(no_message());
    };
    let is_shown = is_member(context) && found.seq > conversation.history_from;
    if is_shown && !hidden {
        return message::quiet(found.clone());
    }
    let message = if is_shown {
        found.clone()
    } else {
        v1::Message {
            id: found.id.clone(),
            conversation_id: found.conversation_id.clone(),
            conversation_number: found.conversation_number,
            seq: found.seq,
            created_at_ms: found.created_at_ms,
            ..Default::default()
        }
    };
    Outcome::Message {
        message: Box::new(message),
        repeated: true,
        event: None,
        hidden: hidden && is_shown,
        then: Vec::new(),
    }
}

/// The actor's receipts as they are.
fn of_receipt(context: &mut CommandContext<'_>) -> Outcome {
    let key = (context.id(), context.actor().clone());
    let Some(member) = context.conversation.members.get(&key.1) else {
        let receipt = v1::ReceiptUpdated {
            user_id: key.1.to_string(),
            version: context.conversation.receipts_version,
            head_seq: context.conversation.head_seq,
            ..Default::default()
        };
        return Outcome::Bare(Box::new(confirmation::Result::Receipt(receipt)));
    };
    context.effects.readers.entry(key).or_insert_with(|| Reader {
        read: member.read.clone(),
        delivered_seq: member.delivered_seq,
        news: false,
        has_read: false,
    });
    Outcome::Receipt
}
