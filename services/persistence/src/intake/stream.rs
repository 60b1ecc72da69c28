//! One message whose text streams, between its service and the database: takes text by offset, says what is to be published
//! and what is to be written, and what may be acknowledged. Pure: no bus, no database.
//!
//! Text is acknowledged only once it is stored, so that the next owner of the intake has all of it again.

use std::collections::VecDeque;
use std::time::Duration;

use parlance_proto::UserId;
use parlance_proto::v1::{self, Command, ErrorCode};
use tokio::time::Instant;

use crate::ingest::work::refuse;

/// Shortest time between two writes of one message.
const WRITE: Duration = Duration::from_secs(1);
/// Shortest time between two chunks of one message.
const PUBLISH: Duration = Duration::from_millis(100);
/// Shortest time between two chunks that go back to what is stored.
const WHOLE: Duration = Duration::from_millis(500);
/// A write, or another command, that the database does not show after this is handed in once more.
const AGAIN: Duration = Duration::from_secs(10);

/// Bounds of streams.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open at a time, of one service.
    pub per_service: usize,
    /// Open at a time, in one conversation.
    pub per_conversation: usize,
    /// Bytes of text in a second, of one message.
    pub bytes_per_second: usize,
    /// How long a service may be silent.
    pub silence: Duration,
}

#[cfg(test)]
impl Limits {
    pub(super) const DEFAULT: Self = Self {
        per_service: 10,
        per_conversation: 2,
        bytes_per_second: 100,
        silence: Duration::from_secs(10),
    };
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The message is not known to be stored yet.
    Starting,
    /// Takes text.
    Open,
    /// Its end is not known to be stored yet.
    Ending,
}

/// Text for the readers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) text: String,
}

/// Text for the database.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) offset: u64,
    pub(super) text: String,
    /// Of the same text, how often before.
    pub(super) attempt: u32,
}

/// A stream. `D` is what its service published, `W` what of that waits.
pub(super) struct Stream<D, W> {
    pub(super) sender: UserId,
    pub(super) phase: Phase,
    /// Of the message; 0 until it is stored.
    pub(super) seq: u64,
    /// When the service was last heard of.
    pub(super) alive: Instant,
    /// What the phase waits for, and when it was handed in.
    pub(super) pending: Option<(Command, Instant, u32)>,
    /// What may be acknowledged once so many bytes are stored.
    held: VecDeque<(u64, D)>,
    /// What began or ends it, to be acknowledged when that is stored.
    pub(super) step: Option<D>,
    /// What came while the phase waits.
    pub(super) waiting: VecDeque<W>,
    /// The text from `tail_from` on.
    tail: String,
    tail_from: u64,
    written: u64,
    /// What was written before the last write.
    written_before: u64,
    writing: Option<(u64, Instant)>,
    attempt: u32,
    written_at: Option<Instant>,
    published: u64,
    published_at: Option<Instant>,
    /// There is something that a chunk that goes back to what was stored two writes before would show.
    owes_whole: bool,
    whole_at: Option<Instant>,
    allowance: f64,
    allowed_at: Instant,
}

impl<D, W> Stream<D, W> {
    /// A stream that begins with so many bytes.
    pub(super) fn new(sender: UserId, phase: Phase, bytes: u64, limits: &Limits, now: Instant) -> Self {
        Self {
            sender,
            phase,
            seq: 0,
            alive: now,
            pending: None,
            held: VecDeque::new(),
            step: None,
            waiting: VecDeque::new(),
            tail: String::new(),
            tail_from: bytes,
            written: bytes,
            written_before: bytes,
            writing: None,
            attempt: 0,
            written_at: None,
            published: bytes,
            published_at: None,
            owes_whole: false,
            whole_at: None,
            allowance: burst(limits),
            allowed_at: now,
        }
    }

