//! The versions of journals.

use parlance_proto::v1::{self, ConversationKind};
use sqlx::PgConnection;

use super::page::{MAX_BYTES, limit};
use super::{QueryError, head};
use crate::ingest::apply::no_conversation;
use crate::store::journals as store;

pub(super) async fn versions(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListJournalVersions,
) -> Result<v1::JournalVersions, QueryError> {
    let head = head(connection, Some(viewer), &query.journal_id).await?;
    if head.kind != i32::from(ConversationKind::Journal) {
        return Err(no_conversation().into());
    }
    let below = if query.before == 0 { u64::MAX } else { query.before };
    let bytes = i64::try_from(MAX_BYTES).unwrap_or(i64::MAX);
    let versions = store::versions(connection, head.id, below, i64::from(limit(query.limit)), bytes).await?;
    // The first version is the first change: below it there is nothing.
    let next = versions
        .last()
        .map_or(0, |last| if last.version > 1 { last.version } else { 0 });
    Ok(v1::JournalVersions { versions, next })
}
