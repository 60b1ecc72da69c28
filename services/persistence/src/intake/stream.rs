//! One message whose text streams, between its service and the database: takes text by offset, says what is to be published
//! and what is to be written, and what may be acknowledged. Pure: no bus, no database.
//!
//! Text is acknowledged only once it is stored, so that the next owner of the intake has all of it again.

use std::collections::VecDeque;
use std::time::Duration;

use parlance_proto::UserId;
use parlance_proto::v1::{self, Command, ErrorCode};
use tokio::time::Instant;

use super::hearing::Heard;
use crate::model::refusals::refuse;

/// Shortest time between two writes of one message.
const WRITE: Duration = Duration::from_secs(1);
/// Shortest time between two chunks of one message.
const PUBLISH: Duration = Duration::from_millis(100);
/// Shortest time between two chunks that go back to what is stored.
const WHOLE: Duration = Duration::from_millis(500);
/// A write, or another command, that the database does not show after this is handed in once more.
const AGAIN: Duration = Duration::from_secs(10);
/// A stream that neither begins nor ends is given up after its command was handed in again so often.
const ATTEMPTS: u32 = 5;
/// Steps of one stream in hand: all streams share what the bus hands out unacknowledged.
pub(super) const MOST_STEPS: usize = 128;
/// Bytes of one chunk.
const CHUNK: usize = 16 << 10;

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

/// What a service published.
pub(super) trait Placed {
    /// Its place in the stream of the bus: the same each time it comes.
    fn place(&self) -> u64;
}

/// A stream. `D` is what its service published, `S` the step that it stands for.
pub(super) struct Stream<D, S> {
    pub(super) sender: UserId,
    pub(super) phase: Phase,
    /// Of the message; 0 until it is stored.
    pub(super) seq: u64,
    /// When the service was last heard of.
    pub(super) alive: Heard,
    /// What the phase waits for, and when it was handed in.
    pub(super) pending: Option<(Command, Instant, u32)>,
    /// What may be acknowledged once so many bytes are stored.
    held: VecDeque<(u64, D)>,
    /// What began or ends it, to be acknowledged when that is stored.
    pub(super) step: Option<D>,
    /// What came while the phase waits.
    pub(super) waiting: VecDeque<(S, D)>,
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
    /// The last chunk had no room for all.
    is_paging: bool,
    whole_at: Option<Instant>,
    allowance: f64,
    allowed_at: Instant,
}

