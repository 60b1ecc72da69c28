//! Users who connect, as many as come together: made known, and answered where they stand.

use std::collections::HashMap;

use parlance_proto::UserId;
use parlance_proto::text::shown;
use parlance_proto::v1::{self, ErrorCode};
use prost::Message as _;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::page::{MAX_BYTES, fitting};
use super::{Viewer, visible};
use crate::database::Database;
use crate::error::{QueryError, by};
use crate::model::refusals::refuse;
use crate::store::arrivals::{self as store, Arriving};

/// Users in one question.
const MAX_ARRIVALS: usize = 500;
/// Users looked at before it is known how much there is to say of one.
const FIRST: usize = 50;
/// Conversations of one user in one answer: about a sixth of what fits.
const MAX_MEMBERSHIPS: u32 = 2_000;

/// One arrival while it is worked on.
struct Entry<'a> {
    arriving: &'a v1::Arrival,
    /// The name that the token says.
    said: String,
    /// Only conversations with greater ids are wanted.
    after: Uuid,
    /// Whether the user has that name.
    is_named: bool,
    answer: Result<Option<v1::ArrivedUser>, v1::Error>,
}

/// Finds or creates users, and answers where they stand: as many of the first as fit one answer. Little more is read.
pub(super) async fn arrive(
    database: &Database,
    query: &v1::Arrive,
    deadline: Instant,
) -> Result<v1::Arrived, QueryError> {
    if query.arrivals.len() > MAX_ARRIVALS {
        return Err(refuse(format!("more than {MAX_ARRIVALS} arrivals")).into());
    }
    let mut users: Vec<v1::ArrivedUser> = Vec::new();
    let (mut rest, mut now, mut left) = (query.arrivals.as_slice(), FIRST, MAX_BYTES);
    while !rest.is_empty() {
        let (some, later) = rest.split_at(now.min(rest.len()));
        let mut answers = arrive_some(database, some, query, deadline).await?;
        let is_first = users.is_empty();
        let fits = |answer: &v1::ArrivedUser| is_first || answer.encoded_len() + 8 <= left;
        let fitting = if answers.first().is_some_and(fits) {
            fitting(&answers, left)
        } else {
            0
        };
        answers.truncate(fitting);
        let used: usize = answers.iter().map(|answer| answer.encoded_len() + 8).sum();
        let is_cut = fitting < some.len();
        users.append(&mut answers);
        left = left.saturating_sub(used);
        if is_cut || left == 0 {
            break;
        }
        // As many as should fit, by those before.
        now = (left / (used / some.len()).max(1)).max(1);
        rest = later;
    }
    Ok(v1::Arrived { users })
}

async fn arrive_some(
    database: &Database,
    arrivals: &[v1::Arrival],
    query: &v1::Arrive,
    deadline: Instant,
) -> Result<Vec<v1::ArrivedUser>, QueryError> {
    let mut entries: Vec<Entry<'_>> = arrivals.iter().map(Entry::new).collect();
    let limit = i64::from(query.limit.clamp(1, MAX_MEMBERSHIPS));
    by(deadline, look_up(database, &mut entries, limit)).await?;
    // Writes only where something is new: connecting is frequent, renaming is not.
    let new: HashMap<&str, &str> = entries
        .iter()
        .filter(|entry| entry.is_new(query.create))
        .map(|entry| (entry.arriving.user_id.as_str(), entry.said.as_str()))
        .collect();
    if !new.is_empty() {
        let new: Vec<(&str, &str)> = new.into_iter().collect();
        {
            // Not on the connections for reads: their statement timeout must never meet a commit.
            let mut connection = by(deadline, database.writes.acquire()).await?;
            store::provision(&mut connection, &new).await?;
        }
        by(deadline, look_up(database, &mut entries, limit)).await?;
    }
    Ok(entries.into_iter().map(Entry::into_answer).collect())
}

