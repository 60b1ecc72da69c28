//! What participants muted, and the total of what they have not read elsewhere.

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::receipts::{LONG, LongCount, fill_long, unread_messages};
use super::{from_millis, seq_from};
use crate::model::state::Effects;

/// Writes who muted their conversation, until when, and who ended that.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let muted = &effects.muted;
    if muted.is_empty() {
        return Ok(());
    }
    let until = |until_ms: Option<i64>| until_ms.map(from_millis);
    sqlx::query(
        "UPDATE participants p
         SET muted_until = CASE WHEN new.muted THEN coalesce(new.until, 'infinity') END
         FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::timestamptz[])
              AS new (conversation_id, user_id, muted, until)
         WHERE p.conversation_id = new.conversation_id AND p.user_id = new.user_id",
    )
    .bind(muted.keys().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(muted.keys().map(|(_, user)| user.as_str()).collect::<Vec<_>>())
    .bind(muted.values().map(Option::is_some).collect::<Vec<_>>())
    .bind(
        muted
            .values()
            .map(|mute| until(mute.and_then(|mute| mute.until_ms)))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What a user has not read in all conversations that are not muted, journals left out. Conversations that are read to the end
/// cost no look at messages.
///
/// # Errors
/// [`sqlx::Error`] if a query fails.
pub async fn unread_total(connection: &mut PgConnection, user: &str) -> Result<v1::UnreadTotal, sqlx::Error> {
    // One row for all conversations whose counts are short, and one for each other.
    let mut rows: Vec<(Option<Uuid>, i64, i64, i64)> = sqlx::query_as(concat!(
        "SELECT one.long, max(one.head_seq), sum(one.unread)::int8, count(*)
         FROM (SELECT CASE WHEN n.unread = $2 THEN p.conversation_id END AS long, c.head_seq, n.unread
               FROM participants p JOIN conversations c ON c.conversation_id = p.conversation_id
               CROSS JOIN ",
        unread_messages!("c.head_seq", "c.last_message_seq"),
        "      WHERE p.user_id = $1 AND p.left_seq IS NULL AND c.kind <> 3
                 AND coalesce(p.muted_until, '-infinity') <= now() AND n.unread <> 0) AS one
         GROUP BY one.long"
    ))
    .bind(user)
    .bind(LONG)
    .fetch_all(&mut *connection)
    .await?;
    let counts = rows.iter_mut().filter_map(|(long, head_seq, unread, _)| {
        let count = LongCount {
            conversation: (*long)?,
            user,
            head_seq: *head_seq,
            read: None,
        };
        Some((count, unread))
    });
    fill_long(connection, counts).await?;
    let mut total = v1::UnreadTotal::default();
    for (_, _, unread, conversations) in rows {
        if unread > 0 {
            total.unread += seq_from(unread)?;
            total.conversations += seq_from(conversations)?;
        }
    }
    Ok(total)
}
