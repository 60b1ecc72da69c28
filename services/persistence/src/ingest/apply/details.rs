//! What a conversation is about, and its end.

use parlance_proto::UserId;
use parlance_proto::v1;

use super::Scene;
use crate::model::events::Parts;
use crate::model::permissions::Right;
use crate::model::state::{ChangeKind, Outcome};
use crate::model::work::{Update, needs_title};

pub(super) fn update(scene: &mut Scene<'_>, update: &Update) -> Result<Outcome, v1::Error> {
    let Update {
        title,
        status,
        channel,
        metadata_json,
    } = update;
    scene.member()?;
    if let Some(title) = title {
        scene.check(Right::SetTitle)?;
        needs_title(scene.conversation.kind, scene.conversation.open, title)?;
    }
    if status.is_some() || channel.is_some() || metadata_json.is_some() {
        scene.check(Right::SetDetails)?;
    }
    let state = &mut *scene.conversation;
    let mut changed = false;
    changed |= title
        .as_ref()
        .is_some_and(|title| replace(&mut state.title, title));
    changed |= status.is_some_and(|status| replace(&mut state.status, &status));
    changed |= channel.is_some_and(|channel| replace(&mut state.channel, &channel));
    changed |= metadata_json
        .as_ref()
        .is_some_and(|metadata| replace(&mut state.metadata_json, metadata));
    let mut events = Vec::new();
    if changed {
        let change = scene.log(ChangeKind::Updated, 0, Vec::new());
        scene.effects.changed.insert(scene.id());
        events.extend(scene.event(
            &change,
            Parts {
                conversation: Some(scene.bare()),
                ..Parts::default()
            },
        ));
    }
    Ok(Outcome::Conversation {
        bare: Box::new(scene.bare()),
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

pub(super) fn delete(scene: &mut Scene<'_>) -> Result<Outcome, v1::Error> {
    scene.check(Right::DeleteConversation)?;
    let change = scene.log(ChangeKind::ConversationDeleted, 0, Vec::new());
    let id = scene.id();
    let mut removed: Vec<UserId> = scene.conversation.members.drain().map(|(user, _)| user).collect();
    removed.sort_unstable();
    for user in &removed {
        scene.effects.left.insert((id, user.clone()), change.seq);
    }
    scene.count_members(removed.iter(), -1);
    scene.conversation.deleted = true;
    scene.effects.changed.insert(id);
    if scene.conversation.kind == v1::ConversationKind::Journal {
        // Nobody's set of conversations has it.
        removed.clear();
    }
    let events = scene.event(&change, Parts::default()).into_iter().collect();
    Ok(Outcome::Conversation {
        bare: Box::new(scene.bare()),
        repeated: false,
        events,
        added: Vec::new(),
        joined_seq: 0,
        removed,
    })
}