impl<D: Placed, S> Stream<D, S> {
    /// A stream that begins with so many bytes.
    pub(super) fn new(
        sender: UserId,
        phase: Phase,
        bytes: u64,
        limits: &Limits,
        alive: Heard,
        now: Instant,
    ) -> Self {
        Self {
            sender,
            phase,
            seq: 0,
            alive,
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
            is_paging: false,
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
        // What is more than may come at once takes all of that, and the time for the rest is owed.
        if as_f64(rest.len()).min(burst(limits)) > self.allowance {
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

    /// Steps in hand, none of them acknowledged.
    pub(super) fn in_hand(&self) -> usize {
        self.held.len() + self.waiting.len() + usize::from(self.step.is_some())
    }

    /// Whether what was published at this place is in hand, and comes again.
    pub(super) fn has(&self, place: u64) -> bool {
        let kept = self.held.iter().map(|(_, published)| published);
        let waiting = self.waiting.iter().map(|(_, published)| published);
        kept.chain(waiting)
            .chain(&self.step)
            .any(|published| published.place() == place)
    }

    /// Keeps what holds the text up to `end` until that is stored, instead of an older copy of it. Returns it where it is.
    pub(super) fn keep(&mut self, end: u64, published: D) -> Option<D> {
        if end <= self.written {
            return Some(published);
        }
        let place = published.place();
        match self.held.iter_mut().find(|(_, older)| older.place() == place) {
            Some((_, older)) => *older = published,
            None => self.held.push_back((end, published)),
        }
        None
    }

    /// Keeps a step until the phase has ended, instead of an older copy of it.
    pub(super) fn wait(&mut self, step: S, published: D) {
        let place = published.place();
        if let Some(older) = self.step.as_mut().filter(|older| older.place() == place) {
            *older = published;
            return;
        }
        match self.waiting.iter_mut().find(|(_, older)| older.place() == place) {
            Some((_, older)) => *older = published,
            None => self.waiting.push_back((step, published)),
        }
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
        let is_whole = !self.is_paging
            && self.whole_at.is_none_or(|at| now >= at + WHOLE)
            && (is_new || self.owes_whole);
        if self.phase != Phase::Open || !(is_new || is_whole) || !is_time {
            return None;
        }
        let offset = if is_whole {
            self.whole_at = Some(now);
            self.tail_from
        } else {
            self.published.max(self.tail_from)
        };
        if !self.is_paging {
            self.owes_whole = !is_whole;
        }
        let text = self.text_from(offset);
        let text = text[..text.floor_char_boundary(CHUNK)].to_owned();
        self.published = offset + text.len() as u64;
        self.is_paging = self.published < self.accepted();
        self.published_at = Some(now);
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
                self.is_paging = false;
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

    /// Whether the phase did not end although its command was handed in often enough.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|(_, at, attempt)| *attempt >= ATTEMPTS && now >= *at + AGAIN)
    }

    /// Gives it up. Returns what began or ends it, and what waited for that. Text that is not stored is not acknowledged, and
    /// comes again.
    pub(super) fn give_up(self) -> (Option<D>, VecDeque<(S, D)>) {
        (self.step, self.waiting)
    }

    /// Everything it holds, to be acknowledged.
    pub(super) fn end(self) -> (Vec<D>, VecDeque<(S, D)>) {
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
    use crate::intake::hearing::Hearing;

    impl Placed for u64 {
        fn place(&self) -> u64 {
            *self / 10
        }
    }

    /// What was published at a place, the nth time that it comes.
    type Test = Stream<u64, ()>;
    const MOST: usize = 1_000;

    fn stream() -> (Test, Instant) {
        let now = Instant::now();
        let sender = UserId::of_service("bot").unwrap();
        let alive = Hearing::new(now).heard(now);
        let mut stream = Test::new(sender, Phase::Open, 0, &Limits::DEFAULT, alive, now);
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
        assert_eq!(stream.keep(3, 10), None);
        let first = stream.write(now).unwrap();
        assert_eq!((first.offset, first.text.as_str()), (0, "one"));
        take(&mut stream, 3, "two", now).unwrap();
        assert_eq!(stream.keep(6, 20), None);
        now += WRITE;
        assert_eq!(stream.write(now), None, "one write at a time");
        assert_eq!(stream.stored(3), [10]);
        let second = stream.write(now).unwrap();
        assert_eq!((second.offset, second.text.as_str()), (3, "two"));
        assert!(stream.stored(3).is_empty());
        assert_eq!(stream.stored(6), [20]);
        assert_eq!(stream.keep(6, 30), Some(30), "what is stored need not be kept");
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
    fn more_at_once_than_the_burst_is_taken_and_the_time_for_it_is_owed() {
        let (mut stream, now) = stream();
        stream.allowance = 200.0;
        assert_eq!(take(&mut stream, 0, &"x".repeat(500), now), Ok(false));
        let late = now + WRITE * 3;
        assert_eq!(take(&mut stream, 500, "y", late), Err(ErrorCode::RateLimited));
        assert_eq!(take(&mut stream, 500, "y", late + WRITE), Ok(false));
    }

    #[test]
    fn what_comes_again_takes_the_place_of_its_older_copy() {
        let (mut stream, now) = stream();
        take(&mut stream, 0, "one", now).unwrap();
        assert_eq!(stream.keep(3, 10), None);
        take(&mut stream, 3, "two", now).unwrap();
        assert_eq!(stream.keep(6, 20), None);
        assert_eq!(stream.keep(6, 11), None);
        assert!(stream.has(1) && stream.has(2) && !stream.has(3));
        assert_eq!(stream.in_hand(), 2);
        assert_eq!(stream.stored(3), [11], "once its own text is stored");
        stream.phase = Phase::Ending;
        stream.step = Some(30);
        for published in [40, 50, 41, 31] {
            stream.wait((), published);
        }
        assert!([2, 3, 4, 5].into_iter().all(|place| stream.has(place)));
        assert_eq!(stream.in_hand(), 4);
        let (done, waiting) = stream.end();
        assert_eq!(done, [20, 31]);
        assert_eq!(waiting, [((), 41), ((), 50)]);
    }

    #[test]
    fn a_stream_that_never_begins_is_given_up_after_some_attempts_and_its_text_comes_again() {
        let (mut stream, mut now) = stream();
        take(&mut stream, 0, "one", now).unwrap();
        stream.keep(3, 10);
        stream.phase = Phase::Ending;
        stream.pending = Some((Command::default(), now, 0));
        stream.step = Some(20);
        stream.wait((), 30);
        for attempt in 1..=ATTEMPTS {
            assert!(!stream.is_stuck(now + AGAIN));
            now += AGAIN;
            assert_eq!(stream.overdue(now).map(|(_, nth)| nth), Some(attempt));
        }
        assert!(!stream.is_stuck(now), "the last attempt has its time");
        assert!(stream.is_stuck(now + AGAIN));
        assert_eq!(stream.give_up(), (Some(20), VecDeque::from([((), 30)])));
    }

    #[test]
    fn a_long_text_is_shown_in_pages_and_one_that_ends_not_at_all() {
        let (mut stream, mut now) = stream();
        let text = format!("x{}", "é".repeat(CHUNK));
        stream.allow(text.len());
        stream.take(0, &text, text.len(), &Limits::DEFAULT, now).unwrap();
        let mut seen = String::new();
        for _ in 0..3 {
            let chunk = stream.chunk(now).unwrap();
            assert!(chunk.text.len() <= CHUNK);
            assert_eq!(chunk.offset, seen.len() as u64);
            seen += &chunk.text;
            // Later than the next look back would be.
            now += WHOLE;
        }
        assert_eq!(seen, text);
        assert_eq!(stream.chunk(now), None);
        let _ = stream.write(now);
        stream.stored(text.len() as u64);
        let again = stream.chunk(now).unwrap();
        assert_eq!((again.offset, again.text.len()), (0, CHUNK - 1));
        stream.phase = Phase::Ending;
        assert_eq!(stream.chunk(now + WHOLE), None);
    }

    #[test]
    fn what_an_owner_before_wrote_may_be_ahead_of_what_comes_again() {
        let (mut stream, now) = stream();
        take(&mut stream, 0, "one", now).unwrap();
        stream.keep(3, 10);
        assert_eq!(stream.stored(9), [10]);
        assert_eq!(stream.accepted(), 9);
        assert_eq!(take(&mut stream, 3, "twothr", now), Ok(true));
    }
}
