//! Telling the world what was committed: confirmations to gateways, events to conversations, notices to users.
//! Comes after the commit and before the acknowledgement, for new and for repeated commands alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parlance_bus::{Bus, StoredEvents, faults};
use parlance_proto::v1::{
    self, Confirmation, ConfirmationBatch, EventBatch, confirmation, event, user_notice,
};
use tokio::time::timeout;

use super::answer::Answer;
use super::entry::Entry;
use super::trace;

/// Longest wait for the bus client to take a message; it blocks while NATS is away and its queue is full.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told to live listeners, and what must still be heard of the feed.
pub struct Announced {
    /// Per conversation.
    pub events: Vec<Announcement>,
    /// Whether every confirmation went out; else the commands must come again to be answered.
    pub confirmed: bool,
    /// What the commands lead to elsewhere; they may be acknowledged only after these are handed in.
    pub then: Vec<v1::Command>,
}

/// The events of one conversation.
pub struct Announcement {
    /// Kept in case they must be published again.
    pub batch: EventBatch,
    /// The feed's promise; `None` if the first attempt failed.
    pub stored: Option<StoredEvents>,
}

/// Publishes the answers of a committed part.
pub async fn announce(bus: &Bus, part: &[Entry], answers: Vec<Answer>) -> Announced {
    let mut confirmations: BTreeMap<&str, Vec<Confirmation>> = BTreeMap::new();
    let mut events = Vec::new();
    let mut notices = Vec::new();
    let mut then = Vec::new();
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
        if repeated && faults::happens("skip_republish") {
            told.clear();
        }
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
        } else if let confirmation::Result::Error(error) = &result {
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
    let mut announced = Announced {
        events: Vec::new(),
        confirmed: true,
        then,
    };
    for batch in by_conversation(events) {
        let stored = within(bus.publish_events(batch.clone())).await;
        announced.events.push(Announcement { batch, stored });
    }
    notify(bus, &others).await;
    for (gateway, confirmations) in confirmations {
        announced.confirmed &= within(bus.confirm(gateway, ConfirmationBatch { confirmations }))
            .await
            .is_some();
    }
    announced
}

async fn notify(bus: &Bus, notices: &[v1::UserNotice]) {
    for notice in notices {
        let _ = within(bus.notify_user(notice)).await;
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
