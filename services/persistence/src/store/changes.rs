//! The log of every durable change that is no new message.

use chrono::{DateTime, Utc};
use parlance_proto::ConversationId;
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, PgConnection, Row as _};
use uuid::Uuid;

use super::stretch::{self, MOST, Stretch};
use super::{corrupt, from_millis, millis, seq_from, seq_to};
use crate::model::state::{Change, ChangeKind, Effects};

/// The columns of [`ChangeRow`] out of `changes x`.
macro_rules! change_columns {
    () => {
        "x.seq, x.kind, x.target_seq, x.actor, x.payload, x.at"
    };
}
pub(super) use change_columns;

/// A stored change.
#[derive(sqlx::FromRow)]
pub(super) struct ChangeRow {
    seq: i64,
    kind: i16,
    target_seq: Option<i64>,
    actor: String,
    payload: Option<Vec<u8>>,
    at: DateTime<Utc>,
}

impl TryFrom<ChangeRow> for Change {
    type Error = sqlx::Error;

    fn try_from(row: ChangeRow) -> Result<Self, sqlx::Error> {
        let ChangeRow {
            seq,
            kind,
            target_seq,
            actor,
            payload,
            at,
        } = row;
        Ok(Self {
            seq: seq_from(seq)?,
            kind: kind_from(kind)?,
            target_seq: seq_from(target_seq.unwrap_or_default())?,
            actor,
            payload: payload.unwrap_or_default(),
            at_ms: millis(at),
        })
    }
}

fn kind_from(stored: i16) -> Result<ChangeKind, sqlx::Error> {
    const ALL: [ChangeKind; 11] = [
        ChangeKind::Edited,
        ChangeKind::Deleted,
        ChangeKind::Reaction,
        ChangeKind::ThreadCreated,
        ChangeKind::Updated,
        ChangeKind::MembersAdded,
        ChangeKind::MemberRemoved,
        ChangeKind::RoleChanged,
        ChangeKind::ConversationDeleted,
        ChangeKind::JournalEdited,
        ChangeKind::Finished,
    ];
    ALL.into_iter()
        .find(|&kind| kind as i16 == stored)
        .ok_or_else(|| corrupt("a kind of change"))
}

/// The changes of these stretches, with their conversation.
///
/// # Errors
/// Of the database.
pub(super) async fn of(
    connection: &mut PgConnection,
    stretches: &[Stretch],
) -> Result<Vec<(ConversationId, Change)>, sqlx::Error> {
    let (conversations, after, through) = stretch::columns(stretches);
    let rows: Vec<(Uuid, ChangeRow)> = sqlx::query(concat!(
        "SELECT x.conversation_id, ",
        change_columns!(),
        " FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS s (conversation_id, after, through)
          CROSS JOIN LATERAL
               (SELECT * FROM changes y
                WHERE y.conversation_id = s.conversation_id AND y.seq > s.after AND y.seq <= s.through
                ORDER BY y.seq LIMIT $4) AS x"
    ))
    .bind(conversations)
    .bind(after)
    .bind(through)
    .bind(MOST)
    .try_map(|row: PgRow| Ok((row.try_get("conversation_id")?, ChangeRow::from_row(&row)?)))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, row)| Ok((ConversationId::from_uuid(id), row.try_into()?)))
        .collect()
}

/// Inserts the changes of a batch, each with how many its conversation has up to it.
///
/// # Errors
/// Of the database.
pub(super) async fn insert(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let rows = &effects.new_changes;
    sqlx::query(
        "INSERT INTO changes (conversation_id, seq, command_id, kind, target_seq, actor, payload, at, nth)
         SELECT new.conversation_id, seq, command_id, kind, target_seq, actor, payload, at,
                row_number() OVER (PARTITION BY new.conversation_id ORDER BY seq)
                + coalesce((SELECT coalesce(x.nth, (SELECT count(*) FROM changes y
                                                    WHERE y.conversation_id = x.conversation_id))
                            FROM changes x WHERE x.conversation_id = new.conversation_id
                            ORDER BY x.seq DESC LIMIT 1), 0)
         FROM unnest($1::uuid[], $2::int8[], $3::uuid[], $4::int2[], $5::int8[], $6::text[], $7::bytea[],
                     $8::timestamptz[])
              AS new (conversation_id, seq, command_id, kind, target_seq, actor, payload, at)",
    )
    .bind(rows.iter().map(|(id, _, _)| id.uuid()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| seq_to(c.seq)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, id, _)| id.uuid()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, c)| c.kind as i16).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|(_, _, c)| (c.target_seq > 0).then(|| seq_to(c.target_seq)))
            .collect::<Vec<_>>(),
    )
    .bind(rows.iter().map(|(_, _, c)| c.actor.as_str()).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|(_, _, c)| (!c.payload.is_empty()).then_some(c.payload.as_slice()))
            .collect::<Vec<_>>(),
    )
    .bind(
        rows.iter()
            .map(|(_, _, c)| from_millis(c.at_ms))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
