//! Beside the hot path: for each message, who is to be reached otherwise because they have no connection. What the
//! service that does it never acknowledges is parked.
//!
//! Each message is looked at twice, together with all others of that moment: soon, for those who have no connection, and once
//! every gateway was heard of after it, for those who have none then. A gateway that died just before the message has told its
//! clients nothing, and while it is not given up they pass for connected; the others it is for do not wait for
//! that. What is kept of a message between its two looks is who was pushed to.
//!
//! A look costs what the members of its conversations cost, however many messages it is for, and there are a few in a second.

mod park;

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parlance_bus::push::{Fed, PushSettings};
use parlance_bus::{Bus, Error};
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, Conversation, EventBatch, Push, StreamState, event};
use parlance_runtime::backoff::Backoff;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::Database;
use crate::error::without_content;
use crate::store::pushes::{self as store, After, Sent};

/// Pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How long work goes on that is not interrupted at once.
const WENT_WELL: Duration = Duration::from_secs(10);
/// Between two looks at what waits.
const LOOKS: Duration = Duration::from_millis(250);
/// Messages of one look at most; more are looked at in parts.
const TOGETHER: usize = 500;
/// Recipients asked for at once. Each time the members are looked up anew.
const ROWS: i64 = 50_000;
/// Recipients that are kept of all messages between their looks, about: with more, no further messages are taken.
const MOST_PUSHED: usize = 200_000;
/// Batches of events taken at once.
const BATCH: usize = 100;
/// Batches of events that may wait.
const WAITING: usize = 1_000;
/// Recipients named in one push.
const PAGE: usize = 1_000;

/// Looks for recipients.
pub struct Pushing {
    /// For events and pushes.
    pub bus: Bus,
    /// For recipients.
    pub database: Database,
    /// Sizes and patience.
    pub settings: PushSettings,
}

/// A batch of events that is not settled yet.
struct Waiting {
    fed: Fed,
    messages: Vec<Open>,
}

/// A message that is not settled yet.
struct Open {
    message: v1::Message,
    sent: Sent,
    /// Who was pushed to at the first look; `None` before it.
    pushed: Option<HashSet<String>>,
}

/// Why looking stopped.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Bus(#[from] Error),
    #[error("{}", without_content(.0))]
    Database(#[from] sqlx::Error),
}

impl Pushing {
    /// Works until `stop`.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let begun = Instant::now();
            let interrupted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                interrupted = self.work() => interrupted,
            };
            let Err(error) = interrupted;
            tracing::warn!(%error, "pushes wait");
            // Work that went well before it was interrupted begins anew with short pauses.
            if begun.elapsed() > WENT_WELL {
                backoff.reset();
            }
            if !backoff.pause_unless(&stop).await {
                return Ok(());
            }
        }
    }

    async fn work(&self) -> Result<Infallible, Interrupted> {
        self.bus.connected().await;
        self.bus.ensure_push(&self.settings).await?;
        let mut events = self.bus.events_to_push().await?;
        let mut given_up = self.bus.given_up_pushes().await?;
        // What is dropped with it comes again.
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut looks = interval(LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = waiting.len() < WAITING && pushed(&waiting) < MOST_PUSHED;
            tokio::select! {
                batch = events.next_batch(BATCH), if has_room => {
                    waiting.extend(batch?.into_iter().map(open));
                    // What holds no message is not kept.
                    settle(&mut waiting).await;
                }
                batch = given_up.next_batch(BATCH) => {
                    for word in batch? {
                        park::park(&self.bus, &self.database, &word).await?;
                    }
                }
                _ = looks.tick(), if !waiting.is_empty() => {
                    self.look(&mut waiting).await?;
                    settle(&mut waiting).await;
                }
            }
        }
    }

    /// Looks at new messages, and a last time at those after which every gateway was heard of.
    async fn look(&self, waiting: &mut [Waiting]) -> Result<(), Interrupted> {
        let heard_at = {
            let mut connection = self.database.reads.acquire().await?;
            // Before the connections are read: what is heard of afterwards may have changed them.
            store::all_heard_at(&mut connection).await?
        };
        let is_last = |open: &Open| open.sent.sent_at <= heard_at;
        let all = waiting.iter_mut().flat_map(|one| &mut one.messages);
        let mut due: Vec<&mut Open> = all
            .filter(|open| open.pushed.is_none() || is_last(open))
            .collect();
        for part in due.chunks_mut(TOGETHER) {
            self.push_to_absent(part).await?;
        }
        for one in waiting {
            one.messages.retain(|open| !is_last(open));
        }
        Ok(())
    }

    /// Pushes to users without a connection, once for each message.
    async fn push_to_absent(&self, messages: &mut [&mut Open]) -> Result<(), Interrupted> {
        let asked: Vec<Sent> = messages.iter().map(|open| open.sent.clone()).collect();
        let ids: Vec<Uuid> = asked.iter().map(|sent| sent.conversation).collect();
        let names = {
            let mut connection = self.database.reads.acquire().await?;
            store::names(&mut connection, &ids).await?
        };
        let mut after = Some(After::default());
        while let Some(place) = after.take() {
            let page = {
                let mut connection = self.database.reads.acquire().await?;
                store::recipients(&mut connection, &asked, &place, ROWS).await?
            };
            after = page.next;
            for (place, absent) in page.recipients {
                let Some(open) = messages.get_mut(place) else {
                    continue;
                };
                let before = open.pushed.get_or_insert_default();
                let absent: Vec<String> = absent
                    .into_iter()
                    .filter(|user| before.insert(user.clone()))
                    .collect();
                if let Some((kind, number, title)) = names.get(&open.sent.conversation) {
                    let conversation = Conversation {
                        id: open.sent.conversation.to_string(),
                        kind: i32::from(*kind),
                        number: *number,
                        title: title.clone(),
                        ..Conversation::default()
                    };
                    self.push(&open.message, &conversation, &absent).await?;
                }
            }
        }
        for open in messages {
            open.pushed.get_or_insert_default();
        }
        Ok(())
    }

    async fn push(
        &self,
        message: &v1::Message,
        conversation: &Conversation,
        recipients: &[String],
    ) -> Result<(), Interrupted> {
        let Ok(id) = conversation.id.parse::<ConversationId>() else {
            return Ok(());
        };
        for page in recipients.chunks(PAGE) {
            let push = Push {
                message: Some(message.clone()),
                conversation: Some(conversation.clone()),
                recipient_ids: page.to_vec(),
            };
            self.bus.publish_push(id, &push, &push_id(message, page)).await?;
            metrics::counter!("chat_push_events_total").increment(1);
        }
        Ok(())
    }
}

