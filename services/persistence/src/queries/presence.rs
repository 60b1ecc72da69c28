//! How users are seen.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use sqlx::PgConnection;

use super::Viewer;
use crate::error::QueryError;
use crate::model::refusals::refuse;
use crate::store::{blocks, presence as store};

/// Users asked for at once.
const USERS_MAX: usize = 2_000;
/// Changes in one answer; well below a bus message even with the longest ids.
const CHANGES_MAX: usize = 4_000;
/// A transaction may commit later than what it wrote says, so each answer goes back this far behind the last.
const OVERLAP_US: i64 = 5_000_000;
/// Participants up to which a conversation is read with how each of them is seen.
const LARGE_GROUP: u64 = 200;
/// Users looked up for one page of conversations.
const LOOKED_UP: usize = 2_000;

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::GetPresence,
) -> Result<v1::Presences, QueryError> {
    if query.user_ids.len() > USERS_MAX {
        return Err(refuse("more than 2000 users are named").into());
    }
    Ok(v1::Presences {
        presences: store::of(connection, &query.user_ids, viewer).await?,
        next_us: 0,
        complete: true,
    })
}

pub(super) async fn changes(
    connection: &mut PgConnection,
    query: &v1::ListPresenceChanges,
) -> Result<v1::Presences, QueryError> {
    // Before the changes: what commits in between is told again.
    let now = store::clock(connection).await?;
    if query.since_us <= 0 {
        return Ok(v1::Presences {
            presences: Vec::new(),
            next_us: now - OVERLAP_US,
            complete: true,
        });
    }
    let since: DateTime<Utc> =
        DateTime::from_timestamp_micros(query.since_us).ok_or_else(|| refuse("since_us is no time"))?;
    let presences = store::since(connection, since, CHANGES_MAX).await?;
    let complete = presences.len() < CHANGES_MAX;
    let next_us = match presences.last() {
        // Milliseconds are enough here: the ones before are told again.
        Some(last) if !complete => last.since_ms * 1000,
        _ => now - OVERLAP_US,
    };
    Ok(v1::Presences {
        presences,
        next_us,
        complete,
    })
}

/// Fills in how the participants of conversations are seen, but of large groups; nothing where they are too many.
pub(super) async fn fill(
    connection: &mut PgConnection,
    viewer: &str,
    conversations: &mut [v1::Conversation],
) -> Result<(), sqlx::Error> {
    let mut conversations: Vec<_> = conversations.iter_mut().filter(is_small).collect();
    let users = participants(&conversations);
    if users.len() > LOOKED_UP {
        return Ok(());
    }
    show(connection, &mut conversations, &users).await?;
    let all = conversations.iter_mut();
    let participants = all.flat_map(|conversation| &mut conversation.participants);
    hide(connection, viewer, &users, participants).await
}

/// The same, whatever is blocked, for conversations that several users open, each by itself: for all of them.
pub(super) async fn fill_each<'a>(
    connection: &mut PgConnection,
    conversations: impl Iterator<Item = &'a mut v1::Conversation>,
) -> Result<(), sqlx::Error> {
    let mut conversations: Vec<_> = conversations.filter(is_small).collect();
    let users = participants(&conversations);
    show(connection, &mut conversations, &users).await
}

/// Fills in how these participants are seen.
pub(super) async fn fill_participants(
    connection: &mut PgConnection,
    viewer: &str,
    participants: &mut [v1::Participant],
) -> Result<(), sqlx::Error> {
    let users: Vec<String> = participants.iter().map(|one| one.user_id.clone()).collect();
    let mut seen = look_up(connection, &users).await?;
    for participant in participants.iter_mut() {
        participant.presence = seen.remove(&participant.user_id);
    }
    hide(connection, viewer, &users, participants.iter_mut()).await
}

fn is_small(conversation: &&mut v1::Conversation) -> bool {
    conversation.participant_count <= LARGE_GROUP
}

/// The ids of all participants, each once.
fn participants(conversations: &[&mut v1::Conversation]) -> Vec<String> {
    let all = conversations
        .iter()
        .flat_map(|conversation| &conversation.participants);
    let mut users: Vec<String> = all.map(|participant| participant.user_id.clone()).collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// How users are seen, by their ids.
async fn look_up(
    connection: &mut PgConnection,
    users: &[String],
) -> Result<HashMap<String, v1::Presence>, sqlx::Error> {
    let mut seen: HashMap<String, v1::Presence> = HashMap::new();
    for some in users.chunks(LOOKED_UP) {
        let found = store::of(connection, some, None).await?;
        let each = found.into_iter();
        seen.extend(each.map(|presence| (presence.user_id.clone(), presence)));
    }
    Ok(seen)
}

async fn show(
    connection: &mut PgConnection,
    conversations: &mut [&mut v1::Conversation],
    users: &[String],
) -> Result<(), sqlx::Error> {
    let seen = look_up(connection, users).await?;
    for conversation in conversations {
        for participant in &mut conversation.participants {
            participant.presence = seen.get(&participant.user_id).cloned();
        }
    }
    Ok(())
}

/// Takes the presence of those away of whom one has blocked the other.
async fn hide<'a>(
    connection: &mut PgConnection,
    viewer: &str,
    users: &[String],
    participants: impl Iterator<Item = &'a mut v1::Participant>,
) -> Result<(), sqlx::Error> {
    let hidden = blocks::hidden_from(connection, viewer, users).await?;
    for participant in participants.filter(|one| hidden.contains(&one.user_id)) {
        participant.presence = None;
    }
    Ok(())
}
