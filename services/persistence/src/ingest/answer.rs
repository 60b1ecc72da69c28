//! What the emitter of a command and everybody else is told: outcomes, completed by what only the database
//! knows once the batch is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parlance_proto::v1::{self, ConversationKind, confirmation, event, user_notice};
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;

use super::apply::no_conversation;
use super::state::{Effects, Loaded, Outcome, Told};
use super::tell;
use super::work::Work;
use crate::store::{conversations, journals, participants, receipts, users, writes};

/// What one command led to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// For the emitter.
    pub result: confirmation::Result,
    /// Carried out before.
    pub repeated: bool,
    /// For the conversation.
    pub events: Vec<v1::Event>,
    /// For single users.
    pub notices: Vec<v1::UserNotice>,
    /// To be handed in before the command is acknowledged.
    pub then: Vec<v1::Command>,
}

/// What is read back inside the transaction.
pub(super) struct ReadBack {
    receipts: BTreeMap<(ConversationId, UserId), v1::ReceiptUpdated>,
    views: HashMap<(ConversationId, String), v1::Conversation>,
    memberships: HashMap<String, u64>,
}

impl Answer {
    /// A command that was surely not carried out.
    pub fn rejected(error: v1::Error) -> Self {
        Self::quiet(confirmation::Result::Error(error), false)
    }

    fn quiet(result: confirmation::Result, repeated: bool) -> Self {
        Self {
            result,
            repeated,
            events: Vec::new(),
            notices: Vec::new(),
            then: Vec::new(),
        }
    }
}

impl ReadBack {
    /// Settles receipts, fills in names, reads conversations as those who are told of them see them, and
    /// last the versions of users' sets of conversations.
    pub(super) async fn read(
        connection: &mut PgConnection,
        loaded: &Loaded,
        works: &[&Work],
        effects: &mut Effects,
    ) -> Result<Self, sqlx::Error> {
        let receipts = receipts::settle(connection, loaded, effects).await?;
        name_people(connection, effects).await?;
        let asked = asked(connection, works, effects).await?;
        let mut views = conversations::views(connection, &asked).await?;
        journals::fill(connection, views.values_mut()).await?;
        // Last, because users are shared between replicas: their rows are locked for as short as possible.
        let regrouped = regrouped(loaded, effects);
        let mut memberships = HashMap::new();
        if !regrouped.is_empty() {
            memberships.extend(writes::bump_memberships(connection, &regrouped).await?);
        }
        let known: Vec<String> = asked
            .into_iter()
            .map(|(_, user)| user)
            .chain(notified(works, effects))
            .collect();
        if !known.is_empty() {
            for user in users::versions(connection, &known).await? {
                memberships.insert(user.user_id, user.memberships_version);
            }
        }
        Ok(Self {
            receipts,
            views,
            memberships,
        })
    }

    pub(super) fn answer(&self, loaded: &Loaded, work: &Work, outcome: Outcome) -> Answer {
        match outcome {
            Outcome::Rejected(error) => Answer::rejected(error),
            Outcome::Message {
                message,
                repeated,
                event,
                hidden,
                then,
            } => {
                let notices = if hidden {
                    vec![self.hidden(work, &message)]
                } else {
                    Vec::new()
                };
                let events = event.into_iter().collect();
                Answer {
                    result: confirmation::Result::Message(*message),
                    repeated,
                    events,
                    notices,
                    then,
                }
            }
            Outcome::Thread {
                thread,
                repeated,
                event,
            } => Answer {
                events: event.into_iter().collect(),
                ..Answer::quiet(confirmation::Result::Thread(thread), repeated)
            },
            Outcome::Journal {
                edited,
                repeated,
                event,
            } => Answer {
                events: event.into_iter().collect(),
                ..Answer::quiet(confirmation::Result::Journal(*edited), repeated)
            },
            Outcome::Receipt => self.receipt(loaded, work),
            Outcome::Conversation {
                bare,
                repeated,
                events,
                added,
                removed,
            } => {
                let view = self.views.get(&(work.conversation, work.actor.id.to_string()));
                let mut notices = self.added(work.conversation, &added);
                notices.extend(removed.iter().map(|user| {
                    self.notice(
                        user.as_str(),
                        user_notice::Body::ConversationRemoved(work.conversation.to_string()),
                    )
                }));
                let result = confirmation::Result::Conversation(view.cloned().unwrap_or(*bare));
                Answer {
                    events,
                    notices,
                    ..Answer::quiet(result, repeated)
                }
            }
        }
    }

