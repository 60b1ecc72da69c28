//! The queue of reported messages, for services that moderate.

use chrono::{DateTime, Utc};
use parlance_proto::UserId;
use parlance_proto::v1::{self, ErrorCode};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::Viewer;
use super::page::{cut_page, limit};
use crate::database::Database;
use crate::error::{QueryError, by};
use crate::model::refusals::refuse;
use crate::store::reports::{self as store, QueueCursor};

/// Longest resolution in characters.
const RESOLUTION_MAX_CHARS: usize = 1_000;

pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListReports,
) -> Result<v1::ReportPage, QueryError> {
    for_services(viewer)?;
    let after = match query.cursor.as_str() {
        "" => None,
        cursor => Some(read(cursor).ok_or_else(|| refuse("cursor is not one that was returned"))?),
    };
    let limit = limit(query.limit);
    let queued = store::queue(connection, after, i64::from(limit) + 1).await?;
    let (mut reports, cursors): (Vec<v1::MessageReport>, Vec<QueueCursor>) =
        queued.into_iter().map(|one| (one.report, one.cursor)).unzip();
    let last = cut_page(&mut reports, limit).and_then(|last| cursors.get(last));
    let next = last.map(cursor).unwrap_or_default();
    Ok(v1::ReportPage { reports, next })
}

/// Settles a report.
pub(super) async fn resolve(
    database: &Database,
    viewer: Viewer<'_>,
    query: &v1::ResolveReport,
    deadline: Instant,
) -> Result<v1::ReportResolved, QueryError> {
    for_services(viewer)?;
    let id = Uuid::try_parse(&query.id).map_err(|_| no_report())?;
    if query.resolution.chars().count() > RESOLUTION_MAX_CHARS {
        let message = format!("resolution is longer than {RESOLUTION_MAX_CHARS} characters");
        return Err(v1::Error::with(ErrorCode::TooLarge, message).into());
    }
    if query.resolution.contains('\0') {
        return Err(refuse("resolution holds a NUL character").into());
    }
    UserId::parse(query.resolved_by.as_str()).map_err(|_| refuse("resolved_by is no id"))?;
    let mut connection = by(deadline, database.writes.acquire()).await?;
    match store::resolve(&mut connection, id, &query.resolved_by, &query.resolution).await? {
        true => Ok(v1::ReportResolved {}),
        false => Err(no_report().into()),
    }
}

/// Users have no queue.
fn for_services(viewer: Viewer<'_>) -> Result<(), v1::Error> {
    match viewer {
        None => Ok(()),
        Some(_) => Err(no_report()),
    }
}

fn no_report() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such report")
}

/// `<microseconds>.<id>`: opaque to services.
fn cursor((at, id): &QueueCursor) -> String {
    format!("{}.{id}", at.timestamp_micros())
}

fn read(cursor: &str) -> Option<QueueCursor> {
    let (micros, id) = cursor.split_once('.')?;
    let at = DateTime::<Utc>::from_timestamp_micros(micros.parse().ok()?)?;
    Some((at, Uuid::try_parse(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_anything_else_is_refused() {
        let last = (
            DateTime::<Utc>::from_timestamp_micros(17).unwrap(),
            Uuid::from_u128(7),
        );
        assert_eq!(read(&cursor(&last)), Some(last));
        for bad in ["17", "x.y", "17.", "'; DROP TABLE users; --"] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
