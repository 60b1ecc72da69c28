//! What gateways need to serve conversations live: members, heads, receipts.

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ConversationKind};
use prost::Message as _;
use sqlx::PgConnection;

use super::page::{MAX_BYTES, cut, slim};
use super::{QueryError, Viewer, head};
use crate::ingest::apply::no_conversation;
use crate::ingest::work::refuse;
use crate::store::{conversations, epoch, journals, participants, receipts as store, users};

/// Users in one question about a list.
const MAX_USERS: usize = 2_000;

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    id: &str,
) -> Result<v1::Room, QueryError> {
    let head = head(connection, viewer, id).await?;
    if head.deleted {
        return Err(no_conversation().into());
    }
    // Members after the head: whoever joins in between is an event the asker will see.
    let mut members = participants::of(connection, &[head.id.uuid()]).await?;
    let mut room = v1::Room {
        conversation_id: head.id.to_string(),
        number: head.number,
        head_seq: head.seq,
        epoch: head.epoch,
        receipts_version: head.receipts_version,
        members: members.remove(&head.id.uuid()).unwrap_or_default(),
        kind: head.kind,
        title: head.title,
        journal_state: None,
    };
    slim(&mut room, |room| &mut room.members);
    if room.kind() == ConversationKind::Journal {
        let state = journals::states(connection, &[head.id.uuid()])
            .await?
            .remove(&head.id.uuid());
        // A document too large for one message is left out; its versions can be read one by one.
        room.journal_state = state
            .map(|journal| journal.state)
            .filter(|state| state.len() + room.encoded_len() <= MAX_BYTES);
    }
    Ok(room)
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
    // On behalf of a user: nobody else's counters.
    let asked: Vec<String> = query
        .user_ids
        .iter()
        .filter(|id| viewer.is_none_or(|viewer| viewer == *id))
        .cloned()
        .collect();
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
    // The head first: what the rest is ahead of it is counted once more, and never left out.
    let head = head(connection, None, &query.conversation_id).await?;
    let unread = store::unread(connection, head.id, &query.user_ids).await?;
    Ok(v1::ListState {
        head_seq: head.seq,
        last_message: conversations::last_message(connection, head.id).await?,
        unread,
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
    let only: Option<ConversationId> = match query.conversation_id.as_str() {
        "" => None,
        id => Some(
            id.parse()
                .map_err(|error: parlance_proto::InvalidId| refuse(error.to_string()))?,
        ),
    };
    let missed = store::missed(connection, viewer, only, query.since_ms).await?;
    let mut conversations: Vec<v1::ConversationReceipts> = missed
        .into_iter()
        .map(|(id, receipts)| v1::ConversationReceipts {
            conversation_id: id.to_string(),
            receipts,
        })
        .collect();
    let mut left = MAX_BYTES;
    cut(&mut conversations, &mut left);
    Ok(v1::MissedReceipts { conversations })
}
