//! Lives of gateways and the sessions of each. All times are the database's own.

use std::time::Duration;

use chrono::{DateTime, Utc};
use parlance_proto::v1::{PresenceStatus, SessionReport};
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::{seq_to, small};

/// What a report meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The next of its gateway: the lease is renewed.
    New,
    /// It was taken in before.
    Repeated,
    /// Not the first, but of a gateway nothing is known of.
    Unknown,
    /// The gateway was given up.
    Lost,
}

/// A session that was there and is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Whose.
    pub user_id: String,
    /// Whether its user was to be seen by it.
    pub visible: bool,
    /// When.
    pub at: DateTime<Utc>,
    /// What was committed up to then it was surely told. Where nobody says so: a minute before, in which any dead
    /// connection is noticed.
    pub told_until: DateTime<Utc>,
}

/// A life of a gateway that is over.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct GivenUp {
    /// Its id.
    pub instance: Uuid,
    /// When it was last heard of.
    pub renewed_at: DateTime<Utc>,
}

type ClosedRow = (String, i16, DateTime<Utc>, DateTime<Utc>);

/// Renews the lease of a gateway for the report of that number; number 1 begins it.
///
/// # Errors
/// Of the database.
pub async fn renew(
    connection: &mut PgConnection,
    gateway: Uuid,
    number: u64,
) -> Result<Standing, sqlx::Error> {
    if number == 1 {
        let begun = sqlx::query(
            "INSERT INTO gateways (instance, number) VALUES ($1, 1) ON CONFLICT (instance) DO NOTHING",
        )
        .bind(gateway)
        .execute(&mut *connection)
        .await?;
        if begun.rows_affected() == 1 {
            return Ok(Standing::New);
        }
    }
    let known: Option<(i64, bool)> =
        sqlx::query_as("SELECT number, lost_at IS NOT NULL FROM gateways WHERE instance = $1 FOR UPDATE")
            .bind(gateway)
            .fetch_optional(&mut *connection)
            .await?;
    let repeated = match known {
        None => return Ok(Standing::Unknown),
        Some((_, true)) => return Ok(Standing::Lost),
        Some((latest, false)) => latest >= seq_to(number),
    };
    // Whoever repeats itself lives too.
    sqlx::query("UPDATE gateways SET number = greatest(number, $2), renewed_at = now() WHERE instance = $1")
        .bind(gateway)
        .bind(seq_to(number))
        .execute(connection)
        .await?;
    Ok(if repeated {
        Standing::Repeated
    } else {
        Standing::New
    })
}

/// Writes what a gateway's sessions are.
///
/// # Errors
/// Of the database.
pub async fn put(
    connection: &mut PgConnection,
    gateway: Uuid,
    open: &[&SessionReport],
) -> Result<(), sqlx::Error> {
    if open.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO sessions (gateway, session, user_id, status)
         SELECT DISTINCT ON (session) $1, session, user_id, status
         FROM unnest($2::int8[], $3::text[], $4::int2[]) AS new (session, user_id, status)
         ON CONFLICT (gateway, session) DO UPDATE SET status = excluded.status",
    )
    .bind(gateway)
    .bind(open.iter().map(|one| seq_to(one.session)).collect::<Vec<_>>())
    .bind(open.iter().map(|one| one.user_id.as_str()).collect::<Vec<_>>())
    .bind(open.iter().map(|one| status_to(one.status())).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes sessions that closed a while ago.
///
/// # Errors
/// Of the database.
pub async fn close(
    connection: &mut PgConnection,
    gateway: Uuid,
    closed: &[&SessionReport],
) -> Result<Vec<Closed>, sqlx::Error> {
    if closed.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<ClosedRow> = sqlx::query_as(
        "DELETE FROM sessions s
         USING unnest($2::int8[], $3::int8[], $4::int8[]) AS gone (session, ms_ago, shown_ms)
         WHERE s.gateway = $1 AND s.session = gone.session
         RETURNING s.user_id, s.status, now() - gone.ms_ago * interval '1 millisecond',
                   CASE WHEN gone.shown_ms > 0 THEN to_timestamp(gone.shown_ms / 1000.0)
                        ELSE now() - gone.ms_ago * interval '1 millisecond' - interval '60 seconds' END",
    )
    .bind(gateway)
    .bind(closed.iter().map(|one| seq_to(one.session)).collect::<Vec<_>>())
    .bind(
        closed
            .iter()
            .map(|one| i64::from(one.closed_ms_ago))
            .collect::<Vec<_>>(),
    )
    .bind(closed.iter().map(|one| one.shown_at_ms).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Closed::from).collect())
}

