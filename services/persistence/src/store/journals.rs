//! Journals: the present text, and the documents as checkpoints and the updates since.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use parlance_journal::{Document, Writer};
use parlance_proto::v1;
use parlance_proto::{CommandId, ConversationId};
use parlance_runtime::tasks;
use sqlx::PgConnection;
use uuid::Uuid;

use super::stretch::{self, MOST, Stretch};
use super::{corrupt, from_millis, millis, seq_from, seq_to};
use crate::model::journal::Journal;
use crate::model::state::{Effects, JournalState, Loaded};

/// A journal that a batch changed, with its text where that is to be stored.
type Row<'a> = (Uuid, &'a JournalState, Option<&'a str>);

#[derive(sqlx::FromRow)]
struct EditedRow {
    conversation_id: Uuid,
    number: i64,
    version: i64,
    update: Vec<u8>,
    actor: String,
    at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct VersionRow {
    version: i64,
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
            update,
            actor,
            at,
        } = row;
        Ok(Self {
            journal_id: conversation_id.to_string(),
            journal_number: number,
            version: seq_from(version)?,
            update,
            actor_id: actor,
            at_ms: millis(at),
        })
    }
}

/// A part of a document: the whole as of a version, or what a later one changed.
struct Part {
    version: u64,
    bytes: Vec<u8>,
    is_whole: bool,
}

/// The present versions of journals.
///
/// # Errors
/// Of the database.
pub async fn present(
    connection: &mut PgConnection,
    journals: &[Uuid],
) -> Result<Vec<(Uuid, u64)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> =
        sqlx::query_as("SELECT conversation_id, version FROM journals WHERE conversation_id = ANY($1)")
            .bind(journals)
            .fetch_all(connection)
            .await?;
    rows.into_iter()
        .map(|(id, version)| Ok((id, seq_from(version)?)))
        .collect()
}

/// The present documents of journals, to be edited.
///
/// # Errors
/// Of the database.
pub async fn states(
    connection: &mut PgConnection,
    journals: &[Uuid],
) -> Result<HashMap<Uuid, JournalState>, sqlx::Error> {
    let present: Vec<(Uuid, u64)> = journals.iter().map(|id| (*id, u64::MAX)).collect();
    let mut states = HashMap::new();
    for (id, parts) in parts(connection, &present).await? {
        let Some(version) = parts.last().map(|part| part.version) else {
            continue;
        };
        let whole = parts.iter().find(|part| part.is_whole);
        let checkpoint_version = whole.map_or(0, |part| part.version);
        let checkpoint_bytes = whole.map_or(0, |part| part.bytes.len());
        let all: usize = parts.iter().map(|part| part.bytes.len()).sum();
        let parts = parts.into_iter().map(|part| part.bytes).collect();
        let state = JournalState {
            version,
            journal: Journal::new(parts),
            checkpoint_version,
            checkpoint_bytes,
            bytes_since: all - checkpoint_bytes,
            done: BTreeMap::new(),
        };
        states.insert(id, state);
    }
    Ok(states)
}

/// What the document of a journal consists of as of the latest version up to `through`: the whole document at an earlier
/// one, and the updates since. Empty if there is no such version.
///
/// # Errors
/// Of the database.
pub async fn document(
    connection: &mut PgConnection,
    journal: ConversationId,
    through: u64,
) -> Result<Vec<v1::JournalUpdate>, sqlx::Error> {
    let parts = parts(connection, &[(journal.uuid(), through)]).await?;
    let of = parts.into_values().flatten();
    Ok(of
        .map(|part| v1::JournalUpdate {
            version: part.version,
            update: part.bytes,
            actor_id: String::new(),
        })
        .collect())
}

