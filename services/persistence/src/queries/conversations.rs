//! A user's conversations.

use std::collections::{HashMap, HashSet};

use parlance_proto::ConversationId;
use parlance_proto::v1;
use prost::Message as _;
use sqlx::PgConnection;

use super::page::{MAX_BYTES, fitting, limit, slim};
use super::{conversation_id, presence, served};
use crate::error::QueryError;
use crate::model::refusals::{no_conversation, refuse};
use crate::store::conversations::{self as store, Filter, Place};
use crate::store::journals::fill;

/// Views in one question.
const MAX_VIEWINGS: usize = 500;

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::GetConversation,
    inline: usize,
) -> Result<v1::Conversation, QueryError> {
    let id = conversation_id(connection, &query.conversation_id).await?;
    let key = (id, viewer.to_owned());
    let mut views = store::views(connection, std::slice::from_ref(&key), inline).await?;
    fill(connection, views.values_mut()).await?;
    let mut view = views.remove(&key).ok_or_else(no_conversation)?;
    presence::fill(connection, viewer, std::slice::from_mut(&mut view)).await?;
    slim(&mut view, |view| &mut view.participants);
    if let Some(client) = &query.client {
        served::of_client(connection, viewer, client, &mut view).await?;
    }
    Ok(view)
}

/// Conversations as several users see them, who open them together.
pub(super) async fn view(
    connection: &mut PgConnection,
    query: &v1::ViewConversations,
    inline: usize,
) -> Result<v1::ConversationViews, QueryError> {
    if query.viewings.len() > MAX_VIEWINGS {
        return Err(refuse(format!("more than {MAX_VIEWINGS} views")).into());
    }
    let keys: Vec<Option<(ConversationId, String)>> = query
        .viewings
        .iter()
        .map(|one| Some((one.conversation_id.parse().ok()?, one.user_id.clone())))
        .collect();
    let asked: Vec<(ConversationId, String)> = keys.iter().flatten().cloned().collect();
    let mut views = store::shared_views(connection, &asked, inline).await?;
    fill(connection, views.conversations.values_mut()).await?;
    show_presence(connection, query, &mut views).await?;
    for conversation in views.conversations.values_mut() {
        slim(conversation, |conversation| &mut conversation.participants);
    }
    let mut served = served::of_viewings(connection, &query.viewings).await?;
    let mut answer = v1::ConversationViews::default();
    let mut places: HashMap<ConversationId, u32> = HashMap::new();
    // Viewers who are not listed, or not with all that they have read.
    let apart: HashSet<&(ConversationId, String)> = views
        .viewers
        .iter()
        .filter(|((id, _), viewed)| {
            let viewer = &viewed.participant;
            let listed = views.conversations.get(id).into_iter();
            !listed
                .flat_map(|conversation| &conversation.participants)
                .any(|one| one.user_id == viewer.user_id && one.read.len() == viewer.read.len())
        })
        .map(|(key, _)| key)
        .collect();
    let mut left = MAX_BYTES;
    for (index, key) in keys.into_iter().enumerate() {
        let viewed = key.and_then(|key| Some((key.0, apart.contains(&key), views.viewers.get(&key)?)));
        let mut view = v1::ConversationView::default();
        let mut bytes = 8;
        match viewed {
            Some((id, is_apart, viewed)) => {
                view.unread = viewed.unread;
                view.delivered_seq = viewed.delivered_seq;
                view.last_message.clone_from(&viewed.last_message);
                view.served = served.remove(&index);
                view.mute = viewed.mute;
                view.participant = Some(viewed.participant.clone()).filter(|_| is_apart);
                let next = u32::try_from(answer.conversations.len()).unwrap_or_default();
                view.conversation = places.get(&id).copied().unwrap_or(next);
                if !places.contains_key(&id) {
                    bytes += views
                        .conversations
                        .get(&id)
                        .map_or(0, |one| one.encoded_len() + 8);
                }
            }
            None => view.error = Some(no_conversation()),
        }
        bytes += view.encoded_len();
        if bytes > left && !answer.views.is_empty() {
            break;
        }
        left = left.saturating_sub(bytes);
        if let Some((id, ..)) = viewed
            && let Some(conversation) = views.conversations.remove(&id)
        {
            places.insert(id, view.conversation);
            answer.conversations.push(conversation);
        }
        answer.views.push(view);
    }
    Ok(answer)
}

/// Fills in how participants are seen, of the conversations where somebody wants that.
async fn show_presence(
    connection: &mut PgConnection,
    query: &v1::ViewConversations,
    views: &mut store::Views,
) -> Result<(), sqlx::Error> {
    let wanted = query.viewings.iter().filter(|one| one.presence);
    let wanted: HashSet<ConversationId> = wanted
        .filter_map(|one| one.conversation_id.parse().ok())
        .collect();
    let conversations = views.conversations.iter_mut();
    let shown = conversations.filter(|(id, _)| wanted.contains(id));
    presence::fill_each(connection, shown.map(|(_, conversation)| conversation)).await
}

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListConversations,
    inline: usize,
) -> Result<v1::ConversationPage, QueryError> {
    let stored = |value: i32| i16::try_from(value).ok();
    let filter = Filter {
        journals: false,
        status: query.status.and_then(stored),
        channel: query.channel.and_then(stored),
    };
    page(connection, viewer, filter, query.limit, &query.cursor, inline).await
}

pub(super) async fn journals(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListJournals,
    inline: usize,
) -> Result<v1::ConversationPage, QueryError> {
    let filter = Filter {
        journals: true,
        ..Filter::default()
    };
    page(connection, viewer, filter, query.limit, &query.cursor, inline).await
}

async fn page(
    connection: &mut PgConnection,
    viewer: &str,
    filter: Filter,
    asked: u32,
    cursor: &str,
    inline: usize,
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
    let mut views = store::views(connection, &asked, inline).await?;
    let mut page: Vec<v1::Conversation> = asked.iter().filter_map(|key| views.remove(key)).collect();
    presence::fill(connection, viewer, &mut page).await?;
    for conversation in &mut page {
        slim(conversation, |conversation| &mut conversation.participants);
    }
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
