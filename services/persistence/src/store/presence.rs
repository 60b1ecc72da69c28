//! How users are seen, and what was told of it. All times are the database's own.

use std::time::Duration;

use chrono::{DateTime, Utc};
use parlance_proto::v1::{self, PresenceStatus};
use sqlx::PgConnection;

use super::sessions::{interval, status_from};
use super::{millis, seq_from, small};
use crate::model::presence::Seen;
pub use crate::store::sessions::Closed;

/// What is known of a user, at a moment of the database's clock.
#[derive(Debug, Clone)]
pub struct Row {
    /// Who.
    pub user_id: String,
    /// What was told, and what is so.
    pub seen: Seen,
    /// The moment.
    pub now: DateTime<Utc>,
}

/// Who is told to be what, and when they were last seen.
pub type StatusChange = (String, PresenceStatus, DateTime<Utc>);

#[derive(sqlx::FromRow)]
struct LoadedRow {
    user_id: String,
    status: i16,
    best: Option<i16>,
    closed_at: Option<DateTime<Utc>>,
    changed_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct PresenceRow {
    user_id: String,
    status: i16,
    version: i64,
    last_seen_at: Option<DateTime<Utc>>,
    changed_at: Option<DateTime<Utc>>,
}

impl TryFrom<PresenceRow> for v1::Presence {
    type Error = sqlx::Error;

