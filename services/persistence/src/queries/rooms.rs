//! What gateways need to serve conversations live: members, heads, receipts.

use std::collections::HashSet;

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ConversationKind};
use prost::Message as _;
use sqlx::PgConnection;
use uuid::Uuid;

use super::page::{MAX_BYTES, cut, fitting, slim};
use super::{Viewer, conversation_id, head, visible};
use crate::error::QueryError;
use crate::model::refusals::{no_conversation, refuse};
use crate::store::conversations::Head;
use crate::store::missed::{self, Missing};
use crate::store::{conversations, epoch, participants, receipts as store, users};

/// Rooms in one question.
const MAX_ROOMS: usize = 500;
/// Rooms whose members are read by one statement.
const ROOMS_AT_ONCE: usize = 100;
/// Users in one query about missed receipts.
const MAX_MISSING: usize = 500;
/// Users in one question about a list.
const MAX_USERS: usize = 2_000;

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::GetRoom,
) -> Result<v1::Room, QueryError> {
    let id = conversation_id(connection, &query.conversation_id).await?;
    let mut heads = conversations::counted_heads(connection, &[id], viewer).await?;
    heads.retain(|head| !head.deleted);
    let rooms = load(connection, heads, query.small).await?;
    Ok(rooms.into_iter().next().ok_or_else(no_conversation)?)
}

/// What many rooms start from.
pub(super) async fn get_all(
    connection: &mut PgConnection,
    query: &v1::GetRooms,
) -> Result<v1::Rooms, QueryError> {
    if query.conversation_ids.len() > MAX_ROOMS {
        return Err(refuse(format!("more than {MAX_ROOMS} conversations")).into());
    }
    let parsed = query
        .conversation_ids
        .iter()
        .map(|id| id.parse::<ConversationId>());
    let ids: Vec<ConversationId> = parsed.filter_map(Result::ok).collect();
    let mut heads = conversations::counted_heads(connection, &ids, None).await?;
    heads.retain(|head| !head.deleted);
    let found: HashSet<String> = heads.iter().map(|head| head.id.to_string()).collect();
    let missing = query.conversation_ids.iter().filter(|id| !found.contains(*id));
    let missing = missing.cloned().collect();
    // Some rooms at a time: what does not fit any more was read in vain, and is asked for again.
    let mut rooms = Vec::with_capacity(heads.len());
    let mut left = MAX_BYTES;
    let mut heads = heads.into_iter().peekable();
    while heads.peek().is_some() && left > 0 {
        for room in load(
            connection,
            heads.by_ref().take(ROOMS_AT_ONCE).collect(),
            query.small,
        )
        .await?
        {
            let bytes = room.encoded_len() + 8;
            if bytes > left && !rooms.is_empty() {
                left = 0;
                break;
            }
            left = left.saturating_sub(bytes);
            rooms.push(room);
        }
    }
    Ok(v1::Rooms { rooms, missing })
}

/// The rooms of these heads, in their order. Members are listed of those that have at most `small`, and of direct ones.
async fn load(
    connection: &mut PgConnection,
    heads: Vec<Head>,
    small: u32,
) -> Result<Vec<v1::Room>, sqlx::Error> {
    let is_small = |head: &&Head| {
        small == 0
            || head.member_count <= u64::from(small)
            || head.kind == i32::from(ConversationKind::Direct)
    };
    let ids: Vec<Uuid> = heads.iter().filter(is_small).map(|head| head.id.uuid()).collect();
    // Members after the heads: whoever joins in between is an event the asker will see.
    let mut members = participants::of(connection, &ids, i64::MAX).await?;
    let room = |head: Head| {
        let mut room = v1::Room {
            conversation_id: head.id.to_string(),
            number: head.number,
            head_seq: head.seq,
            epoch: head.epoch,
            receipts_version: head.receipts_version,
            members: members.remove(&head.id.uuid()).unwrap_or_default(),
            kind: head.kind,
            title: head.title,
            member_count: head.member_count,
        };
        slim(&mut room, |room| &mut room.members);
        room
    };
    Ok(heads.into_iter().map(room).collect())
}

