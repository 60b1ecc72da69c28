//! What must hold of the stored rows: I1, I2, I3, I5 and I7.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::database::{ConversationRows, Database, MessageRow};
use super::grouped;
use super::report::{Flaw, Invariant, Violation};
use crate::history::{Event, History, Outcome, What};

/// Conversation, sender and the sender's own id.
type Key<'a> = (&'a str, &'a str, &'a str);

/// What a history says of one message.
struct Sent<'a> {
    queue: &'a str,
    serial: u64,
    digest: &'a str,
    first: f64,
    last: f64,
    acked: Vec<(&'a str, u64)>,
    rejected: bool,
}

pub(super) fn check(history: &History, database: &Database) -> Vec<Violation> {
    let sent = sent(history);
    let stored = stored(database);
    let mut violations = vec![];
    for (key, message) in &sent {
        answers_hold(
            key,
            message,
            stored.get(key).map_or(&[], Vec::as_slice),
            &mut violations,
        );
    }
    for (key, rows) in &stored {
        rows_were_sent(key, sent.get(key), rows, &mut violations);
    }
    for (id, rows) in &database.conversations {
        sequence_is_whole(id, rows, &mut violations);
    }
    queues_keep_order(&sent, &stored, &mut violations);
    changes_hold(history, database, &mut violations);
    violations
}

fn sent(history: &History) -> BTreeMap<Key<'_>, Sent<'_>> {
    let mut sent = BTreeMap::<Key<'_>, Sent<'_>>::new();
    for record in &history.records {
        match &record.what {
            What::Send {
                user,
                conversation,
                client_msg_id,
                queue,
                serial,
                digest,
            } => {
                let message = sent.entry((conversation, user, client_msg_id)).or_insert(Sent {
                    queue,
                    serial: *serial,
                    digest,
                    first: record.at,
                    last: record.at,
                    acked: vec![],
                    rejected: false,
                });
                message.last = record.at;
            }
            What::Ack {
                user,
                conversation,
                client_msg_id,
                outcome,
                id,
                seq,
            } => {
                let Some(message) =
                    sent.get_mut(&(conversation.as_str(), user.as_str(), client_msg_id.as_str()))
                else {
                    continue;
                };
                match outcome {
                    Outcome::Ok => message
                        .acked
                        .push((id.as_deref().unwrap_or_default(), seq.unwrap_or_default())),
                    Outcome::Rejected => message.rejected = true,
                    Outcome::Unknown => {}
                }
            }
            _ => {}
        }
    }
    sent
}

fn stored(database: &Database) -> BTreeMap<Key<'_>, Vec<&MessageRow>> {
    let rows = database.conversations.iter().flat_map(|(id, rows)| {
        rows.messages.iter().map(move |row| {
            (
                (id.as_str(), row.sender.as_str(), row.client_msg_id.as_str()),
                row,
            )
        })
    });
    grouped(rows)
}

fn answers_hold(key: &Key<'_>, message: &Sent<'_>, rows: &[&MessageRow], violations: &mut Vec<Violation>) {
    for (id, seq) in &message.acked {
        match rows.first() {
            None => violations.push(Violation {
                invariant: Invariant::I1,
                flaw: Flaw::Lost,
                detail: format!("{key:?} was acked as seq {seq} and is not stored"),
            }),
            Some(row) if row.seen.0 != *id || row.seen.1 != *seq => violations.push(Violation {
                invariant: Invariant::I1,
                flaw: Flaw::Contradiction,
                detail: format!(
                    "{key:?} was acked as {id}, seq {seq}; stored as {}, seq {}",
                    row.seen.0, row.seen.1
                ),
            }),
            Some(_) => {}
        }
    }
    if message.rejected && !rows.is_empty() {
        violations.push(Violation {
            invariant: Invariant::I7,
            flaw: Flaw::Contradiction,
            detail: format!("{key:?} was rejected and is stored as seq {}", rows[0].seen.1),
        });
    }
}

