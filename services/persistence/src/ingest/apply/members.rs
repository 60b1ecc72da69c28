//! Who belongs to a conversation, and as what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use parlance_proto::UserId;
use parlance_proto::v1::{self, ConversationKind, ErrorCode, Role};
use prost::Message as _;

use super::CommandContext;
use crate::model::events::EventParts;
use crate::model::permissions::Right;
use crate::model::read_set::ReadSet;
use crate::model::refusals::refuse;
use crate::model::state::{Bounds, ChangeKind, Effects, Member, Outcome, Person};
use crate::model::work::{AddMembers, MEMBERS_PER_CHANGE};

pub(super) fn add(context: &mut CommandContext<'_>, add: &AddMembers) -> Result<Outcome, v1::Error> {
    let journal = context.conversation.kind == ConversationKind::Journal;
    let role = match add.role {
        Role::Unspecified if journal => Role::Viewer,
        Role::Unspecified => Role::Member,
        role => role,
    };
    let (present, mut new): (Vec<&UserId>, Vec<&UserId>) = add
        .users
        .iter()
        .partition(|user| context.conversation.members.contains_key(user));
    let changing: Vec<&UserId> = present
        .into_iter()
        .filter(|user| add.change_present && context.conversation.members[*user].role != role)
        .collect();
    if !new.is_empty() || changing.is_empty() {
        context.check(Right::Add(role))?;
    }
    may_change(context, &changing, role)?;
    let blocks = |user: &UserId| context.blocks.contains(&(user.clone(), context.actor().clone()));
    if add.leave_out_blocking {
        new.retain(|user| !blocks(user));
    }
    refuse_blocking(new.iter().copied().filter(|user| blocks(user)))?;
    let banned = &context.conversation.banned;
    refuse_banned(new.iter().copied().filter(|user| banned.contains(user)))?;
    if !new.is_empty() {
        admits(
            context.bounds,
            context.conversation.member_count + new.len() as u64,
        )?;
    }
    if !journal {
        may_join(
            context.bounds,
            context.memberships,
            context.effects,
            new.iter().copied(),
        )?;
    }
    let unknown = know(
        context.users,
        context.deleted_users,
        new.iter().copied(),
        add.provision,
    )?;
    context.effects.new_users.extend(unknown);
    let mut events = Vec::new();
    for new in new.chunks(MEMBERS_PER_CHANGE) {
        events.extend(admit(context, new, role));
    }
    for user in &changing {
        events.extend(give_role(context, user, role));
    }
    let added = match journal {
        true => Vec::new(),
        false => new.iter().copied().cloned().collect(),
    };
    let unchanged = new.is_empty() && changing.is_empty();
    Ok(outcome(context, unchanged, events, added, Vec::new()))
}

/// Makes users members that are known and are none.
fn admit(context: &mut CommandContext<'_>, new: &[&UserId], role: Role) -> Option<v1::Event> {
    let payload = v1::MembersAdded {
        members: new.iter().map(|user| participant(user, role)).collect(),
        actor_id: context.actor().to_string(),
    };
    let change = context.log(ChangeKind::MembersAdded, 0, payload.encode_to_vec());
    for &user in new {
        let person = context.users.get(user).cloned().unwrap_or_else(|| unnamed(user));
        context
            .conversation
            .members
            .insert(user.clone(), newcomer(person, role, change.seq));
        let key = (context.id(), user.clone());
        context.effects.left.remove(&key);
        context.effects.roles.remove(&key);
        context.effects.joined.insert(key, (role, change.seq));
    }
    context.count_members(new.iter().copied(), 1);
    context.event(&change, EventParts::default())
}

pub(super) fn remove(context: &mut CommandContext<'_>, user: &UserId) -> Result<Outcome, v1::Error> {
    let leaving = user == context.actor();
    context.member()?;
    if context.conversation.kind == ConversationKind::Direct {
        return Err(refuse("nobody leaves a direct conversation; it can be deleted"));
    }
    let role = context.conversation.members.get(user).ok_or_else(no_member)?.role;
    context.check(if leaving {
        Right::Leave
    } else {
        Right::Remove(role)
    })?;
    Ok(expel(context, user, role))
}

/// Ends the membership of a user, whose role this is; another becomes admin where there is none any more.
fn expel(context: &mut CommandContext<'_>, user: &UserId, role: Role) -> Outcome {
    let payload = v1::MemberRemoved {
        member: Some(participant(user, role)),
        actor_id: context.actor().to_string(),
    };
    let change = context.log(ChangeKind::MemberRemoved, 0, payload.encode_to_vec());
    context.conversation.members.remove(user);
    context
        .effects
        .left
        .insert((context.id(), user.clone()), change.seq);
    context.count_members([user].into_iter(), -1);
    let mut events: Vec<v1::Event> = context
        .event(&change, EventParts::default())
        .into_iter()
        .collect();
    if let Some(heir) = heir(context) {
        events.extend(give_role(context, &heir, Role::Admin));
    }
    let journal = context.conversation.kind == ConversationKind::Journal;
    let removed = if journal { Vec::new() } else { vec![user.clone()] };
    outcome(context, false, events, Vec::new(), removed)
}

