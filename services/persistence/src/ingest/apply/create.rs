//! Creating conversations. A repeat, and the other side of a direct pair, get what exists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parlance_proto::UserId;
use parlance_proto::v1::{self, ConversationKind, ConversationStatus, ErrorCode, Role};

use super::members::{admits, know, may_join, newcomer, refuse_blocking, unnamed};
use super::{CommandContext, journal};
use crate::model::events;
use crate::model::refusals::{blocked, no_conversation};
use crate::model::state::{ConversationState, Effects, Loaded, Outcome};
use crate::model::work::{Create, Work};

pub(super) fn create(
    loaded: &mut Loaded,
    effects: &mut Effects,
    work: &Work,
    create: &Create,
) -> Result<Outcome, v1::Error> {
    if let Some(existing) = loaded.conversations.get(&work.conversation) {
        if existing.deleted {
            return revive(loaded, effects, work, create);
        }
        // A foreign group under the same id must look like nothing at all.
        if !existing.members.contains_key(&work.actor.id) || existing.kind != create.kind {
            return Err(no_conversation());
        }
        let same_command = existing.created_by_command == work.id;
        let notified = same_command && existing.kind != ConversationKind::Journal;
        let added = if notified {
            seated(work, create)
        } else {
            Vec::new()
        };
        return Ok(outcome(loaded, work, !same_command, Vec::new(), added));
    }
    let first = match create.kind {
        ConversationKind::Journal => Some(journal::begin(&create.journal, &loaded.bounds.journals)?),
        _ => None,
    };
    know_users(loaded, effects, work, create)?;
    let Some(number) = loaded.numbers.pop() else {
        return Err(v1::Error::with(
            ErrorCode::Internal,
            "no conversation number at hand",
        ));
    };
    let mut conversation = blank(loaded.now_ms, number, work, create);
    seat(loaded, effects, work, create, &mut conversation);
    effects.created.insert(work.conversation);
    let mut told = Vec::new();
    if let Some(first) = first {
        // A text of its own place: whoever edits can name the version they saw.
        let Loaded {
            now_ms,
            epoch,
            users,
            deleted_users,
            journals_by_number,
            memberships,
            blocks,
            open_reports,
            bounds,
            sent_by,
            ..
        } = &mut *loaded;
        let conversation = &mut conversation;
        let mut context = CommandContext {
            work,
            conversation,
            effects,
            users,
            deleted_users,
            journals_by_number,
            sent_by,
            epoch,
            now_ms: *now_ms,
            memberships,
            blocks,
            open_reports,
            bounds,
            changes_made: 0,
        };
        if let Outcome::Journal { event, .. } = journal::first(&mut context, first, &create.journal) {
            told.extend(event);
        }
    }
    let added = match conversation.kind {
        ConversationKind::Journal => Vec::new(),
        _ => seated(work, create),
    };
    loaded.conversations.insert(work.conversation, conversation);
    Ok(outcome(loaded, work, false, told, added))
}

/// A conversation without anybody.
fn blank(now_ms: i64, number: i64, work: &Work, create: &Create) -> ConversationState {
    ConversationState {
        number,
        kind: create.kind,
        open: create.open,
        read_only: false,
        title: create.title.clone(),
        channel: create.channel,
        status: ConversationStatus::Active,
        metadata_json: create.metadata_json.clone(),
        created_by: work.actor.id.to_string(),
        created_by_command: work.id,
        created_at_ms: now_ms,
        deleted: false,
        history_from: 0,
        head_seq: 0,
        last_message_seq: 0,
        receipts_version: 0,
        updated_at_ms: now_ms,
        blocked: false,
        banned: HashSet::new(),
        ban_count: 0,
        member_count: 0,
        members: HashMap::new(),
        messages: HashMap::new(),
        places: HashMap::new(),
        threads: HashMap::new(),
        changes: HashMap::new(),
        journal: None,
    }
}