    fn try_from(row: PresenceRow) -> Result<Self, sqlx::Error> {
        let PresenceRow {
            user_id,
            status,
            version,
            last_seen_at,
            changed_at,
        } = row;
        Ok(Self {
            user_id,
            status: status_from(status).into(),
            version: seq_from(version)?,
            last_seen_ms: last_seen_at.map_or(0, millis),
            since_ms: changed_at.map_or(0, millis),
        })
    }
}

/// Makes and locks the rows of these users, which are sorted.
///
/// # Errors
/// Of the database.
pub async fn lock(connection: &mut PgConnection, users: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO presence (user_id) SELECT user_id FROM unnest($1::text[]) AS new (user_id)
         ORDER BY user_id ON CONFLICT (user_id) DO NOTHING",
    )
    .bind(users)
    .execute(&mut *connection)
    .await?;
    sqlx::query("SELECT FROM presence WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE")
        .bind(users)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes down when sessions closed.
///
/// # Errors
/// Of the database.
pub async fn note_closed(connection: &mut PgConnection, closed: &[Closed]) -> Result<(), sqlx::Error> {
    if closed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE presence p
         SET alive_at = greatest(p.alive_at, gone.told_until), closed_at = greatest(p.closed_at, gone.visible_at)
         FROM (SELECT user_id, max(told_until) AS told_until, max(at) FILTER (WHERE visible) AS visible_at
               FROM unnest($1::text[], $2::timestamptz[], $3::bool[], $4::timestamptz[])
                    AS one (user_id, at, visible, told_until)
               GROUP BY user_id) AS gone
         WHERE p.user_id = gone.user_id",
    )
    .bind(closed.iter().map(|one| one.user_id.as_str()).collect::<Vec<_>>())
    .bind(closed.iter().map(|one| one.at).collect::<Vec<_>>())
    .bind(closed.iter().map(|one| one.visible).collect::<Vec<_>>())
    .bind(closed.iter().map(|one| one.told_until).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What was told of users and what is so.
///
/// # Errors
/// Of the database.
pub async fn load(connection: &mut PgConnection, users: &[String]) -> Result<Vec<Row>, sqlx::Error> {
    // A transaction that waited for locks began some time ago: now() would be before what it waited for.
    let rows: Vec<LoadedRow> = sqlx::query_as(
        "SELECT p.user_id, p.status, p.closed_at, p.changed_at, clock_timestamp() AS now,
                (SELECT min(s.status) FROM sessions s WHERE s.user_id = p.user_id) AS best
         FROM presence p WHERE p.user_id = ANY($1)",
    )
    .bind(users)
    .fetch_all(connection)
    .await?;
    let row = |row: LoadedRow| {
        let LoadedRow {
            user_id,
            status,
            best,
            closed_at,
            changed_at,
            now,
        } = row;
        Row {
            user_id,
            seen: Seen {
                told: status_from(status),
                best: best.map(status_from),
                closed_at,
                changed_at,
            },
            now,
        }
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Sets when users are to be looked at again; `None` for never.
///
/// # Errors
/// Of the database.
pub async fn wait(
    connection: &mut PgConnection,
    waits: &[(String, Option<DateTime<Utc>>)],
) -> Result<(), sqlx::Error> {
    if waits.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE presence p SET due_at = new.due_at
         FROM unnest($1::text[], $2::timestamptz[]) AS new (user_id, due_at)
         WHERE p.user_id = new.user_id AND p.due_at IS DISTINCT FROM new.due_at",
    )
    .bind(waits.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>())
    .bind(waits.iter().map(|(_, due)| *due).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what is told from now on, under the next version of each.
///
/// # Errors
/// Of the database.
pub async fn change(
    connection: &mut PgConnection,
    told: &[StatusChange],
) -> Result<Vec<v1::Presence>, sqlx::Error> {
    if told.is_empty() {
        return Ok(Vec::new());
    }
    // Versions are at least the time: after a restore from a backup they are above all known ones.
    let rows: Vec<PresenceRow> = sqlx::query_as(
        "UPDATE presence p
         SET status = new.status, last_seen_at = new.last_seen_at, changed_at = clock_timestamp(), due_at = NULL,
             version = greatest(p.version + 1, (extract(epoch FROM clock_timestamp()) * 1000)::int8)
         FROM unnest($1::text[], $2::int2[], $3::timestamptz[]) AS new (user_id, status, last_seen_at)
         WHERE p.user_id = new.user_id
         RETURNING p.user_id, p.status, p.version, p.last_seen_at, p.changed_at",
    )
    .bind(told.iter().map(|(user, ..)| user.as_str()).collect::<Vec<_>>())
    .bind(told.iter().map(|(_, status, _)| small(*status)).collect::<Vec<_>>())
    .bind(told.iter().map(|(.., last_seen)| *last_seen).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Users who are due, at most `max`; none that another replica works on.
///
/// # Errors
/// Of the database.
pub async fn due(connection: &mut PgConnection, max: usize) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT user_id FROM presence WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
}

/// Has everyone who is shown looked at after a while.
///
/// # Errors
/// Of the database.
pub async fn doubt_all(connection: &mut PgConnection, after: Duration) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE presence SET due_at = least(due_at, now() + $1) WHERE status <> 3")
        .bind(interval(after))
        .execute(connection)
        .await?;
    Ok(())
}

/// How users are seen now; those who exist but were never seen have version 0. For a viewer: only the viewer and
/// those who share a conversation with the viewer, unless one has blocked the other.
///
/// # Errors
/// Of the database.
pub async fn of(
    connection: &mut PgConnection,
    users: &[String],
    viewer: Option<&str>,
) -> Result<Vec<v1::Presence>, sqlx::Error> {
    macro_rules! seen {
        ($condition:literal) => {
            concat!(
                "SELECT u.user_id, coalesce(p.status, 3::int2) AS status, coalesce(p.version, 0) AS version,
                        p.changed_at, CASE WHEN p.status < 3 THEN now() ELSE p.last_seen_at END AS last_seen_at
                 FROM users u LEFT JOIN presence p USING (user_id)
                 WHERE u.user_id = ANY($1) AND u.deleted_at IS NULL",
                $condition
            )
        };
    }
    // The condition opens many partitions, also where no row needs it.
    let shares = seen!(
        " AND (u.user_id = $2 OR EXISTS (
                SELECT FROM participants theirs
                JOIN participants mine ON mine.conversation_id = theirs.conversation_id
                JOIN conversations c ON c.conversation_id = theirs.conversation_id
                WHERE theirs.user_id = u.user_id AND theirs.left_seq IS NULL
                  AND mine.user_id = $2 AND mine.left_seq IS NULL AND c.kind <> 3))
           AND NOT EXISTS (SELECT FROM blocks b WHERE b.user_id = $2 AND b.blocked_id = u.user_id)
           AND NOT EXISTS (SELECT FROM blocks b WHERE b.user_id = u.user_id AND b.blocked_id = $2)"
    );
    let query = match viewer {
        Some(viewer) => sqlx::query_as(shares).bind(users).bind(viewer),
        None => sqlx::query_as(seen!("")).bind(users),
    };
    let rows: Vec<PresenceRow> = query.fetch_all(connection).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Changes told at or after a moment, at most `max`, in order.
///
/// # Errors
/// Of the database.
pub async fn since(
    connection: &mut PgConnection,
    since: DateTime<Utc>,
    max: usize,
) -> Result<Vec<v1::Presence>, sqlx::Error> {
    let rows: Vec<PresenceRow> = sqlx::query_as(
        "SELECT user_id, status, version, changed_at,
                CASE WHEN status < 3 THEN now() ELSE last_seen_at END AS last_seen_at
         FROM presence WHERE changed_at >= $1 ORDER BY changed_at, user_id LIMIT $2",
    )
    .bind(since)
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// The database's clock in microseconds since 1970.
///
/// # Errors
/// Of the database.
pub async fn clock(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8")
        .fetch_one(connection)
        .await
}
