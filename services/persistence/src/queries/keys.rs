//! Changes that clients name by an idempotency key: who carries one out, and how it was answered.
//!
//! Claims are safe to repeat: gateways ask once more where an answer is late.

use parlance_proto::v1::{self, ErrorCode, change_claim};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::Database;
use crate::error::QueryError;
use crate::identity;
use crate::model::refusals::refuse;
use crate::store::keys::{self as store, Key, Stored};

/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;
/// Bytes of an answer that is kept; gateways shorten larger ones.
const ANSWER_MAX_BYTES: usize = 16 * 1024;
/// Keys that a user may claim in each hour of the clock.
const KEYS_PER_USER: i64 = 10_000;
/// Milliseconds after which an attempt that did not end has lost its gateway, at least and at most: gateways say how long
/// they wait for a change.
const LAPSE_MS: (u32, u32) = (15_000, 120_000);
/// Times a claim looks again because another one was faster.
const ROUNDS: usize = 5;

/// Claims a change for an attempt, or says why not.
pub(super) async fn claim(
    database: &Database,
    user: &str,
    claim: &v1::ClaimChange,
) -> Result<v1::ChangeClaim, QueryError> {
    let key = key(user, &claim.key_hash)?;
    if claim.fingerprint.len() != HASH_BYTES {
        return Err(refuse("fingerprint is no SHA-256").into());
    }
    let attempt = uuid(&claim.attempt)?;
    let lapse_seconds = f64::from(claim.lapse_ms.clamp(LAPSE_MS.0, LAPSE_MS.1)) / 1_000.0;
    let mut connection = database.keys.acquire().await?;
    for _ in 0..ROUNDS {
        let state = match store::find(&mut connection, key, lapse_seconds).await? {
            Some(found) => known(&mut connection, key, claim, attempt, found).await?,
            None => new(&mut connection, key, claim, attempt).await?,
        };
        if state.is_some() {
            return Ok(v1::ChangeClaim { state });
        }
    }
    Ok(v1::ChangeClaim {
        state: Some(in_progress()),
    })
}

/// Ends an attempt.
pub(super) async fn settle(
    database: &Database,
    user: &str,
    settle: &v1::SettleChange,
) -> Result<(), QueryError> {
    let key = key(user, &settle.key_hash)?;
    let (change_id, attempt) = (uuid(&settle.change_id)?, uuid(&settle.attempt)?);
    let mut connection = database.keys.acquire().await?;
    match &settle.answer {
        Some(answer) if answer.body.len() > ANSWER_MAX_BYTES => {
            return Err(refuse("the answer is too large to be kept").into());
        }
        Some(answer) => {
            let ids = (change_id, attempt);
            store::keep(&mut connection, key, ids, answer.status, &answer.body).await?;
        }
        None => store::release(&mut connection, key, change_id, attempt).await?,
    }
    Ok(())
}

/// `None` where another claim was faster.
async fn new(
    connection: &mut PgConnection,
    key: Key<'_>,
    claim: &v1::ClaimChange,
    attempt: Uuid,
) -> Result<Option<change_claim::State>, QueryError> {
    let change_id = identity::random();
    let ids = (change_id, attempt);
    if store::insert(connection, key, &claim.fingerprint, ids, KEYS_PER_USER).await? {
        return Ok(Some(claimed(change_id, false)));
    }
    // Whether the attempt is recent does not matter here.
    if store::find(connection, key, 0.0).await?.is_some() {
        return Ok(None);
    }
    let message = format!("more than {KEYS_PER_USER} idempotency keys within an hour");
    Err(v1::Error::with(ErrorCode::RateLimited, message).into())
}

/// The same for a key that names a change already.
async fn known(
    connection: &mut PgConnection,
    key: Key<'_>,
    claim: &v1::ClaimChange,
    attempt: Uuid,
    found: Stored,
) -> Result<Option<change_claim::State>, QueryError> {
    if found.fingerprint != claim.fingerprint {
        return Err(refuse("the idempotency key belongs to another request: use a new one for each").into());
    }
    if let (Some(status), Some(body)) = (found.status, &found.answer) {
        let answer = v1::KeptAnswer {
            status: u32::try_from(status).unwrap_or_default(),
            body: body.clone(),
        };
        return Ok(Some(change_claim::State::Answered(answer)));
    }
    if found.attempt == Some(attempt) {
        return Ok(Some(claimed(found.change_id, found.attempts > 1)));
    }
    if found.attempt.is_some() && found.is_recent {
        return Ok(Some(in_progress()));
    }
    let taken = store::take_over(connection, key, &found, attempt).await?;
    Ok(taken.then(|| claimed(found.change_id, true)))
}

fn claimed(change_id: Uuid, resumed: bool) -> change_claim::State {
    change_claim::State::Claimed(v1::ClaimedChange {
        change_id: change_id.to_string(),
        resumed,
    })
}

fn in_progress() -> change_claim::State {
    change_claim::State::InProgress(v1::ChangeInProgress {})
}

fn key<'a>(user: &'a str, hash: &'a [u8]) -> Result<Key<'a>, v1::Error> {
    if hash.len() != HASH_BYTES {
        return Err(refuse("key_hash is no SHA-256"));
    }
    Ok(Key { user, hash })
}

fn uuid(text: &str) -> Result<Uuid, v1::Error> {
    Uuid::try_parse(text).map_err(|_| refuse("an id is no UUID"))
}
