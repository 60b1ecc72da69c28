//! Receipts of others that changed while a user was away, with the user's messages they cover. What is looked through is
//! bounded in every direction; must not count what is unread, which only the live event does.

use chrono::{DateTime, Utc};
use parlance_proto::{ConversationId, v1};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{from_millis, millis, seq_from};

/// Members of a group whose missed receipts are looked for; those of larger ones are read over REST.
const MEMBERS: i64 = 100;
/// Conversations of a user that are looked at for missed receipts.
const CONVERSATIONS: i64 = 1_000;
/// The latest seqs of a conversation, of which own messages are looked at.
const WITHIN: i64 = 1_000;
/// The latest messages that a reader's receipts are said to cover.
const PER_READER: i64 = 50;
/// Rows of one user: messages that a reader's receipts cover.
const ROWS: i64 = 5_000;
/// Rows of all users of one query; more than of one.
const ROWS_TOGETHER: i64 = 4 * ROWS;

#[derive(sqlx::FromRow)]
struct Row {
    place: i64,
    conversation_id: Uuid,
    user_id: String,
    number: i64,
    delivered_seq: i64,
    receipts_version: i64,
    receipts_at: Option<DateTime<Utc>>,
    head_seq: i64,
    seq: i64,
    message_id: Uuid,
    reading: bool,
}

/// Whose missed receipts are asked about.
#[derive(Debug, Clone)]
pub struct Missing {
    /// The user.
    pub user: String,
    /// Since when, in Unix milliseconds.
    pub since_ms: i64,
    /// Of this conversation alone.
    pub only: Option<ConversationId>,
}

/// Receipts of others that changed since, in the user's conversations of the latest messages, each with the user's latest
/// messages it covers. In the order of those who are asked about; those that are missing at the end were too many.
///
/// # Errors
/// Of the database.
pub async fn receipts(
    connection: &mut PgConnection,
    asked: &[Missing],
) -> Result<Vec<Vec<v1::ConversationReceipts>>, sqlx::Error> {
    // What a user sent is looked up once for each conversation, and only where receipts of others changed.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT asked.place, missed.*
         FROM unnest($1::text[], $2::timestamptz[], $3::uuid[])
              WITH ORDINALITY AS asked (user_id, since, conversation_id, place)
         CROSS JOIN LATERAL
              (SELECT changed.conversation_id, changed.head_seq, changed.updated_at, p.user_id, u.number,
                      p.delivered_seq, p.receipts_version, p.receipts_at, m.seq, m.message_id,
                      p.read_seqs @> m.seq AS reading
               FROM (SELECT c.conversation_id, c.head_seq, c.updated_at
                     FROM participants me JOIN conversations c USING (conversation_id)
                     WHERE me.user_id = asked.user_id AND me.left_seq IS NULL
                       AND (c.kind = 1 OR coalesce(c.member_count, 0) <= $9)
                       AND (asked.conversation_id IS NULL OR me.conversation_id = asked.conversation_id)
                       AND EXISTS (SELECT FROM participants p
                                   WHERE p.conversation_id = me.conversation_id AND p.user_id <> me.user_id
                                     AND p.receipts_at >= asked.since AND p.left_seq IS NULL)
                     ORDER BY c.updated_at DESC LIMIT $4) AS changed
               CROSS JOIN LATERAL
                    (SELECT array_agg(x.seq) AS seqs, array_agg(x.message_id) AS ids FROM messages x
                     WHERE x.conversation_id = changed.conversation_id AND x.sender_id = asked.user_id
                       AND x.deleted_at IS NULL AND x.seq > changed.head_seq - $5) AS sent
               JOIN participants p ON p.conversation_id = changed.conversation_id AND p.user_id <> asked.user_id
                                  AND p.receipts_at >= asked.since AND p.left_seq IS NULL
               JOIN users u ON u.user_id = p.user_id
               CROSS JOIN LATERAL
                    (SELECT x.seq, x.message_id FROM unnest(sent.seqs, sent.ids) AS x (seq, message_id)
                     WHERE p.read_seqs @> x.seq OR x.seq <= p.delivered_seq
                     ORDER BY x.seq DESC LIMIT $6) AS m
               ORDER BY changed.updated_at DESC, changed.conversation_id, p.user_id, m.seq LIMIT $7) AS missed
         ORDER BY asked.place, missed.updated_at DESC, missed.conversation_id, missed.user_id, missed.seq
         LIMIT $8",
    )
    .bind(asked.iter().map(|one| one.user.as_str()).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| from_millis(one.since_ms)).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.only.map(|id| id.uuid())).collect::<Vec<_>>())
    .bind(CONVERSATIONS)
    .bind(WITHIN)
    .bind(PER_READER)
    .bind(ROWS)
    .bind(ROWS_TOGETHER)
    .bind(MEMBERS)
    .fetch_all(connection)
    .await?;
    let place = |row: &Row| usize::try_from(row.place - 1).unwrap_or(usize::MAX);
    // What the last one of very many rows missed may go on.
    let is_cut = rows.len() as i64 >= ROWS_TOGETHER;
    let complete = rows.last().filter(|_| is_cut).map_or(asked.len(), place);
    let mut missed: Vec<Vec<v1::ConversationReceipts>> = vec![Vec::new(); complete.min(asked.len())];
    for row in rows {
        let place = place(&row);
        if let (Some(one), Some(missed)) = (asked.get(place), missed.get_mut(place)) {
            row.join(&one.user, missed)?;
        }
    }
    Ok(missed)
}

impl Row {
    /// Comes after the rows of the same conversation and reader.
    fn join(self, sender: &str, missed: &mut Vec<v1::ConversationReceipts>) -> Result<(), sqlx::Error> {
        let conversation_id = self.conversation_id.to_string();
        if missed
            .last()
            .is_none_or(|last| last.conversation_id != conversation_id)
        {
            missed.push(v1::ConversationReceipts {
                conversation_id,
                receipts: Vec::new(),
            });
        }
        let Some(v1::ConversationReceipts { receipts, .. }) = missed.last_mut() else {
            return Ok(());
        };
        if receipts.last().is_none_or(|last| last.user_id != self.user_id) {
            receipts.push(v1::ReceiptUpdated {
                user_id: self.user_id,
                version: seq_from(self.receipts_version)?,
                head_seq: seq_from(self.head_seq)?,
                user_number: self.number,
                delivered_seq: seq_from(self.delivered_seq)?,
                at_ms: self.receipts_at.map(millis).unwrap_or_default(),
                ..Default::default()
            });
        }
        let message = v1::MessageRef {
            id: self.message_id.to_string(),
            seq: seq_from(self.seq)?,
            sender_id: sender.to_owned(),
        };
        if let Some(receipt) = receipts.last_mut() {
            let covered = match self.reading {
                true => &mut receipt.read_now,
                false => &mut receipt.delivered_now,
            };
            covered.push(message);
        }
        Ok(())
    }
}
