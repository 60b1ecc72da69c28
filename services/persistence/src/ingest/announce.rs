//! Telling the world what was committed: confirmations to gateways, events to conversations, notices to users.
//! Comes after the commit and before the acknowledgement, for new and for repeated commands alike.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use parlance_bus::{Bus, ErrorKind, StoredEvents, subject};
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    self, Confirmation, ConfirmationBatch, EventBatch, confirmation, event, user_notice,
};
use tokio::time::{Instant, timeout};

use super::answer::Answer;
use super::commit::Committed;
use super::entry::Entry;
use super::trace;
use crate::feed::{Feed, GRACE, Settlement};
use crate::model::position::Position;
use crate::payload_limit;
use crate::report::Report;
use crate::store::feed::Backlog;

/// Longest wait for the bus client to take a message; it blocks while NATS is away and its queue is full.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told to live listeners, and what the feed may lack.
pub struct Announced {
    /// Per conversation; without those whose gap the database knows already.
    pub events: Vec<Announcement>,
    /// To be told what became of them.
    pub settlement: Settlement,
    /// Whether every confirmation went out; else the commands must come again to be answered.
    pub confirmed: bool,
    /// What became of messages of services.
    pub reports: Vec<Report>,
    /// What the commands lead to elsewhere; they may be acknowledged only after these are handed in.
    pub then: Vec<v1::Command>,
}

/// The events of one conversation.
pub struct Announcement {
    /// Of the conversation.
    pub partition: u16,
    /// What the feed lacks unless it stores them.
    pub backlog: Backlog,
    /// The feed's promise; `None` if they went to live subscribers at most.
    pub sent: Option<StoredEvents>,
}

/// Publishes events and answers.
pub struct Announcer {
    /// For all of them.
    pub bus: Bus,
    /// Of the command stream.
    pub partitions: u16,
    /// Which events the feed gets.
    pub feed: Feed,
}

impl Announcer {
    /// Publishes the answers of a committed part.
    pub async fn announce(&self, part: &[Entry], committed: Committed) -> Announced {
        let Committed {
            answers,
            behind,
            started,
        } = committed;
        let bus = &self.bus;
        let mut confirmations: BTreeMap<&str, Vec<Confirmation>> = BTreeMap::new();
        let mut events = Vec::new();
        let mut notices = Vec::new();
        let mut then = Vec::new();
        let mut reports = Vec::new();
        // Open until everything is told.
        let mut telling = Vec::new();
        for (entry, answer) in part.iter().zip(answers) {
            count(entry, &answer);
            let Answer {
                result,
                repeated,
                events: mut told,
                notices: told_users,
                then: follows,
            } = answer;
            reports.extend(entry.report(&result, repeated));
            if !entry.reply_to.is_empty() {
                let confirmation = Confirmation {
                    command_id: entry.command_id.clone(),
                    repeated,
                    result: Some(result),
                };
                confirmations
                    .entry(&entry.reply_to)
                    .or_default()
                    .push(confirmation);
            } else if let confirmation::Result::Error(error) = &result
                && entry.service.is_none()
            {
                let code = error.code().as_str_name();
                tracing::warn!(
                    command = entry.command_id,
                    code,
                    "rejected a command nobody waits for"
                );
            }
            let span = trace::tell(&entry.span);
            if !span.is_none() && !told.is_empty() {
                let traceparent = parlance_bus::trace::traceparent(&span);
                for event in &mut told {
                    event.traceparent.clone_from(&traceparent);
                }
                telling.push(span);
            }
            events.extend(told);
            notices.extend(told_users);
            then.extend(follows);
        }
        // Whoever hears of a conversation first can be listening when its events come; whoever hears of its end
        // last has had what came before.
        let gains =
            |notice: &v1::UserNotice| matches!(notice.body, Some(user_notice::Body::ConversationAdded(_)));
        let (gains, others): (Vec<_>, Vec<_>) = notices.into_iter().partition(gains);
        notify(bus, &gains).await;
        let (events, settlement) = self
            .publish(events, &behind, started.unwrap_or_else(Instant::now))
            .await;
        notify(bus, &others).await;
        notify(bus, &regains(&gains, &others)).await;
        let mut confirmed = true;
        for (gateway, confirmations) in confirmations {
            let confirmations = confirmations
                .into_iter()
                .map(payload_limit::cut_confirmation)
                .collect();
            confirmed &= self.confirm(gateway, ConfirmationBatch { confirmations }).await;
        }
        Announced {
            events,
            settlement,
            confirmed,
            reports,
            then,
        }
    }