pub(super) async fn heads(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::GetHeads,
) -> Result<v1::Heads, QueryError> {
    let ids: Vec<ConversationId> = query
        .conversation_ids
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let heads = conversations::heads(connection, &ids, viewer)
        .await?
        .into_iter()
        .map(|head| v1::Head {
            conversation_id: head.id.to_string(),
            head_seq: head.seq,
            receipts_version: head.receipts_version,
        })
        .collect();
    let asked = visible(viewer, &query.user_ids);
    Ok(v1::Heads {
        epoch: epoch::current(connection).await?,
        heads,
        users: users::versions(connection, &asked).await?,
    })
}

/// What lists show of a conversation: its latest message, and each user's count.
pub(super) async fn list_state(
    connection: &mut PgConnection,
    query: &v1::GetListState,
) -> Result<v1::ListState, QueryError> {
    if query.user_ids.len() > MAX_USERS {
        return Err(refuse(format!("more than {MAX_USERS} users")).into());
    }
    let head = head(connection, None, &query.conversation_id).await?;
    let is_first = query.head_seq == 0;
    // What comes after this head is counted as it comes.
    let head_seq = if is_first { head.seq } else { query.head_seq };
    Ok(v1::ListState {
        head_seq,
        last_message: match is_first {
            true => conversations::last_message(connection, head.id).await?,
            false => None,
        },
        unread: store::unread(connection, head.id, head_seq, &query.user_ids).await?,
    })
}

pub(super) async fn receipts(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListReceipts,
) -> Result<v1::Receipts, QueryError> {
    let head = head(connection, viewer, &query.conversation_id).await?;
    // The version was read before the receipts: asking again after it repeats, and never skips.
    let mut receipts = store::after(connection, &[(head.id, query.after_version)])
        .await?
        .remove(&head.id)
        .unwrap_or_default();
    let full = receipts.len() == store::MAX_AFTER;
    let mut left = MAX_BYTES;
    let receipts_version = if cut(&mut receipts, &mut left) && !full {
        head.receipts_version
    } else {
        receipts.last().map_or(head.receipts_version, |last| last.version)
    };
    Ok(v1::Receipts {
        receipts,
        receipts_version,
    })
}

pub(super) async fn missed_receipts(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListMissedReceipts,
) -> Result<v1::MissedReceipts, QueryError> {
    let asked = missing(viewer, query.since_ms, &query.conversation_id)?;
    let found = missed::receipts(connection, &[asked]).await?;
    Ok(fitting_one(found.into_iter().next().unwrap_or_default()))
}

/// What became of the messages of each of these users.
pub(super) async fn find_missed_receipts(
    connection: &mut PgConnection,
    query: &v1::FindMissedReceipts,
) -> Result<v1::FoundMissedReceipts, QueryError> {
    if query.asked.len() > MAX_MISSING {
        return Err(refuse(format!("more than {MAX_MISSING} users")).into());
    }
    let asked = query.asked.iter();
    let asked = asked.map(|one| missing(&one.user_id, one.since_ms, &one.conversation_id));
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    let found = missed::receipts(connection, &asked).await?;
    let mut missed: Vec<v1::MissedReceipts> = found.into_iter().map(fitting_one).collect();
    // Those at the end are asked about again.
    missed.truncate(fitting(&missed, MAX_BYTES));
    Ok(v1::FoundMissedReceipts { missed })
}

fn missing(user: &str, since_ms: i64, conversation_id: &str) -> Result<Missing, QueryError> {
    let id = Some(conversation_id).filter(|id| !id.is_empty()).map(str::parse);
    let only = id
        .transpose()
        .map_err(|error: parlance_proto::InvalidId| refuse(error.to_string()))?;
    Ok(Missing {
        user: user.to_owned(),
        since_ms,
        only,
    })
}

fn fitting_one(mut conversations: Vec<v1::ConversationReceipts>) -> v1::MissedReceipts {
    conversations.truncate(fitting(&conversations, MAX_BYTES));
    v1::MissedReceipts { conversations }
}