    fn receipt(&self, loaded: &Loaded, work: &Work) -> Answer {
        let Some(receipt) = self.receipts.get(&(work.conversation, work.actor.id.clone())) else {
            return Answer::rejected(no_conversation());
        };
        let event = v1::Event {
            conversation_id: work.conversation.to_string(),
            epoch: loaded.epoch.clone(),
            seq: 0,
            at_ms: loaded.now_ms,
            traceparent: String::new(),
            body: Some(event::Body::ReceiptUpdated(receipt.clone())),
        };
        Answer {
            events: vec![event],
            ..Answer::quiet(confirmation::Result::Receipt(receipt.clone()), false)
        }
    }

    /// Everybody sees what they are told of with their own eyes.
    fn added(&self, id: ConversationId, added: &Told) -> Vec<v1::UserNotice> {
        let told = |user: &str| match added {
            Told::Nobody => false,
            Told::Everybody => true,
            Told::These(users) => users.iter().any(|told| told.as_str() == user),
        };
        let mut notices: Vec<v1::UserNotice> = self
            .views
            .iter()
            .filter(|((conversation, user), _)| *conversation == id && told(user))
            .map(|((_, user), view)| self.notice(user, user_notice::Body::ConversationAdded(view.clone())))
            .collect();
        notices.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id));
        notices
    }

    fn hidden(&self, work: &Work, message: &v1::Message) -> v1::UserNotice {
        let sender_id = message
            .sender
            .as_ref()
            .map(|sender| sender.id.clone())
            .unwrap_or_default();
        let hidden = v1::MessageHidden {
            conversation_id: work.conversation.to_string(),
            message: Some(v1::MessageRef {
                id: message.id.clone(),
                seq: message.seq,
                sender_id,
            }),
        };
        self.notice(work.actor.id.as_str(), user_notice::Body::MessageHidden(hidden))
    }

    fn notice(&self, user: &str, body: user_notice::Body) -> v1::UserNotice {
        v1::UserNotice {
            user_id: user.to_owned(),
            memberships_version: self.memberships.get(user).copied().unwrap_or_default(),
            body: Some(body),
        }
    }
}

/// Fills in the names of those that events and messages speak of.
async fn name_people(connection: &mut PgConnection, effects: &mut Effects) -> Result<(), sqlx::Error> {
    let mut people = Vec::new();
    for outcome in &mut effects.outcomes {
        match outcome {
            Outcome::Conversation { events, .. } => people.extend(events.iter_mut().flat_map(tell::people)),
            Outcome::Message { message, event, .. } => {
                people.extend(tell::sender(message));
                people.extend(event.iter_mut().flat_map(tell::people));
            }
            _ => {}
        }
    }
    users::name(connection, people).await
}

/// Which conversations are to be read for whom: for emitters, and for those who get them.
async fn asked(
    connection: &mut PgConnection,
    works: &[&Work],
    effects: &Effects,
) -> Result<Vec<(ConversationId, String)>, sqlx::Error> {
    let mut asked: BTreeSet<(ConversationId, String)> = BTreeSet::new();
    let mut everybody: BTreeSet<ConversationId> = BTreeSet::new();
    for (work, outcome) in works.iter().zip(&effects.outcomes) {
        let Outcome::Conversation { added, .. } = outcome else {
            continue;
        };
        asked.insert((work.conversation, work.actor.id.to_string()));
        match added {
            Told::Nobody => {}
            Told::Everybody => drop(everybody.insert(work.conversation)),
            Told::These(users) => {
                asked.extend(users.iter().map(|user| (work.conversation, user.to_string())))
            }
        }
    }
    if !everybody.is_empty() {
        let ids: Vec<_> = everybody.iter().map(|id| id.uuid()).collect();
        for (id, members) in participants::of(connection, &ids).await? {
            let id = ConversationId::from_uuid(id);
            asked.extend(members.into_iter().map(|member| (id, member.user_id)));
        }
    }
    Ok(asked.into_iter().collect())
}

/// Those whose set of conversations the batch changed. Journals are in nobody's set.
fn regrouped<'a>(loaded: &Loaded, effects: &'a Effects) -> BTreeSet<&'a UserId> {
    let counts = |id: &ConversationId| {
        loaded
            .conversations
            .get(id)
            .is_some_and(|state| state.kind != ConversationKind::Journal)
    };
    let keys = effects.joined.keys().chain(effects.left.keys());
    keys.filter(|(id, _)| counts(id)).map(|(_, user)| user).collect()
}

/// Those who get a notice without seeing the conversation.
fn notified(works: &[&Work], effects: &Effects) -> Vec<String> {
    let mut users = Vec::new();
    for (work, outcome) in works.iter().zip(&effects.outcomes) {
        match outcome {
            Outcome::Conversation { removed, .. } => users.extend(removed.iter().map(ToString::to_string)),
            Outcome::Message { hidden: true, .. } => users.push(work.actor.id.to_string()),
            _ => {}
        }
    }
    users
}