/// How many are kept who were pushed to.
fn pushed(waiting: &[Waiting]) -> usize {
    let open = waiting.iter().flat_map(|one| &one.messages);
    open.map(|open| open.pushed.as_ref().map_or(0, HashSet::len))
        .sum()
}

/// Acknowledges and drops what is settled.
async fn settle(waiting: &mut Vec<Waiting>) {
    for one in waiting.extract_if(.., |one| one.messages.is_empty()) {
        one.fed.ack().await;
    }
}

/// Whether this event of a message is the one to push: one that streams is pushed when it has ended.
fn is_due(message: &v1::Message, event_seq: u64) -> bool {
    (message.stream() != StreamState::Unspecified) != (message.seq == event_seq)
}

/// The same for the same message and recipients only: others must not pass for a repeat.
fn push_id(message: &v1::Message, recipients: &[String]) -> String {
    let mut name = format!("{} {}", message.conversation_id, message.id);
    for recipient in recipients {
        name.push('\n');
        name.push_str(recipient);
    }
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

fn open(fed: Fed) -> Waiting {
    // What is no batch of events is none of ours.
    let batch = EventBatch::decode(fed.payload.clone()).unwrap_or_default();
    let messages = batch.events.into_iter().filter_map(|event| match event.body {
        Some(
            event::Body::MessageCreated(v1::MessageCreated {
                message: Some(message),
            })
            | event::Body::MessageFinished(v1::MessageFinished {
                message: Some(message),
            }),
        ) if message.deleted_at_ms.is_none() && is_due(&message, event.seq) => {
            let sent = Sent {
                conversation: message.conversation_id.parse().ok()?,
                seq: message.seq,
                sender: message
                    .sender
                    .as_ref()
                    .map_or_else(String::new, |sender| sender.id.clone()),
                sent_at: DateTime::from_timestamp_millis(event.at_ms).unwrap_or(DateTime::<Utc>::MIN_UTC),
            };
            Some(Open {
                message,
                sent,
                pushed: None,
            })
        }
        _ => None,
    });
    Waiting {
        messages: messages.collect(),
        fed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_recipients_are_a_repeat() {
        let message = v1::Message {
            created_at_ms: 1_700_000_000_000,
            ..v1::Message::default()
        };
        let id = |users: &[&str]| {
            push_id(
                &message,
                &users.iter().map(|user| (*user).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(id(&["a", "b"]), id(&["a", "b"]));
        assert_ne!(id(&["a", "b"]), id(&["a"]));
        assert_ne!(id(&["ab"]), id(&["a", "b"]));
    }
}
