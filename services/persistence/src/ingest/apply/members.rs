//! Who belongs to a conversation, and as what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use parlance_proto::UserId;
use parlance_proto::v1::{self, ConversationKind, ErrorCode, Role};
use prost::Message as _;

use super::Scene;
use crate::model::events::Parts;
use crate::model::permissions::Right;
use crate::model::read_set::ReadSet;
use crate::model::refusals::refuse;
use crate::model::state::{Bounds, ChangeKind, Effects, Member, Outcome, Person};
use crate::model::work::{AddMembers, MEMBERS_PER_CHANGE};

pub(super) fn add(scene: &mut Scene<'_>, add: &AddMembers) -> Result<Outcome, v1::Error> {
    let journal = scene.conversation.kind == ConversationKind::Journal;
    let role = match add.role {
        Role::Unspecified if journal => Role::Viewer,
        Role::Unspecified => Role::Member,
        role => role,
    };
    let (present, new): (Vec<&UserId>, Vec<&UserId>) = add
        .users
        .iter()
        .partition(|user| scene.conversation.members.contains_key(user));
    let changing: Vec<&UserId> = present
        .into_iter()
        .filter(|user| add.change_present && scene.conversation.members[*user].role != role)
        .collect();
    if !new.is_empty() || changing.is_empty() {
        scene.check(Right::Add(role))?;
    }
    may_change(scene, &changing, role)?;
    if !new.is_empty() {
        admits(scene.bounds, scene.conversation.member_count + new.len() as u64)?;
    }
    if !journal {
        may_join(
            scene.bounds,
            scene.memberships,
            scene.effects,
            new.iter().copied(),
        )?;
    }
    let unknown = know(
        scene.users,
        scene.deleted_users,
        new.iter().copied(),
        add.provision,
    )?;
    scene.effects.new_users.extend(unknown);
    let mut events = Vec::new();
    for new in new.chunks(MEMBERS_PER_CHANGE) {
        events.extend(admit(scene, new, role));
    }
    for user in &changing {
        events.extend(give_role(scene, user, role));
    }
    let added = match journal {
        true => Vec::new(),
        false => new.iter().copied().cloned().collect(),
    };
    let unchanged = new.is_empty() && changing.is_empty();
    Ok(outcome(scene, unchanged, events, added, Vec::new()))
}

/// Makes users members that are known and are none.
fn admit(scene: &mut Scene<'_>, new: &[&UserId], role: Role) -> Option<v1::Event> {
    let payload = v1::MembersAdded {
        members: new.iter().map(|user| participant(user, role)).collect(),
        actor_id: scene.actor().to_string(),
    };
    let change = scene.log(ChangeKind::MembersAdded, 0, payload.encode_to_vec());
    for &user in new {
        let person = scene.users.get(user).cloned().unwrap_or_else(|| unnamed(user));
        scene
            .conversation
            .members
            .insert(user.clone(), newcomer(person, role, change.seq));
        let key = (scene.id(), user.clone());
        scene.effects.left.remove(&key);
        scene.effects.roles.remove(&key);
        scene.effects.joined.insert(key, (role, change.seq));
    }
    scene.count_members(new.iter().copied(), 1);
    scene.event(&change, Parts::default())
}

pub(super) fn remove(scene: &mut Scene<'_>, user: &UserId) -> Result<Outcome, v1::Error> {
    let leaving = user == scene.actor();
    scene.member()?;
    if scene.conversation.kind == ConversationKind::Direct {
        return Err(refuse("nobody leaves a direct conversation; it can be deleted"));
    }
    let role = scene.conversation.members.get(user).ok_or_else(no_member)?.role;
    scene.check(if leaving {
        Right::Leave
    } else {
        Right::Remove(role)
    })?;
    let payload = v1::MemberRemoved {
        member: Some(participant(user, role)),
        actor_id: scene.actor().to_string(),
    };
    let change = scene.log(ChangeKind::MemberRemoved, 0, payload.encode_to_vec());
    scene.conversation.members.remove(user);
    scene.effects.left.insert((scene.id(), user.clone()), change.seq);
    scene.count_members([user].into_iter(), -1);
    let mut events: Vec<v1::Event> = scene.event(&change, Parts::default()).into_iter().collect();
    if let Some(heir) = heir(scene) {
        events.extend(give_role(scene, &heir, Role::Admin));
    }
    let journal = scene.conversation.kind == ConversationKind::Journal;
    let removed = if journal { Vec::new() } else { vec![user.clone()] };
    Ok(outcome(scene, false, events, Vec::new(), removed))
}

/// Who becomes admin of a group that has none: moderators first, then whoever is there longest.
fn heir(scene: &Scene<'_>) -> Option<UserId> {
    let members = &scene.conversation.members;
    if scene.conversation.kind != ConversationKind::Group || members.values().any(|m| m.role == Role::Admin) {
        return None;
    }
    let rank = |user: &UserId, member: &Member| {
        (
            Reverse(member.role == Role::Moderator),
            member.joined_seq,
            user.clone(),
        )
    };
    members
        .iter()
        .min_by_key(|(user, member)| rank(user, member))
        .map(|(user, _)| user.clone())
}

