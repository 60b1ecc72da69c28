//! Leases of partitions and the heartbeats of replicas. All times are the database's own.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

/// A lease that is ours: what, and under which epoch.
pub type Lease = (i32, u64);

/// Makes the rows of all leases, unless there are some. Tells how many partitions have one now.
///
/// # Errors
/// Of the database.
pub async fn ensure(connection: &mut PgConnection, ids: &[i32]) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO partition_leases (partition) SELECT unnest($1::int4[])
         WHERE NOT EXISTS (SELECT FROM partition_leases) ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    sqlx::query_scalar("SELECT count(*) FROM partition_leases WHERE partition >= 0")
        .fetch_one(connection)
        .await
}

/// Shows that this replica lives, for `ttl`; forgets the long dead. Tells how many live.
///
/// # Errors
/// Of the database.
pub async fn heartbeat(
    connection: &mut PgConnection,
    replica: &str,
    ttl: Duration,
) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO replicas (replica, expires_at) VALUES ($1, now() + $2)
         ON CONFLICT (replica) DO UPDATE SET expires_at = excluded.expires_at",
    )
    .bind(replica)
    .bind(interval(ttl))
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM replicas WHERE expires_at < now() - interval '1 minute'")
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT count(*) FROM replicas WHERE expires_at > now()")
        .fetch_one(connection)
        .await
}

/// Renews what is still ours under the same epochs. The rest is lost.
///
/// # Errors
/// Of the database.
pub async fn renew(
    connection: &mut PgConnection,
    owner: &str,
    leases: &[Lease],
    ttl: Duration,
) -> Result<Vec<Lease>, sqlx::Error> {
    let (ids, epochs) = columns(leases);
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "UPDATE partition_leases l SET expires_at = now() + $4
         FROM unnest($2::int4[], $3::int8[]) AS ours (partition, epoch)
         WHERE l.partition = ours.partition AND l.epoch = ours.epoch AND l.owner = $1
         RETURNING l.partition, l.epoch",
    )
    .bind(owner)
    .bind(ids)
    .bind(epochs)
    .bind(interval(ttl))
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(lease).collect()
}

/// What was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Ours now.
    pub leases: Vec<Lease>,
    /// Those of them that another replica let expire instead of giving them back.
    pub abandoned: BTreeSet<i32>,
}

/// Takes at most `count` leases that are free or expired, among `ids`. A row that a batch still holds is
/// passed over: it is free as soon as that batch ends.
///
/// # Errors
/// Of the database.
pub async fn take(
    connection: &mut PgConnection,
    owner: &str,
    ids: &[i32],
    count: usize,
    ttl: Duration,
) -> Result<Taken, sqlx::Error> {
    let rows: Vec<(i32, i64, bool)> = sqlx::query_as(
        "UPDATE partition_leases l SET owner = $1, epoch = l.epoch + 1, expires_at = now() + $4
         FROM (SELECT partition, owner FROM partition_leases
               WHERE partition = ANY($2) AND expires_at < now()
               ORDER BY partition LIMIT $3 FOR UPDATE SKIP LOCKED) AS free
         WHERE l.partition = free.partition
         RETURNING l.partition, l.epoch, free.owner IS DISTINCT FROM $1 AND free.owner IS NOT NULL",
    )
    .bind(owner)
    .bind(ids)
    .bind(i64::try_from(count).unwrap_or(i64::MAX))
    .bind(interval(ttl))
    .fetch_all(connection)
    .await?;
    let mut taken = Taken::default();
    for (id, epoch, abandoned) in rows {
        taken.leases.push(lease((id, epoch))?);
        if abandoned {
            taken.abandoned.insert(id);
        }
    }
    Ok(taken)
}

/// Gives leases back at once.
///
/// # Errors
/// Of the database.
pub async fn release(
    connection: &mut PgConnection,
    owner: &str,
    leases: &[Lease],
) -> Result<(), sqlx::Error> {
    let (ids, epochs) = columns(leases);
    sqlx::query(
        "UPDATE partition_leases l SET owner = NULL, expires_at = '-infinity'
         FROM unnest($2::int4[], $3::int8[]) AS ours (partition, epoch)
         WHERE l.partition = ours.partition AND l.epoch = ours.epoch AND l.owner = $1",
    )
    .bind(owner)
    .bind(ids)
    .bind(epochs)
    .execute(connection)
    .await?;
    Ok(())
}

/// A partition and who works it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// Which.
    pub partition: i32,
    /// Nobody after it was given back.
    pub owner: Option<String>,
    /// Of the latest lease.
    pub epoch: i64,
    /// Milliseconds until the lease ends, below 0 where it has.
    pub expires_in_ms: i64,
}

/// All partitions.
///
/// # Errors
/// Of the database.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT partition, owner, epoch,
                CASE WHEN isfinite(expires_at) THEN (extract(epoch FROM expires_at - now()) * 1000)::int8
                     ELSE -1 END AS expires_in_ms
         FROM partition_leases WHERE partition >= 0 ORDER BY partition",
    )
    .fetch_all(connection)
    .await
}

/// Replicas that live.
///
/// # Errors
/// Of the database.
pub async fn replicas(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT replica FROM replicas WHERE expires_at > now() ORDER BY replica")
        .fetch_all(connection)
        .await
}

/// Gateways that have reported within `lease`.
///
/// # Errors
/// Of the database.
pub async fn gateways(connection: &mut PgConnection, lease: Duration) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM gateways
         WHERE instance <> $1 AND lost_at IS NULL AND renewed_at > now() - $2",
    )
    .bind(uuid::Uuid::nil())
    .bind(interval(lease))
    .fetch_one(connection)
    .await
}

/// Says that this replica is gone.
///
/// # Errors
/// Of the database.
pub async fn leave(connection: &mut PgConnection, replica: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM replicas WHERE replica = $1")
        .bind(replica)
        .execute(connection)
        .await?;
    Ok(())
}

fn lease((id, epoch): (i32, i64)) -> Result<Lease, sqlx::Error> {
    Ok((id, super::seq_from(epoch)?))
}

fn columns(leases: &[Lease]) -> (Vec<i32>, Vec<i64>) {
    leases
        .iter()
        .map(|&(id, epoch)| (id, super::seq_to(epoch)))
        .unzip()
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
