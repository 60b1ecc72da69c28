//! Catching up: the log of conversations after a position.

use std::collections::{BTreeSet, HashMap, HashSet};

use parlance_proto::v1::{self, ConversationKind};
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::page::{MAX_BYTES, cut};
use super::{Viewer, head};
use crate::error::QueryError;
use crate::model::refusals::{no_conversation, refuse};
use crate::store::conversations::{Head, heads};
use crate::store::events as store;
use crate::store::hidden::{self, Shown};
use crate::store::stretch::Stretch;
use crate::store::{participants, receipts, users};

/// Events of one page when the asker says nothing, and at most.
const DEFAULT_EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 500;
/// Each event of a journal carries its whole text.
const MAX_VERSIONS: u32 = 16;
/// Conversations of one sync.
const MAX_POSITIONS: usize = 1_000;
/// Sessions that catch up together, and events that are read for all of them: about as many as fit an answer.
const MAX_SESSIONS: usize = 500;
const MOST_TOGETHER: u64 = 2_000;
/// Hidden messages named in one answer; sessions for which more would be are left out of it.
const MOST_HIDDEN: usize = 5_000;

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

/// A session that catches up, as far as it may.
struct CatchingUp<'a> {
    conversation: ConversationId,
    viewer: &'a str,
    after: u64,
}

/// What sessions missed that come back together: the events of a conversation are read once for all of them.
pub(super) async fn catch_up(
    connection: &mut PgConnection,
    query: &v1::CatchUp,
) -> Result<v1::CaughtUp, QueryError> {
    if query.sessions.len() > MAX_SESSIONS {
        return Err(refuse(format!("more than {MAX_SESSIONS} sessions")).into());
    }
    let asking: Vec<Option<CatchingUp<'_>>> = members_among(connection, &query.sessions).await?;
    let mut seen = HashSet::new();
    let ids = asking.iter().flatten().map(|one| one.conversation);
    let ids: Vec<ConversationId> = ids.filter(|id| seen.insert(*id)).collect();
    let heads = heads(connection, &ids, None).await?;
    let heads: HashMap<ConversationId, &Head> = heads.iter().map(|head| (head.id, head)).collect();
    let mut firsts: HashMap<ConversationId, u64> = HashMap::new();
    for one in asking.iter().flatten() {
        if let Some(head) = heads
            .get(&one.conversation)
            .filter(|head| !is_void(head, one.after))
        {
            let first = firsts.entry(head.id).or_insert(one.after);
            *first = one.after.min(*first);
        }
    }
    let asked: Vec<(&Head, u64)> = ids
        .iter()
        .filter_map(|id| Some((*heads.get(id)?, *firsts.get(id)?)))
        .collect();
    let places: HashMap<ConversationId, usize> = asked
        .iter()
        .enumerate()
        .map(|(place, (head, _))| (head.id, place))
        .collect();
    let pages = pages(connection, None, &asked, MOST_TOGETHER).await?;
    let mut sessions: Vec<v1::CaughtUpSession> = Vec::with_capacity(asking.len());
    for one in &asking {
        let mut session = v1::CaughtUpSession::default();
        match one
            .as_ref()
            .and_then(|one| Some((one, *heads.get(&one.conversation)?)))
        {
            None => session.error = Some(no_conversation()),
            Some((one, head)) if is_void(head, one.after) => session.void = Some(blank(head, true)),
            Some((one, _)) => {
                let place = places.get(&one.conversation);
                let page = place.and_then(|place| Some((*place, pages.get(*place)?)));
                let reached = |page: &v1::EventPage| page.events.last().map_or(0, |event| event.seq);
                let page = page.filter(|(_, page)| page.complete || reached(page) > one.after);
                session.page = page.and_then(|(place, _)| u32::try_from(place).ok());
            }
        }
        sessions.push(session);
    }
    hide(connection, &asking, &pages, &mut sessions).await?;
    Ok(v1::CaughtUp { pages, sessions })
}

/// Those of the sessions whose users belong to what they ask for.
async fn members_among<'a>(
    connection: &mut PgConnection,
    sessions: &'a [v1::CatchingUp],
) -> Result<Vec<Option<CatchingUp<'a>>>, QueryError> {
    let read = |one: &'a v1::CatchingUp| {
        Some(CatchingUp {
            conversation: one.conversation_id.parse().ok()?,
            viewer: UserId::parse(one.user_id.as_str())
                .ok()
                .map(|_| one.user_id.as_str())?,
            after: one.after,
        })
    };
    let mut asking: Vec<Option<CatchingUp<'a>>> = sessions.iter().map(read).collect();
    let names: Vec<(Uuid, &str)> = asking
        .iter()
        .flatten()
        .map(|one| (one.conversation.uuid(), one.viewer))
        .collect();
    let members = participants::among(connection, &names).await?;
    for one in &mut asking {
        let key = one
            .as_ref()
            .map(|one| (one.conversation.uuid(), one.viewer.to_owned()));
        if key.is_some_and(|key| !members.contains_key(&key)) {
            *one = None;
        }
    }
    Ok(asking)
}

/// Says what of its page the user of each session hid.
async fn hide(
    connection: &mut PgConnection,
    asking: &[Option<CatchingUp<'_>>],
    pages: &[v1::EventPage],
    sessions: &mut [v1::CaughtUpSession],
) -> Result<(), QueryError> {
    let shown_in = |page: &v1::EventPage| -> BTreeSet<u64> {
        let messages = page.events.iter().filter_map(v1::Event::message);
        messages.map(|message| message.seq).collect()
    };
    let seqs: Vec<BTreeSet<u64>> = pages.iter().map(shown_in).collect();
    let of_session = |session: &v1::CaughtUpSession| seqs.get(usize::try_from(session.page?).ok()?);
    let (mut shown, mut whose) = (Vec::new(), Vec::new());
    for (place, (one, session)) in asking.iter().zip(&*sessions).enumerate() {
        if let Some(one) = one
            && let Some(seqs) = of_session(session)
            && let Some(between) = seqs.first().copied().zip(seqs.last().copied())
        {
            shown.push(Shown {
                conversation: one.conversation.uuid(),
                viewer: one.viewer,
                between,
            });
            whose.push(place);
        }
    }
    for (place, seq) in hidden::of_each(connection, &shown).await? {
        let session = whose.get(place).and_then(|place| sessions.get_mut(*place));
        if let Some(session) = session
            && of_session(session).is_some_and(|seqs| seqs.contains(&seq))
        {
            session.hidden_seqs.push(seq);
        }
    }
    // Beside pages that take all that one message may.
    let mut left = MOST_HIDDEN;
    for session in sessions {
        match left.checked_sub(session.hidden_seqs.len()) {
            Some(rest) => left = rest,
            None => *session = v1::CaughtUpSession::default(),
        }
    }
    Ok(())
}

/// Whether a position says nothing: it is ahead of the head, or of an earlier life of the conversation.
fn is_void(head: &Head, after: u64) -> bool {
    after > head.seq || (1..head.history_from).contains(&after)
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
        if is_void(head, *after) {
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
