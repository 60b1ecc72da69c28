//! Checks of every run: each message reaches each member of its room once, in the order it was sent, and no non-member.
//!
//! One sender per room numbers its messages 1, 2, 3…; the number, the room and the time it was due travel in the
//! content. Must not know who sends or how.

use std::collections::{BTreeSet, HashSet};
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Length of a message's content, as short chat messages have it.
const CONTENT: usize = 100;
const MARK: &str = "\"content\":\"~";

/// What the content of a message says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of the room.
    pub room: u32,
    /// 1 for the first message of the room.
    pub number: u64,
    /// Microseconds from the start of the run to when the message was due.
    pub due: u64,
}

impl Stamp {
    /// The content that carries it.
    #[must_use]
    pub fn content(self) -> String {
        let Self { room, number, due } = self;
        format!("{:x<CONTENT$}", format!("~{room}.{number}.{due}~"))
    }

    /// Reads it from the JSON of an event; none if this is not a message of the generator.
    #[must_use]
    pub fn find(json: &str) -> Option<Self> {
        let (_, rest) = json.split_once(MARK)?;
        let (inside, _) = rest.split_once('~')?;
        let mut parts = inside.splitn(3, '.');
        Some(Self {
            room: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            due: parts.next()?.parse().ok()?,
        })
    }
}

/// Length of a part of a text that streams, about that of a word.
const PART: usize = 16;

/// A part of a text that streams, which says when it was due, in microseconds from the start of the run.
#[must_use]
pub fn part(due: u64) -> String {
    format!("{due:0>width$} ", width = PART - 1)
}

/// The text of a message that streams, as one reader has it.
#[derive(Clone, Debug, Default)]
pub struct GrowingText(String);

impl GrowingText {
    /// Takes what begins at that offset. Yields when what is new of it was due; nothing after a gap, which a later chunk fills.
    pub fn take(&mut self, offset: u64, text: &str) -> Vec<u64> {
        let has = self.0.len();
        let new = usize::try_from(offset)
            .ok()
            .and_then(|offset| text.get(has.checked_sub(offset)?..));
        self.0.push_str(new.unwrap_or_default());
        let new = self.0.as_bytes()[has..].chunks_exact(PART);
        new.filter_map(|part| std::str::from_utf8(part).ok()?.trim_end().parse().ok())
            .collect()
    }

    /// All of it so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What must not happen, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// Acknowledged messages that a member did not receive.
    pub lost: u64,
    /// Messages that a member received again.
    pub duplicated: u64,
    /// Messages that a member received after a later one.
    pub reordered: u64,
    /// Messages of rooms that the receiver is no member of, or that name another room than they were sent to.
    pub wrong_room: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// Requests that were refused or not answered.
    pub failed: u64,
}

impl Violations {
    /// Whether every message was delivered as it must be.
    #[must_use]
    pub fn delivered(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.wrong_room == 0
    }
}

impl AddAssign for Violations {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.wrong_room += other.wrong_room;
        self.closed += other.closed;
        self.failed += other.failed;
    }
}

/// What one member has received of one room.
#[derive(Clone, Debug, Default)]
pub struct RoomStream {
    highest: u64,
    missing: BTreeSet<u64>,
}

impl RoomStream {
    /// Takes note of a message.
    pub fn receive(&mut self, number: u64, violations: &mut Violations) {
        if number > self.highest {
            self.missing.extend(self.highest + 1..number);
            self.highest = number;
        } else if self.missing.remove(&number) {
            violations.reordered += 1;
        } else {
            violations.duplicated += 1;
        }
    }

    /// Takes note of a message from a history, which a client merges with what was emitted.
    pub fn fill(&mut self, number: u64) {
        if number > self.highest {
            self.missing.extend(self.highest + 1..number);
            self.highest = number;
        } else {
            self.missing.remove(&number);
        }
    }

    /// How many of the first `sent` messages are missing, those left out that were not acknowledged.
    #[must_use]
    pub fn lost(&self, sent: u64, unacknowledged: &HashSet<u64>) -> u64 {
        let never = self.highest + 1..=sent;
        let missing = self.missing.iter().copied().chain(never);
        missing.filter(|number| !unacknowledged.contains(number)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(numbers: &[u64]) -> (RoomStream, Violations) {
        let (mut stream, mut violations) = (RoomStream::default(), Violations::default());
        for number in numbers {
            stream.receive(*number, &mut violations);
        }
        violations.lost = stream.lost(4, &HashSet::new());
        (stream, violations)
    }

    #[test]
    fn a_text_grows_by_what_is_new_and_not_after_a_gap() {
        let mut text = GrowingText::default();
        let all: String = [7, 8, 9].map(part).concat();
        assert_eq!(text.take(0, &all[..16]), [7]);
        assert_eq!(text.take(32, &all[32..]), [0; 0]);
        assert_eq!(text.take(0, &all), [8, 9]);
        assert_eq!(text.take(16, &all[16..32]), [0; 0]);
        assert_eq!(text.as_str(), all);
    }

    #[test]
    fn a_whole_stream_in_order_violates_nothing() {
        assert_eq!(received(&[1, 2, 3, 4]).1, Violations::default());
        assert!(Violations::default().delivered());
    }

    #[test]
    fn a_lost_message_is_counted_in_the_middle_at_the_end_and_where_nothing_came() {
        for (numbers, lost) in [(&[1, 2, 4][..], 1), (&[1, 2, 3], 1), (&[], 4), (&[4], 3)] {
            let expected = Violations {
                lost,
                ..Violations::default()
            };
            assert_eq!(received(numbers).1, expected, "{numbers:?}");
        }
    }

    #[test]
    fn a_duplicate_is_no_reordered_message_and_a_reordered_one_is_not_lost() {
        let duplicated = received(&[1, 2, 2, 1, 3, 4]).1;
        assert_eq!(
            (duplicated.duplicated, duplicated.reordered, duplicated.lost),
            (2, 0, 0)
        );
        let reordered = received(&[1, 3, 2, 4]).1;
        assert_eq!(
            (reordered.duplicated, reordered.reordered, reordered.lost),
            (0, 1, 0)
        );
        let both = received(&[1, 3, 2, 2, 4]).1;
        assert_eq!((both.duplicated, both.reordered, both.lost), (1, 1, 0));
    }

    #[test]
    fn a_history_fills_gaps_without_reordering_or_duplicates() {
        let (mut stream, mut violations) = (RoomStream::default(), Violations::default());
        stream.receive(3, &mut violations);
        for number in [1, 2, 3, 4] {
            stream.fill(number);
        }
        assert_eq!(stream.lost(4, &HashSet::new()), 0);
        assert!(violations.delivered());
    }

    #[test]
    fn a_message_that_was_never_acknowledged_is_not_lost() {
        let stream = received(&[1, 4]).0;
        assert_eq!(stream.lost(4, &HashSet::from([2])), 1);
    }

    #[test]
    fn a_stamp_survives_the_way_through_an_event() {
        let stamp = Stamp {
            room: 12,
            number: 345,
            due: 6_789,
        };
        assert_eq!(stamp.content().len(), CONTENT);
        let event = format!(r#"{{"id":"~","content":"{}","sender":{{}}}}"#, stamp.content());
        assert_eq!(Stamp::find(&event), Some(stamp));
        assert_eq!(Stamp::find(r#"{"content":"hello"}"#), None);
        assert_eq!(Stamp::find(r#"{"content":"~1.2~"}"#), None);
    }
}
