//! The transaction of a batch: leases, locks, rules, rows, commit. All or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use parlance_proto::v1::{self, confirmation, event, user_notice};
use parlance_proto::{ConversationId, UserId};
use sqlx::{Acquire, PgConnection};
use tokio::time::timeout;

use super::apply::{apply, no_conversation};
use super::state::{Effects, Loaded, Outcome};
use super::work::Work;
use crate::database::Held;
use crate::error::BatchError;
use crate::store::{batch, conversations, events, receipts, users, writes};

/// What one command led to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// For the emitter.
    pub result: confirmation::Result,
    /// Carried out before.
    pub repeated: bool,
    /// For the conversation.
    pub event: Option<v1::Event>,
    /// For single users.
    pub notices: Vec<v1::UserNotice>,
}

/// What is read back inside the transaction.
struct ReadBack {
    receipts: BTreeMap<(ConversationId, UserId), v1::ReceiptUpdated>,
    views: HashMap<(ConversationId, String), v1::Conversation>,
    memberships: HashMap<String, u64>,
}

impl Answer {
    /// A command that was surely not carried out.
    pub fn rejected(error: v1::Error) -> Self {
        Self {
            result: confirmation::Result::Error(error),
            repeated: false,
            event: None,
            notices: Vec::new(),
        }
    }
}

/// Carries out the commands under the given leases. One answer per command, in their order.
///
/// # Errors
/// Nothing was committed, or with [`BatchError::TimedOut`] and lost connections perhaps: the same commands
/// may be given again.
pub async fn commit(
    held: &mut Held,
    owner: &str,
    leases: &[(u16, u64)],
    works: &[&Work],
    patience: Duration,
) -> Result<Vec<Answer>, BatchError> {
    let connection = timeout(patience, held.get())
        .await
        .map_err(|_| BatchError::TimedOut)??;
    match timeout(patience, transaction(connection, owner, leases, works)).await {
        Ok(Ok(answers)) => Ok(answers),
        Ok(Err(error)) => {
            if !matches!(error, BatchError::LeaseLost(_)) {
                held.discard();
            }
            Err(error)
        }
        Err(_) => {
            held.discard();
            Err(BatchError::TimedOut)
        }
    }
}

async fn transaction(
    connection: &mut PgConnection,
    owner: &str,
    leases: &[(u16, u64)],
    works: &[&Work],
) -> Result<Vec<Answer>, BatchError> {
    let mut tx = connection.begin().await?;
    let check = batch::check_leases(&mut tx, owner, leases).await?;
    let lost: BTreeSet<u16> = leases
        .iter()
        .map(|lease| lease.0)
        .filter(|partition| !check.held.contains(partition))
        .collect();
    if !lost.is_empty() {
        tx.rollback().await?;
        return Err(BatchError::LeaseLost(lost.into_iter().collect()));
    }
    let mut loaded = batch::load(&mut tx, check, works).await?;
    let effects = apply(&mut loaded, works.iter().copied());
    writes::write(&mut tx, &loaded, &effects).await?;
    let receipts = receipts::settle(&mut tx, &loaded, &effects).await?;
    let (views, memberships) = read_back(&mut tx, works, &effects).await?;
    let read_back = ReadBack {
        receipts,
        views,
        memberships,
    };
    let answers = works
        .iter()
        .zip(&effects.outcomes)
        .map(|(work, outcome)| answer(&loaded, &read_back, work, outcome.clone()))
        .collect();
    tx.commit().await?;
    Ok(answers)
}

/// Conversations as creators and, where they are told, all participants see them; with the users' versions.
async fn read_back(
    connection: &mut PgConnection,
    works: &[&Work],
    effects: &Effects,
) -> Result<
    (
        HashMap<(ConversationId, String), v1::Conversation>,
        HashMap<String, u64>,
    ),
    sqlx::Error,
> {
    let mut asked: BTreeSet<(ConversationId, String)> = BTreeSet::new();
    let mut told: BTreeSet<ConversationId> = BTreeSet::new();
    for (work, outcome) in works.iter().zip(&effects.outcomes) {
        if let Outcome::Conversation { announce, .. } = outcome {
            asked.insert((work.conversation, work.actor.id.to_string()));
            if *announce {
                told.insert(work.conversation);
            }
        }
    }
    if asked.is_empty() {
        return Ok((HashMap::new(), HashMap::new()));
    }
    let ids: Vec<_> = told.iter().map(|id| id.uuid()).collect();
    for (id, members) in conversations::participants(connection, &ids).await? {
        let id = ConversationId::from_uuid(id);
        asked.extend(members.into_iter().map(|member| (id, member.user_id)));
    }
    let asked: Vec<_> = asked.into_iter().collect();
    let views = conversations::views(connection, &asked).await?;
    // Last, because users are shared between replicas: their rows are locked for as short as possible.
    let joined: BTreeSet<&UserId> = effects.created.values().flat_map(BTreeMap::keys).collect();
    let mut memberships = HashMap::new();
    if !joined.is_empty() {
        memberships.extend(writes::bump_memberships(connection, &joined).await?);
    }
    let known: Vec<String> = asked.into_iter().map(|(_, user)| user).collect();
    for user in users::versions(connection, &known).await? {
        memberships.insert(user.user_id, user.memberships_version);
    }
    Ok((views, memberships))
}

fn answer(loaded: &Loaded, read_back: &ReadBack, work: &Work, outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Rejected(error) => Answer::rejected(error),
        Outcome::Message {
            message,
            repeated,
            event,
        } => {
            let event = event.map(|told| events::message_event((*message).clone(), told, &loaded.epoch));
            Answer {
                result: confirmation::Result::Message(*message),
                repeated,
                event,
                notices: Vec::new(),
            }
        }
        Outcome::Receipt => {
            let key = (work.conversation, work.actor.id.clone());
            let Some(receipt) = read_back.receipts.get(&key) else {
                return Answer::rejected(no_conversation());
            };
            let event = v1::Event {
                conversation_id: work.conversation.to_string(),
                epoch: loaded.epoch.clone(),
                seq: 0,
                at_ms: loaded.now_ms,
                body: Some(event::Body::ReceiptUpdated(receipt.clone())),
            };
            let result = confirmation::Result::Receipt(receipt.clone());
            Answer {
                result,
                repeated: false,
                event: Some(event),
                notices: Vec::new(),
            }
        }
        Outcome::Conversation { repeated, announce } => {
            let Some(view) = read_back
                .views
                .get(&(work.conversation, work.actor.id.to_string()))
            else {
                return Answer::rejected(no_conversation());
            };
            let notices = if announce {
                notices(read_back, view)
            } else {
                Vec::new()
            };
            Answer {
                result: confirmation::Result::Conversation(view.clone()),
                repeated,
                event: None,
                notices,
            }
        }
    }
}

fn notices(read_back: &ReadBack, view: &v1::Conversation) -> Vec<v1::UserNotice> {
    view.participants
        .iter()
        .filter_map(|participant| {
            let id = view.id.parse().ok()?;
            let seen = read_back.views.get(&(id, participant.user_id.clone()))?;
            Some(v1::UserNotice {
                user_id: participant.user_id.clone(),
                memberships_version: read_back
                    .memberships
                    .get(&participant.user_id)
                    .copied()
                    .unwrap_or_default(),
                body: Some(user_notice::Body::ConversationAdded(seen.clone())),
            })
        })
        .collect()
}
