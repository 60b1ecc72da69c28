//! Creating conversations. A repeat, and the other side of a direct pair, get what exists.

use std::collections::{BTreeMap, HashMap};

use parlance_proto::UserId;
use parlance_proto::v1::{self, ConversationKind, ErrorCode, Role};

use super::no_conversation;
use crate::ingest::state::{ConversationState, Effects, Loaded, Member, Outcome};
use crate::ingest::work::{Create, Work};
use crate::read_set::ReadSet;

pub(super) fn create(
    loaded: &mut Loaded,
    effects: &mut Effects,
    work: &Work,
    create: &Create,
) -> Result<Outcome, v1::Error> {
    if let Some(existing) = loaded.conversations.get(&work.conversation) {
        // A foreign group under the same id must look like nothing at all.
        if !existing.members.contains_key(&work.actor.id) || existing.kind != create.kind {
            return Err(no_conversation());
        }
        let same_command = existing.created_by_command == work.id;
        return Ok(Outcome::Conversation {
            repeated: !same_command,
            announce: same_command,
        });
    }
    know_users(loaded, effects, work, create)?;
    let Some(number) = loaded.numbers.pop() else {
        return Err(v1::Error::with(
            ErrorCode::Internal,
            "no conversation number at hand",
        ));
    };
    let mut roles: BTreeMap<UserId, Role> = create
        .others
        .iter()
        .map(|id| (id.clone(), Role::Member))
        .collect();
    let creator = match create.kind {
        ConversationKind::Group => Role::Admin,
        ConversationKind::Direct | ConversationKind::Unspecified => Role::Member,
    };
    roles.insert(work.actor.id.clone(), creator);
    let members: HashMap<UserId, Member> = roles
        .iter()
        .map(|(id, &role)| (id.clone(), member(loaded, id, role)))
        .collect();
    let title = match create.kind {
        ConversationKind::Group => create.title.clone(),
        ConversationKind::Direct | ConversationKind::Unspecified => String::new(),
    };
    let conversation = ConversationState {
        number,
        kind: create.kind,
        title,
        created_by: work.actor.id.to_string(),
        created_by_command: work.id,
        head_seq: 0,
        last_message_seq: 0,
        receipts_version: 0,
        updated_at_ms: loaded.now_ms,
        members,
        messages: HashMap::new(),
        changes: HashMap::new(),
    };
    loaded.conversations.insert(work.conversation, conversation);
    effects.created.insert(work.conversation, roles);
    Ok(Outcome::Conversation {
        repeated: false,
        announce: true,
    })
}

/// Makes unknown users known, or names them.
fn know_users(
    loaded: &mut Loaded,
    effects: &mut Effects,
    work: &Work,
    create: &Create,
) -> Result<(), v1::Error> {
    let wanted = || create.others.iter().chain([&work.actor.id]);
    let unknown: Vec<&UserId> = wanted().filter(|id| !loaded.users.contains_key(id)).collect();
    let refused: Vec<&&UserId> = unknown
        .iter()
        .filter(|id| !create.provision || loaded.deleted_users.contains(id))
        .collect();
    if !refused.is_empty() {
        let names: Vec<&str> = refused.iter().take(10).map(|id| id.as_str()).collect();
        let message = format!("unknown users: {}", names.join(", "));
        return Err(v1::Error::with(ErrorCode::NotFound, message));
    }
    for id in unknown {
        let username = if *id == work.actor.id {
            work.actor.username.clone()
        } else {
            id.to_string()
        };
        loaded.users.insert(id.clone(), username.clone());
        effects.new_users.insert(id.clone(), username);
    }
    Ok(())
}

fn member(loaded: &Loaded, id: &UserId, role: Role) -> Member {
    let username = loaded.users.get(id).cloned().unwrap_or_else(|| id.to_string());
    Member {
        role,
        username,
        read: ReadSet::default(),
        receipts_version: 0,
    }
}
