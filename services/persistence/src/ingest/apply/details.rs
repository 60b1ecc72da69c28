//! What a conversation is about, and its end.

use parlance_proto::UserId;
use parlance_proto::v1;

use super::CommandContext;
use crate::model::events::EventParts;
use crate::model::permissions::{Form, Right};
use crate::model::refusals::refuse;
use crate::model::state::{ChangeKind, Outcome};
use crate::model::work::{Update, needs_title};

pub(super) fn update(context: &mut CommandContext<'_>, update: &Update) -> Result<Outcome, v1::Error> {
    let Update {
        title,
        status,
        channel,
        metadata_json,
        read_only,
    } = update;
    context.member()?;
    if let Some(title) = title {
        context.check(Right::SetTitle)?;
        needs_title(context.conversation.kind, context.conversation.open, title)?;
    }
    if status.is_some() || channel.is_some() || metadata_json.is_some() || read_only.is_some() {
        context.check(Right::SetDetails)?;
    }
    if *read_only == Some(true) && context.conversation.form() != Form::Group {
        let message = "read_only is true; only a group with roles can be read-only";
        return Err(refuse(message));
    }
    let state = &mut *context.conversation;
    let mut changed = false;
    changed |= title
        .as_ref()
        .is_some_and(|title| replace(&mut state.title, title));
    changed |= status.is_some_and(|status| replace(&mut state.status, &status));
    changed |= channel.is_some_and(|channel| replace(&mut state.channel, &channel));
    changed |= metadata_json
        .as_ref()
        .is_some_and(|metadata| replace(&mut state.metadata_json, metadata));
    changed |= read_only.is_some_and(|read_only| replace(&mut state.read_only, &read_only));
    let mut events = Vec::new();
    if changed {
        let change = context.log(ChangeKind::Updated, 0, Vec::new());
        context.effects.changed.insert(context.id());
        events.extend(context.event(
            &change,
            EventParts {
                conversation: Some(context.bare()),
                ..EventParts::default()
            },
        ));
    }
    Ok(Outcome::Conversation {
        bare: Box::new(context.bare()),
        repeated: !changed,
        events,
        added: Vec::new(),
        joined_seq: 0,
        removed: Vec::new(),
    })
}

/// Whether that is something new.
fn replace<T: Clone + PartialEq>(place: &mut T, value: &T) -> bool {
    let new = place != value;
    if new {
        place.clone_from(value);
    }
    new
}

pub(super) fn delete(context: &mut CommandContext<'_>) -> Result<Outcome, v1::Error> {
    context.check(Right::DeleteConversation)?;
    let change = context.log(ChangeKind::ConversationDeleted, 0, Vec::new());
    let id = context.id();
    let mut removed: Vec<UserId> = context
        .conversation
        .members
        .drain()
        .map(|(user, _)| user)
        .collect();
    removed.sort_unstable();
    for user in &removed {
        context.effects.left.insert((id, user.clone()), change.seq);
    }
    context.count_members(removed.iter(), -1);
    context.conversation.deleted = true;
    context.effects.changed.insert(id);
    if context.conversation.kind == v1::ConversationKind::Journal {
        // Nobody's set of conversations has it.
        removed.clear();
    }
    let events = context
        .event(&change, EventParts::default())
        .into_iter()
        .collect();
    Ok(Outcome::Conversation {
        bare: Box::new(context.bare()),
        repeated: false,
        events,
        added: Vec::new(),
        joined_seq: 0,
        removed,
    })
}