/// The parts of documents as of the latest versions up to these.
async fn parts(
    connection: &mut PgConnection,
    asked: &[(Uuid, u64)],
) -> Result<HashMap<Uuid, Vec<Part>>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, Vec<u8>, bool)> = sqlx::query_as(
        "SELECT asked.conversation_id, v.version, coalesce(v.checkpoint, v.update), v.checkpoint IS NOT NULL
         FROM unnest($1::uuid[], $2::int8[]) AS asked (conversation_id, through)
         CROSS JOIN LATERAL (SELECT k.version FROM journal_versions k
                             WHERE k.conversation_id = asked.conversation_id AND k.version <= asked.through
                               AND k.checkpoint IS NOT NULL
                             ORDER BY k.version DESC LIMIT 1) AS start
         CROSS JOIN LATERAL (SELECT * FROM journal_versions w
                             WHERE w.conversation_id = asked.conversation_id AND w.version >= start.version
                               AND w.version <= asked.through) AS v
         ORDER BY asked.conversation_id, v.version",
    )
    .bind(asked.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(
        asked
            .iter()
            .map(|(_, through)| seq_to(*through))
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let mut parts: HashMap<Uuid, Vec<Part>> = HashMap::new();
    for (id, version, bytes, is_whole) in rows {
        let version = seq_from(version)?;
        parts.entry(id).or_default().push(Part {
            version,
            bytes,
            is_whole,
        });
    }
    Ok(parts)
}

/// The version after which no more than `most` follow, with no more than `most_bytes` of updates.
///
/// # Errors
/// Of the database.
pub async fn reach(
    connection: &mut PgConnection,
    journal: ConversationId,
    through: u64,
    most: u64,
    most_bytes: u64,
) -> Result<u64, sqlx::Error> {
    let after: Option<i64> = sqlx::query_scalar(
        "SELECT version
         FROM (SELECT version, row_number() OVER (ORDER BY version DESC) AS place,
                      sum(octet_length(update)) OVER (ORDER BY version DESC) AS bytes
               FROM (SELECT version, update FROM journal_versions
                     WHERE conversation_id = $1 AND version <= $2 ORDER BY version DESC LIMIT $3 + 1) AS latest) AS sized
         WHERE place > $3 OR bytes > $4 ORDER BY version DESC LIMIT 1",
    )
    .bind(journal.uuid())
    .bind(seq_to(through))
    .bind(seq_to(most.min(u64::from(u32::MAX))))
    .bind(seq_to(most_bytes))
    .fetch_optional(connection)
    .await?;
    after.map_or(Ok(0), seq_from)
}

/// The updates after one version up to another, ascending: no more than fit `bytes`, but at least one.
///
/// # Errors
/// Of the database.
pub async fn updates(
    connection: &mut PgConnection,
    journal: ConversationId,
    after: u64,
    through: u64,
    bytes: i64,
) -> Result<Vec<v1::JournalUpdate>, sqlx::Error> {
    let rows: Vec<(i64, Vec<u8>, String)> = sqlx::query_as(
        "SELECT version, update, actor
         FROM (SELECT version, update, actor, row_number() OVER (ORDER BY version) AS place,
                      sum(octet_length(update) + 200) OVER (ORDER BY version) AS bytes
               FROM (SELECT version, update, actor FROM journal_versions
                     WHERE conversation_id = $1 AND version > $2 AND version <= $3
                     ORDER BY version LIMIT $4) AS next) AS sized
         WHERE bytes <= $5 OR place = 1 ORDER BY version",
    )
    .bind(journal.uuid())
    .bind(seq_to(after))
    .bind(seq_to(through))
    .bind(MOST)
    .bind(bytes)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(version, update, actor_id)| {
            let version = seq_from(version)?;
            Ok(v1::JournalUpdate {
                version,
                update,
                actor_id,
            })
        })
        .collect()
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
        "SELECT v.conversation_id, c.number, v.version, v.update, v.actor, v.at
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
    let (conversations, after, through) = stretch::columns(stretches);
    let rows: Vec<EditedRow> = sqlx::query_as(
        "SELECT v.conversation_id, c.number, v.version, v.update, v.actor, v.at
         FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS s (conversation_id, after, through)
         CROSS JOIN LATERAL
              (SELECT * FROM journal_versions x
               WHERE x.conversation_id = s.conversation_id AND x.version > s.after AND x.version <= s.through
               ORDER BY x.version LIMIT $4) AS v
         JOIN conversations c ON c.conversation_id = v.conversation_id",
    )
    .bind(conversations)
    .bind(after)
    .bind(through)
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

/// The latest versions below one, latest first.
///
/// # Errors
/// Of the database.
pub async fn versions(
    connection: &mut PgConnection,
    journal: ConversationId,
    below: u64,
    limit: i64,
) -> Result<Vec<v1::JournalVersion>, sqlx::Error> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT version, actor, at FROM journal_versions
         WHERE conversation_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3",
    )
    .bind(journal.uuid())
    .bind(seq_to(below))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|VersionRow { version, actor, at }| {
            Ok(v1::JournalVersion {
                version: seq_from(version)?,
                actor_id: actor,
                at_ms: millis(at),
            })
        })
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
    let ids: Vec<Uuid> = journals.iter().map(|(id, _)| *id).collect();
    let mut texts = texts(connection, &ids).await?;
    for (id, view) in journals {
        if let Some((version, text)) = texts.remove(&id) {
            view.journal_version = version;
            view.content = Some(text);
        }
    }
    Ok(())
}

