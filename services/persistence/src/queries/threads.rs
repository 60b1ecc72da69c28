//! A conversation's threads.

use parlance_proto::v1::{self, ErrorCode};
use sqlx::PgConnection;
use uuid::Uuid;

use super::page::{MAX_BYTES, fitting};
use super::{QueryError, head};
use crate::store::threads as store;

/// Oldest first. Where they do not all fit one answer, the latest are left out.
pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListThreads,
) -> Result<v1::Threads, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    if query.thread_id.is_empty() {
        let mut threads = store::of(connection, head.id, head.history_from).await?;
        threads.truncate(fitting(&threads, MAX_BYTES));
        return Ok(v1::Threads { threads });
    }
    let no_thread = || v1::Error::with(ErrorCode::NotFound, "no such thread");
    let id = Uuid::try_parse(&query.thread_id).map_err(|_| no_thread())?;
    let found = store::by_id(connection, &[(head.id.uuid(), id)]).await?.pop();
    let (_, thread) = found
        .filter(|(seq, _)| *seq > head.history_from)
        .ok_or_else(no_thread)?;
    Ok(v1::Threads {
        threads: vec![thread],
    })
}
