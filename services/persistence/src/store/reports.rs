//! Messages that users reported, and what became of the reports.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use parlance_proto::{UserId, v1};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{corrupt, from_millis, millis, seq_from, seq_to, small};
use crate::model::state::Effects;

/// After which report a page of the queue begins: when it was made, and its id.
pub type QueueCursor = (DateTime<Utc>, Uuid);

/// A report in the queue.
pub struct Queued {
    /// As the wire has it.
    pub report: v1::MessageReport,
    /// Of the page after it.
    pub cursor: QueueCursor,
}

#[derive(sqlx::FromRow)]
struct ReportRow {
    report_id: Uuid,
    conversation_id: Uuid,
    message_id: Uuid,
    message_seq: i64,
    sender_id: String,
    content: String,
    user_id: String,
    reason: i16,
    comment: String,
    at: DateTime<Utc>,
}

impl TryFrom<ReportRow> for Queued {
    type Error = sqlx::Error;

    fn try_from(row: ReportRow) -> Result<Self, sqlx::Error> {
        let ReportRow {
            report_id,
            conversation_id,
            message_id,
            message_seq,
            sender_id,
            content,
            user_id,
            reason,
            comment,
            at,
        } = row;
        let report = v1::MessageReport {
            id: report_id.to_string(),
            conversation_id: conversation_id.to_string(),
            message_id: message_id.to_string(),
            seq: seq_from(message_seq)?,
            sender_id,
            content,
            reporter_id: user_id,
            reason: reason.into(),
            comment,
            at_ms: millis(at),
        };
        Ok(Self {
            report,
            cursor: (at, report_id),
        })
    }
}

/// How many reports of these users nobody has settled.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub(super) async fn open_of(
    connection: &mut PgConnection,
    users: &BTreeSet<&str>,
) -> Result<HashMap<UserId, u64>, sqlx::Error> {
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT user_id, count(*) FROM message_reports
         WHERE user_id = ANY($1) AND resolved_at IS NULL GROUP BY user_id",
    )
    .bind(users.iter().copied().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(user, count)| {
            let user = UserId::parse(user).map_err(|_| corrupt("a user id"))?;
            Ok((user, seq_from(count)?))
        })
        .collect()
}

/// Stores reports; one of the same message by the same user is there already.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub(super) async fn write(connection: &mut PgConnection, effects: &Effects) -> Result<(), sqlx::Error> {
    let new = &effects.reports;
    if new.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO message_reports (conversation_id, message_seq, user_id, report_id, message_id, sender_id, content,
                                      reason, comment, at)
         SELECT * FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
                              $8::int2[], $9::text[], $10::timestamptz[])
         ON CONFLICT DO NOTHING",
    )
    .bind(new.iter().map(|one| one.conversation.uuid()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| seq_to(one.message_seq)).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.reporter.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.id.uuid()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.message.uuid()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.sender.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.content.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| small(one.reason)).collect::<Vec<_>>())
    .bind(new.iter().map(|one| one.comment.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|one| from_millis(one.at_ms)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// At most `limit` reports that nobody has settled after this one, the oldest first.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn queue(
    connection: &mut PgConnection,
    after: Option<QueueCursor>,
    limit: i64,
) -> Result<Vec<Queued>, sqlx::Error> {
    let rows: Vec<ReportRow> = sqlx::query_as(
        "SELECT report_id, conversation_id, message_id, message_seq, sender_id, content, user_id, reason, comment, at
         FROM message_reports
         WHERE resolved_at IS NULL AND ($1::timestamptz IS NULL OR (at, report_id) > ($1, $2))
         ORDER BY at, report_id LIMIT $3",
    )
    .bind(after.map(|(at, _)| at))
    .bind(after.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Settles a report, unless it is; whether there is one.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn resolve(
    connection: &mut PgConnection,
    id: Uuid,
    by: &str,
    resolution: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE message_reports SET resolved_at = coalesce(resolved_at, now()),
                resolved_by = coalesce(resolved_by, $2), resolution = coalesce(resolution, $3)
         WHERE report_id = $1",
    )
    .bind(id)
    .bind(by)
    .bind(resolution)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes at most `limit` reports that were settled so many days ago. How many.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn forget(connection: &mut PgConnection, days: i32, limit: i64) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM message_reports r
         USING (SELECT conversation_id, message_seq, user_id FROM message_reports
                WHERE resolved_at < now() - make_interval(days => $1) ORDER BY resolved_at LIMIT $2
                FOR UPDATE SKIP LOCKED) AS old
         WHERE r.conversation_id = old.conversation_id AND r.message_seq = old.message_seq
           AND r.user_id = old.user_id",
    )
    .bind(days)
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
