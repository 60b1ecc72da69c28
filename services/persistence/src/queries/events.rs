//! Catching up: the log of conversations after a position.

use std::collections::{HashMap, HashSet};

use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ConversationKind};
use sqlx::PgConnection;
use uuid::Uuid;

use super::page::{MAX_BYTES, cut};
use super::{Viewer, head};
use crate::error::QueryError;
use crate::model::refusals::refuse;
use crate::store::conversations::{Head, heads};
use crate::store::events::{self as store, Stretch};
use crate::store::{receipts, users};

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
    let asked = [(&head, query.after)];
    let mut pages = pages(connection, viewer, &asked, limit(query.limit)).await?;
    Ok(pages.pop().unwrap_or_else(|| blank(&head, false)))
}

pub(super) async fn sync(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::Sync,
) -> Result<v1::SyncPages, QueryError> {
    if query.positions.len() > MAX_POSITIONS {
        return Err(refuse(format!("more than {MAX_POSITIONS} positions")).into());
    }
    let mut positions: Vec<(ConversationId, &v1::Position)> = query
        .positions
        .iter()
        .filter_map(|position| Some((position.conversation_id.parse().ok()?, position)))
        .collect();
    // Of a conversation that is named twice, the first.
    let mut seen = HashSet::new();
    positions.retain(|(id, _)| seen.insert(*id));
    let ids: Vec<ConversationId> = positions.iter().map(|(id, _)| *id).collect();
    let heads = heads(connection, &ids, Some(viewer)).await?;
    let heads: HashMap<ConversationId, &Head> = heads.iter().map(|head| (head.id, head)).collect();
    let known = positions
        .into_iter()
        .filter_map(|(id, position)| Some((*heads.get(&id)?, position)));
    let (same, other): (Vec<_>, Vec<_>) =
        known.partition(|(head, position)| position.epoch.is_empty() || position.epoch == head.epoch);
    let asked: Vec<(&Head, u64)> = same
        .iter()
        .map(|(head, position)| (*head, position.seq))
        .collect();
    let mut pages = pages(connection, Some(viewer), &asked, limit(query.limit)).await?;
    receipts(connection, &same, &mut pages).await?;
    pages.extend(other.iter().map(|(head, _)| blank(head, true)));
    pages.extend(removed(connection, viewer, &ids, &heads).await?);
    Ok(v1::SyncPages { pages })
}

/// Of those asked for, the conversations that the viewer belongs to no more.
async fn removed(
    connection: &mut PgConnection,
    viewer: &str,
    asked: &[ConversationId],
    heads: &HashMap<ConversationId, &Head>,
) -> Result<Vec<v1::EventPage>, QueryError> {
    let others = asked.iter().filter(|id| !heads.contains_key(id));
    let others: Vec<Uuid> = others.map(|id| id.uuid()).collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let removals = users::removals(connection, viewer, None, &others, MAX_POSITIONS as i64).await?;
    let page = |removal: v1::Removal| v1::EventPage {
        conversation_id: removal.conversation_id,
        complete: true,
        removed: true,
        ..v1::EventPage::default()
    };
    Ok(removals.into_iter().map(page).collect())
}

/// The events after each of these seqs in their order, in all no more than `limit` and what one message takes.
async fn pages(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    asked: &[(&Head, u64)],
    limit: u64,
) -> Result<Vec<v1::EventPage>, QueryError> {
    let mut left = limit;
    let mut stretches = Vec::new();
    let mut pages: Vec<v1::EventPage> = Vec::with_capacity(asked.len());
    for (head, after) in asked {
        // Ahead of the head, or in an earlier life of the conversation.
        if *after > head.seq || (1..head.history_from).contains(after) {
            pages.push(blank(head, true));
            continue;
        }
        let after = (*after).max(head.history_from);
        // Every seq up to the head is exactly one event, so a bound on seqs is a bound on the count.
        let most = if head.kind == i32::from(ConversationKind::Journal) {
            MAX_VERSIONS
        } else {
            MAX_EVENTS
        };
        let through = head.seq.min(after.saturating_add(left.min(u64::from(most))));
        left = left.saturating_sub(through - after);
        if through > after {
            stretches.push(Stretch {
                conversation: head.id,
                after,
                through,
            });
        }
        pages.push(v1::EventPage {
            complete: through == head.seq,
            ..blank(head, false)
        });
    }
    let epoch = asked.first().map_or("", |(head, _)| head.epoch.as_str());
    let mut logs = store::of(connection, viewer, epoch, &stretches).await?;
    let mut bytes = MAX_BYTES;
    for (page, (head, _)) in pages.iter_mut().zip(asked).filter(|(page, _)| !page.resync) {
        let mut events = logs.remove(&head.id).unwrap_or_default();
        page.complete &= cut(&mut events, &mut bytes);
        page.events = events;
    }
    Ok(pages)
}

/// Adds the receipts that were asked for, as many as fit beside the events.
async fn receipts(
    connection: &mut PgConnection,
    asked: &[(&Head, &v1::Position)],
    pages: &mut [v1::EventPage],
) -> Result<(), QueryError> {
    let behind: Vec<(ConversationId, u64)> = asked
        .iter()
        .filter_map(|(head, position)| {
            let known = position.receipts_version?;
            (known < head.receipts_version).then_some((head.id, known))
        })
        .collect();
    let mut changed = receipts::after(connection, &behind).await?;
    let used: usize = pages.iter().map(prost::Message::encoded_len).sum();
    let mut bytes = MAX_BYTES.saturating_sub(used);
    for (page, (head, position)) in pages.iter_mut().zip(asked).filter(|(page, _)| !page.resync) {
        let Some(known) = position.receipts_version else {
            continue;
        };
        let mut receipts = changed.remove(&head.id).unwrap_or_default();
        let full = receipts.len() == receipts::MAX_AFTER;
        // The version was read before the receipts: asking again after it repeats, and never skips.
        page.receipts_version = Some(if cut(&mut receipts, &mut bytes) && !full {
            head.receipts_version
        } else {
            page.complete = false;
            receipts.last().map_or(known, |last| last.version)
        });
        page.receipts = receipts;
    }
    Ok(())
}

fn blank(head: &Head, resync: bool) -> v1::EventPage {
    v1::EventPage {
        conversation_id: head.id.to_string(),
        epoch: head.epoch.clone(),
        head_seq: head.seq,
        events: Vec::new(),
        complete: false,
        resync,
        receipts: Vec::new(),
        receipts_version: None,
        removed: false,
    }
}

fn limit(asked: u32) -> u64 {
    u64::from(if asked == 0 {
        DEFAULT_EVENTS
    } else {
        asked.min(MAX_EVENTS)
    })
}