/// Removes a user where they are in the group, and refuses to have them added from then on.
pub(super) fn ban(context: &mut CommandContext<'_>, user: &UserId) -> Result<Outcome, v1::Error> {
    context.member()?;
    let role = context.conversation.members.get(user).map(|member| member.role);
    context.check(Right::Ban(role.unwrap_or(Role::Member)))?;
    if user == context.actor() {
        return Err(refuse("user_id is you; it names another user"));
    }
    let was_banned = context.conversation.banned.contains(user);
    if !was_banned {
        if role.is_none() {
            know(context.users, context.deleted_users, [user].into_iter(), false)?;
        }
        let most = context.bounds.group_bans;
        if context.conversation.ban_count >= most {
            let message = format!("as many users are banned as limits.group_bans allows: {most}");
            return Err(v1::Error::with(ErrorCode::TooLarge, message));
        }
        context.conversation.ban_count += 1;
        context.conversation.banned.insert(user.clone());
        let key = (context.id(), user.clone());
        let by = (context.actor().clone(), context.now_ms);
        context.effects.bans.insert(key, Some(by));
    }
    Ok(match role {
        // Also where the ban is older: a replica of the version before may have added them.
        Some(role) => expel(context, user, role),
        None => outcome(context, was_banned, Vec::new(), Vec::new(), Vec::new()),
    })
}

/// The user may be added again.
pub(super) fn unban(context: &mut CommandContext<'_>, user: &UserId) -> Result<Outcome, v1::Error> {
    context.check(Right::Unban)?;
    let was_banned = context.conversation.banned.remove(user);
    if was_banned {
        context.conversation.ban_count = context.conversation.ban_count.saturating_sub(1);
        let key = (context.id(), user.clone());
        context.effects.bans.insert(key, None);
    }
    Ok(outcome(context, !was_banned, Vec::new(), Vec::new(), Vec::new()))
}

/// Who becomes admin of a group that has none: moderators first, then whoever is there longest.
fn heir(context: &CommandContext<'_>) -> Option<UserId> {
    let members = &context.conversation.members;
    if context.conversation.kind != ConversationKind::Group || members.values().any(|m| m.role == Role::Admin)
    {
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

pub(super) fn change_role(
    context: &mut CommandContext<'_>,
    user: &UserId,
    role: Role,
) -> Result<Outcome, v1::Error> {
    context.check(Right::GiveRole(role))?;
    let before = context.conversation.members.get(user).ok_or_else(no_member)?.role;
    if before == role {
        return Ok(outcome(context, true, Vec::new(), Vec::new(), Vec::new()));
    }
    may_change(context, &[user], role)?;
    let events = give_role(context, user, role).into_iter().collect();
    Ok(outcome(context, false, events, Vec::new(), Vec::new()))
}

/// Refuses to give these members another role where the actor may not, or where nobody would lead afterwards.
fn may_change(context: &CommandContext<'_>, users: &[&UserId], role: Role) -> Result<(), v1::Error> {
    if users.is_empty() {
        return Ok(());
    }
    context.check(Right::GiveRole(role))?;
    let members = &context.conversation.members;
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

fn give_role(context: &mut CommandContext<'_>, user: &UserId, role: Role) -> Option<v1::Event> {
    let payload = v1::RoleChanged {
        member: Some(participant(user, role)),
        actor_id: context.actor().to_string(),
    };
    let change = context.log(ChangeKind::RoleChanged, 0, payload.encode_to_vec());
    if let Some(member) = context.conversation.members.get_mut(user) {
        member.role = role;
    }
    context.effects.roles.insert((context.id(), user.clone()), role);
    context.event(&change, EventParts::default())
}

fn outcome(
    context: &CommandContext<'_>,
    repeated: bool,
    events: Vec<v1::Event>,
    added: Vec<UserId>,
    removed: Vec<UserId>,
) -> Outcome {
    Outcome::Conversation {
        bare: Box::new(context.bare()),
        repeated,
        events,
        added,
        joined_seq: context.conversation.head_seq,
        removed,
    }
}

/// Refuses to add these users, who have blocked the actor.
pub(super) fn refuse_blocking<'a>(users: impl Iterator<Item = &'a UserId>) -> Result<(), v1::Error> {
    refuse_named(ErrorCode::Forbidden, users, |names| {
        format!("user ids name users who have blocked you: {names}")
    })
}

/// Refuses to add these users, who are banned.
fn refuse_banned<'a>(users: impl Iterator<Item = &'a UserId>) -> Result<(), v1::Error> {
    refuse_named(ErrorCode::Forbidden, users, |names| {
        format!("user ids name users who are banned here: {names}; end the bans before")
    })
}

/// Refuses a command for these users, if there are any, and names the first of them.
fn refuse_named<'a>(
    code: ErrorCode,
    users: impl Iterator<Item = &'a UserId>,
    message: impl Fn(&str) -> String,
) -> Result<(), v1::Error> {
    let named: Vec<&str> = users.take(10).map(UserId::as_str).collect();
    if named.is_empty() {
        return Ok(());
    }
    Err(v1::Error::with(code, message(&named.join(", "))))
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
    let refused = unknown
        .iter()
        .copied()
        .filter(|id| !provision || deleted.contains(*id));
    refuse_named(ErrorCode::NotFound, refused, |names| {
        format!("unknown users: {names}")
    })?;
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
