//! Who is here: takes in what gateways report, gives up those that fall silent, and tells each change once.
//!
//! Every replica does all of this; rows that another one works on are passed over. Times that decide are the
//! database's own. Must not know which conversations a user is in: gateways tell only whom it concerns.

mod sweep;

use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::v1::{self, Lease};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::Database;
use crate::error::{QueryError, by, without_content};
use crate::model::presence::{Decision, decide};
use crate::model::refusals::refuse;
use crate::store::presence::{self as store, Closed};
use crate::store::sessions::{self, Standing};

pub use sweep::Sweeper;

/// Sessions in one report.
const REPORT_MAX: usize = 5_000;
/// Users looked at in one transaction of a sweep.
const DUE_MAX: usize = 500;
/// How long the bus client may take to accept one change; what is lost is repaired by the gateways.
const PATIENCE: Duration = Duration::from_secs(2);

/// The limits between being here and being gone.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a silent gateway counts as alive.
    pub lease: Duration,
    /// How long a user who closed their last session is still shown.
    pub grace: Duration,
}

/// Takes reports in.
#[derive(Clone)]
pub struct Presence {
    /// For what changed.
    pub bus: Bus,
    /// For the truth.
    pub database: Database,
    /// When who counts as gone.
    pub limits: Limits,
}

impl Presence {
    /// Takes in a report and tells what changed by it.
    ///
    /// # Errors
    /// The report is malformed; it is past its deadline, and nothing has begun; or the database failed. Then it may be repeated.
    pub async fn report(
        &self,
        report: &v1::ReportPresence,
        deadline: Instant,
    ) -> Result<v1::PresenceReported, QueryError> {
        let mut connection = by(deadline, self.database.reports.acquire()).await?;
        let (lease, changes) = take_in(&mut connection, report, self.limits).await?;
        drop(connection);
        tell(&self.bus, &changes).await;
        Ok(v1::PresenceReported {
            lease: lease.into(),
            lease_ms: u32::try_from(self.limits.lease.as_millis()).unwrap_or(u32::MAX),
        })
    }
}

/// Takes in a report in one transaction; a repeat changes nothing but the lease. What is to be told.
///
/// # Errors
/// The report is malformed, or of the database.
pub async fn take_in(
    connection: &mut PgConnection,
    report: &v1::ReportPresence,
    limits: Limits,
) -> Result<(Lease, Vec<v1::Presence>), QueryError> {
    let gateway: Uuid = report
        .gateway
        .parse()
        .map_err(|_| refuse("gateway is not a UUID"))?;
    if report.sessions.len() > REPORT_MAX || report.number == 0 || gateway.is_nil() {
        return Err(refuse("a report has a number, a gateway and at most 5000 sessions").into());
    }
    let mut tx = connection.begin().await?;
    match sessions::renew(&mut tx, gateway, report.number).await? {
        Standing::New => {}
        Standing::Repeated => {
            tx.commit().await?;
            return Ok((Lease::Held, Vec::new()));
        }
        Standing::Unknown => return Ok((Lease::Unknown, Vec::new())),
        Standing::Lost => return Ok((Lease::Lost, Vec::new())),
    }
    let (closed, open): (Vec<_>, Vec<_>) = report.sessions.iter().partition(|session| session.closed);
    sessions::put(&mut tx, gateway, &open).await?;
    let mut gone = sessions::close(&mut tx, gateway, &closed).await?;
    if report.leaving {
        gone.extend(sessions::close_all(&mut tx, gateway).await?);
        sessions::forget(&mut tx, gateway).await?;
    }
    let mut users: Vec<String> = open.iter().map(|session| session.user_id.clone()).collect();
    users.extend(gone.iter().map(|closed| closed.user_id.clone()));
    let changes = settle(&mut tx, users, &gone, limits.grace).await?;
    tx.commit().await?;
    Ok((Lease::Held, changes))
}

/// Brings what is told of users up to what is so. The caller's transaction has changed their sessions.
async fn settle(
    connection: &mut PgConnection,
    mut users: Vec<String>,
    closed: &[Closed],
    grace: Duration,
) -> Result<Vec<v1::Presence>, sqlx::Error> {
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        return Ok(Vec::new());
    }
    store::lock(connection, &users).await?;
    store::note_closed(connection, closed).await?;
    // Only now, under the locks: who changed the sessions of one of them before has committed.
    let rows = store::load(connection, &users).await?;
    let mut told = Vec::new();
    let mut waits = Vec::new();
    for row in rows {
        match decide(&row.seen, row.now, grace) {
            Decision::Keep => waits.push((row.user_id, None)),
            Decision::Wait(until) => waits.push((row.user_id, Some(until))),
            Decision::Tell(status, last_seen) => told.push((row.user_id, status, last_seen)),
        }
    }
    store::wait(connection, &waits).await?;
    store::change(connection, &told).await
}

/// Publishes changes. What the bus loses is repaired by the gateways, which ask for changes regularly.
async fn tell(bus: &Bus, changes: &[v1::Presence]) {
    for change in changes {
        let status = match change.status() {
            v1::PresenceStatus::Online => "online",
            v1::PresenceStatus::Away => "away",
            _ => "offline",
        };
        metrics::counter!("chat_persistence_presence_changes_total", "status" => status).increment(1);
        match tokio::time::timeout(PATIENCE, bus.publish_presence(change)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a change of presence is not told"),
            Err(_) => {
                tracing::warn!("changes of presence are not told: the bus client is blocked");
                return;
            }
        }
    }
}

/// Gives up the gateways that fell silent, and tells what became due. What is to be told.
///
/// # Errors
/// Of the database.
pub async fn sweep(
    connection: &mut PgConnection,
    limits: Limits,
    judge_gateways: bool,
) -> Result<Vec<v1::Presence>, sqlx::Error> {
    let mut tx = connection.begin().await?;
    if sessions::is_first_life(&mut tx).await? {
        tracing::warn!("the database lost who is connected; asking every gateway anew");
        store::doubt_all(&mut tx, limits.lease + limits.grace).await?;
    }
    tx.commit().await?;
    let mut changes = Vec::new();
    if judge_gateways {
        changes = give_up(connection, limits).await?;
    }
    loop {
        let mut tx = connection.begin().await?;
        let due = store::due(&mut tx, DUE_MAX).await?;
        let last = due.len() < DUE_MAX;
        changes.extend(settle(&mut tx, due, &[], limits.grace).await?);
        tx.commit().await?;
        if last {
            return Ok(changes);
        }
    }
}

async fn give_up(connection: &mut PgConnection, limits: Limits) -> Result<Vec<v1::Presence>, sqlx::Error> {
    let mut changes = Vec::new();
    loop {
        let mut tx = connection.begin().await?;
        let Some(gateway) = sessions::give_up(&mut tx, limits.lease).await? else {
            tx.commit().await?;
            return Ok(changes);
        };
        let gone = sessions::close_all_at(&mut tx, gateway.instance, gateway.renewed_at).await?;
        tracing::warn!(gateway = %gateway.instance, sessions = gone.len(), "gave up a gateway that fell silent");
        metrics::counter!("chat_persistence_gateways_lost_total").increment(1);
        let users = gone.iter().map(|closed| closed.user_id.clone()).collect();
        changes.extend(settle(&mut tx, users, &gone, limits.grace).await?);
        tx.commit().await?;
    }
}

/// The cause of a failed round, without content.
fn cause(error: &sqlx::Error) -> String {
    without_content(error).to_string()
}
