//! What users were served: as gateways report it, and by what they read.

use parlance_proto::v1;
use sqlx::PgConnection;

use super::QueryError;
use crate::database::Database;
use crate::ingest::work::refuse;
use crate::store::served::{self as store, Position};

/// Positions in one report.
const REPORT_MAX: usize = 5_000;

/// Takes in what sessions got.
pub(super) async fn report(database: &Database, query: &v1::ReportServed) -> Result<(), QueryError> {
    if query.positions.len() > REPORT_MAX {
        return Err(refuse(format!("more than {REPORT_MAX} positions")).into());
    }
    let positions: Vec<Position> = query
        .positions
        .iter()
        .filter_map(|one| {
            Some(Position {
                conversation: one.conversation_id.parse().ok()?,
                user: one.user_id.clone(),
                seq: one.seq,
            })
        })
        .collect();
    let mut connection = database.writes.acquire().await?;
    Ok(store::reach(&mut connection, &positions).await?)
}

/// A page of the main history was read: the latest one shows everything before it too; one after a seq only goes on
/// from there.
pub(super) async fn page(
    database: &Database,
    reads: &mut PgConnection,
    viewer: &str,
    query: &v1::ListMessages,
    page: &v1::MessagePage,
) -> Result<(), QueryError> {
    let is_latest = query.before.is_none() && query.offset == 0;
    let Some(conversation) = query.conversation_id.parse().ok() else {
        return Ok(());
    };
    if !is_latest || !query.thread_id.is_empty() {
        return Ok(());
    }
    let newest = page.messages.last().map_or(0, |message| message.seq);
    let seq = match query.after {
        // Not yet at the end.
        Some(_) if page.next > 0 => newest,
        _ => newest.max(page.head_seq),
    };
    let known = store::of(reads, conversation, viewer).await?;
    let known = known.and_then(|known| u64::try_from(known).ok());
    let goes_on = query.after.is_none_or(|after| after <= known.unwrap_or(0));
    if !goes_on || known.is_some_and(|known| known >= seq) {
        return Ok(());
    }
    let position = Position {
        conversation,
        user: viewer.to_owned(),
        seq,
    };
    // Before the answer: who joins after it must not be served the page once more.
    let mut connection = database.writes.acquire().await?;
    Ok(store::reach(&mut connection, &[position]).await?)
}

/// A list of conversations was read.
pub(super) async fn list(
    database: &Database,
    viewer: &str,
    page: &v1::ConversationPage,
) -> Result<(), QueryError> {
    let unread = page.conversations.iter().filter(|one| one.unread > 0);
    let positions: Vec<Position> = unread
        .filter_map(|one| {
            Some(Position {
                conversation: one.id.parse().ok()?,
                user: viewer.to_owned(),
                seq: one.head_seq,
            })
        })
        .collect();
    if positions.is_empty() {
        return Ok(());
    }
    let mut connection = database.writes.acquire().await?;
    Ok(store::list(&mut connection, &positions).await?)
}