/// A direct conversation that was deleted begins anew under its id, and what was before stays hidden. Nothing
/// else comes back, nor does a creation that was carried out before the deletion.
fn revive(
    loaded: &mut Loaded,
    effects: &mut Effects,
    work: &Work,
    create: &Create,
) -> Result<Outcome, v1::Error> {
    let revivable = loaded
        .conversations
        .get(&work.conversation)
        .is_some_and(|existing| {
            existing.kind == ConversationKind::Direct
                && create.kind == ConversationKind::Direct
                && existing.created_by_command != work.id
        });
    if !revivable {
        return Err(no_conversation());
    }
    know_users(loaded, effects, work, create)?;
    let Some(mut conversation) = loaded.conversations.remove(&work.conversation) else {
        return Err(no_conversation());
    };
    conversation.deleted = false;
    conversation.history_from = conversation.head_seq;
    conversation.last_message_seq = 0;
    conversation.title.clone_from(&create.title);
    conversation.channel = create.channel;
    conversation.status = ConversationStatus::Active;
    conversation.metadata_json.clone_from(&create.metadata_json);
    conversation.created_by = work.actor.id.to_string();
    conversation.created_by_command = work.id;
    conversation.updated_at_ms = conversation.updated_at_ms.max(loaded.now_ms);
    seat(loaded, effects, work, create, &mut conversation);
    effects.changed.insert(work.conversation);
    effects.moved.insert(work.conversation);
    loaded.conversations.insert(work.conversation, conversation);
    Ok(outcome(loaded, work, false, Vec::new(), seated(work, create)))
}

/// Gives everybody their place in a conversation that begins.
fn seat(
    loaded: &Loaded,
    effects: &mut Effects,
    work: &Work,
    create: &Create,
    conversation: &mut ConversationState,
) {
    let (creator, other) = match create.kind {
        ConversationKind::Group => (Role::Admin, Role::Member),
        ConversationKind::Journal => (Role::Owner, Role::Viewer),
        ConversationKind::Direct | ConversationKind::Unspecified => (Role::Member, Role::Member),
    };
    let mut roles: BTreeMap<&UserId, Role> = create.others.iter().map(|id| (id, other)).collect();
    roles.insert(&work.actor.id, creator);
    for (user, role) in roles {
        let person = loaded.users.get(user).cloned().unwrap_or_else(|| unnamed(user));
        conversation
            .members
            .insert(user.clone(), newcomer(person, role, conversation.head_seq));
        let key = (work.conversation, user.clone());
        effects.left.remove(&key);
        effects.roles.remove(&key);
        effects.joined.insert(key, (role, conversation.head_seq));
        if conversation.kind != ConversationKind::Journal {
            *effects.memberships.entry(user.clone()).or_default() += 1;
        }
    }
    conversation.member_count = conversation.members.len() as u64;
}

/// Everybody who has a place in a conversation from its beginning.
fn seated(work: &Work, create: &Create) -> Vec<UserId> {
    let everybody: BTreeSet<&UserId> = create.others.iter().chain([&work.actor.id]).collect();
    everybody.into_iter().cloned().collect()
}

fn know_users(
    loaded: &mut Loaded,
    effects: &mut Effects,
    work: &Work,
    create: &Create,
) -> Result<(), v1::Error> {
    may_meet(loaded, work, create)?;
    let wanted = || create.others.iter().chain([&work.actor.id]);
    admits(&loaded.bounds, wanted().count() as u64)?;
    if create.kind != ConversationKind::Journal {
        may_join(&loaded.bounds, &loaded.memberships, effects, wanted())?;
    }
    let wanted = wanted();
    let mut new = know(&mut loaded.users, &loaded.deleted_users, wanted, create.provision)?;
    if let Some(name) = new.get_mut(&work.actor.id) {
        name.clone_from(&work.actor.username);
        if let Some(person) = loaded.users.get_mut(&work.actor.id) {
            person.username.clone_from(name);
        }
    }
    effects.new_users.extend(new);
    Ok(())
}

/// Refuses a direct conversation of users one of whom has blocked the other, and to begin anything else with users who have
/// blocked the actor.
fn may_meet(loaded: &Loaded, work: &Work, create: &Create) -> Result<(), v1::Error> {
    let actor = &work.actor.id;
    let has_blocked = |user: &UserId, other: &UserId| loaded.blocks.contains(&(user.clone(), other.clone()));
    if create.kind != ConversationKind::Direct {
        return refuse_blocking(create.others.iter().filter(|other| has_blocked(other, actor)));
    }
    let mut others = create.others.iter();
    match others.any(|other| has_blocked(other, actor) || has_blocked(actor, other)) {
        true => Err(blocked()),
        false => Ok(()),
    }
}

fn outcome(
    loaded: &Loaded,
    work: &Work,
    repeated: bool,
    events: Vec<v1::Event>,
    added: Vec<UserId>,
) -> Outcome {
    let state = loaded.conversations.get(&work.conversation);
    let bare = state
        .map(|state| events::bare(work.conversation, state, &loaded.epoch))
        .unwrap_or_default();
    Outcome::Conversation {
        bare: Box::new(bare),
        repeated,
        events,
        added,
        joined_seq: state.map_or(0, |state| state.history_from),
        removed: Vec::new(),
    }
}