/// Removes all sessions of a gateway that says good-bye.
///
/// # Errors
/// Of the database.
pub async fn close_all(connection: &mut PgConnection, gateway: Uuid) -> Result<Vec<Closed>, sqlx::Error> {
    let rows: Vec<ClosedRow> =
        sqlx::query_as("DELETE FROM sessions WHERE gateway = $1 RETURNING user_id, status, now(), now() - interval '60 seconds'")
            .bind(gateway)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(Closed::from).collect())
}

/// Removes all sessions of a gateway that was last heard of at that time.
///
/// # Errors
/// Of the database.
pub async fn close_all_at(
    connection: &mut PgConnection,
    gateway: Uuid,
    at: DateTime<Utc>,
) -> Result<Vec<Closed>, sqlx::Error> {
    let rows: Vec<ClosedRow> = sqlx::query_as(
        "DELETE FROM sessions WHERE gateway = $1 RETURNING user_id, status, $2::timestamptz,
                                                               $2::timestamptz - interval '60 seconds'",
    )
    .bind(gateway)
    .bind(at)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Closed::from).collect())
}

/// Forgets a gateway that said good-bye.
///
/// # Errors
/// Of the database.
pub async fn forget(connection: &mut PgConnection, gateway: Uuid) -> Result<(), sqlx::Error> {
    // A late repeat of its last report must still find it.
    sqlx::query("UPDATE gateways SET lost_at = now() WHERE instance = $1")
        .bind(gateway)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives up one gateway that was silent for longer than `lease`; none that another replica works on. Forgets
/// those that were given up long ago.
///
/// # Errors
/// Of the database.
pub async fn give_up(connection: &mut PgConnection, lease: Duration) -> Result<Option<GivenUp>, sqlx::Error> {
    let found: Option<GivenUp> = sqlx::query_as(
        "UPDATE gateways SET lost_at = now()
         WHERE instance = (SELECT instance FROM gateways
                           WHERE lost_at IS NULL AND renewed_at < now() - $1
                           LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING instance, renewed_at",
    )
    .bind(interval(lease))
    .fetch_optional(&mut *connection)
    .await?;
    if found.is_some() {
        sqlx::query("DELETE FROM gateways WHERE lost_at < now() - interval '1 day'")
            .execute(connection)
            .await?;
    }
    Ok(found)
}

/// Whether these tables were emptied by a crash of the database, or never used; true once.
///
/// # Errors
/// Of the database.
pub async fn is_first_life(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let marked: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM gateways WHERE instance = $1)")
        .bind(Uuid::nil())
        .fetch_one(&mut *connection)
        .await?;
    if marked {
        return Ok(false);
    }
    let marked = sqlx::query(
        "INSERT INTO gateways (instance, number, renewed_at) VALUES ($1, 0, 'infinity')
         ON CONFLICT (instance) DO NOTHING",
    )
    .bind(Uuid::nil())
    .execute(connection)
    .await?;
    Ok(marked.rows_affected() == 1)
}

impl From<ClosedRow> for Closed {
    fn from((user_id, status, at, told_until): ClosedRow) -> Self {
        Self {
            user_id,
            visible: status_from(status) != PresenceStatus::Offline,
            at,
            told_until,
        }
    }
}

/// The status of a stored number.
pub(super) fn status_from(stored: i16) -> PresenceStatus {
    match stored {
        1 => PresenceStatus::Online,
        2 => PresenceStatus::Away,
        _ => PresenceStatus::Offline,
    }
}

/// The stored number of a status; one that is not said is online.
fn status_to(status: PresenceStatus) -> i16 {
    match status {
        PresenceStatus::Unspecified => small(PresenceStatus::Online),
        said => small(said),
    }
}

/// As Postgres takes it.
pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
