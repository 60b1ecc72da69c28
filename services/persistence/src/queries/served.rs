//! What users were served: as gateways report it, and by what they read.

use std::collections::HashMap;

use parlance_proto::v1;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::Database;
use crate::error::{QueryError, by};
use crate::model::refusals::refuse;
use crate::store::served::{self as store, ClientPosition, Joining, Position};

/// Positions in one report.
const REPORT_MAX: usize = 5_000;
/// Positions in one answer.
const ANSWER_MAX: i64 = 10_000;
/// Characters of a page's id.
const PAGE_ID_MAX: usize = 32;

/// What an answer shows its viewer beyond what is asked.
#[derive(Debug)]
pub(super) enum Shown {
    /// Nothing that counts.
    Nothing,
    /// History, as it was then.
    History(Position, Instant),
    /// What conversations hold.
    List(Vec<Position>),
}

/// Takes in what clients got.
pub(super) async fn report(
    database: &Database,
    query: &v1::ReportServed,
    deadline: Instant,
) -> Result<(), QueryError> {
    if query.positions.len() > REPORT_MAX {
        return Err(refuse(format!("more than {REPORT_MAX} positions")).into());
    }
    let positions: Vec<ClientPosition> = query
        .positions
        .iter()
        .filter_map(|one| {
            let position = Position {
                conversation: one.conversation_id.parse().ok()?,
                user: one.user_id.clone(),
                seq: one.seq,
            };
            Some(ClientPosition {
                position,
                page: checked(&one.page).ok()?.to_owned(),
                joined_at_ms: one.joined_at_ms,
            })
        })
        .collect();
    let mut connection = by(deadline, database.writes.acquire()).await?;
    Ok(store::reach(&mut connection, &positions).await?)
}

/// Where a client that joins goes on from.
pub(super) async fn of_client(
    connection: &mut PgConnection,
    viewer: &str,
    client: &v1::Client,
    joined: &mut v1::Conversation,
) -> Result<(), QueryError> {
    let viewing = v1::Viewing {
        user_id: viewer.to_owned(),
        conversation_id: joined.id.clone(),
        client: Some(client.clone()),
        presence: false,
    };
    joined.served = of_viewings(connection, &[viewing]).await?.remove(&0);
    Ok(())
}

/// Where clients that join go on from, by the place of each.
pub(super) async fn of_viewings(
    connection: &mut PgConnection,
    viewings: &[v1::Viewing],
) -> Result<HashMap<usize, v1::Served>, QueryError> {
    let mut asked = Vec::new();
    for (place, viewing) in viewings.iter().enumerate() {
        if let Some(client) = &viewing.client
            && let Ok(conversation) = viewing.conversation_id.parse()
        {
            asked.push(Joining {
                place,
                conversation,
                user: viewing.user_id.clone(),
                page: checked(&client.page)?.to_owned(),
                connected_at_ms: client.connected_at_ms,
            });
        }
    }
    Ok(store::of_clients(connection, &asked).await?)
}

/// Up to where a client that returns was emitted its user's conversations.
pub(super) async fn of_page(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListServed,
) -> Result<v1::ServedPositions, QueryError> {
    let page = checked(&query.page)?;
    let after = match query.after.as_str() {
        "" => Uuid::nil(),
        after => Uuid::try_parse(after).map_err(|_| refuse("after is no conversation"))?,
    };
    let emitted = store::of_page(connection, viewer, page, after, ANSWER_MAX).await?;
    let is_full = i64::try_from(emitted.len()).is_ok_and(|count| count >= ANSWER_MAX);
    let last = emitted.last().filter(|_| is_full);
    let next = last.map(|one| one.conversation.to_string()).unwrap_or_default();
    let position = |one: Position| v1::ServedPosition {
        conversation_id: one.conversation.to_string(),
        seq: one.seq,
        ..v1::ServedPosition::default()
    };
    Ok(v1::ServedPositions {
        positions: emitted.into_iter().map(position).collect(),
        next,
    })
}

fn checked(page: &str) -> Result<&str, v1::Error> {
    if page.len() > PAGE_ID_MAX {
        return Err(refuse(format!(
            "a page's id has more than {PAGE_ID_MAX} characters"
        )));
    }
    Ok(page)
}

/// What a page of the main history shows: the latest one everything before it too; one after a seq only goes on from
/// there. It was asked of the database at `since`.
pub(super) async fn by_page(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListMessages,
    page: &v1::MessagePage,
    since: Instant,
) -> Result<Shown, QueryError> {
    let is_latest = query.before.is_none() && query.offset == 0;
    let Some(conversation) = query.conversation_id.parse().ok() else {
        return Ok(Shown::Nothing);
    };
    if !is_latest || !query.thread_id.is_empty() {
        return Ok(Shown::Nothing);
    }
    let newest = page.messages.last().map_or(0, |message| message.seq);
    let seq = match query.after {
        // Not yet at the end.
        Some(_) if page.next > 0 => newest,
        _ => newest.max(page.head_seq),
    };
    if let Some(after) = query.after {
        let served = store::of(connection, conversation, viewer).await?;
        let served = served.and_then(|seq| u64::try_from(seq).ok());
        if after > served.unwrap_or(0) {
            return Ok(Shown::Nothing);
        }
    }
    let position = Position {
        conversation,
        user: viewer.to_owned(),
        seq,
    };
    Ok(Shown::History(position, since))
}

/// What a list of conversations shows.
pub(super) fn by_list(viewer: &str, page: &v1::ConversationPage) -> Shown {
    let unread = page.conversations.iter().filter(|one| one.unread > 0);
    let positions = unread.filter_map(|one| {
        Some(Position {
            conversation: one.id.parse().ok()?,
            user: viewer.to_owned(),
            seq: one.head_seq,
        })
    });
    Shown::List(positions.collect())
}

/// Keeps what an answer shows: it is written whole, or after the deadline not at all.
pub(super) async fn keep(database: &Database, shown: &Shown, deadline: Instant) -> Result<(), QueryError> {
    match shown {
        Shown::List(positions) if !positions.is_empty() => {
            let mut connection = by(deadline, database.writes.acquire()).await?;
            store::list(&mut connection, positions).await?;
        }
        Shown::History(position, since) => {
            let mut connection = by(deadline, database.writes.acquire()).await?;
            store::show(&mut connection, position, since.elapsed()).await?;
        }
        Shown::List(_) | Shown::Nothing => {}
    }
    Ok(())
}