    /// Sends events to live subscribers, and those to the feed that it has all before of. `behind`: conversations of which
    /// the feed lacks events, as a transaction knew that began at `started`.
    async fn publish(
        &self,
        events: Vec<v1::Event>,
        behind: &HashMap<ConversationId, Position>,
        started: Instant,
    ) -> (Vec<Announcement>, Settlement) {
        let batches = by_conversation(events.into_iter().map(payload_limit::cut_event).collect());
        let batches: Vec<(ConversationId, EventBatch)> = batches
            .into_iter()
            .filter_map(|batch| Some((batch.events.first()?.conversation_id.parse().ok()?, batch)))
            .collect();
        let deadline = Instant::now() + GRACE;
        let mut sending = Vec::with_capacity(batches.len());
        for (id, batch) in &batches {
            let is_accepted = !behind.contains_key(id) && self.feed.accepts(*id, started, deadline).await;
            sending.push((*id, before(batch), is_accepted));
        }
        let (settlement, reached) = self.feed.begin(&sending);
        let mut announcements = Vec::with_capacity(batches.len());
        for (((conversation, batch), (_, _, accepted)), after) in
            batches.into_iter().zip(sending).zip(reached)
        {
            let mut sent = None;
            if accepted {
                sent = within(self.bus.publish_events(batch.clone())).await;
            }
            if sent.is_none() {
                let _ = within(self.bus.publish_live(batch)).await;
            }
            let is_known = behind.get(&conversation).is_some_and(|gap| gap.covers(&after));
            if !is_known {
                announcements.push(Announcement {
                    partition: subject::partition_of(conversation, self.partitions),
                    backlog: Backlog { conversation, after },
                    sent,
                });
            }
        }
        (announcements, settlement)
    }

    /// Whether a gateway's confirmations are out, or never can be.
    async fn confirm(&self, gateway: &str, batch: ConfirmationBatch) -> bool {
        match timeout(PATIENCE, self.bus.confirm(gateway, batch)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Malformed) => {
                metrics::counter!("chat_persistence_oversized_total", "what" => "confirmation").increment(1);
                tracing::error!(%error, gateway, "confirmations cannot be sent; the commands are done");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not confirmed yet");
                false
            }
            Err(_) => {
                tracing::warn!("not confirmed yet: the bus client is blocked");
                false
            }
        }
    }
}

/// What users gain again that lost it in the same batch: their sessions were detached by its events.
fn regains(gains: &[v1::UserNotice], others: &[v1::UserNotice]) -> Vec<v1::UserNotice> {
    let lost: HashSet<(&str, &str)> = others
        .iter()
        .filter_map(|notice| match &notice.body {
            Some(user_notice::Body::ConversationRemoved(id)) => Some((id.as_str(), notice)),
            _ => None,
        })
        .flat_map(|(id, notice)| named(notice).map(move |one| (id, one.user_id)))
        .collect();
    let again = |notice: &v1::UserNotice| {
        let Some(user_notice::Body::ConversationAdded(added)) = &notice.body else {
            return None;
        };
        let users: Vec<v1::NoticedUser> = named(notice)
            .filter(|one| lost.contains(&(added.id.as_str(), one.user_id)))
            .map(|one| v1::NoticedUser {
                user_id: one.user_id.to_owned(),
                memberships_version: one.memberships_version,
            })
            .collect();
        (!users.is_empty()).then(|| v1::UserNotice {
            users,
            body: notice.body.clone(),
            ..v1::UserNotice::default()
        })
    };
    gains.iter().filter_map(again).collect()
}

/// A user whom a notice names.
struct Named<'a> {
    user_id: &'a str,
    memberships_version: u64,
}

fn named(notice: &v1::UserNotice) -> impl Iterator<Item = Named<'_>> {
    let one = Named {
        user_id: &notice.user_id,
        memberships_version: notice.memberships_version,
    };
    let several = notice.users.iter().map(|user| Named {
        user_id: &user.user_id,
        memberships_version: user.memberships_version,
    });
    several.chain([one]).filter(|one| !one.user_id.is_empty())
}

/// The position before these events of one conversation.
fn before(batch: &EventBatch) -> Position {
    let lowest = |numbers: &mut dyn Iterator<Item = u64>| {
        numbers
            .filter(|&number| number > 0)
            .min()
            .map_or(Position::NOTHING, |number| number - 1)
    };
    Position {
        seq: lowest(&mut batch.events.iter().map(|event| event.seq)),
        receipts: lowest(&mut batch.events.iter().map(version)),
    }
}

async fn notify(bus: &Bus, notices: &[v1::UserNotice]) {
    for notice in notices.iter().filter(|notice| payload_limit::is_sendable(notice)) {
        let _ = within(bus.notify(notice)).await;
    }
}

/// The result of a bus operation; failures are logged and mended by redelivery or by the receivers.
async fn within<T>(operation: impl Future<Output = Result<T, parlance_bus::Error>>) -> Option<T> {
    match timeout(PATIENCE, operation).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not announced yet");
            None
        }
        Err(_) => {
            tracing::warn!("not announced yet: the bus client is blocked");
            None
        }
    }
}

