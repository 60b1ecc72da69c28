//! Beside the hot path: for each message, who is to be reached otherwise because they have no connection. What the
//! service that does it never acknowledges is parked.
//!
//! A connection counts only if its gateway was heard of after the message: a gateway that died just before has
//! told its clients nothing. As long as that is open, the message waits; the others it is for do not.

mod park;

use std::collections::BTreeSet;
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
use crate::store::pushes::{self as store, Recipient, Sent};

/// Pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How long work goes on that is not interrupted at once.
const WENT_WELL: Duration = Duration::from_secs(10);
/// How often those who are waited for are looked at again.
const AGAIN: Duration = Duration::from_millis(500);
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

/// A message some of whose recipients may have a connection.
struct Open {
    message: v1::Message,
    sent: Sent,
    /// Those; `None` before the first look.
    undecided: Option<Vec<String>>,
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
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = events.next_batch(BATCH), if waiting.len() < WAITING => {
                    let mut new = batch?.into_iter().map(open).collect();
                    self.look_at(&mut new).await?;
                    waiting.append(&mut new);
                }
                batch = given_up.next_batch(BATCH) => {
                    for word in batch? {
                        park::park(&self.bus, &self.database, &word).await?;
                    }
                }
                _ = again.tick(), if !waiting.is_empty() => self.look_again(&mut waiting).await?,
            }
        }
    }

    /// Looks at new messages for the first time.
    async fn look_at(&self, waiting: &mut Vec<Waiting>) -> Result<(), Interrupted> {
        let all = waiting.iter_mut().flat_map(|one| &mut one.messages).collect();
        self.look(all).await?;
        settle(waiting).await;
        Ok(())
    }

    /// Looks at those who perhaps have no connection: by user, because many messages wait for the same few.
    async fn look_again(&self, waiting: &mut Vec<Waiting>) -> Result<(), Interrupted> {
        let all = || waiting.iter().flat_map(|one| &one.messages);
        let users: BTreeSet<String> = all()
            .flat_map(|open| open.undecided.iter().flatten())
            .cloned()
            .collect();
        let heard = {
            let mut connection = self.database.reads.acquire().await?;
            store::heard(&mut connection, users.into_iter().collect()).await?
        };
        let mut lost = Vec::new();
        for open in waiting.iter_mut().flat_map(|one| &mut one.messages) {
            let at = open.sent.sent_at;
            let connected = |user: &String| heard.get(user).is_some_and(|heard_at| *heard_at >= at);
            let undecided = open.undecided.get_or_insert_default();
            undecided.retain(|user| !connected(user));
            if undecided.iter().any(|user| !heard.contains_key(user)) {
                lost.push(open);
            }
        }
        self.look(lost).await?;
        settle(waiting).await;
        Ok(())
    }

    /// Pushes to whoever has surely no connection.
    async fn look(&self, messages: Vec<&mut Open>) -> Result<(), Interrupted> {
        if messages.is_empty() {
            return Ok(());
        }
        let asked: Vec<Sent> = messages.iter().map(|open| open.sent.clone()).collect();
        let ids: Vec<Uuid> = asked.iter().map(|sent| sent.conversation).collect();
        let (mut recipients, names) = {
            let mut connection = self.database.reads.acquire().await?;
            let recipients = store::recipients(&mut connection, &asked).await?;
            (recipients, store::names(&mut connection, &ids).await?)
        };
        for (place, open) in messages.into_iter().enumerate() {
            let candidates = recipients.remove(&place).unwrap_or_default();
            let (gone, undecided) = sort(candidates, open);
            if let Some((kind, number, title)) = names.get(&open.sent.conversation)
                && !gone.is_empty()
            {
                let conversation = Conversation {
                    id: open.sent.conversation.to_string(),
                    kind: i32::from(*kind),
                    number: *number,
                    title: title.clone(),
                    ..Conversation::default()
                };
                self.push(&open.message, &conversation, &gone).await?;
            }
            open.undecided = Some(undecided);
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

/// Acknowledges and drops what is settled.
async fn settle(waiting: &mut Vec<Waiting>) {
    let mut settled = Vec::new();
    for mut one in std::mem::take(waiting) {
        one.messages
            .retain(|open| !matches!(&open.undecided, Some(undecided) if undecided.is_empty()));
        if one.messages.is_empty() {
            settled.push(one.fed);
        } else {
            waiting.push(one);
        }
    }
    for fed in settled {
        fed.ack().await;
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

/// Who has surely no connection, and who perhaps has none: whose gateway was last heard of before the message.
fn sort(candidates: Vec<Recipient>, open: &Open) -> (Vec<String>, Vec<String>) {
    let at = open.sent.sent_at;
    let (mut gone, mut undecided) = (Vec::new(), Vec::new());
    for Recipient { user_id, heard_at } in candidates {
        let decided = open
            .undecided
            .as_ref()
            .is_some_and(|left| !left.contains(&user_id));
        match heard_at {
            _ if decided => {}
            None => gone.push(user_id),
            Some(heard_at) if heard_at < at => undecided.push(user_id),
            Some(_) => {}
        }
    }
    (gone, undecided)
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
                undecided: None,
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

    const AT: i64 = 1_700_000_000_000;

    fn opened(undecided: Option<&[&str]>) -> Open {
        Open {
            message: v1::Message {
                created_at_ms: AT,
                ..v1::Message::default()
            },
            sent: Sent {
                conversation: Uuid::nil(),
                seq: 1,
                sender: String::new(),
                sent_at: DateTime::from_timestamp_millis(AT).unwrap(),
            },
            undecided: undecided.map(|users| users.iter().map(|user| (*user).to_owned()).collect()),
        }
    }

    fn recipient(user_id: &str, heard_ms: Option<i64>) -> Recipient {
        Recipient {
            user_id: user_id.into(),
            heard_at: heard_ms.and_then(|ms| DateTime::from_timestamp_millis(AT + ms)),
        }
    }

    #[test]
    fn a_connection_counts_only_if_its_gateway_was_heard_of_after_the_message() {
        let all = || {
            vec![
                recipient("none", None),
                recipient("before", Some(-1)),
                recipient("at", Some(0)),
                recipient("after", Some(900)),
            ]
        };
        assert_eq!(
            sort(all(), &opened(None)),
            (vec!["none".into()], vec!["before".into()])
        );
        // Later, only those who were undecided: the others have been pushed to or were told.
        assert_eq!(
            sort(all(), &opened(Some(&["before"]))),
            (vec![], vec!["before".into()])
        );
        let lost = vec![recipient("before", None), recipient("none", None)];
        assert_eq!(
            sort(lost, &opened(Some(&["before"]))),
            (vec!["before".into()], vec![])
        );
    }

    #[test]
    fn only_the_same_recipients_are_a_repeat() {
        let message = opened(None).message;
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
