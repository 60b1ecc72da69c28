//! Reading the log of a conversation: messages and changes, merged by seq.

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, event};
use sqlx::PgConnection;

use super::batch::change_kind_from;
use super::messages::{MessageRow, message_columns};
use super::{millis, seq_from, seq_to};
use crate::ingest::state::{ChangeKind, Told};

#[derive(sqlx::FromRow)]
struct ChangedRow {
    change_seq: i64,
    change_kind: i16,
    changed_at: DateTime<Utc>,
    #[sqlx(flatten)]
    message: MessageRow,
}

/// The events with `after` < seq <= `through`, ascending. A message shows its present state.
///
/// # Errors
/// Of the database.
pub async fn between(
    connection: &mut PgConnection,
    conversation: ConversationId,
    epoch: &str,
    after: u64,
    through: u64,
) -> Result<Vec<v1::Event>, sqlx::Error> {
    let created: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m JOIN conversations c USING (conversation_id)
          LEFT JOIN users u ON u.user_id = m.sender_id
          WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3"
    ))
    .bind(conversation.uuid())
    .bind(seq_to(after))
    .bind(seq_to(through))
    .fetch_all(&mut *connection)
    .await?;
    let changed: Vec<ChangedRow> = sqlx::query_as(concat!(
        "SELECT x.seq AS change_seq, x.kind AS change_kind, x.at AS changed_at, ",
        message_columns!(),
        " FROM changes x JOIN conversations c USING (conversation_id)
          JOIN messages m ON m.conversation_id = x.conversation_id AND m.seq = x.target_seq
          LEFT JOIN users u ON u.user_id = m.sender_id
          WHERE x.conversation_id = $1 AND x.seq > $2 AND x.seq <= $3"
    ))
    .bind(conversation.uuid())
    .bind(seq_to(after))
    .bind(seq_to(through))
    .fetch_all(connection)
    .await?;
    let mut events = Vec::with_capacity(created.len() + changed.len());
    for row in created {
        let message: v1::Message = row.try_into()?;
        let told = Told {
            seq: message.seq,
            at_ms: message.created_at_ms,
            change: None,
        };
        events.push(message_event(message, told, epoch));
    }
    for ChangedRow {
        change_seq,
        change_kind,
        changed_at,
        message,
    } in changed
    {
        let told = Told {
            seq: seq_from(change_seq)?,
            at_ms: millis(changed_at),
            change: Some(change_kind_from(change_kind)?),
        };
        events.push(message_event(message.try_into()?, told, epoch));
    }
    events.sort_unstable_by_key(|event| event.seq);
    Ok(events)
}

/// The event that tells about a message.
pub fn message_event(message: v1::Message, told: Told, epoch: &str) -> v1::Event {
    let conversation_id = message.conversation_id.clone();
    let message = Some(message);
    let body = match told.change {
        None => event::Body::MessageCreated(v1::MessageCreated { message }),
        Some(ChangeKind::Edited) => event::Body::MessageEdited(v1::MessageEdited { message }),
        Some(ChangeKind::Deleted) => event::Body::MessageDeleted(v1::MessageDeleted { message }),
    };
    v1::Event {
        conversation_id,
        epoch: epoch.to_owned(),
        seq: told.seq,
        at_ms: told.at_ms,
        body: Some(body),
    }
}
