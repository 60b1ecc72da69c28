//! Idempotency keys of users, with the change each names and how it was answered.
//!
//! A key lives for an hour from its first claim, and its answer as long: commands are remembered for no shorter time, so
//! that a change cannot be carried out twice under one key.

use sqlx::PgConnection;
use uuid::Uuid;

use super::small;

/// A user's key.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// Whose.
    pub user: &'a str,
    /// SHA-256 of the key.
    pub hash: &'a [u8],
}

/// A change as it was claimed.
#[derive(Debug, sqlx::FromRow)]
pub struct Stored {
    /// SHA-256 of the request that claimed it first.
    pub fingerprint: Vec<u8>,
    /// From which its ids are derived.
    pub change_id: Uuid,
    /// Who carries it out, or did last; `None` where that one gave up.
    pub attempt: Option<Uuid>,
    /// How many tried so far.
    pub attempts: i32,
    /// Whether that attempt began so lately that it may still succeed.
    pub is_recent: bool,
    /// How it ended, as in HTTP.
    pub status: Option<i16>,
    /// How it was answered.
    pub answer: Option<Vec<u8>>,
}

/// The change that a key names. `lapse_seconds` is how long an attempt may take.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn find(
    connection: &mut PgConnection,
    key: Key<'_>,
    lapse_seconds: f64,
) -> Result<Option<Stored>, sqlx::Error> {
    sqlx::query_as(
        "SELECT fingerprint, change_id, attempt, attempts, status, answer,
                attempted_at > now() - make_interval(secs => $3) AS is_recent
         FROM idempotency_keys
         WHERE user_id = $1 AND key_hash = $2 AND created_at > now() - interval '1 hour'",
    )
    .bind(key.user)
    .bind(key.hash)
    .bind(lapse_seconds)
    .fetch_optional(connection)
    .await
}

/// Claims a key that names no change yet. Whether it was claimed: not where another claim was first, or where the user
/// claimed `most` keys in this hour.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn insert(
    connection: &mut PgConnection,
    key: Key<'_>,
    fingerprint: &[u8],
    (change_id, attempt): (Uuid, Uuid),
    most: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "WITH used AS (
             INSERT INTO idempotency_usage AS u (user_id, hour, claims) VALUES ($1, date_trunc('hour', now()), 1)
             ON CONFLICT (user_id, hour) DO UPDATE SET claims = u.claims + 1
             RETURNING claims)
         INSERT INTO idempotency_keys AS k (user_id, key_hash, fingerprint, change_id, attempt)
         SELECT $1, $2, $3, $4, $5 FROM used WHERE claims <= $6
         ON CONFLICT (user_id, key_hash) DO UPDATE
         SET fingerprint = excluded.fingerprint, change_id = excluded.change_id, attempt = excluded.attempt,
             attempts = 1, attempted_at = now(), status = NULL, answer = NULL, created_at = now()
         WHERE k.created_at <= now() - interval '1 hour'",
    )
    .bind(key.user)
    .bind(key.hash)
    .bind(fingerprint)
    .bind(change_id)
    .bind(attempt)
    .bind(most)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a change over from the attempt that was found. Whether it was taken: not where another one was first.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn take_over(
    connection: &mut PgConnection,
    key: Key<'_>,
    found: &Stored,
    attempt: Uuid,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE idempotency_keys SET attempt = $5, attempts = attempts + 1, attempted_at = now()
         WHERE user_id = $1 AND key_hash = $2 AND change_id = $3 AND attempt IS NOT DISTINCT FROM $4
           AND answer IS NULL",
    )
    .bind(key.user)
    .bind(key.hash)
    .bind(found.change_id)
    .bind(found.attempt)
    .bind(attempt)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps how a change was answered, unless it was before. A refusal only where no other attempt took the change over: that
/// one may succeed.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn keep(
    connection: &mut PgConnection,
    key: Key<'_>,
    (change_id, attempt): (Uuid, Uuid),
    status: u32,
    answer: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE idempotency_keys SET status = $4, answer = $5, attempt = NULL
         WHERE user_id = $1 AND key_hash = $2 AND change_id = $3 AND answer IS NULL
           AND ($4 < 300 OR attempt = $6)",
    )
    .bind(key.user)
    .bind(key.hash)
    .bind(change_id)
    .bind(small(i32::try_from(status).unwrap_or_default()))
    .bind(answer)
    .bind(attempt)
    .execute(connection)
    .await
    .map(drop)
}

/// Gives a change up, so that the next attempt need not wait; unless another one took it over.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn release(
    connection: &mut PgConnection,
    key: Key<'_>,
    change_id: Uuid,
    attempt: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE idempotency_keys SET attempt = NULL
         WHERE user_id = $1 AND key_hash = $2 AND change_id = $3 AND attempt = $4 AND answer IS NULL",
    )
    .bind(key.user)
    .bind(key.hash)
    .bind(change_id)
    .bind(attempt)
    .execute(connection)
    .await
    .map(drop)
}

/// Forgets at most `limit` keys that have lived. How many.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn forget(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM idempotency_keys k
         USING (SELECT user_id, key_hash FROM idempotency_keys WHERE created_at <= now() - interval '1 hour'
                ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED) AS old
         WHERE k.user_id = old.user_id AND k.key_hash = old.key_hash",
    )
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets what users claimed in hours that are over.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn forget_usage(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM idempotency_usage WHERE hour < date_trunc('hour', now())")
        .execute(connection)
        .await
        .map(drop)
}
