//! Messages whose text streams in.

use parlance_proto::v1::StreamState;

use super::*;
use crate::model::work::StreamText;

/// A command of the service `bot`.
fn by_bot(command: u128, action: Action) -> Work {
    let mut work = work(command, "service:bot", action);
    work.actor.kind = SenderKind::Agent;
    work
}

fn start(command: u128, message: u128) -> Work {
    let mut work = send(command, "service:bot", message);
    work.actor.kind = SenderKind::Agent;
    if let Action::Send(send) = &mut work.action {
        send.content.clear();
        send.streaming = true;
    }
    work
}

fn text(offset: u64, text: &str) -> StreamText {
    StreamText {
        message: message_id(9),
        offset,
        text: text.into(),
    }
}

fn append(command: u128, offset: u64, content: &str) -> Work {
    by_bot(command, Action::Append(text(offset, content)))
}

fn end(command: u128, offset: u64, content: &str, state: StreamState) -> Work {
    by_bot(command, Action::EndStream(text(offset, content), state))
}

/// What a message says afterwards, and whether more comes.
type Written = Result<(String, StreamState), ErrorCode>;

fn outcomes(works: &[Work]) -> (Loaded, Vec<Written>, Effects) {
    let mut loaded = loaded();
    let effects = apply(&mut loaded, works);
    let outcomes = effects.outcomes.iter().map(|outcome| match outcome {
        Outcome::Message { message, .. } => Ok((message.content.clone(), message.stream())),
        Outcome::Rejected(error) => Err(error.code()),
        other => panic!("{other:?}"),
    });
    let outcomes = outcomes.collect();
    (loaded, outcomes, effects)
}

fn is(content: &str, state: StreamState) -> Written {
    Ok((content.to_owned(), state))
}

#[test]
fn text_takes_no_place_in_the_sequence_and_the_end_takes_one() {
    use StreamState::{Finished, Open};
    let works = [
        start(1, 9),
        append(2, 0, "Hé"),
        append(3, 0, "Héllo"),
        append(3, 0, "Héllo"),
        append(4, 9, "gap"),
        append(5, 5, "é"),
        end(6, 6, "!", Finished),
        append(7, 7, "late"),
        end(6, 6, "!", Finished),
        end(8, 7, "", Finished),
        end(9, 7, "", StreamState::Cancelled),
    ];
    let (loaded, outcomes, effects) = outcomes(&works);
    let finished = || is("Héllo!", Finished);
    assert_eq!(
        outcomes,
        [
            is("", Open),
            is("Hé", Open),
            is("Héllo", Open),
            is("Héllo", Open),
            Err(ErrorCode::Conflict),
            // It would begin inside a character.
            Err(ErrorCode::Invalid),
            finished(),
            finished(),
            finished(),
            finished(),
            Err(ErrorCode::Conflict),
        ]
    );
    assert_eq!(loaded.conversations[&group()].head_seq, 2);
    let kinds: Vec<ChangeKind> = effects
        .new_changes
        .iter()
        .map(|(_, _, change)| change.kind)
        .collect();
    assert_eq!(kinds, [ChangeKind::Finished]);
    let events = effects
        .outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Message { event: Some(_), .. }));
    // The start, the end, and the end that is answered once more.
    assert_eq!(events.count(), 3);
    // Appends tell by themselves that they were made.
    assert!(
        effects
            .processed
            .iter()
            .all(|((_, id), _)| [8, 9].contains(&id.uuid().as_u128()))
    );
}

#[test]
fn what_says_nothing_is_deleted_unless_it_is_finished() {
    for state in [StreamState::Cancelled, StreamState::Interrupted] {
        let (loaded, outcomes, _) = outcomes(&[start(1, 9), end(2, 0, "", state)]);
        assert_eq!(outcomes[1], is("", state));
        let message = &loaded.conversations[&group()].messages[&message_id(9)];
        assert!(message.deleted_at_ms.is_some());
    }
    let (_, outcomes, _) = outcomes(&[start(1, 9), end(2, 0, "", StreamState::Finished)]);
    assert_eq!(outcomes[1], Err(ErrorCode::Invalid));
}

#[test]
fn nobody_else_writes_or_edits_it_and_whoever_deletes_it_ends_it() {
    let mut foreign = append(2, 0, "mine");
    foreign.actor.id = user("service:other");
    let works = [
        start(1, 9),
        foreign,
        append(3, 0, "half"),
        edit(4, "alice", 9, "other"),
        delete(5, "alice", 9),
        append(6, 4, " more"),
        end(7, 4, " more", StreamState::Finished),
    ];
    let (_, outcomes, _) = outcomes(&works);
    assert_eq!(outcomes[1], Err(ErrorCode::NotFound));
    assert!(outcomes[3].is_err());
    assert_eq!(outcomes[4], is("", StreamState::Cancelled));
    assert_eq!(outcomes[5], is("", StreamState::Cancelled));
    assert_eq!(outcomes[6], Err(ErrorCode::Conflict));
    let (_, outcomes, _) = self::outcomes(&[send(1, "alice", 9), append(2, 0, "x")]);
    assert_eq!(outcomes[1], Err(ErrorCode::NotFound));
}