/// The present versions of journals and their texts. What is not stored as a text is made of updates.
async fn texts(
    connection: &mut PgConnection,
    journals: &[Uuid],
) -> Result<HashMap<Uuid, (u64, String)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, Option<String>)> = sqlx::query_as(
        "SELECT conversation_id, version,
                CASE WHEN coalesce(content_version, version) = version THEN content END
         FROM journals WHERE conversation_id = ANY($1)",
    )
    .bind(journals)
    .fetch_all(&mut *connection)
    .await?;
    let (mut texts, mut unwritten) = (HashMap::new(), Vec::new());
    for (id, version, text) in rows {
        let version = seq_from(version)?;
        match text {
            Some(text) => drop(texts.insert(id, (version, text))),
            None => unwritten.push((id, version)),
        }
    }
    if unwritten.is_empty() {
        return Ok(texts);
    }
    let parts = parts(connection, &unwritten).await?;
    let made = tasks::blocking("read journals", move || {
        let made = parts.into_iter().filter_map(|(id, parts)| {
            let version = parts.last()?.version;
            let document = Document::load(parts.iter().map(|part| &part.bytes), Writer::NONE);
            Some(document.map(|document| (id, (version, document.text()))))
        });
        made.collect::<Result<Vec<_>, _>>()
    });
    let unreadable = "a journal whose document cannot be read";
    let made = made.await.map_err(|_| corrupt(unreadable))?;
    texts.extend(made.map_err(|_| corrupt(unreadable))?);
    Ok(texts)
}

/// Writes the texts and versions of a batch.
///
/// # Errors
/// Of the database.
pub(super) async fn write(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    if effects.versions.is_empty() {
        return Ok(());
    }
    write_journals(connection, loaded, effects).await?;
    let versions = &effects.versions;
    sqlx::query(
        "INSERT INTO journal_versions (conversation_id, version, update, checkpoint, actor, at)
         SELECT conversation_id, version, update, checkpoint, actor, at
         FROM unnest($1::uuid[], $2::int8[], $3::bytea[], $4::bytea[], $5::text[], $6::timestamptz[])
              AS new (conversation_id, version, update, checkpoint, actor, at)",
    )
    .bind(versions.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(
        versions
            .iter()
            .map(|(_, v)| seq_to(v.version))
            .collect::<Vec<_>>(),
    )
    .bind(
        versions
            .iter()
            .map(|(_, v)| v.update.as_slice())
            .collect::<Vec<_>>(),
    )
    .bind(
        versions
            .iter()
            .map(|(_, v)| v.checkpoint.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(versions.iter().map(|(_, v)| v.actor.as_str()).collect::<Vec<_>>())
    .bind(
        versions
            .iter()
            .map(|(_, v)| from_millis(v.at_ms))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the journals that changed, with their texts where these are to be stored.
async fn write_journals(
    connection: &mut PgConnection,
    loaded: &Loaded,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    let state = |id: &ConversationId| loaded.conversations.get(id)?.journal.as_ref();
    let rows = effects
        .journals
        .iter()
        .filter_map(|(id, text)| Some((id.uuid(), state(id)?, text.as_deref())));
    let (texts, others): (Vec<_>, Vec<_>) = rows.partition(|(_, _, text)| text.is_some());
    let ids = |rows: &[Row<'_>]| rows.iter().map(|row| row.0).collect::<Vec<_>>();
    let versions = |rows: &[Row<'_>]| rows.iter().map(|row| seq_to(row.1.version)).collect::<Vec<_>>();
    if !texts.is_empty() {
        sqlx::query(
            "INSERT INTO journals (conversation_id, version, content, content_version, checkpoint_version)
             SELECT conversation_id, version, content, version, checkpoint_version
             FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::int8[])
                  AS new (conversation_id, version, content, checkpoint_version)
             ON CONFLICT (conversation_id) DO UPDATE
             SET version = excluded.version, content = excluded.content, content_version = excluded.content_version,
                 checkpoint_version = excluded.checkpoint_version, state = NULL",
        )
        .bind(ids(&texts))
        .bind(versions(&texts))
        .bind(texts.iter().map(|row| row.2).collect::<Vec<_>>())
        .bind(
            texts
                .iter()
                .map(|row| seq_to(row.1.checkpoint_version))
                .collect::<Vec<_>>(),
        )
        .execute(&mut *connection)
        .await?;
    }
    if !others.is_empty() {
        sqlx::query(
            "UPDATE journals AS j
             SET version = new.version, content_version = coalesce(j.content_version, j.version), state = NULL
             FROM unnest($1::uuid[], $2::int8[]) AS new (conversation_id, version)
             WHERE j.conversation_id = new.conversation_id",
        )
        .bind(ids(&others))
        .bind(versions(&others))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
