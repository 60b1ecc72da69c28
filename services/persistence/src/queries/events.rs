//! Catching up: the log of conversations after a position.

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ConversationKind};
use sqlx::PgConnection;

use super::page::{MAX_BYTES, fitting};
use super::{QueryError, Viewer, head};
use crate::ingest::work::refuse;
use crate::store::conversations::{Head, heads};
use crate::store::events as store;

/// Events of one page when the asker says nothing, and at most.
const DEFAULT_EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 500;
/// Each event of a journal carries its whole text.
const MAX_VERSIONS: u32 = 16;
/// Conversations of one sync.
const MAX_POSITIONS: usize = 1_000;

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListEvents,
) -> Result<v1::EventPage, QueryError> {
    let head = head(connection, viewer, &query.conversation_id).await?;
    let mut budget = Budget {
        events: limit(query.limit),
        bytes: MAX_BYTES,
    };
    page(connection, viewer, &head, query.after, &mut budget).await
}

pub(super) async fn sync(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::Sync,
) -> Result<v1::SyncPages, QueryError> {
    if query.positions.len() > MAX_POSITIONS {
        return Err(refuse(format!("more than {MAX_POSITIONS} positions")).into());
    }
    let ids: Vec<ConversationId> = query
        .positions
        .iter()
        .filter_map(|p| p.conversation_id.parse().ok())
        .collect();
    let heads = heads(connection, &ids, Some(viewer)).await?;
    let mut budget = Budget {
        events: limit(query.limit),
        bytes: MAX_BYTES,
    };
    let mut pages = Vec::new();
    for position in &query.positions {
        let id = position.conversation_id.parse::<ConversationId>().ok();
        let Some(head) = heads.iter().find(|head| Some(head.id) == id) else {
            continue;
        };
        let other_life = !position.epoch.is_empty() && position.epoch != head.epoch;
        pages.push(if other_life {
            blank(head, true)
        } else {
            page(connection, Some(viewer), head, position.seq, &mut budget).await?
        });
    }
    Ok(v1::SyncPages { pages })
}

/// What the pages of one answer may still hold.
struct Budget {
    events: u64,
    bytes: usize,
}

/// One conversation's events after a seq, as far as the budget goes.
async fn page(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    head: &Head,
    after: u64,
    budget: &mut Budget,
) -> Result<v1::EventPage, QueryError> {
    // Ahead of the head, or in an earlier life of the conversation.
    if after > head.seq || (1..head.history_from).contains(&after) {
        return Ok(blank(head, true));
    }
    let after = after.max(head.history_from);
    if after == head.seq || budget.events == 0 || budget.bytes == 0 {
        let mut page = blank(head, false);
        page.complete = after == head.seq;
        return Ok(page);
    }
    // Every seq up to the head is exactly one event, so a bound on seqs is a bound on the count.
    let most = if head.kind == i32::from(ConversationKind::Journal) {
        MAX_VERSIONS
    } else {
        MAX_EVENTS
    };
    let through = head
        .seq
        .min(after.saturating_add(budget.events.min(u64::from(most))));
    let mut events = store::between(connection, head.id, viewer, &head.epoch, after, through).await?;
    let whole = events.len();
    events.truncate(fitting(&events, budget.bytes));
    let bytes: usize = events.iter().map(prost::Message::encoded_len).sum();
    budget.events = budget.events.saturating_sub(events.len() as u64);
    budget.bytes = if events.len() < whole {
        0
    } else {
        budget.bytes.saturating_sub(bytes)
    };
    let complete = through == head.seq && events.len() == whole;
    Ok(v1::EventPage {
        events,
        complete,
        ..blank(head, false)
    })
}

fn blank(head: &Head, resync: bool) -> v1::EventPage {
    v1::EventPage {
        conversation_id: head.id.to_string(),
        epoch: head.epoch.clone(),
        head_seq: head.seq,
        events: Vec::new(),
        complete: false,
        resync,
    }
}

fn limit(asked: u32) -> u64 {
    u64::from(if asked == 0 {
        DEFAULT_EVENTS
    } else {
        asked.min(MAX_EVENTS)
    })
}
