//! Doctored histories: the checker must notice each of them.

use std::time::Duration;

use super::*;
use crate::history::{Event, FinalState, Outcome, Record, Seen, Source, What};

const ROOM: &str = "room";

/// Alice and bob are members; alice sent `a-1` to `a-4`, edited the second after the third (place 4).
fn database() -> Database {
    let message = |number: u64, seq: u64| MessageRow {
        seen: Seen(
            format!("id-{number}"),
            seq,
            format!("digest-{number}"),
            number == 2,
            false,
        ),
        sender: "alice".into(),
        client_msg_id: format!("a-{number}"),
        created_ms: at(number),
    };
    let rows = ConversationRows {
        head: 5,
        members: ["alice", "bob"].map(String::from).into(),
        messages: vec![message(1, 1), message(2, 2), message(3, 3), message(4, 5)],
        changes: vec![ChangeRow {
            seq: 4,
            event: Event::Edited,
            target: 2,
        }],
    };
    Database {
        conversations: [(ROOM.into(), rows)].into(),
    }
}

fn at(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap()) * 10.0
}

fn record(time: f64, what: What) -> Record {
    Record {
        at: time,
        wall: time,
        what,
    }
}

fn send(number: u64) -> What {
    What::Send {
        user: "alice".into(),
        conversation: ROOM.into(),
        client_msg_id: format!("a-{number}"),
        queue: "alice-0".into(),
        serial: number,
        digest: format!("digest-{number}"),
    }
}

fn ack(number: u64, seq: u64) -> What {
    answer(number, Outcome::Ok, Some(seq))
}

fn answer(number: u64, outcome: Outcome, seq: Option<u64>) -> What {
    What::Ack {
        user: "alice".into(),
        conversation: ROOM.into(),
        client_msg_id: format!("a-{number}"),
        outcome,
        id: seq.map(|_| format!("id-{number}")),
        seq,
    }
}

fn shown(user: &str, event: Event, number: u64, seq: u64) -> What {
    What::Recv {
        user: user.into(),
        conversation: ROOM.into(),
        event,
        id: format!("id-{number}"),
        seq,
        source: Source::Live,
    }
}

fn join(user: &str, head: u64) -> What {
    What::Join {
        user: user.into(),
        conversation: ROOM.into(),
        head,
    }
}

fn mark(name: &str) -> What {
    What::Mark { name: name.into() }
}

fn healthy() -> History {
    let mut events = vec![join("alice", 0), join("bob", 0)];
    for (number, seq) in [(1, 1), (2, 2), (3, 3), (4, 5)] {
        events.push(send(number));
        if number == 4 {
            events.extend(["alice", "bob"].map(|user| shown(user, Event::Edited, 2, 2)));
        }
        events.extend(["alice", "bob"].map(|user| shown(user, Event::New, number, seq)));
        events.push(ack(number, seq));
    }
    let records = events.into_iter().enumerate();
    let records = records
        .map(|(index, what)| record(at(index as u64), what))
        .collect();
    let rows = &database().conversations[ROOM];
    let state = |user: &str| FinalState {
        user: user.into(),
        conversations: [(
            ROOM.into(),
            rows.messages.iter().map(|row| row.seen.clone()).collect(),
        )]
        .into(),
    };
    History {
        records,
        finals: vec![state("alice"), state("bob")],
    }
}

fn position(history: &History, wanted: impl Fn(&What) -> bool) -> usize {
    history
        .records
        .iter()
        .position(|record| wanted(&record.what))
        .unwrap()
}

fn of_bob(event: Event, seq: u64) -> impl Fn(&What) -> bool {
    move |what| matches!(what, What::Recv { user, event: e, seq: s, .. } if user == "bob" && *e == event && *s == seq)
}

