//! A conversation's threads.

use parlance_proto::v1::{self, ErrorCode};
use sqlx::PgConnection;
use uuid::Uuid;

use super::head;
use super::page::{cut_page_by_seq, limit};
use crate::error::QueryError;
use crate::store::threads as store;

/// Oldest first, from a cursor on.
pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListThreads,
) -> Result<v1::Threads, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    if query.thread_id.is_empty() {
        let limit = limit(query.limit);
        let after = query.after.max(head.history_from);
        let placed = store::of(connection, head.id, after, i64::from(limit) + 1).await?;
        let (seqs, mut threads): (Vec<_>, Vec<_>) = placed.into_iter().unzip();
        let next = cut_page_by_seq(&seqs, &mut threads, limit);
        return Ok(v1::Threads { threads, next });
    }
    let no_thread = || v1::Error::with(ErrorCode::NotFound, "no such thread");
    let id = Uuid::try_parse(&query.thread_id).map_err(|_| no_thread())?;
    let found = store::by_id(connection, &[(head.id.uuid(), id)]).await?.pop();
    let (_, thread) = found
        .filter(|(seq, _)| *seq > head.history_from)
        .ok_or_else(no_thread)?;
    Ok(v1::Threads {
        threads: vec![thread],
        next: 0,
    })
}
