//! Loading what a batch of commands works on, under locks that order it against everyone else.

mod touched;

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use parlance_proto::v1::{Channel, ConversationKind, ConversationStatus};
use parlance_proto::{CommandId, ConversationId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::participants::member_count;
use super::{corrupt, feed, metadata_from, millis, processed, seq_from};
use crate::model::processed::CommandKey;
use crate::model::state::{Bounds, ConversationState, Loaded};
use crate::model::work::Work;
use crate::store::kept::KeptJournals;
use touched::{bans, changes, journals, members, messages_and_threads, open_reports, people_and_numbers};

/// The leases that hold, and what the database says about itself.
pub struct LeaseCheck {
    /// Partitions that are still ours; their rows are held until the transaction ends.
    pub held: BTreeSet<u16>,
    /// The transaction's time, unix milliseconds.
    pub now_ms: i64,
    /// See `Conversation.epoch`.
    pub epoch: String,
    /// Whether the feed lacks events of any conversation. What this replica is about to note itself may be missing.
    pub feed_is_behind: bool,
}

#[derive(sqlx::FromRow)]
struct ConversationRow {
    conversation_id: Uuid,
    number: i64,
    kind: i16,
    title: String,
    created_by: String,
    created_by_command: Uuid,
    head_seq: i64,
    last_message_seq: i64,
    receipts_version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    channel: i16,
    status: i16,
    metadata: String,
    deleted: bool,
    history_from: i64,
    open: bool,
    blocked: bool,
    read_only: bool,
    member_count: i64,
}

/// Checks that the leases of a batch are ours under the same epochs, and keeps them so until the
/// transaction ends. `FOR KEY SHARE` stops a takeover, which changes a key, but not a renewal.
///
/// # Errors
/// Of the database.
pub async fn check_leases(
    connection: &mut PgConnection,
    owner: &str,
    leases: &[(u16, u64)],
) -> Result<LeaseCheck, sqlx::Error> {
    let (ids, epochs): (Vec<i32>, Vec<i64>) = leases
        .iter()
        .map(|&(partition, epoch)| (i32::from(partition), super::seq_to(epoch)))
        .unzip();
    let rows: Vec<(i32,)> = sqlx::query_as(
        "SELECT l.partition
         FROM unnest($2::int4[], $3::int8[]) AS ours (partition, epoch)
         JOIN partition_leases l USING (partition, epoch)
         WHERE l.owner = $1 ORDER BY l.partition FOR KEY SHARE OF l",
    )
    .bind(owner)
    .bind(ids)
    .bind(epochs)
    .fetch_all(&mut *connection)
    .await?;
    let (now, epoch, feed_is_behind): (DateTime<Utc>, Uuid, bool) =
        sqlx::query_as("SELECT now(), id, EXISTS (SELECT FROM feed_backlog) FROM epoch")
            .fetch_one(connection)
            .await?;
    let held = rows
        .into_iter()
        .filter_map(|(partition,)| u16::try_from(partition).ok())
        .collect();
    Ok(LeaseCheck {
        held,
        now_ms: millis(now),
        epoch: epoch.to_string(),
        feed_is_behind,
    })
}

/// Locks the conversations of the commands in one order for all, and loads what the commands touch.
///
/// # Errors
/// Of the database.
pub async fn load(
    connection: &mut PgConnection,
    check: LeaseCheck,
    works: &[&Work],
    bounds: Bounds,
    kept: &KeptJournals,
) -> Result<Loaded, sqlx::Error> {
    let conversations = lock_conversations(connection, works).await?;
    let feed_behind = if check.feed_is_behind {
        let ids: Vec<Uuid> = conversations.keys().map(|id| id.uuid()).collect();
        feed::of(connection, &ids).await?
    } else {
        HashMap::new()
    };
    let keys: Vec<CommandKey> = works.iter().map(|work| (work.conversation, work.id)).collect();
    let processed = processed::among(connection, &keys).await?;
    let mut loaded = Loaded {
        now_ms: check.now_ms,
        epoch: check.epoch,
        conversations,
        processed,
        feed_behind,
        bounds,
        ..Loaded::default()
    };
    members(connection, works, &mut loaded).await?;
    messages_and_threads(connection, works, &mut loaded).await?;
    changes(connection, works, &mut loaded).await?;
    journals(connection, works, &mut loaded, kept).await?;
    people_and_numbers(connection, works, &mut loaded).await?;
    bans(connection, works, &mut loaded).await?;
    loaded.open_reports = open_reports(connection, works).await?;
    Ok(loaded)
}

async fn lock_conversations(
    connection: &mut PgConnection,
    works: &[&Work],
) -> Result<HashMap<ConversationId, ConversationState>, sqlx::Error> {
    let ids: BTreeSet<Uuid> = works.iter().map(|work| work.conversation.uuid()).collect();
    let rows: Vec<ConversationRow> = sqlx::query_as(concat!(
        "SELECT c.conversation_id, c.number, c.kind, c.title, c.created_by, c.created_by_command, c.head_seq,
                c.last_message_seq, c.receipts_version, c.created_at, c.updated_at, c.channel, c.status,
                c.metadata::text AS metadata, c.deleted_at IS NOT NULL AS deleted, c.history_from, c.open,
                c.blocked, c.read_only, ",
        member_count!(),
        " AS member_count
         FROM conversations c WHERE c.conversation_id = ANY($1) ORDER BY c.conversation_id FOR NO KEY UPDATE OF c"
    ))
    .bind(ids.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

impl TryFrom<ConversationRow> for (ConversationId, ConversationState) {
    type Error = sqlx::Error;

    fn try_from(row: ConversationRow) -> Result<Self, sqlx::Error> {
        let ConversationRow {
            conversation_id,
            number,
            kind,
            title,
            created_by,
            created_by_command,
            head_seq,
            last_message_seq,
            receipts_version,
            created_at,
            updated_at,
            channel,
            status,
            metadata,
            deleted,
            history_from,
            open,
            blocked,
            read_only,
            member_count,
        } = row;
        let state = ConversationState {
            number,
            kind: ConversationKind::try_from(i32::from(kind))
                .map_err(|_| corrupt("a conversation's kind"))?,
            open,
            read_only,
            title,
            channel: Channel::try_from(i32::from(channel))
                .map_err(|_| corrupt("a conversation's channel"))?,
            status: ConversationStatus::try_from(i32::from(status))
                .map_err(|_| corrupt("a conversation's status"))?,
            metadata_json: metadata_from(metadata),
            created_by,
            created_at_ms: millis(created_at),
            deleted,
            history_from: seq_from(history_from)?,
            created_by_command: CommandId::from_uuid(created_by_command),
            head_seq: seq_from(head_seq)?,
            last_message_seq: seq_from(last_message_seq)?,
            receipts_version: seq_from(receipts_version)?,
            updated_at_ms: millis(updated_at),
            blocked,
            banned: HashSet::new(),
            ban_count: 0,
            member_count: seq_from(member_count)?,
            members: HashMap::new(),
            messages: HashMap::new(),
            places: HashMap::new(),
            threads: HashMap::new(),
            changes: HashMap::new(),
            journal: None,
        };
        Ok((ConversationId::from_uuid(conversation_id), state))
    }
}