fn found(history: &History, database: &Database) -> Vec<(Invariant, Flaw)> {
    let mut found: Vec<_> = check(history, database)
        .violations
        .iter()
        .map(|one| (one.invariant, one.flaw))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_healthy_run_breaks_nothing() {
    let report = check(&healthy(), &database());
    assert_eq!(report.violations, []);
    assert_eq!(
        (report.counts.sends, report.counts.acked, report.counts.received),
        (4, 4, 10)
    );
    assert!(
        report
            .line("none")
            .starts_with("none | 4 | 4 | 0 | 0 | 0 | 0 | 0 | 0 | 0.0 s")
    );
}

#[test]
fn i1_an_acked_message_that_is_not_stored_is_lost() {
    let mut history = healthy();
    history.records.push(record(900.0, send(9)));
    history.records.push(record(901.0, ack(9, 6)));
    assert_eq!(found(&history, &database()), [(Invariant::I1, Flaw::Lost)]);
}

#[test]
fn i1_an_ack_must_tell_the_stored_seq() {
    let mut history = healthy();
    history.records.push(record(901.0, ack(3, 7)));
    assert_eq!(
        found(&history, &database()),
        [(Invariant::I1, Flaw::Contradiction)]
    );
}

#[test]
fn i1_a_stored_message_that_nobody_sent_is_invented() {
    let mut history = healthy();
    history
        .records
        .retain(|record| !matches!(&record.what, What::Send { serial: 3, .. }));
    assert_eq!(found(&history, &database()), [(Invariant::I1, Flaw::Invented)]);
}

#[test]
fn i1_stored_content_must_be_what_was_sent() {
    let mut history = healthy();
    for record in &mut history.records {
        if let What::Send {
            serial: 3, digest, ..
        } = &mut record.what
        {
            *digest = "other".into();
        }
    }
    assert_eq!(found(&history, &database()), [(Invariant::I1, Flaw::Invented)]);
}

#[test]
fn i1_an_acked_edit_must_be_stored() {
    let mut history = healthy();
    let change = |id: &str| What::Change {
        user: "alice".into(),
        conversation: ROOM.into(),
        id: id.into(),
        event: "message:edit".into(),
        outcome: Outcome::Ok,
    };
    history.records.push(record(901.0, change("id-2")));
    assert_eq!(found(&history, &database()), []);
    history.records.push(record(902.0, change("id-3")));
    assert_eq!(found(&history, &database()), [(Invariant::I1, Flaw::Lost)]);
}

#[test]
fn i1_what_clients_are_shown_must_be_stored() {
    let mut history = healthy();
    history
        .records
        .push(record(901.0, shown("bob", Event::New, 9, 6)));
    assert_eq!(found(&history, &database()), [(Invariant::I1, Flaw::Lost)]);
}

#[test]
fn i2_a_second_row_of_one_message_is_a_double() {
    let mut database = database();
    let rows = database.conversations.get_mut(ROOM).unwrap();
    rows.messages[2].client_msg_id = "a-1".into();
    rows.messages[2].seen.2 = "digest-1".into();
    let mut history = healthy();
    history
        .records
        .retain(|record| !matches!(&record.what, What::Send { serial: 3, .. }));
    for state in &mut history.finals {
        state.conversations.get_mut(ROOM).unwrap()[2].2 = "digest-1".into();
    }
    assert_eq!(found(&history, &database), [(Invariant::I2, Flaw::Doubled)]);
}

#[test]
fn i3_a_missing_or_doubled_seq_is_noticed() {
    let mut hole = database();
    hole.conversations.get_mut(ROOM).unwrap().changes.clear();
    assert!(found(&healthy(), &hole).contains(&(Invariant::I3, Flaw::Hole)));

    let mut double = database();
    double
        .conversations
        .get_mut(ROOM)
        .unwrap()
        .changes
        .push(ChangeRow {
            seq: 5,
            event: Event::Edited,
            target: 2,
        });
    assert_eq!(found(&healthy(), &double), [(Invariant::I3, Flaw::Doubled)]);

    let mut head = database();
    head.conversations.get_mut(ROOM).unwrap().head = 6;
    assert_eq!(found(&healthy(), &head), [(Invariant::I3, Flaw::Hole)]);
}

#[test]
fn i4_a_skipped_message_or_edit_is_a_hole() {
    for skipped in [(Event::New, 3), (Event::Edited, 2)] {
        let mut history = healthy();
        history
            .records
            .remove(position(&history, of_bob(skipped.0, skipped.1)));
        assert_eq!(
            found(&history, &database()),
            [(Invariant::I4, Flaw::Hole)],
            "{skipped:?}"
        );
    }
}

#[test]
fn i4_a_hole_is_excused_by_a_disconnect_and_not_by_a_join() {
    let mut history = healthy();
    let skipped = position(&history, of_bob(Event::New, 3));
    history.records[skipped].what = gone("bob");
    assert_eq!(found(&history, &database()), []);
    history.records[skipped].what = join("bob", 3);
    assert_eq!(found(&history, &database()), [(Invariant::I4, Flaw::Hole)]);
}

#[test]
fn i4_the_first_event_follows_the_head_that_was_told() {
    let mut history = healthy();
    let skipped = position(&history, of_bob(Event::New, 3));
    history.records[skipped].what = gone("bob");
    let place = history.records[skipped].at;
    history.records.insert(skipped + 1, record(place, join("bob", 2)));
    history
        .records
        .remove(position(&history, of_bob(Event::Edited, 2)));
    assert_eq!(found(&history, &database()), [(Invariant::I4, Flaw::Hole)]);
}

#[test]
fn i4_one_of_several_like_edits_is_placed_by_what_follows() {
    let mut database = database();
    let rows = database.conversations.get_mut(ROOM).unwrap();
    rows.changes.push(ChangeRow {
        seq: 6,
        event: Event::Edited,
        target: 2,
    });
    rows.head = 6;
    let mut history = healthy();
    history.records.push(record(900.0, gone("bob")));
    history.records.push(record(901.0, join("bob", 5)));
    history
        .records
        .push(record(902.0, shown("bob", Event::Edited, 2, 2)));
    assert_eq!(found(&history, &database), []);
    history
        .records
        .push(record(903.0, shown("bob", Event::New, 4, 5)));
    assert_eq!(found(&history, &database), []);
    history
        .records
        .push(record(904.0, shown("bob", Event::New, 3, 3)));
    assert_eq!(found(&history, &database), [(Invariant::I4, Flaw::Reordered)]);
}

#[test]
fn i4_a_second_or_late_showing_is_noticed() {
    let mut history = healthy();
    let again = position(&history, of_bob(Event::New, 3));
    history.records.insert(again, history.records[again].clone());
    assert_eq!(found(&history, &database()), [(Invariant::I4, Flaw::Doubled)]);

    let mut history = healthy();
    let (two, three) = (
        position(&history, of_bob(Event::New, 2)),
        position(&history, of_bob(Event::New, 3)),
    );
    let late = history.records[two].what.clone();
    history.records.insert(three + 1, record(at(50), late));
    assert_eq!(found(&history, &database()), [(Invariant::I4, Flaw::Reordered)]);
}

#[test]
fn i5_messages_of_a_queue_keep_the_order_they_were_sent_in() {
    let mut history = healthy();
    for record in &mut history.records {
        if let What::Send { serial, .. } = &mut record.what {
            *serial = match *serial {
                2 => 3,
                3 => 2,
                other => other,
            };
        }
    }
    // The times say that number 3 was sent first; so that nothing but the order of the rows is wrong.
    let (two, three) = (
        position(&history, |what| matches!(what, What::Send { serial: 2, .. })),
        position(&history, |what| matches!(what, What::Send { serial: 3, .. })),
    );
    let times = (history.records[two].at, history.records[three].at);
    history.records[two].at = times.1;
    history.records[three].at = times.0;
    assert_eq!(found(&history, &database()), [(Invariant::I5, Flaw::Reordered)]);
}

#[test]
fn i5_excuses_a_message_that_was_repeated_after_the_next() {
    let mut history = healthy();
    // 4 is stored after 3 and 2; tell that 4 was the first to be sent, and the last to be repeated.
    for record in &mut history.records {
        if let What::Send { serial, .. } = &mut record.what {
            *serial = if *serial == 4 { 1 } else { *serial + 1 };
        }
    }
    let index = position(&history, |what| matches!(what, What::Send { serial: 1, .. }));
    let first = record(0.0, history.records[index].what.clone());
    history.records.insert(0, first);
    assert_eq!(found(&history, &database()), []);
}

#[test]
fn i6_a_member_must_end_with_what_is_stored() {
    for doctor in [
        (|seen: &mut Vec<Seen>| drop(seen.pop())) as fn(&mut Vec<Seen>),
        |seen| seen[1].3 = false,
        |seen| seen[2].2 = "other".into(),
        |seen| seen.push(Seen("id-9".into(), 6, "digest-9".into(), false, false)),
        |seen| seen.swap(0, 1),
    ] {
        let mut history = healthy();
        doctor(history.finals[1].conversations.get_mut(ROOM).unwrap());
        let found = found(&history, &database());
        assert_eq!(
            found.iter().map(|(invariant, _)| *invariant).collect::<Vec<_>>(),
            [Invariant::I6]
        );
    }
    let mut history = healthy();
    history.finals.pop();
    assert_eq!(found(&history, &database()), [(Invariant::I6, Flaw::Hole)]);
}

#[test]
fn i7_what_was_rejected_may_not_be_stored() {
    let mut history = healthy();
    history
        .records
        .push(record(901.0, answer(3, Outcome::Rejected, None)));
    assert_eq!(
        found(&history, &database()),
        [(Invariant::I7, Flaw::Contradiction)]
    );
    let mut history = healthy();
    history
        .records
        .push(record(901.0, answer(3, Outcome::Unknown, None)));
    assert_eq!(found(&history, &database()), []);
}

#[test]
fn i9_nothing_may_reach_who_is_no_member() {
    let mut history = healthy();
    history
        .records
        .push(record(901.0, shown("mallory", Event::New, 1, 1)));
    assert_eq!(found(&history, &database()), [(Invariant::I9, Flaw::Leaked)]);
}

#[test]
fn times_count_from_the_marks() {
    let mut history = healthy();
    let first = position(&history, |what| matches!(what, What::Send { serial: 4, .. }));
    for record in &mut history.records[first..] {
        record.at += 5_000.0;
        record.wall += 5_000.0;
    }
    let time = history.records[first - 1].at;
    history.records.insert(first, record(time + 1.0, mark("fault")));
    history
        .records
        .insert(first + 1, record(time + 1_000.0, mark("healed")));
    let timing = check(&history, &database()).timing;
    assert!(
        timing.longest_pause > Duration::from_millis(5_000)
            && timing.longest_pause < Duration::from_millis(5_100)
    );
    assert!(
        timing.converged > Duration::from_millis(4_000) && timing.converged < Duration::from_millis(4_200)
    );
    assert_eq!(
        timing.settled,
        Duration::ZERO,
        "the late message was answered as soon as it was sent"
    );
}

#[test]
fn the_rate_counts_positive_answers_of_the_last_seconds_only() {
    let mut history = healthy();
    for time in [
        50_000.0, 58_000.0, 58_500.0, 59_000.0, 59_500.0, 59_900.0, 60_500.0,
    ] {
        history.records.push(record(time, ack(3, 4)));
    }
    history
        .records
        .push(record(59_950.0, answer(3, Outcome::Unknown, None)));
    history.records.push(record(60_000.0, mark("stopped")));
    history.records.push(record(58_600.0, mark("fault")));
    let timing = check(&history, &database()).timing;
    assert!((timing.rate_after - 2.0).abs() < 0.001, "{timing:?}");
    assert!((timing.rate_before - 0.8).abs() < 0.001, "{timing:?}");
}

fn gone(user: &str) -> What {
    What::Disconnect {
        user: user.into(),
        reason: "transport close".into(),
        detail: String::new(),
    }
}