    /// Lets it take so much at once: after a takeover comes again what was taken before, and must not be refused now.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.allowance = self.allowance.max(as_f64(bytes));
    }

    /// Bytes of its text.
    pub(super) fn accepted(&self) -> u64 {
        self.tail_from + self.tail.len() as u64
    }

    /// Takes text that begins at this offset. Whether all of it was known.
    ///
    /// # Errors
    /// A gap, an offset inside a character, too fast, or too long.
    pub(super) fn take(
        &mut self,
        offset: u64,
        text: &str,
        most: usize,
        limits: &Limits,
        now: Instant,
    ) -> Result<bool, v1::Error> {
        let accepted = self.accepted();
        let Some(known) = accepted.checked_sub(offset) else {
            let message = format!("text is missing: the next begins at byte {accepted}");
            return Err(v1::Error::with(ErrorCode::Conflict, message));
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        if known >= text.len() {
            return Ok(true);
        }
        let Some(rest) = text.get(known..) else {
            return Err(refuse(format!(
                "byte {accepted}, where the next text begins, is inside a character of it"
            )));
        };
        let whole = accepted.saturating_add(rest.len() as u64);
        if whole > most as u64 {
            let message = format!("the message would have {whole} bytes; {most} are allowed");
            return Err(v1::Error::with(ErrorCode::TooLarge, message));
        }
        self.refill(limits, now);
        if as_f64(rest.len()) > self.allowance {
            let message = format!(
                "more than {} bytes in a second; try again with the same offset",
                limits.bytes_per_second
            );
            return Err(v1::Error::with(ErrorCode::RateLimited, message));
        }
        self.allowance -= as_f64(rest.len());
        self.tail.push_str(rest);
        Ok(false)
    }

    fn refill(&mut self, limits: &Limits, now: Instant) {
        let full = burst(limits).max(self.allowance);
        let elapsed = now.saturating_duration_since(self.allowed_at).as_secs_f64();
        self.allowance = (self.allowance + elapsed * as_f64(limits.bytes_per_second)).min(full);
        self.allowed_at = now;
    }

    /// Keeps what holds the text up to `end` until that is stored. Returns it where it is.
    pub(super) fn keep(&mut self, end: u64, published: D) -> Option<D> {
        if end <= self.written {
            return Some(published);
        }
        self.held.push_back((end, published));
        None
    }

    /// The text from this offset on, which must not be before `tail_from`.
    fn text_from(&self, offset: u64) -> &str {
        let at = usize::try_from(offset.saturating_sub(self.tail_from)).unwrap_or(usize::MAX);
        self.tail.get(at..).unwrap_or_default()
    }

    /// What is to be written at the end.
    pub(super) fn rest(&self) -> Write {
        Write {
            offset: self.written,
            text: self.text_from(self.written).to_owned(),
            attempt: 0,
        }
    }

    /// The next chunk, if it is time.
    pub(super) fn chunk(&mut self, now: Instant) -> Option<Chunk> {
        let is_new = self.accepted() > self.published;
        let is_time = self.published_at.is_none_or(|at| now >= at + PUBLISH);
        let is_whole = self.whole_at.is_none_or(|at| now >= at + WHOLE) && (is_new || self.owes_whole);
        if self.phase == Phase::Starting || !(is_new || is_whole) || !is_time {
            return None;
        }
        let offset = if is_whole {
            self.whole_at = Some(now);
            self.tail_from
        } else {
            self.published
        };
        self.owes_whole = !is_whole;
        self.published = self.accepted();
        self.published_at = Some(now);
        let text = self.text_from(offset).to_owned();
        (!text.is_empty()).then_some(Chunk { offset, text })
    }

    /// The next write, if it is time: never more than one at a time.
    pub(super) fn write(&mut self, now: Instant) -> Option<Write> {
        if self.phase != Phase::Open {
            return None;
        }
        let is_lost = self.writing.is_some_and(|(_, at)| now >= at + AGAIN);
        let is_time = self.written_at.is_none_or(|at| now >= at + WRITE);
        if self.accepted() == self.written || !is_time || (self.writing.is_some() && !is_lost) {
            return None;
        }
        self.attempt = if is_lost { self.attempt + 1 } else { 0 };
        self.writing = Some((self.accepted(), now));
        self.written_at = Some(now);
        Some(Write {
            attempt: self.attempt,
            ..self.rest()
        })
    }

    /// Whether the database may know more of it than we know that it does.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase != Phase::Open || self.writing.is_some()
    }

    /// So many bytes are stored. Returns what is to be acknowledged.
    pub(super) fn stored(&mut self, bytes: u64) -> Vec<D> {
        if bytes > self.written {
            // What an owner before us wrote may be ahead of what comes again here.
            let ahead = bytes.saturating_sub(self.accepted());
            if ahead > 0 {
                self.tail.clear();
                self.tail_from = bytes;
                self.written_before = bytes;
                self.published = bytes;
            } else {
                let keep_from = self.written_before.max(self.tail_from);
                let gone = usize::try_from(keep_from - self.tail_from).unwrap_or(usize::MAX);
                self.tail.drain(..gone.min(self.tail.len()));
                self.tail_from = keep_from;
                self.written_before = self.written;
                self.owes_whole = true;
            }
            self.written = bytes;
            if self.writing.is_some_and(|(end, _)| end <= bytes) {
                self.writing = None;
            }
        }
        let mut done = Vec::new();
        while self.held.front().is_some_and(|(end, _)| *end <= self.written) {
            done.extend(self.held.pop_front().map(|(_, published)| published));
        }
        done
    }

    /// What is to be handed in once more for the phase to end.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<(Command, u32)> {
        let (command, at, attempt) = self.pending.as_mut().filter(|(_, at, _)| now >= *at + AGAIN)?;
        *at = now;
        *attempt += 1;
        Some((command.clone(), *attempt))
    }

    /// Everything it holds, to be acknowledged.
    pub(super) fn end(self) -> (Vec<D>, VecDeque<W>) {
        let held = self.held.into_iter().map(|(_, published)| published);
        (held.chain(self.step).collect(), self.waiting)
    }
}

/// What may come at once.
fn burst(limits: &Limits) -> f64 {
    as_f64(limits.bytes_per_second) * 2.0
}

