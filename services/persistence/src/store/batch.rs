//! Loading what a batch of commands works on, under locks that order it against everyone else.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::v1::{self, ConversationKind, Role};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, messages, millis, seq_from};
use crate::ingest::state::{Change, ChangeKind, ConversationState, Loaded, Member};
use crate::ingest::work::{Action, Work};

/// The leases that hold, and what the database says about itself.
pub struct LeaseCheck {
    /// Partitions that are still ours; their rows are held until the transaction ends.
    pub held: BTreeSet<u16>,
    /// The transaction's time, unix milliseconds.
    pub now_ms: i64,
    /// See `Conversation.epoch`.
    pub epoch: String,
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
    updated_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct MemberRow {
    conversation_id: Uuid,
    user_id: String,
    role: i16,
    username: String,
    read_seqs: String,
    receipts_version: i64,
}

#[derive(sqlx::FromRow)]
struct ChangeRow {
    conversation_id: Uuid,
    command_id: Uuid,
    seq: i64,
    kind: i16,
    target_seq: Option<i64>,
    actor: String,
    at: DateTime<Utc>,
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
    let (now, epoch): (DateTime<Utc>, Uuid) = sqlx::query_as("SELECT now(), id FROM epoch")
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
) -> Result<Loaded, sqlx::Error> {
    let conversations = lock_conversations(connection, works).await?;
    let mut loaded = Loaded {
        now_ms: check.now_ms,
        epoch: check.epoch,
        conversations,
        ..Loaded::default()
    };
    load_members(connection, works, &mut loaded).await?;
    load_messages(connection, works, &mut loaded).await?;
    load_changes(connection, works, &mut loaded).await?;
    load_for_creations(connection, works, &mut loaded).await?;
    Ok(loaded)
}

async fn lock_conversations(
    connection: &mut PgConnection,
    works: &[&Work],
) -> Result<HashMap<ConversationId, ConversationState>, sqlx::Error> {
    let ids: BTreeSet<Uuid> = works.iter().map(|work| work.conversation.uuid()).collect();
    let rows: Vec<ConversationRow> = sqlx::query_as(
        "SELECT conversation_id, number, kind, title, created_by, created_by_command, head_seq, last_message_seq,
                receipts_version, updated_at
         FROM conversations WHERE conversation_id = ANY($1) ORDER BY conversation_id FOR NO KEY UPDATE",
    )
    .bind(ids.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

async fn load_members(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let asked: BTreeSet<(Uuid, &str)> = works
        .iter()
        .map(|work| (work.conversation.uuid(), work.actor.id.as_str()))
        .collect();
    let (conversations, users): (Vec<Uuid>, Vec<&str>) = asked.into_iter().unzip();
    let rows: Vec<MemberRow> = sqlx::query_as(
        "SELECT p.conversation_id, p.user_id, p.role, u.username, p.read_seqs::text AS read_seqs, p.receipts_version
         FROM unnest($1::uuid[], $2::text[]) AS asked (conversation_id, user_id)
         CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = asked.conversation_id
                             AND x.user_id = asked.user_id LIMIT 1) AS p
         JOIN users u ON u.user_id = asked.user_id
         WHERE p.left_seq IS NULL AND u.deleted_at IS NULL",
    )
    .bind(conversations)
    .bind(users)
    .fetch_all(connection)
    .await?;
    for row in rows {
        let MemberRow {
            conversation_id,
            user_id,
            role,
            username,
            read_seqs,
            receipts_version,
        } = row;
        let member = Member {
            role: role_from(role)?,
            username,
            read: read_seqs.parse().map_err(|_| corrupt("read_seqs"))?,
            receipts_version: seq_from(receipts_version)?,
        };
        let user = UserId::parse(user_id).map_err(|_| corrupt("a participant's user id"))?;
        if let Some(state) = loaded
            .conversations
            .get_mut(&ConversationId::from_uuid(conversation_id))
        {
            state.members.insert(user, member);
        }
    }
    Ok(())
}

async fn load_messages(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut names: BTreeSet<(ConversationId, MessageId)> = BTreeSet::new();
    for work in works
        .iter()
        .filter(|work| loaded.conversations.contains_key(&work.conversation))
    {
        let mut name = |id: MessageId| names.insert((work.conversation, id));
        match &work.action {
            Action::Create(_) => {}
            Action::Send(send) => {
                name(send.message);
                send.reply_to.map(&mut name);
            }
            Action::Edit { message, .. } | Action::Delete { message } => {
                name(*message);
            }
            Action::Read { messages, .. } => {
                for &message in messages {
                    name(message);
                }
            }
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = names.into_iter().collect();
    for message in messages::by_id(connection, &names).await? {
        let (id, conversation) = ids_of(&message)?;
        if let Some(state) = loaded.conversations.get_mut(&conversation) {
            state.messages.insert(id, message);
        }
    }
    Ok(())
}

async fn load_changes(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let changing = |work: &&&Work| matches!(work.action, Action::Edit { .. } | Action::Delete { .. });
    let (conversations, commands): (Vec<Uuid>, Vec<Uuid>) = works
        .iter()
        .filter(changing)
        .map(|work| (work.conversation.uuid(), work.id.uuid()))
        .unzip();
    if commands.is_empty() {
        return Ok(());
    }
    let rows: Vec<ChangeRow> = sqlx::query_as(
        "SELECT c.conversation_id, c.command_id, c.seq, c.kind, c.target_seq, c.actor, c.at
         FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, command_id)
         CROSS JOIN LATERAL (SELECT * FROM changes x WHERE x.conversation_id = asked.conversation_id
                             AND x.command_id = asked.command_id LIMIT 1) AS c",
    )
    .bind(conversations)
    .bind(commands)
    .fetch_all(connection)
    .await?;
    for row in rows {
        let ChangeRow {
            conversation_id,
            command_id,
            seq,
            kind,
            target_seq,
            actor,
            at,
        } = row;
        let change = Change {
            seq: seq_from(seq)?,
            kind: change_kind_from(kind)?,
            target_seq: seq_from(target_seq.unwrap_or_default())?,
            actor,
            at_ms: millis(at),
        };
        if let Some(state) = loaded
            .conversations
            .get_mut(&ConversationId::from_uuid(conversation_id))
        {
            state.changes.insert(CommandId::from_uuid(command_id), change);
        }
    }
    Ok(())
}

/// Users that creations name, and a number for each new conversation.
async fn load_for_creations(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    let mut fresh: BTreeSet<ConversationId> = BTreeSet::new();
    for work in works
        .iter()
        .filter(|work| !loaded.conversations.contains_key(&work.conversation))
    {
        if let Action::Create(create) = &work.action {
            ids.extend(create.others.iter().map(UserId::as_str));
            ids.insert(work.actor.id.as_str());
            fresh.insert(work.conversation);
        }
    }
    if fresh.is_empty() {
        return Ok(());
    }
    let rows: Vec<(String, String, bool)> =
        sqlx::query_as("SELECT user_id, username, deleted_at IS NOT NULL FROM users WHERE user_id = ANY($1)")
            .bind(ids.into_iter().collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
    for (id, username, deleted) in rows {
        let id = UserId::parse(id).map_err(|_| corrupt("a user id"))?;
        if deleted {
            loaded.deleted_users.insert(id);
        } else {
            loaded.users.insert(id, username);
        }
    }
    loaded.numbers =
        sqlx::query_scalar("SELECT nextval('conversation_number') FROM generate_series(1, $1::int8)")
            .bind(i64::try_from(fresh.len()).unwrap_or(i64::MAX))
            .fetch_all(connection)
            .await?;
    Ok(())
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
            updated_at,
        } = row;
        let state = ConversationState {
            number,
            kind: ConversationKind::try_from(i32::from(kind))
                .map_err(|_| corrupt("a conversation's kind"))?,
            title,
            created_by,
            created_by_command: CommandId::from_uuid(created_by_command),
            head_seq: seq_from(head_seq)?,
            last_message_seq: seq_from(last_message_seq)?,
            receipts_version: seq_from(receipts_version)?,
            updated_at_ms: millis(updated_at),
            members: HashMap::new(),
            messages: HashMap::new(),
            changes: HashMap::new(),
        };
        Ok((ConversationId::from_uuid(conversation_id), state))
    }
}

/// The stored number of a kind of change.
pub fn change_kind_to(kind: ChangeKind) -> i16 {
    match kind {
        ChangeKind::Edited => 1,
        ChangeKind::Deleted => 2,
    }
}

/// The kind of change of a stored number.
///
/// # Errors
/// There is none.
pub fn change_kind_from(stored: i16) -> Result<ChangeKind, sqlx::Error> {
    match stored {
        1 => Ok(ChangeKind::Edited),
        2 => Ok(ChangeKind::Deleted),
        _ => Err(corrupt("a kind of change")),
    }
}

fn role_from(stored: i16) -> Result<Role, sqlx::Error> {
    Role::try_from(i32::from(stored)).map_err(|_| corrupt("a participant's role"))
}

fn ids_of(message: &v1::Message) -> Result<(MessageId, ConversationId), sqlx::Error> {
    let id = message.id.parse().map_err(|_| corrupt("a message id"))?;
    let conversation = message
        .conversation_id
        .parse()
        .map_err(|_| corrupt("a conversation id"))?;
    Ok((id, conversation))
}