fn rows_were_sent(
    key: &Key<'_>,
    message: Option<&Sent<'_>>,
    rows: &[&MessageRow],
    violations: &mut Vec<Violation>,
) {
    if rows.len() > 1 {
        let seqs: Vec<_> = rows.iter().map(|row| row.seen.1).collect();
        violations.push(Violation {
            invariant: Invariant::I2,
            flaw: Flaw::Doubled,
            detail: format!("{key:?} is stored as {seqs:?}"),
        });
    }
    let Some(message) = message else {
        violations.push(Violation {
            invariant: Invariant::I1,
            flaw: Flaw::Invented,
            detail: format!("{key:?} is stored and was never sent"),
        });
        return;
    };
    let unchanged = rows.iter().filter(|row| !row.seen.3 && !row.seen.4);
    for row in unchanged.filter(|row| row.seen.2 != message.digest) {
        violations.push(Violation {
            invariant: Invariant::I1,
            flaw: Flaw::Invented,
            detail: format!("{key:?}, seq {}, has other content than was sent", row.seen.1),
        });
    }
}

fn sequence_is_whole(id: &str, rows: &ConversationRows, violations: &mut Vec<Violation>) {
    let messages = rows.messages.iter().map(|row| row.seen.1);
    let mut seqs: Vec<_> = messages.chain(rows.changes.iter().map(|row| row.seq)).collect();
    seqs.sort_unstable();
    let mut expected = 1;
    for seq in seqs {
        if seq < expected {
            violations.push(Violation {
                invariant: Invariant::I3,
                flaw: Flaw::Doubled,
                detail: format!("{id} has seq {seq} twice"),
            });
            continue;
        }
        if seq > expected {
            violations.push(Violation {
                invariant: Invariant::I3,
                flaw: Flaw::Hole,
                detail: format!("{id} has nothing with the seqs {expected} to {}", seq - 1),
            });
        }
        expected = seq + 1;
    }
    if expected != rows.head + 1 {
        violations.push(Violation {
            invariant: Invariant::I3,
            flaw: Flaw::Hole,
            detail: format!(
                "{id} has {} as its head and {} as its last seq",
                rows.head,
                expected - 1
            ),
        });
    }
}

/// A message whose last attempt was made before the first of another comes before it. One that was tried
/// again after the other was sent may come after it: nothing can keep the order then.
fn queues_keep_order(
    sent: &BTreeMap<Key<'_>, Sent<'_>>,
    stored: &BTreeMap<Key<'_>, Vec<&MessageRow>>,
    violations: &mut Vec<Violation>,
) {
    let placed = sent.iter().filter_map(|(key, message)| {
        let seq = stored.get(key)?.first()?.seen.1;
        Some(((key.0, message.queue), (message, seq)))
    });
    for ((conversation, queue), mut messages) in grouped(placed) {
        messages.sort_by_key(|(message, _)| message.serial);
        let mut by_last = messages.clone();
        by_last.sort_by(|(one, _), (other, _)| one.last.total_cmp(&other.last));
        let mut earlier = by_last.into_iter().peekable();
        let mut highest = 0;
        for (message, seq) in messages {
            while let Some((_, before)) = earlier.next_if(|(before, _)| before.last < message.first) {
                highest = highest.max(before);
            }
            if seq < highest {
                violations.push(Violation {
                    invariant: Invariant::I5,
                    flaw: Flaw::Reordered,
                    detail: format!(
                        "{conversation}, queue {queue}: number {} has seq {seq}, after {highest} of an earlier one",
                        message.serial
                    ),
                });
            }
        }
    }
}

/// Confirmed edits and deletions are in the database as well.
fn changes_hold(history: &History, database: &Database, violations: &mut Vec<Violation>) {
    let rows = database.conversations.iter().flat_map(|(id, rows)| {
        let of = |event| {
            rows.changes
                .iter()
                .filter(move |row| row.event == event)
                .map(|row| row.target)
        };
        let (edited, deleted): (BTreeSet<_>, BTreeSet<_>) =
            (of(Event::Edited).collect(), of(Event::Deleted).collect());
        rows.messages.iter().map(move |row| {
            let has = (
                row.seen.3 && edited.contains(&row.seen.1),
                row.seen.4 && deleted.contains(&row.seen.1),
            );
            ((id.as_str(), row.seen.0.as_str()), has)
        })
    });
    let rows: HashMap<_, _> = rows.collect();
    for record in &history.records {
        let What::Change {
            conversation,
            id,
            event,
            outcome: Outcome::Ok,
            ..
        } = &record.what
        else {
            continue;
        };
        let (edited, deleted) = rows
            .get(&(conversation.as_str(), id.as_str()))
            .copied()
            .unwrap_or_default();
        if !(if event == "message:edit" { edited } else { deleted }) {
            violations.push(Violation {
                invariant: Invariant::I1,
                flaw: Flaw::Lost,
                detail: format!("{event} of {id} in {conversation} was acked and is not stored"),
            });
        }
    }
}
