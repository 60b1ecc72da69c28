//! What must hold of what clients were shown and ended with: I4, I6 and I9.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::database::{ConversationRows, Database};
use super::report::{Flaw, Invariant, Violation};
use crate::history::{Event, History, Seen, Source, What};

/// What a connected client was shown of a conversation so far.
#[derive(Default)]
struct Cursor {
    /// Place in the sequence of the last live event on this connection; empty before the first. Several
    /// where it was one of several like changes of one message, until the next event decides.
    at: Vec<u64>,
    /// The earliest place the first live event on this connection can have.
    first: Option<u64>,
    /// The head that the client received when it joined.
    joined: Option<u64>,
}

/// A conversation's sequence, to find the place of an event that a client only knows by its message.
struct Sequence<'a> {
    messages: HashMap<u64, &'a str>,
    places: HashMap<(Event, u64), Vec<u64>>,
}

pub(super) fn check(history: &History, database: &Database) -> Vec<Violation> {
    let sequences: HashMap<_, _> = database
        .conversations
        .iter()
        .map(|(id, rows)| (id.as_str(), Sequence::of(rows)))
        .collect();
    let mut cursors = BTreeMap::<(&str, &str), Cursor>::new();
    let mut violations = vec![];
    for record in &history.records {
        match &record.what {
            What::Disconnect { user, .. } => {
                let own = cursors.iter_mut().filter(|((owner, _), _)| owner == user);
                own.for_each(|(_, cursor)| *cursor = Cursor::default());
            }
            What::Resync { user, conversation } => {
                *cursors.entry((user, conversation)).or_default() = Cursor::default()
            }
            What::Join {
                user,
                conversation,
                head,
            } => {
                let cursor = cursors.entry((user, conversation)).or_default();
                cursor.joined = Some(*head);
                cursor.begins(user, conversation, &mut violations);
            }
            What::Recv {
                user,
                conversation,
                event,
                id,
                seq,
                source,
            } => {
                let Some(sequence) = sequences.get(conversation.as_str()) else {
                    violations.push(lost(user, conversation, *event, *seq));
                    continue;
                };
                if !database.conversations[conversation].members.contains(user) {
                    violations.push(Violation {
                        invariant: Invariant::I9,
                        flaw: Flaw::Leaked,
                        detail: format!("{user}, no member of {conversation}, was shown {event:?} {seq}"),
                    });
                }
                if *event == Event::New && sequence.messages.get(seq) != Some(&id.as_str()) {
                    violations.push(lost(user, conversation, *event, *seq));
                } else if *source == Source::Live {
                    let cursor = cursors.entry((user, conversation)).or_default();
                    cursor.shown(sequence, (user, conversation), (*event, *seq), &mut violations);
                }
            }
            _ => {}
        }
    }
    final_states(history, database, &mut violations);
    violations
}

fn lost(user: &str, conversation: &str, event: Event, seq: u64) -> Violation {
    Violation {
        invariant: Invariant::I1,
        flaw: Flaw::Lost,
        detail: format!("{user} was shown {event:?} {seq} in {conversation}, which is not stored as such"),
    }
}

impl<'a> Sequence<'a> {
    fn of(rows: &'a ConversationRows) -> Self {
        let mut places = HashMap::<_, Vec<_>>::new();
        for change in &rows.changes {
            places
                .entry((change.event, change.target))
                .or_default()
                .push(change.seq);
        }
        let messages = rows
            .messages
            .iter()
            .map(|row| (row.seen.1, row.seen.0.as_str()))
            .collect();
        Self { messages, places }
    }

    /// The places that fit an event, ascending.
    fn places(&self, (event, seq): (Event, u64)) -> Vec<u64> {
        match event {
            Event::New => vec![seq],
            Event::Edited | Event::Deleted => self.places.get(&(event, seq)).cloned().unwrap_or_default(),
        }
    }
}

impl Cursor {
    fn shown(
        &mut self,
        sequence: &Sequence<'_>,
        (user, conversation): (&str, &str),
        event: (Event, u64),
        violations: &mut Vec<Violation>,
    ) {
        let places = sequence.places(event);
        let Some(latest) = places.last().copied() else {
            violations.push(lost(user, conversation, event.0, event.1));
            return;
        };
        let Some(before) = self.at.last().copied() else {
            self.first = places.first().copied();
            self.at = places;
            self.begins(user, conversation, violations);
            return;
        };
        let next = places
            .iter()
            .filter(|place| self.at.iter().any(|at| at + 1 == **place));
        let next: Vec<_> = next.copied().collect();
        if !next.is_empty() {
            self.at = next;
            return;
        }
        let place = places.into_iter().find(|place| *place > before).unwrap_or(latest);
        violations.push(Violation {
            invariant: Invariant::I4,
            flaw: match place.cmp(&before) {
                Ordering::Equal => Flaw::Doubled,
                Ordering::Less => Flaw::Reordered,
                Ordering::Greater => Flaw::Hole,
            },
            detail: format!("{user} was shown {place} of {conversation} after {before} without a break"),
        });
        self.at = vec![place.max(before)];
    }

    /// The first live event is at most the one after the head that the client received.
    fn begins(&self, user: &str, conversation: &str, violations: &mut Vec<Violation>) {
        if let (Some(first), Some(head)) = (self.first, self.joined)
            && first > head + 1
        {
            violations.push(Violation {
                invariant: Invariant::I4,
                flaw: Flaw::Hole,
                detail: format!("{user} joined {conversation} at {head} and was shown {first} first"),
            });
        }
    }
}

fn final_states(history: &History, database: &Database, violations: &mut Vec<Violation>) {
    let mut seen = HashSet::new();
    for state in &history.finals {
        for (conversation, messages) in &state.conversations {
            seen.insert((state.user.as_str(), conversation.as_str()));
            let stored = database.conversations.get(conversation);
            let stored: Vec<_> = stored
                .iter()
                .flat_map(|rows| &rows.messages)
                .map(|row| &row.seen)
                .collect();
            if let Some(flaw) = difference(messages, &stored) {
                violations.push(Violation {
                    invariant: Invariant::I6,
                    flaw,
                    detail: format!(
                        "{} ends with another {conversation} than is stored: {}",
                        state.user,
                        first(messages, &stored)
                    ),
                });
            }
        }
    }
    for (conversation, rows) in &database.conversations {
        for member in rows
            .members
            .iter()
            .filter(|member| !seen.contains(&(member.as_str(), conversation.as_str())))
        {
            violations.push(Violation {
                invariant: Invariant::I6,
                flaw: Flaw::Hole,
                detail: format!("{member}, a member of {conversation}, has no final state of it"),
            });
        }
    }
}

fn difference(messages: &[Seen], stored: &[&Seen]) -> Option<Flaw> {
    if messages.iter().eq(stored.iter().copied()) {
        None
    } else if messages.len() < stored.len() {
        Some(Flaw::Hole)
    } else if messages.len() > stored.len() {
        Some(Flaw::Lost)
    } else {
        Some(Flaw::Contradiction)
    }
}

fn first(messages: &[Seen], stored: &[&Seen]) -> String {
    let place = messages
        .iter()
        .zip(stored)
        .take_while(|(one, other)| one == *other)
        .count();
    format!("{:?} instead of {:?}", messages.get(place), stored.get(place))
}