/// Finds or creates one user.
pub(super) async fn provision(
    database: &Database,
    actor: &v1::Actor,
    create: bool,
    deadline: Instant,
) -> Result<v1::User, QueryError> {
    let arrive = v1::Arrive {
        arrivals: vec![v1::Arrival {
            user_id: actor.user_id.clone(),
            username: actor.username.clone(),
            ..v1::Arrival::default()
        }],
        create,
        limit: 1,
    };
    let arrived = arrive_one(database, &arrive, deadline).await?;
    match (arrived.user, arrived.error) {
        (Some(user), _) => Ok(user),
        (None, error) => Err(error.unwrap_or_else(unknown).into()),
    }
}

async fn arrive_one(
    database: &Database,
    query: &v1::Arrive,
    deadline: Instant,
) -> Result<v1::ArrivedUser, QueryError> {
    let mut arrived = arrive(database, query, deadline).await?;
    Ok(arrived.users.pop().unwrap_or_default())
}

/// Looks up those who are not settled yet.
async fn look_up(database: &Database, entries: &mut [Entry<'_>], limit: i64) -> Result<(), sqlx::Error> {
    let mut places = Vec::with_capacity(entries.len());
    let mut arriving = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        if entry.is_open() {
            places.push(place);
            arriving.push(Arriving {
                user_id: entry.arriving.user_id.clone(),
                page: entry.arriving.page.clone(),
                memberships: entry.arriving.memberships,
                after: entry.after,
            });
        }
    }
    if arriving.is_empty() {
        return Ok(());
    }
    let mut connection = database.reads.acquire().await?;
    for arrived in store::arrive(&mut connection, &arriving, limit).await? {
        let entry = places
            .get(arrived.place)
            .and_then(|place| entries.get_mut(*place));
        if let Some(entry) = entry {
            entry.is_named = entry.said.is_empty() || arrived.known.token_name == entry.said;
            entry.answer = Ok(Some(v1::ArrivedUser {
                error: None,
                user: Some(arrived.known.user),
                membership: arrived.membership,
            }));
        }
    }
    Ok(())
}

impl<'a> Entry<'a> {
    fn new(arriving: &'a v1::Arrival) -> Self {
        let after = check(arriving);
        Self {
            arriving,
            said: shown(&arriving.username).into_owned(),
            after: *after.as_ref().unwrap_or(&Uuid::nil()),
            is_named: false,
            answer: after.map(|_| None),
        }
    }

    /// Whether the user is still to be found, or to get another name.
    fn is_open(&self) -> bool {
        match &self.answer {
            Ok(Some(_)) => !self.is_named,
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Whether something is to be written for this user.
    fn is_new(&self, create: bool) -> bool {
        self.is_open() && (create || matches!(self.answer, Ok(Some(_))))
    }

    /// A user who is not found by now is unknown, or deleted: those are never let in again.
    fn into_answer(self) -> v1::ArrivedUser {
        let answer = self.answer.and_then(|found| found.ok_or_else(unknown));
        answer.unwrap_or_else(|error| v1::ArrivedUser {
            error: Some(error),
            ..v1::ArrivedUser::default()
        })
    }
}

/// After which conversation this arrival asks on.
fn check(arriving: &v1::Arrival) -> Result<Uuid, v1::Error> {
    UserId::parse(arriving.user_id.as_str()).map_err(|error| refuse(error.to_string()))?;
    if arriving.username.contains('\0') || arriving.page.contains('\0') {
        return Err(refuse("a name holds a NUL character"));
    }
    match arriving.after.as_str() {
        "" => Ok(Uuid::nil()),
        after => Uuid::try_parse(after).map_err(|_| refuse("after is no conversation")),
    }
}

pub(super) async fn memberships(
    connection: &mut PgConnection,
    viewer: Viewer<'_>,
    query: &v1::ListMemberships,
) -> Result<v1::Memberships, QueryError> {
    let asked = visible(viewer, &query.user_ids);
    Ok(v1::Memberships {
        memberships: store::memberships(connection, &asked).await?,
    })
}

pub(super) fn unknown() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such user")
}
