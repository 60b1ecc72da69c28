//! How long the fault was felt.

use std::collections::HashMap;
use std::time::Duration;

use super::database::Database;
use super::grouped;
use crate::history::{Event, History, Outcome, Record, What};

/// What takes longer than this counts as late, in milliseconds; on a busy machine what takes twice as long as
/// the slowest before the fault.
const LATE: f64 = 1_000.0;
/// How long the last answers are counted.
pub const SAMPLE: Duration = Duration::from_millis(2_500);

/// How long the fault was felt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// From the mark `healed` until the last late delivery of a stored message; zero without any.
    pub converged: Duration,
    /// From the mark `healed` until the last late answer, from its first attempt on.
    pub settled: Duration,
    /// From the mark `fault` on: the longest time without a positive answer in any one conversation.
    pub longest_pause: Duration,
    /// The longest way of a stored message to a client, catching up included.
    pub slowest_delivery: Duration,
    /// Positive answers a second in the last seconds before the mark `fault`.
    pub rate_before: f64,
    /// Positive answers a second in the last seconds of the load.
    pub rate_after: f64,
}

impl Timing {
    pub(super) fn of(history: &History, database: &Database) -> Self {
        let healed = history.mark("healed");
        let (converged, slowest_delivery) = deliveries(history, database, healed.map(|mark| mark.wall));
        Self {
            converged,
            settled: settled(history, healed.map(|mark| mark.at)),
            longest_pause: longest_pause(history),
            slowest_delivery,
            rate_before: rate_until(history, "fault"),
            rate_after: rate_until(history, "stopped"),
        }
    }
}

fn rate_until(history: &History, mark: &str) -> f64 {
    let Some(end) = history.mark(mark).map(|mark| mark.at) else {
        return 0.0;
    };
    let positive = |record: &&Record| {
        matches!(
            &record.what,
            What::Ack {
                outcome: Outcome::Ok,
                ..
            }
        )
    };
    let sample = SAMPLE.as_secs_f64();
    let late = |record: &&Record| record.at >= end - sample * 1_000.0 && record.at < end;
    let count = history.records.iter().filter(positive).filter(late).count();
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / sample
}

fn deliveries(history: &History, database: &Database, healed: Option<f64>) -> (Duration, Duration) {
    let rows = database.conversations.values().flat_map(|rows| &rows.messages);
    let created: HashMap<_, _> = rows.map(|row| (row.seen.0.as_str(), row.created_ms)).collect();
    let mut arrived = HashMap::<(&str, &str), f64>::new();
    for record in &history.records {
        if let What::Recv {
            user,
            id,
            event: Event::New,
            ..
        } = &record.what
        {
            arrived.entry((user, id)).or_insert(record.wall);
        }
    }
    let took = arrived.into_iter();
    let took: Vec<_> = took
        .filter_map(|((_, id), at)| Some((at, at - created.get(id)?)))
        .collect();
    let slowest = took.iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let fault = history.mark("fault").map(|mark| mark.wall);
    (since(healed, last_late(&took, fault)), milliseconds(slowest))
}

/// When the last late one came. Pairs of when something came and how long it took.
fn last_late(took: &[(f64, f64)], fault: Option<f64>) -> f64 {
    let before = took
        .iter()
        .filter(|(at, _)| fault.is_some_and(|fault| *at < fault));
    let usual = before.map(|(_, took)| *took).fold(0.0, f64::max);
    let late = took.iter().filter(|(_, took)| *took > LATE.max(usual * 2.0));
    late.map(|(at, _)| *at).fold(0.0, f64::max)
}

fn since(healed: Option<f64>, at: f64) -> Duration {
    healed.map_or(Duration::ZERO, |healed| milliseconds(at - healed))
}

fn settled(history: &History, healed: Option<f64>) -> Duration {
    let mut sent = HashMap::new();
    let mut took = vec![];
    for record in &history.records {
        match &record.what {
            What::Send {
                user,
                conversation,
                client_msg_id,
                ..
            } => {
                sent.entry((user, conversation, client_msg_id))
                    .or_insert(record.at);
            }
            What::Ack {
                user,
                conversation,
                client_msg_id,
                outcome: Outcome::Ok,
                ..
            } => {
                let first = sent.get(&(user, conversation, client_msg_id));
                took.extend(first.map(|first| (record.at, record.at - first)));
            }
            _ => {}
        }
    }
    since(
        healed,
        last_late(&took, history.mark("fault").map(|mark| mark.at)),
    )
}

fn longest_pause(history: &History) -> Duration {
    let from = history.mark("fault").map_or(f64::MAX, |mark| mark.at);
    let until = history.mark("stopped").map_or(f64::MAX, |mark| mark.at);
    let acks = history.records.iter().filter_map(|record| match &record.what {
        What::Ack {
            conversation,
            outcome: Outcome::Ok,
            ..
        } => Some((conversation.as_str(), record.at)),
        _ => None,
    });
    let pauses = grouped(acks).into_values().flat_map(|times| {
        let pairs: Vec<_> = times.windows(2).map(|pair| (pair[0], pair[1])).collect();
        pairs
    });
    let longest = pauses
        .filter(|(before, after)| *after >= from && *before <= until)
        .map(|(before, after)| after - before)
        .fold(0.0, f64::max);
    milliseconds(longest)
}

fn milliseconds(count: f64) -> Duration {
    Duration::from_secs_f64(count.max(0.0) / 1_000.0)
}
