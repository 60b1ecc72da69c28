//! Pages of a conversation's messages.

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::head;
use super::page::{MAX_BYTES, cut_page_by_seq, fitting, limit};
use crate::error::QueryError;
use crate::model::refusals::{no_message, refuse};
use crate::model::work::MessageName;
use crate::store::conversations::Head;
use crate::store::messages::{self as store, HistoryQuery, Window};
use crate::store::{edits as earlier, hidden};

/// Pages by offset end here: each reads all that it skips.
const MAX_OFFSET: u32 = 100_000;

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListMessages,
) -> Result<v1::MessagePage, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    if query.offset > MAX_OFFSET {
        return Err(refuse(format!("offset is above {MAX_OFFSET}: page with before")).into());
    }
    let limit = limit(query.limit);
    let thread = match query.thread_id.as_str() {
        "" => None,
        id => Some(Uuid::try_parse(id).map_err(|_| refuse("thread_id is not a UUID"))?),
    };
    let window = match (query.after, query.before) {
        (None, before) => Window::Before(before.unwrap_or(u64::MAX)),
        (Some(after), _) => Window::After(after),
    };
    let history = HistoryQuery {
        conversation: head.id,
        viewer,
        history_from: head.history_from,
        thread,
        main_line: query.main_line,
        window,
        offset: query.offset,
        without_deleted: query.without_deleted,
    };
    let mut messages = store::window(connection, history, i64::from(limit) + 1).await?;
    if let (Window::After(_), Some(before)) = (window, query.before) {
        messages.retain(|message| message.seq < before);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(v1::MessagePage {
        head_seq: head.seq,
        ..page(messages, window, limit)
    })
}

pub(super) async fn get(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::GetMessage,
) -> Result<v1::Message, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    find(connection, viewer, &head, &query.message_id).await
}

pub(super) async fn edits(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListEdits,
) -> Result<v1::Edits, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    let message = find(connection, viewer, &head, &query.message_id).await?;
    let limit = limit(query.limit);
    let found = earlier::of(
        connection,
        head.id,
        message.seq,
        query.after,
        i64::from(limit) + 1,
    );
    let (seqs, mut edits): (Vec<_>, Vec<_>) = found.await?.into_iter().unzip();
    let next = cut_page_by_seq(&seqs, &mut edits, limit);
    Ok(v1::Edits { edits, next })
}

/// The message somebody means, if they may see it.
async fn find(
    connection: &mut PgConnection,
    viewer: &str,
    head: &Head,
    name: &str,
) -> Result<v1::Message, QueryError> {
    let found = match name.parse()? {
        MessageName::Id(id) => store::by_id(connection, &[(head.id, id)]).await?,
        MessageName::Seq(seq) => {
            store::by_seq(
                connection,
                &[(head.id.uuid(), i64::try_from(seq).unwrap_or(i64::MAX))],
            )
            .await?
        }
    };
    let message = found
        .into_iter()
        .find(|message| message.seq > head.history_from)
        .ok_or_else(no_message)?;
    let place = (head.id.uuid(), i64::try_from(message.seq).unwrap_or(i64::MAX));
    if hidden::among(connection, viewer, &[place]).await?.is_empty() {
        Ok(message)
    } else {
        Err(no_message().into())
    }
}

/// Cuts at the far end of the direction asked for: what is left out begins where the next page begins.
fn page(mut messages: Vec<v1::Message>, window: Window, limit: usize) -> v1::MessagePage {
    let next = match window {
        Window::After(_) => {
            let keep = fitting(messages.iter().take(limit), MAX_BYTES);
            let more = keep < messages.len();
            messages.truncate(keep);
            messages.last().filter(|_| more)
        }
        Window::Before(_) => {
            let keep = fitting(messages.iter().rev().take(limit), MAX_BYTES);
            let cut = messages.len() - keep;
            messages.drain(..cut);
            messages.first().filter(|_| cut > 0)
        }
    };
    let next = next.map_or(0, |message| message.seq);
    v1::MessagePage {
        messages,
        next,
        head_seq: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(seqs: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<v1::Message> {
        seqs.map(|seq| v1::Message {
            seq,
            content: "x".repeat(bytes),
            ..Default::default()
        })
        .collect()
    }

    fn shape(page: &v1::MessagePage) -> (u64, u64, u64) {
        (
            page.messages[0].seq,
            page.messages[page.messages.len() - 1].seq,
            page.next,
        )
    }

    #[test]
    fn next_is_the_bound_of_the_following_page_in_the_direction_asked_for() {
        assert_eq!(shape(&page(messages(5..=8, 1), Window::After(4), 3)), (5, 7, 7));
        assert_eq!(shape(&page(messages(5..=7, 1), Window::After(4), 3)), (5, 7, 0));
        assert_eq!(shape(&page(messages(5..=8, 1), Window::Before(9), 3)), (6, 8, 6));
        assert_eq!(shape(&page(messages(1..=3, 1), Window::Before(4), 3)), (1, 3, 0));
    }

    #[test]
    fn large_messages_shorten_the_page() {
        assert_eq!(
            shape(&page(messages(1..=9, 300 * 1024), Window::After(0), 9)),
            (1, 2, 2)
        );
        assert_eq!(
            shape(&page(messages(1..=9, 300 * 1024), Window::Before(10), 9)),
            (8, 9, 8)
        );
        assert!(page(Vec::new(), Window::Before(1), 3).messages.is_empty());
    }
}
