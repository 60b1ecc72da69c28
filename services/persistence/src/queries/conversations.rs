//! A user's conversations.

use parlance_proto::v1;
use sqlx::PgConnection;

use super::page::{MAX_BYTES, fitting, limit, slim};
use super::{QueryError, conversation_id, presence};
use crate::ingest::apply::no_conversation;
use crate::ingest::work::refuse;
use crate::store::conversations::{self as store, Filter, Place};
use crate::store::journals::fill;

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: &str,
    id: &str,
) -> Result<v1::Conversation, QueryError> {
    let key = (conversation_id(connection, id).await?, viewer.to_owned());
    let mut views = store::views(connection, std::slice::from_ref(&key)).await?;
    fill(connection, views.values_mut()).await?;
    let mut view = views.remove(&key).ok_or_else(no_conversation)?;
    presence::fill(connection, std::slice::from_mut(&mut view)).await?;
    slim(&mut view, |view| &mut view.participants);
    Ok(view)
}

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListConversations,
) -> Result<v1::ConversationPage, QueryError> {
    let stored = |value: i32| i16::try_from(value).ok();
    let filter = Filter {
        journals: false,
        status: query.status.and_then(stored),
        channel: query.channel.and_then(stored),
    };
    page(connection, viewer, filter, query.limit, &query.cursor).await
}

pub(super) async fn journals(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListJournals,
) -> Result<v1::ConversationPage, QueryError> {
    let filter = Filter {
        journals: true,
        ..Filter::default()
    };
    page(connection, viewer, filter, query.limit, &query.cursor).await
}

async fn page(
    connection: &mut PgConnection,
    viewer: &str,
    filter: Filter,
    asked: u32,
    cursor: &str,
) -> Result<v1::ConversationPage, QueryError> {
    let limit = limit(asked);
    let below = if cursor.is_empty() {
        None
    } else {
        Some(read_cursor(cursor)?)
    };
    let ids = store::page(connection, viewer, filter, below, i64::from(limit) + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut more = ids.len() > wanted;
    let asked: Vec<_> = ids
        .into_iter()
        .take(wanted)
        .map(|id| (id, viewer.to_owned()))
        .collect();
    let mut views = store::views(connection, &asked).await?;
    let mut page: Vec<v1::Conversation> = asked.iter().filter_map(|key| views.remove(key)).collect();
    presence::fill(connection, &mut page).await?;
    let fitting = fitting(&page, MAX_BYTES);
    more |= fitting < page.len();
    page.truncate(fitting);
    let next = if more {
        page.last().map(self::cursor).unwrap_or_default()
    } else {
        String::new()
    };
    Ok(v1::ConversationPage {
        conversations: page,
        next,
    })
}

/// `<updated_at in ms>.<id>`: opaque to clients.
fn cursor(last: &v1::Conversation) -> String {
    format!("{}.{}", last.updated_at_ms, last.id)
}

fn read_cursor(text: &str) -> Result<Place, v1::Error> {
    let place = text.split_once('.').and_then(|(at, id)| {
        let id: parlance_proto::ConversationId = id.parse().ok()?;
        Some(Place {
            updated_at_ms: at.parse().ok()?,
            id: id.uuid(),
        })
    });
    place.ok_or_else(|| refuse("cursor is not one that was returned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_anything_else_is_refused() {
        let id = "01890000-0000-7000-8000-000000000001";
        let last = v1::Conversation {
            id: id.into(),
            updated_at_ms: 17,
            ..Default::default()
        };
        let place = read_cursor(&cursor(&last)).unwrap();
        assert_eq!((place.updated_at_ms, place.id.to_string().as_str()), (17, id));
        for bad in ["", "17", "x.y", "17.", "'; DROP TABLE users; --"] {
            assert!(read_cursor(bad).is_err(), "{bad}");
        }
    }
}
