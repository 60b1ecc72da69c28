//! Commands that were carried out before: the original result, told once more.

use parlance_proto::UserId;
use parlance_proto::v1::{self, ErrorCode};
use prost::Message as _;

use super::CommandContext;
use crate::model::events::EventParts;
use crate::model::refusals::no_conversation;
use crate::model::state::{Change, ChangeKind, Outcome};
use crate::model::work::{Action, MessageName};

pub(super) fn repeat(context: &CommandContext<'_>, done: &Change) -> Result<Outcome, v1::Error> {
    if done.actor != context.actor().as_str() {
        return Err(taken());
    }
    match (&context.work.action, done.kind) {
        (Action::Edit { message, .. }, ChangeKind::Edited)
        | (Action::Delete(message), ChangeKind::Deleted) => of_message(context, done, *message),
        (Action::EndStream(text, _), ChangeKind::Finished | ChangeKind::Deleted) => {
            of_message(context, done, MessageName::Id(text.message))
        }
        (Action::React(react), ChangeKind::Reaction) => of_message(context, done, react.message),
        (Action::StartThread(start), ChangeKind::ThreadCreated) => {
            let (_, thread) = context
                .conversation
                .threads
                .get(&start.thread)
                .ok_or_else(taken)?;
            let event = context.event(
                done,
                EventParts {
                    thread: Some(thread.clone()),
                    ..EventParts::default()
                },
            );
            Ok(Outcome::Thread {
                thread: thread.clone(),
                repeated: true,
                event,
            })
        }
        (Action::EditJournal(_), ChangeKind::JournalEdited) => {
            let journal = context.conversation.journal.as_ref();
            let edited = journal
                .and_then(|journal| journal.done.get(&done.seq))
                .ok_or_else(no_conversation)?;
            let event = context.event(
                done,
                EventParts {
                    journal: Some(edited.clone()),
                    ..EventParts::default()
                },
            );
            Ok(Outcome::Journal {
                edited: Box::new(edited.clone()),
                repeated: true,
                event,
            })
        }
        (Action::Update(_), ChangeKind::Updated)
        | (Action::AddMembers(_), ChangeKind::MembersAdded | ChangeKind::RoleChanged)
        | (Action::RemoveMember(_) | Action::Ban(_), ChangeKind::MemberRemoved)
        | (Action::ChangeRole(..), ChangeKind::RoleChanged)
        | (Action::DeleteConversation, ChangeKind::ConversationDeleted) => Ok(of_conversation(context, done)),
        _ => Err(taken()),
    }
}

fn of_message(context: &CommandContext<'_>, done: &Change, name: MessageName) -> Result<Outcome, v1::Error> {
    let message = context
        .conversation
        .message(name)
        .filter(|message| message.seq == done.target_seq);
    let message = message.ok_or_else(taken)?.clone();
    let event = context.event(
        done,
        EventParts {
            message: Some(message.clone()),
            ..EventParts::default()
        },
    );
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: true,
        event,
        hidden: false,
        then: Vec::new(),
    })
}

fn of_conversation(context: &CommandContext<'_>, done: &Change) -> Outcome {
    let bare = context.bare();
    let event = |change: &Change| {
        context.event(
            change,
            EventParts {
                conversation: Some(bare.clone()),
                ..EventParts::default()
            },
        )
    };
    let made = || {
        let ids = (0..context.work.max_changes()).map(|index| context.work.change_id(index));
        ids.map_while(|id| context.conversation.changes.get(&id))
    };
    let events = made().filter_map(event).collect();
    let journal = context.conversation.kind == v1::ConversationKind::Journal;
    let additions = made().filter(|change| change.kind == ChangeKind::MembersAdded && !journal);
    let added = additions
        .clone()
        .flat_map(|change| members_of(&change.payload))
        .collect();
    let joined_seq = additions.last().map_or(done.seq, |change| change.seq);
    let removed = match &context.work.action {
        Action::RemoveMember(user) | Action::Ban(user)
            if !journal && !context.conversation.members.contains_key(user) =>
        {
            vec![user.clone()]
        }
        _ => Vec::new(),
    };
    Outcome::Conversation {
        bare: Box::new(bare),
        repeated: true,
        events,
        added,
        joined_seq,
        removed,
    }
}

fn members_of(payload: &[u8]) -> Vec<UserId> {
    let added = v1::MembersAdded::decode(payload).unwrap_or_default();
    added
        .members
        .into_iter()
        .filter_map(|member| member.user_id.parse().ok())
        .collect()
}

fn taken() -> v1::Error {
    v1::Error::with(ErrorCode::Conflict, "the command id is taken")
}
