//! What gateways need to serve conversations live: members, heads, receipts.

use parlance_proto::ConversationId;
use parlance_proto::v1;
use sqlx::PgConnection;

use super::{QueryError, Viewer, head};
use crate::store::{conversations, epoch, receipts as store, users};

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    id: &str,
) -> Result<v1::Room, QueryError> {
    let head = head(connection, viewer, id).await?;
    // Members after the head: whoever joins in between is an event the asker will see.
    let mut members = conversations::participants(connection, &[head.id.uuid()]).await?;
    Ok(v1::Room {
        conversation_id: head.id.to_string(),
        number: head.number,
        head_seq: head.seq,
        epoch: head.epoch,
        receipts_version: head.receipts_version,
        members: members.remove(&head.id.uuid()).unwrap_or_default(),
    })
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

pub(super) async fn receipts(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListReceipts,
) -> Result<v1::Receipts, QueryError> {
    let head = head(connection, viewer, &query.conversation_id).await?;
    // The version was read before the receipts: asking again after it repeats, and never skips.
    let receipts = store::after(connection, head.id, query.after_version).await?;
    Ok(v1::Receipts {
        receipts,
        receipts_version: head.receipts_version,
    })
}
