//! Journals: the present document, and what each version changed and led to.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::v1;
use parlance_proto::{CommandId, ConversationId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::events::{MOST, Stretch};
use super::{from_millis, millis, seq_from, seq_to};
use crate::ingest::state::{Effects, JournalState, Loaded};

#[derive(sqlx::FromRow)]
struct EditedRow {
    conversation_id: Uuid,
    number: i64,
    version: i64,
    content: String,
    update: Vec<u8>,
    actor: String,
    at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct VersionRow {
    version: i64,
    content: String,
    actor: String,
    at: DateTime<Utc>,
}

impl TryFrom<EditedRow> for v1::JournalEdited {
    type Error = sqlx::Error;

    fn try_from(row: EditedRow) -> Result<Self, sqlx::Error> {
        let EditedRow {
            conversation_id,
            number,
            version,
            content,
            update,
            actor,
            at,
        } = row;
        Ok(Self {
            journal_id: conversation_id.to_string(),
            journal_number: number,
            version: seq_from(version)?,
            content,
            update,
            actor_id: actor,
            at_ms: millis(at),
        })
    }
}

/// The present documents of journals.
///
/// # Errors
/// Of the database.
pub async fn states(
    connection: &mut PgConnection,
    journals: &[Uuid],
) -> Result<HashMap<Uuid, JournalState>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, Vec<u8>, i64)> = sqlx::query_as(
        "SELECT conversation_id, version, state, checkpoint_version FROM journals WHERE conversation_id = ANY($1)",
    )
    .bind(journals)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, version, state, checkpoint_version)| {
            let journal = JournalState {
                version: seq_from(version)?,
                state,
                checkpoint_version: seq_from(checkpoint_version)?,
                ..JournalState::default()
            };
            Ok((id, journal))
        })
        .collect()
}

/// What the documents of earlier versions consist of: a checkpoint and the updates since, by what was asked.
///
/// # Errors
/// Of the database.
pub(super) async fn bases(
    connection: &mut PgConnection,
    asked: &[(Uuid, u64)],
) -> Result<BTreeMap<(Uuid, u64), Vec<Vec<u8>>>, sqlx::Error> {
    let mut bases: BTreeMap<(Uuid, u64), Vec<Vec<u8>>> = BTreeMap::new();
    if asked.is_empty() {
        return Ok(bases);
    }
    let rows: Vec<(Uuid, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT asked.conversation_id, asked.base, coalesce(v.checkpoint, v.update)
         FROM unnest($1::uuid[], $2::int8[]) AS asked (conversation_id, base)
         CROSS JOIN LATERAL (SELECT k.version FROM journal_versions k
                             WHERE k.conversation_id = asked.conversation_id AND k.version <= asked.base
                               AND k.checkpoint IS NOT NULL
                             ORDER BY k.version DESC LIMIT 1) AS start
         CROSS JOIN LATERAL (SELECT * FROM journal_versions w
                             WHERE w.conversation_id = asked.conversation_id AND w.version >= start.version
                               AND w.version <= asked.base) AS v
         ORDER BY asked.conversation_id, asked.base, v.version",
    )
    .bind(asked.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(asked.iter().map(|(_, base)| seq_to(*base)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for (id, base, bytes) in rows {
        bases.entry((id, seq_from(base)?)).or_default().push(bytes);
    }
    Ok(bases)
}

/// The versions that these commands made.
///
/// # Errors
/// Of the database.
pub(super) async fn made_by(
    connection: &mut PgConnection,
    commands: &[(ConversationId, CommandId)],
) -> Result<Vec<(Uuid, v1::JournalEdited)>, sqlx::Error> {
    let (journals, ids): (Vec<Uuid>, Vec<Uuid>) =
        commands.iter().map(|(c, id)| (c.uuid(), id.uuid())).unzip();
    let rows: Vec<EditedRow> = sqlx::query_as(
        "SELECT v.conversation_id, c.number, v.version, v.content, v.update, v.actor, v.at
         FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, command_id)
         CROSS JOIN LATERAL (SELECT * FROM changes h WHERE h.conversation_id = asked.conversation_id
                             AND h.command_id = asked.command_id LIMIT 1) AS x
         CROSS JOIN LATERAL (SELECT * FROM journal_versions w WHERE w.conversation_id = asked.conversation_id
                             AND w.version = x.seq LIMIT 1) AS v
         JOIN conversations c ON c.conversation_id = asked.conversation_id",
    )
    .bind(journals)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.conversation_id, row.try_into()?)))
        .collect()
}

