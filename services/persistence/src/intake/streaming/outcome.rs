//! What becomes of a step of a message whose text streams. Pure: no bus, no database.

use parlance_proto::v1::{self, ErrorCode, StreamState, StreamStep};
use tokio::time::Instant;

use crate::intake::published::{Limits, Step};
use crate::intake::stream::{MOST_STEPS, Phase, Placed, Stream};
use crate::model::refusals::refuse;
use crate::store::streams::Stored;

/// Steps of all streams in hand: less than the bus hands out unacknowledged, so that whole messages always come through.
pub(super) const MOST_IN_HAND: usize = 2_000;

/// What becomes of a step.
pub(super) enum StepOutcome {
    /// As for every step that finds things as it wants them.
    Accepted { seq: u64, repeated: bool, next: u64 },
    /// Nothing changes.
    Refused(v1::Error, Option<u64>),
    /// By the command that it was handed in as.
    Later,
}

/// What becomes of a step of an open stream, which takes its text.
pub(super) fn of<D: Placed>(
    stream: &mut Stream<D, Step>,
    step: &Step,
    limits: &Limits,
    now: Instant,
) -> StepOutcome {
    let accepted = |stream: &Stream<D, Step>, repeated| StepOutcome::Accepted {
        seq: stream.seq,
        repeated,
        next: stream.accepted(),
    };
    let offset = match (step.kind, step.offset) {
        (StreamStep::Start, _) => return accepted(stream, true),
        (StreamStep::Cancel | StreamStep::Unspecified, _) => return StepOutcome::Later,
        (_, None) if !step.text.is_empty() => {
            return StepOutcome::Refused(refuse("offset is missing"), Some(stream.accepted()));
        }
        (StreamStep::Append, offset) => offset.unwrap_or_default(),
        (StreamStep::Finish, offset) => offset.unwrap_or_else(|| stream.accepted()),
    };
    let taken = stream.take(offset, &step.text, limits.content_bytes, &limits.streams, now);
    match (step.kind, taken) {
        // Only a sign of life, wherever it says to be.
        (StreamStep::Append, _) if step.text.is_empty() => accepted(stream, false),
        (_, Err(refusal)) => StepOutcome::Refused(refusal, Some(stream.accepted())),
        (StreamStep::Append, Ok(repeated)) => accepted(stream, repeated),
        _ if stream.accepted() == 0 => StepOutcome::Refused(refuse("content is empty"), Some(0)),
        _ => StepOutcome::Later,
    }
}

/// Whether a step may be kept until it is stored. `stream` is where it belongs, unless it begins one.
pub(super) fn has_room<D: Placed>(
    stream: Option<&Stream<D, Step>>,
    in_hand: usize,
    step: &Step,
    place: u64,
) -> bool {
    let all_full = in_hand >= MOST_IN_HAND;
    let Some(stream) = stream else {
        return !all_full;
    };
    let is_open = stream.phase == Phase::Open;
    let ends = matches!(step.kind, StreamStep::Finish | StreamStep::Cancel);
    // A sign of life need not be kept.
    let is_kept = !is_open || ends || !step.text.is_empty();
    // The end of a stream is one step, and the way to have room again.
    let is_full = stream.in_hand() >= MOST_STEPS && !(is_open && ends);
    !is_kept || !(all_full || is_full) || stream.has(place)
}

/// The refusal of a step of which too many are kept.
pub(super) fn no_room(next: Option<u64>) -> StepOutcome {
    let message = "too many steps are not stored yet; try again with the same offset";
    let refusal = v1::Error::with(ErrorCode::RateLimited, message);
    StepOutcome::Refused(refusal, next)
}