/// One batch per conversation: durable events ascending and once each, then the latest receipts of each
/// reader, by ascending version.
fn by_conversation(events: Vec<v1::Event>) -> Vec<EventBatch> {
    let mut durable: BTreeMap<String, BTreeMap<u64, v1::Event>> = BTreeMap::new();
    let mut receipts: BTreeMap<String, BTreeMap<String, v1::Event>> = BTreeMap::new();
    for event in events {
        let conversation = event.conversation_id.clone();
        match &event.body {
            Some(event::Body::ReceiptUpdated(receipt)) => {
                let reader = receipt.user_id.clone();
                receipts.entry(conversation).or_default().insert(reader, event);
            }
            _ => {
                durable.entry(conversation).or_default().insert(event.seq, event);
            }
        }
    }
    let conversations: BTreeSet<String> = durable.keys().chain(receipts.keys()).cloned().collect();
    conversations
        .into_iter()
        .map(|conversation| {
            let durable = durable.remove(&conversation).unwrap_or_default().into_values();
            let receipts = receipts.remove(&conversation).unwrap_or_default();
            let mut receipts: Vec<v1::Event> = receipts.into_values().collect();
            receipts.sort_unstable_by_key(version);
            EventBatch {
                events: durable.chain(receipts).collect(),
            }
        })
        .collect()
}

fn version(event: &v1::Event) -> u64 {
    match &event.body {
        Some(event::Body::ReceiptUpdated(receipt)) => receipt.version,
        _ => 0,
    }
}

fn count(entry: &Entry, answer: &Answer) {
    let kind = entry.work.as_ref().map_or("unreadable", |work| work.name());
    let outcome = match &answer.result {
        confirmation::Result::Error(_) => "rejected",
        _ if answer.repeated => "repeated",
        _ => "done",
    };
    metrics::counter!("chat_persistence_commands_total", "kind" => kind, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(conversation: &str, seq: u64) -> v1::Event {
        let body = (seq == 0).then(|| {
            event::Body::ReceiptUpdated(v1::ReceiptUpdated {
                user_id: "bob".into(),
                ..Default::default()
            })
        });
        v1::Event {
            conversation_id: conversation.into(),
            seq,
            body,
            ..Default::default()
        }
    }

    #[test]
    fn who_is_removed_and_added_in_one_batch_gains_the_conversation_after_its_events() {
        let added = |id: &str, users: &[&str]| v1::UserNotice {
            users: users
                .iter()
                .map(|&user| v1::NoticedUser {
                    user_id: user.into(),
                    memberships_version: 7,
                })
                .collect(),
            body: Some(user_notice::Body::ConversationAdded(v1::Conversation {
                id: id.into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let removed = |id: &str, user: &str| v1::UserNotice {
            user_id: user.into(),
            memberships_version: 7,
            body: Some(user_notice::Body::ConversationRemoved(id.into())),
            ..Default::default()
        };
        let gains = [added("tea", &["bob", "carol"]), added("cake", &["bob"])];
        let losses = [removed("tea", "bob"), removed("tea", "dave")];
        assert_eq!(regains(&gains, &losses), [added("tea", &["bob"])]);
        assert_eq!(regains(&gains, &[]), []);
    }

    #[test]
    fn events_of_a_conversation_ascend_once_each_with_receipts_behind() {
        let events = vec![
            event("b", 3),
            event("a", 0),
            event("a", 7),
            event("a", 5),
            event("a", 7),
            event("a", 0),
        ];
        let batches: Vec<(String, Vec<u64>)> = by_conversation(events)
            .into_iter()
            .map(|batch| {
                (
                    batch.events[0].conversation_id.clone(),
                    batch.events.iter().map(|e| e.seq).collect(),
                )
            })
            .collect();
        assert_eq!(
            batches,
            [("a".to_owned(), vec![5, 7, 0]), ("b".to_owned(), vec![3])]
        );
    }

    #[test]
    fn events_begin_after_the_lowest_of_their_kind() {
        let batch = |events| EventBatch { events };
        let nothing = Position::NOTHING;
        let position = |seq, receipts| Position { seq, receipts };
        assert_eq!(
            before(&batch(vec![event("a", 5), event("a", 7)])),
            position(4, nothing)
        );
        let mut receipt = event("a", 0);
        if let Some(event::Body::ReceiptUpdated(body)) = &mut receipt.body {
            body.version = 9;
        }
        assert_eq!(before(&batch(vec![receipt.clone()])), position(nothing, 8));
        assert_eq!(before(&batch(vec![event("a", 1), receipt])), position(0, 8));
    }

    #[test]
    fn receipts_of_a_batch_ascend_by_version_whoever_they_are_of() {
        let receipt = |user: &str, version| v1::Event {
            body: Some(event::Body::ReceiptUpdated(v1::ReceiptUpdated {
                user_id: user.into(),
                version,
                ..Default::default()
            })),
            ..event("a", 0)
        };
        let batches = by_conversation(vec![receipt("ann", 7), receipt("zoe", 5), receipt("bob", 6)]);
        let versions: Vec<u64> = batches[0].events.iter().map(version).collect();
        assert_eq!((batches.len(), versions), (1, vec![5, 6, 7]));
    }
}