/// The versions of these stretches, by journal and version.
///
/// # Errors
/// Of the database.
pub(super) async fn of(
    connection: &mut PgConnection,
    stretches: &[Stretch],
) -> Result<HashMap<(ConversationId, u64), v1::JournalEdited>, sqlx::Error> {
    let rows: Vec<EditedRow> = sqlx::query_as(
        "SELECT v.conversation_id, c.number, v.version, v.content, v.update, v.actor, v.at
         FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS s (conversation_id, after, through)
         CROSS JOIN LATERAL
              (SELECT * FROM journal_versions x
               WHERE x.conversation_id = s.conversation_id AND x.version > s.after AND x.version <= s.through
               ORDER BY x.version LIMIT $4) AS v
         JOIN conversations c ON c.conversation_id = v.conversation_id",
    )
    .bind(
        stretches
            .iter()
            .map(|s| s.conversation.uuid())
            .collect::<Vec<_>>(),
    )
    .bind(stretches.iter().map(|s| seq_to(s.after)).collect::<Vec<_>>())
    .bind(stretches.iter().map(|s| seq_to(s.through)).collect::<Vec<_>>())
    .bind(MOST)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = ConversationId::from_uuid(row.conversation_id);
            let edited = v1::JournalEdited::try_from(row)?;
            Ok(((id, edited.version), edited))
        })
        .collect()
}

/// The latest versions below one, latest first: at most `limit`, and no more than fit `bytes`, but at least
/// one.
///
/// # Errors
/// Of the database.
pub async fn versions(
    connection: &mut PgConnection,
    journal: ConversationId,
    below: u64,
    limit: i64,
    bytes: i64,
) -> Result<Vec<v1::JournalVersion>, sqlx::Error> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT version, content, actor, at
         FROM (SELECT version, content, actor, at,
                      sum(octet_length(content) + 200) OVER (ORDER BY version DESC) AS bytes,
                      row_number() OVER (ORDER BY version DESC) AS place
               FROM (SELECT version, content, actor, at FROM journal_versions
                     WHERE conversation_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3) AS latest) AS sized
         WHERE bytes <= $4 OR place = 1 ORDER BY version DESC",
    )
    .bind(journal.uuid())
    .bind(seq_to(below))
    .bind(limit)
    .bind(bytes)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(
            |VersionRow {
                 version,
                 content,
                 actor,
                 at,
             }| {
                Ok(v1::JournalVersion {
                    version: seq_from(version)?,
                    content,
                    actor_id: actor,
                    at_ms: millis(at),
                })
            },
        )
        .collect()
}

/// Fills in the present texts of those conversations that are journals.
///
/// # Errors
/// Of the database.
pub async fn fill(
    connection: &mut PgConnection,
    views: impl Iterator<Item = &mut v1::Conversation>,
) -> Result<(), sqlx::Error> {
    let journals: Vec<(Uuid, &mut v1::Conversation)> = views
        .filter(|view| view.kind() == v1::ConversationKind::Journal)
        .filter_map(|view| Some((Uuid::try_parse(&view.id).ok()?, view)))
        .collect();
    if journals.is_empty() {
        return Ok(());
    }
    let texts: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT conversation_id, content FROM journals WHERE conversation_id = ANY($1)")
            .bind(journals.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    let texts: HashMap<Uuid, String> = texts.into_iter().collect();
    for (id, view) in journals {
        view.content = texts.get(&id).cloned();
    }
    Ok(())
}

/// Writes the documents and versions of a batch.
///
/// # Errors
/// Of the database.
pub(super) async fn write(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    if effects.journals.is_empty() {
        return Ok(());
    }
    let texts: HashMap<ConversationId, &str> = effects
        .versions
        .iter()
        .map(|(id, version)| (*id, version.content.as_str()))
        .collect();
    let rows: Vec<(Uuid, &JournalState, &str)> = effects
        .journals
        .iter()
        .filter_map(|id| {
            Some((
                id.uuid(),
                loaded.conversations.get(id)?.journal.as_ref()?,
                *texts.get(id)?,
            ))
        })
        .collect();
    sqlx::query(
        "INSERT INTO journals (conversation_id, version, state, content, checkpoint_version)
         SELECT conversation_id, version, state, content, checkpoint_version
         FROM unnest($1::uuid[], $2::int8[], $3::bytea[], $4::text[], $5::int8[])
              AS new (conversation_id, version, state, content, checkpoint_version)
         ON CONFLICT (conversation_id) DO UPDATE
         SET version = excluded.version, state = excluded.state, content = excluded.content,
             checkpoint_version = excluded.checkpoint_version",
    )
    .bind(rows.iter().map(|row| row.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| seq_to(row.1.version)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.1.state.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.2).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|row| seq_to(row.1.checkpoint_version))
            .collect::<Vec<_>>(),
    )
    .execute(&mut *connection)
    .await?;
    let versions = &effects.versions;
    sqlx::query(
        "INSERT INTO journal_versions (conversation_id, version, update, content, checkpoint, actor, at)
         SELECT conversation_id, version, update, content, checkpoint, actor, at
         FROM unnest($1::uuid[], $2::int8[], $3::bytea[], $4::text[], $5::bytea[], $6::text[], $7::timestamptz[])
              AS new (conversation_id, version, update, content, checkpoint, actor, at)",
    )
    .bind(versions.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, v)| seq_to(v.version)).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, v)| v.update.as_slice()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, v)| v.content.as_str()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, v)| v.checkpoint.as_deref()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, v)| v.actor.as_str()).collect::<Vec<_>>())
    .bind(versions.iter().map(|(_, v)| from_millis(v.at_ms)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
