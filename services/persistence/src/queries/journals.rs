//! The versions of journals: who made them, what they changed, and the documents they led to.

use parlance_proto::v1::{self, ConversationKind};
use prost::Message as _;
use sqlx::PgConnection;

use super::page::{MAX_BYTES, limit};
use super::{Viewer, head};
use crate::error::QueryError;
use crate::model::refusals::{no_conversation, refuse};
use crate::store::conversations::Head;
use crate::store::journals as store;

pub(super) async fn versions(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListJournalVersions,
) -> Result<v1::JournalVersions, QueryError> {
    let head = journal(connection, Some(viewer), &query.journal_id).await?;
    let below = if query.before == 0 { u64::MAX } else { query.before };
    let versions = store::versions(connection, head.id, below, i64::from(limit(query.limit))).await?;
    // The first version is the first change: below it there is nothing.
    let next = versions
        .last()
        .map_or(0, |last| if last.version > 1 { last.version } else { 0 });
    Ok(v1::JournalVersions { versions, next })
}

/// Part of a document. Stored versions never change, so that each part may be read by itself.
pub(super) async fn document(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ReadJournal,
) -> Result<v1::JournalDocument, QueryError> {
    let head = journal(connection, viewer, &query.journal_id).await?;
    let through = if query.version == 0 {
        u64::MAX
    } else {
        query.version
    };
    let Some(version) = store::versions(connection, head.id, through.saturating_add(1), 1)
        .await?
        .pop()
    else {
        return Err(no_version().into());
    };
    let updates = store::document(connection, head.id, version.version).await?;
    let whole = v1::JournalUpdates {
        updates,
        after: 0,
        next: 0,
    };
    let whole = whole.encode_to_vec();
    let offset = usize::try_from(query.offset).unwrap_or(usize::MAX);
    let rest = whole
        .get(offset..)
        .ok_or_else(|| refuse("the document ends before this offset"))?;
    let part = rest.get(..MAX_BYTES).unwrap_or(rest);
    let is_last = part.len() == rest.len();
    Ok(v1::JournalDocument {
        version: Some(version),
        next: if is_last { 0 } else { (offset + part.len()) as u64 },
        part: part.to_vec(),
    })
}

pub(super) async fn updates(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListJournalUpdates,
) -> Result<v1::JournalUpdates, QueryError> {
    let head = journal(connection, viewer, &query.journal_id).await?;
    let through = if query.through == 0 {
        head.seq
    } else {
        query.through
    };
    let most = |asked: u64| if asked == 0 { u64::MAX } else { asked };
    let after = match query.after {
        0 => {
            store::reach(
                connection,
                head.id,
                through,
                most(query.most),
                most(query.most_bytes),
            )
            .await?
        }
        after => after,
    };
    let bytes = i64::try_from(MAX_BYTES).unwrap_or(i64::MAX);
    let updates = store::updates(connection, head.id, after, through, bytes).await?;
    let next = updates.last().map_or(0, |last| last.version);
    Ok(v1::JournalUpdates { updates, after, next })
}

async fn journal(connection: &mut PgConnection, viewer: Viewer<'_>, id: &str) -> Result<Head, QueryError> {
    let head = head(connection, viewer, id).await?;
    if head.kind != i32::from(ConversationKind::Journal) {
        return Err(no_conversation().into());
    }
    Ok(head)
}

fn no_version() -> v1::Error {
    v1::Error::with(v1::ErrorCode::NotFound, "no such version")
}