/// What becomes of a step of a message that does not stream any more, or never did.
pub(super) fn ended(step: &Step, stored: &Stored) -> StepOutcome {
    let bytes = stored.bytes;
    // Without where to go on: nowhere.
    let conflict = |message: &str| StepOutcome::Refused(v1::Error::with(ErrorCode::Conflict, message), None);
    let is_wanted = match step.kind {
        _ if stored.state == StreamState::Unspecified => false,
        StreamStep::Start => true,
        StreamStep::Append => {
            let end = step
                .offset
                .unwrap_or(u64::MAX)
                .saturating_add(step.text.len() as u64);
            !step.text.is_empty() && end <= bytes
        }
        StreamStep::Finish => stored.state == StreamState::Finished,
        StreamStep::Cancel | StreamStep::Unspecified => stored.state == StreamState::Cancelled,
    };
    if is_wanted {
        return StepOutcome::Accepted {
            seq: stored.seq,
            repeated: true,
            next: bytes,
        };
    }
    match stored.state {
        _ if stored.deleted => conflict("the message was deleted"),
        StreamState::Unspecified => conflict("the message was sent whole"),
        StreamState::Cancelled => conflict("the message was cancelled"),
        StreamState::Interrupted => {
            conflict("the message was interrupted: nothing was heard of its service for too long")
        }
        StreamState::Finished | StreamState::Open => conflict("the message is finished"),
    }
}

#[cfg(test)]
mod tests {
    use parlance_proto::{ConversationId, MessageId, UserId};

    use super::*;
    use crate::intake::hearing::Hearing;
    use crate::intake::stream;

    struct Published(u64);

    impl Placed for Published {
        fn place(&self) -> u64 {
            self.0
        }
    }

    type Test = Stream<Published, Step>;

    fn stream_in(phase: Phase) -> Test {
        let now = Instant::now();
        let alive = Hearing::new(now).heard(now);
        let sender = UserId::of_service("bot").unwrap();
        Test::new(sender, phase, 0, &stream::Limits::DEFAULT, alive, now)
    }

    fn step(kind: StreamStep, text: &str) -> Step {
        let sender = UserId::of_service("bot").unwrap();
        let conversation = ConversationId::direct(&sender, &UserId::parse("bob").unwrap());
        Step {
            kind,
            key: (conversation, MessageId::of_service(conversation, &sender, "m1")),
            sender,
            offset: Some(0),
            text: text.to_owned(),
            start: Vec::new(),
            origin: v1::ServiceOrigin::default(),
        }
    }

    #[test]
    fn one_stream_keeps_so_many_steps_and_may_always_end() {
        let mut open = stream_in(Phase::Open);
        let mut starting = stream_in(Phase::Starting);
        let append = step(StreamStep::Append, "x");
        for place in 0..MOST_STEPS as u64 {
            assert!(has_room(Some(&open), 0, &append, 1_000));
            assert!(has_room(Some(&starting), 0, &append, 1_000));
            open.keep(1, Published(place));
            starting.wait(step(StreamStep::Append, "x"), Published(place));
        }
        assert!(!has_room(Some(&open), 0, &append, 1_000));
        assert!(!has_room(Some(&starting), 0, &append, 1_000));
        assert!(has_room(Some(&open), 0, &append, 5), "it is kept already");
        assert!(has_room(Some(&open), 0, &step(StreamStep::Append, ""), 1_000));
        assert!(!has_room(
            Some(&starting),
            0,
            &step(StreamStep::Append, ""),
            1_000
        ));
        assert!(has_room(Some(&open), 0, &step(StreamStep::Finish, ""), 1_000));
        assert!(has_room(Some(&open), 0, &step(StreamStep::Cancel, ""), 1_000));
        assert!(!has_room(
            Some(&starting),
            0,
            &step(StreamStep::Finish, ""),
            1_000
        ));
    }

    #[test]
    fn all_streams_keep_less_than_the_bus_hands_out() {
        assert!(MOST_IN_HAND as u64 * 2 <= parlance_bus::Puller::MOST_IN_HAND);
        let open = stream_in(Phase::Open);
        for (kind, text, is_kept) in [
            (StreamStep::Start, "x", true),
            (StreamStep::Append, "x", true),
            (StreamStep::Finish, "", true),
            (StreamStep::Cancel, "", true),
            (StreamStep::Append, "", false),
            (StreamStep::Start, "", false),
        ] {
            let step = step(kind, text);
            assert!(has_room(Some(&open), MOST_IN_HAND - 1, &step, 1));
            assert_eq!(has_room(Some(&open), MOST_IN_HAND, &step, 1), !is_kept);
        }
        let start = step(StreamStep::Start, "");
        assert!(has_room::<Published>(None, MOST_IN_HAND - 1, &start, 1));
        assert!(!has_room::<Published>(None, MOST_IN_HAND, &start, 1));
    }
}