pub(super) fn change_role(scene: &mut Scene<'_>, user: &UserId, role: Role) -> Result<Outcome, v1::Error> {
    scene.check(Right::GiveRole(role))?;
    let before = scene.conversation.members.get(user).ok_or_else(no_member)?.role;
    if before == role {
        return Ok(outcome(scene, true, Vec::new(), Vec::new(), Vec::new()));
    }
    may_change(scene, &[user], role)?;
    let events = give_role(scene, user, role).into_iter().collect();
    Ok(outcome(scene, false, events, Vec::new(), Vec::new()))
}

/// Refuses to give these members another role where the actor may not, or where nobody would lead afterwards.
fn may_change(scene: &Scene<'_>, users: &[&UserId], role: Role) -> Result<(), v1::Error> {
    if users.is_empty() {
        return Ok(());
    }
    scene.check(Right::GiveRole(role))?;
    let members = &scene.conversation.members;
    let has = |user: &UserId, role: Role| members.get(user).is_some_and(|member| member.role == role);
    if users.iter().any(|user| has(user, Role::Owner)) {
        return Err(refuse("a journal's owner stays its owner"));
    }
    let changed_admins = users.iter().filter(|user| has(user, Role::Admin)).count();
    let admins = members
        .values()
        .filter(|member| member.role == Role::Admin)
        .count();
    if role != Role::Admin && changed_admins > 0 && changed_admins == admins {
        return Err(refuse("a group needs an admin: make somebody else admin first"));
    }
    Ok(())
}

fn give_role(scene: &mut Scene<'_>, user: &UserId, role: Role) -> Option<v1::Event> {
    let payload = v1::RoleChanged {
        member: Some(participant(user, role)),
        actor_id: scene.actor().to_string(),
    };
    let change = scene.log(ChangeKind::RoleChanged, 0, payload.encode_to_vec());
    if let Some(member) = scene.conversation.members.get_mut(user) {
        member.role = role;
    }
    scene.effects.roles.insert((scene.id(), user.clone()), role);
    scene.event(&change, Parts::default())
}

fn outcome(
    scene: &Scene<'_>,
    repeated: bool,
    events: Vec<v1::Event>,
    added: Vec<UserId>,
    removed: Vec<UserId>,
) -> Outcome {
    Outcome::Conversation {
        bare: Box::new(scene.bare()),
        repeated,
        events,
        added,
        joined_seq: scene.conversation.head_seq,
        removed,
    }
}

/// Refuses more members than a conversation may have.
pub(super) fn admits(bounds: &Bounds, members: u64) -> Result<(), v1::Error> {
    if members <= bounds.group_members {
        return Ok(());
    }
    let most = bounds.group_members;
    let message =
        format!("the conversation would have {members} participants; limits.group_members allows {most}");
    Err(v1::Error::with(ErrorCode::TooLarge, message))
}

/// Refuses to add users who are in as many conversations as one may be in. What other replicas do at the same time may
/// come on top of it.
pub(super) fn may_join<'a>(
    bounds: &Bounds,
    memberships: &HashMap<UserId, u64>,
    effects: &Effects,
    mut users: impl Iterator<Item = &'a UserId>,
) -> Result<(), v1::Error> {
    let now = |user: &UserId| {
        let before = memberships.get(user).copied().unwrap_or_default();
        before.saturating_add_signed(effects.memberships.get(user).copied().unwrap_or_default())
    };
    match users.find(|user| now(user) >= bounds.user_conversations) {
        None => Ok(()),
        Some(user) => {
            let most = bounds.user_conversations;
            let message =
                format!("{user} is in as many conversations as limits.user_conversations allows: {most}");
            Err(v1::Error::with(ErrorCode::TooLarge, message))
        }
    }
}

/// Makes unknown users known, or names them. Returns those to create.
pub(super) fn know<'a>(
    users: &mut HashMap<UserId, Person>,
    deleted: &HashSet<UserId>,
    wanted: impl Iterator<Item = &'a UserId>,
    provision: bool,
) -> Result<BTreeMap<UserId, String>, v1::Error> {
    let unknown: Vec<&UserId> = wanted.filter(|id| !users.contains_key(id)).collect();
    let refused: Vec<&str> = unknown
        .iter()
        .filter(|id| !provision || deleted.contains(**id))
        .map(|id| id.as_str())
        .collect();
    if !refused.is_empty() {
        let names = refused.into_iter().take(10).collect::<Vec<_>>().join(", ");
        return Err(v1::Error::with(
            ErrorCode::NotFound,
            format!("unknown users: {names}"),
        ));
    }
    let mut created = BTreeMap::new();
    for id in unknown {
        let person = unnamed(id);
        created.insert(id.clone(), person.username.clone());
        users.insert(id.clone(), person);
    }
    Ok(created)
}

/// Who joins at `joined_seq` has nothing unread from before.
pub(super) fn newcomer(person: Person, role: Role, joined_seq: u64) -> Member {
    let mut read = ReadSet::default();
    read.insert(1, joined_seq);
    Member {
        role,
        person,
        joined_seq,
        read,
        delivered_seq: joined_seq,
        receipts_version: 0,
    }
}

pub(super) fn unnamed(user: &UserId) -> Person {
    Person {
        username: user.to_string(),
        number: 0,
    }
}

fn participant(user: &UserId, role: Role) -> v1::Participant {
    v1::Participant {
        user_id: user.to_string(),
        role: role.into(),
        ..Default::default()
    }
}

fn no_member() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such member")
}