fn as_f64(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = Stream<u32, ()>;
    const MOST: usize = 1_000;

    fn stream() -> (Test, Instant) {
        let now = Instant::now();
        let sender = UserId::of_service("bot").unwrap();
        let mut stream = Test::new(sender, Phase::Open, 0, &Limits::DEFAULT, now);
        stream.allow(MOST);
        (stream, now)
    }

    fn take(stream: &mut Test, offset: u64, text: &str, now: Instant) -> Result<bool, ErrorCode> {
        stream
            .take(offset, text, MOST, &Limits::DEFAULT, now)
            .map_err(|error| error.code())
    }

    #[test]
    fn a_repeat_and_an_overlap_change_nothing_and_a_gap_is_refused() {
        let (mut stream, now) = stream();
        assert_eq!(take(&mut stream, 0, "hel", now), Ok(false));
        assert_eq!(take(&mut stream, 0, "hel", now), Ok(true));
        assert_eq!(take(&mut stream, 1, "ello", now), Ok(false));
        assert_eq!(take(&mut stream, 7, "x", now), Err(ErrorCode::Conflict));
        assert_eq!(stream.rest().text, "hello");
        // An é has two bytes.
        assert_eq!(take(&mut stream, 5, "é", now), Ok(false));
        assert_eq!(take(&mut stream, 6, "é", now), Err(ErrorCode::Invalid));
        assert_eq!(
            take(&mut stream, 7, &"x".repeat(MOST), now),
            Err(ErrorCode::TooLarge)
        );
    }

    #[test]
    fn text_is_acknowledged_once_it_is_stored_and_written_once_a_second() {
        let (mut stream, mut now) = stream();
        take(&mut stream, 0, "one", now).unwrap();
        assert_eq!(stream.keep(3, 1), None);
        let first = stream.write(now).unwrap();
        assert_eq!((first.offset, first.text.as_str()), (0, "one"));
        take(&mut stream, 3, "two", now).unwrap();
        assert_eq!(stream.keep(6, 2), None);
        now += WRITE;
        assert_eq!(stream.write(now), None, "one write at a time");
        assert_eq!(stream.stored(3), [1]);
        let second = stream.write(now).unwrap();
        assert_eq!((second.offset, second.text.as_str()), (3, "two"));
        assert!(stream.stored(3).is_empty());
        assert_eq!(stream.stored(6), [2]);
        assert_eq!(stream.keep(6, 3), Some(3), "what is stored need not be kept");
        take(&mut stream, 6, "x", now).unwrap();
        assert_eq!(
            stream.write(now),
            None,
            "less than a second after the write before"
        );
    }

    #[test]
    fn chunks_follow_each_other_and_twice_a_second_go_back_two_writes() {
        let (mut stream, mut now) = stream();
        let mut at = 0;
        let mut next = |stream: &mut Test, text: &str, pause: Duration| {
            take(stream, at, text, now).unwrap();
            at += text.len() as u64;
            now += pause;
            let _ = stream.write(now);
            stream.chunk(now).map(|chunk| (chunk.offset, chunk.text))
        };
        let chunk = |offset, text: &str| Some((offset, text.to_owned()));
        assert_eq!(next(&mut stream, "a", WRITE), chunk(0, "a"));
        assert_eq!(next(&mut stream, "b", PUBLISH), chunk(1, "b"));
        assert_eq!(next(&mut stream, "", PUBLISH), None);
        stream.stored(1);
        assert_eq!(next(&mut stream, "c", WHOLE), chunk(0, "abc"));
        assert_eq!(next(&mut stream, "", WHOLE), None, "nothing that it did not show");
        assert_eq!(next(&mut stream, "d", PUBLISH), chunk(0, "abcd"));
        stream.stored(3);
        assert_eq!(next(&mut stream, "", WHOLE), chunk(0, "abcd"));
        stream.stored(4);
        assert_eq!(next(&mut stream, "e", WHOLE), chunk(1, "bcde"));
        assert_eq!(next(&mut stream, "f", PUBLISH), chunk(5, "f"));
        assert_eq!(next(&mut stream, "", WHOLE), chunk(1, "bcdef"));
    }

    #[test]
    fn what_comes_too_fast_is_refused_and_taken_later() {
        let (mut stream, now) = stream();
        stream.allowance = 10.0;
        assert_eq!(
            take(&mut stream, 0, &"x".repeat(11), now),
            Err(ErrorCode::RateLimited)
        );
        assert_eq!(take(&mut stream, 0, &"x".repeat(11), now + WRITE), Ok(false));
    }

    #[test]
    fn what_an_owner_before_wrote_may_be_ahead_of_what_comes_again() {
        let (mut stream, now) = stream();
        take(&mut stream, 0, "one", now).unwrap();
        stream.keep(3, 1);
        assert_eq!(stream.stored(9), [1]);
        assert_eq!(stream.accepted(), 9);
        assert_eq!(take(&mut stream, 3, "twothr", now), Ok(true));
    }
}
