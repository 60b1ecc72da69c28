//! What the emitter of a command and everybody else is told: outcomes, completed by what only the database
//! knows once the batch is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parlance_proto::v1::{self, confirmation, event, user_notice};
use parlance_proto::{ConversationId, UserId};
use prost::Message as _;
use sqlx::PgConnection;

use crate::model::events;
use crate::model::refusals::no_conversation;
use crate::model::state::{Effects, Loaded, Outcome};
use crate::model::work::Work;
use crate::store::{blocks, conversations, receipts, users, writes};

/// Users up to which each gets a notice of their own, which gateways of the version before understand too.
const NOTIFIED_ALONE: usize = 20;
/// Bytes of users that one notice names, or one user more: a third of what the bus takes.
const NOTICE_BYTES: usize = 300 * 1024;

/// What one command led to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// For the emitter.
    pub result: confirmation::Result,
    /// Carried out before.
    pub repeated: bool,
    /// For the conversation.
    pub events: Vec<v1::Event>,
    /// For users, whatever conversation they look at.
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
    /// Settles receipts, fills in names, reads conversations as the emitters of commands see them, and last the
    /// versions of users' sets of conversations.
    pub(super) async fn read(
        connection: &mut PgConnection,
        loaded: &Loaded,
        works: &[&Work],
        effects: &mut Effects,
    ) -> Result<Self, sqlx::Error> {
        let receipts = receipts::settle(connection, loaded, effects).await?;
        fill_in_names(connection, effects).await?;
        let asked = asked(works, effects);
        let views = conversations::views(connection, &asked, loaded.bounds.inline_participants).await?;
        // Last, because users are shared between replicas: their rows are locked for as short as possible.
        let mut memberships = HashMap::new();
        if !effects.memberships.is_empty() {
            memberships.extend(writes::bump_memberships(connection, &effects.memberships).await?);
            blocks::mark_created(connection, loaded, effects).await?;
        }
        let mut known = notified(works, effects);
        known.retain(|user| !memberships.contains_key(user));
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
            Outcome::Muted { bare, repeated } => self.muted(work, *bare, repeated),
            Outcome::Receipt => self.receipt(loaded, work),
            Outcome::Bare(result) => Answer::quiet(*result, true),
            Outcome::Conversation {
                bare,
                repeated,
                events,
                mut added,
                joined_seq,
                removed,
            } => {
                let id = work.conversation;
                let state = loaded.conversations.get(&id);
                added.retain(|user| state.is_some_and(|state| state.members.contains_key(user)));
                let gains = v1::Conversation {
                    head_seq: joined_seq,
                    participant_count: state.map_or(0, |state| state.member_count),
                    ..(*bare).clone()
                };
                let gains = self.notices(&added, user_notice::Body::ConversationAdded(gains));
                let losses = user_notice::Body::ConversationRemoved(id.to_string());
                let losses = self.notices(&removed, losses);
                let view = self.views.get(&(id, work.actor.id.to_string()));
                let result = confirmation::Result::Conversation(view.cloned().unwrap_or(*bare));
                Answer {
                    events,
                    notices: gains.into_iter().chain(losses).collect(),
                    ..Answer::quiet(result, repeated)
                }
            }
        }
    }

    /// What is notified is what the batch leaves behind, which a redelivery must not undo.
    fn muted(&self, work: &Work, bare: v1::Conversation, repeated: bool) -> Answer {
        let view = self.views.get(&(work.conversation, work.actor.id.to_string()));
        let Some(view) = view.cloned() else {
            return Answer::quiet(confirmation::Result::Conversation(bare), repeated);
        };
        let changed = user_notice::Body::MuteChanged(v1::MuteChanged {
            conversation_id: view.id.clone(),
            mute: view.mute,
        });
        Answer {
            notices: vec![self.notice(work.actor.id.as_str(), changed)],
            ..Answer::quiet(confirmation::Result::Conversation(view), repeated)
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

    /// The same for all of these users: a notice each of few, of many as few as fit the bus.
    fn notices(&self, users: &[UserId], body: user_notice::Body) -> Vec<v1::UserNotice> {
        if users.len() <= NOTIFIED_ALONE {
            let one = |user: &UserId| self.notice(user.as_str(), body.clone());
            return users.iter().map(one).collect();
        }
        let noticed = users.iter().map(|user| self.noticed(user.as_str()));
        let some = |users: Vec<v1::NoticedUser>| v1::UserNotice {
            users,
            body: Some(body.clone()),
            ..v1::UserNotice::default()
        };
        by_bytes(noticed, NOTICE_BYTES).into_iter().map(some).collect()
    }

    fn notice(&self, user: &str, body: user_notice::Body) -> v1::UserNotice {
        let v1::NoticedUser {
            user_id,
            memberships_version,
        } = self.noticed(user);
        v1::UserNotice {
            user_id,
            memberships_version,
            users: Vec::new(),
            body: Some(body),
        }
    }

    fn noticed(&self, user: &str) -> v1::NoticedUser {
        v1::NoticedUser {
            user_id: user.to_owned(),
            memberships_version: self.memberships.get(user).copied().unwrap_or_default(),
        }
    }
}

/// The same in their order, in parts that end with the one that reaches this many bytes.
fn by_bytes(users: impl Iterator<Item = v1::NoticedUser>, most: usize) -> Vec<Vec<v1::NoticedUser>> {
    let mut parts: Vec<Vec<v1::NoticedUser>> = Vec::new();
    let mut left = 0_usize;
    for user in users {
        let bytes = user.encoded_len() + 4;
        match parts.last_mut().filter(|_| left > 0) {
            Some(part) => part.push(user),
            None => {
                left = most;
                parts.push(vec![user]);
            }
        }
        left = left.saturating_sub(bytes);
    }
    parts
}

/// Fills in the names of those that events and messages speak of.
async fn fill_in_names(connection: &mut PgConnection, effects: &mut Effects) -> Result<(), sqlx::Error> {
    let mut unnamed = Vec::new();
    for outcome in &mut effects.outcomes {
        match outcome {
            Outcome::Conversation { events, .. } => {
                unnamed.extend(events.iter_mut().flat_map(events::unnamed))
            }
            Outcome::Message { message, event, .. } => {
                unnamed.extend(events::sender(message));
                unnamed.extend(event.iter_mut().flat_map(events::unnamed));
            }
            _ => {}
        }
    }
    users::name(connection, unnamed).await
}

/// Which conversations are to be read for whom: for the emitters of commands that change them.
fn asked(works: &[&Work], effects: &Effects) -> Vec<(ConversationId, String)> {
    let each = works.iter().zip(&effects.outcomes);
    let asked: BTreeSet<(ConversationId, String)> = each
        .filter(|(_, outcome)| matches!(outcome, Outcome::Conversation { .. } | Outcome::Muted { .. }))
        .map(|(work, _)| (work.conversation, work.actor.id.to_string()))
        .collect();
    asked.into_iter().collect()
}

/// Those who get a notice.
fn notified(works: &[&Work], effects: &Effects) -> Vec<String> {
    let mut users = BTreeSet::new();
    for (work, outcome) in works.iter().zip(&effects.outcomes) {
        match outcome {
            Outcome::Conversation { added, removed, .. } => {
                users.extend(added.iter().chain(removed).map(ToString::to_string));
            }
            Outcome::Message { hidden: true, .. } | Outcome::Muted { .. } => {
                users.insert(work.actor.id.to_string());
            }
            _ => {}
        }
    }
    users.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_to_users_with_the_longest_ids_fit_the_bus_and_leave_nobody_out() {
        let user = |number: usize| v1::NoticedUser {
            user_id: format!("{number:0>512}"),
            memberships_version: 1 << 40,
        };
        let parts = by_bytes((0..2_000).map(user), NOTICE_BYTES);
        for part in &parts {
            let notice = v1::UserNotice {
                users: part.clone(),
                ..Default::default()
            };
            assert!(notice.encoded_len() < NOTICE_BYTES + 1_024);
        }
        assert!(parts.iter().flatten().cloned().eq((0..2_000).map(user)));
        let few = by_bytes((0..100).map(user), NOTICE_BYTES);
        assert_eq!(few.len(), 1);
        assert!(by_bytes(std::iter::empty(), NOTICE_BYTES).is_empty());
    }
}
