//! What the database holds of the conversations, read by plain SQL.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgPool, Row};

use crate::history::{Event, Seen};

/// All conversations by id.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// All conversations by id.
    pub conversations: BTreeMap<String, ConversationRows>,
}

/// The rows of one conversation.
#[derive(Clone, Debug, Default)]
pub struct ConversationRows {
    /// The counter that gives the next seq.
    pub head: u64,
    /// Members' user ids.
    pub members: BTreeSet<String>,
    /// In seq order.
    pub messages: Vec<MessageRow>,
    /// In seq order.
    pub changes: Vec<ChangeRow>,
}

/// A stored message.
#[derive(Clone, Debug)]
pub struct MessageRow {
    /// As a client should have it.
    pub seen: Seen,
    /// Who sent it.
    pub sender: String,
    /// The sender's own id.
    pub client_msg_id: String,
    /// When it was stored, in milliseconds since 1970.
    pub created_ms: f64,
}

/// A stored change of a message.
#[derive(Clone, Copy, Debug)]
pub struct ChangeRow {
    /// Its own place in the sequence.
    pub seq: u64,
    /// What was done.
    pub event: Event,
    /// The seq of the changed message.
    pub target: u64,
}

impl Database {
    /// Reads all conversations.
    ///
    /// # Errors
    /// The database does not answer, or holds what no version of the schema allows.
    pub async fn read(pool: &PgPool) -> anyhow::Result<Self> {
        let mut database = Self::default();
        let heads = sqlx::query("SELECT conversation_id::text AS id, head_seq FROM conversations");
        for row in heads.fetch_all(pool).await? {
            database.of(row.try_get("id")?).head = seq(&row, "head_seq")?;
        }
        let members = sqlx::query(
            "SELECT conversation_id::text AS id, user_id FROM participants WHERE left_seq IS NULL",
        );
        for row in members.fetch_all(pool).await? {
            database
                .of(row.try_get("id")?)
                .members
                .insert(row.try_get("user_id")?);
        }
        let messages = sqlx::query(
            "SELECT conversation_id::text AS id, message_id::text AS message_id, seq, sender_id,
                    coalesce(client_msg_id, '') AS client_msg_id,
                    left(encode(sha256(convert_to(content, 'UTF8')), 'hex'), 16) AS digest,
                    edited_at IS NOT NULL AS edited, deleted_at IS NOT NULL AS deleted,
                    (extract(epoch FROM created_at) * 1000)::float8 AS created_ms
             FROM messages ORDER BY conversation_id, seq",
        );
        for row in messages.fetch_all(pool).await? {
            let seen = Seen(
                row.try_get("message_id")?,
                seq(&row, "seq")?,
                row.try_get("digest")?,
                row.try_get("edited")?,
                row.try_get("deleted")?,
            );
            database.of(row.try_get("id")?).messages.push(MessageRow {
                seen,
                sender: row.try_get("sender_id")?,
                client_msg_id: row.try_get("client_msg_id")?,
                created_ms: row.try_get("created_ms")?,
            });
        }
        database.read_changes(pool).await?;
        Ok(database)
    }

    async fn read_changes(&mut self, pool: &PgPool) -> anyhow::Result<()> {
        let changes = sqlx::query(
            "SELECT conversation_id::text AS id, seq, kind, target_seq FROM changes
             ORDER BY conversation_id, seq",
        );
        for row in changes.fetch_all(pool).await? {
            let event = match row.try_get::<i16, _>("kind")? {
                1 => Event::Edited,
                2 => Event::Deleted,
                kind => {
                    anyhow::bail!("changes has a row of the kind {kind}, which the checker does not know")
                }
            };
            self.of(row.try_get("id")?).changes.push(ChangeRow {
                seq: seq(&row, "seq")?,
                event,
                target: seq(&row, "target_seq")?,
            });
        }
        Ok(())
    }

    fn of(&mut self, id: String) -> &mut ConversationRows {
        self.conversations.entry(id).or_default()
    }
}

fn seq(row: &sqlx::postgres::PgRow, column: &str) -> anyhow::Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?)?)
}
