//! What the checker found, for a test to assert on and a person to read.

use std::fmt;
use std::time::Duration;

use super::Timing;
use crate::history::{History, Outcome, What};

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Acked messages are in the database, and the database holds only what was sent.
    I1,
    /// One row per sender and client id.
    I2,
    /// Seqs of messages and changes together are 1, 2, 3, … up to the head.
    I3,
    /// A client is shown every event once, ascending, without a gap, while it is connected.
    I4,
    /// Messages of one queue are stored in the order they were sent.
    I5,
    /// Every member ends with what the database holds.
    I6,
    /// What was rejected is not in the database.
    I7,
    /// Nothing reaches a non-member.
    I9,
}

/// How a promise can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// Confirmed or shown but not stored.
    Lost,
    /// Stored or shown more than once.
    Doubled,
    /// Later before earlier.
    Reordered,
    /// Something in between is missing.
    Hole,
    /// Stored though nobody sent it, or other than sent.
    Invented,
    /// Not what the answer said.
    Contradiction,
    /// Received by a user who may not.
    Leaked,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub flaw: Flaw,
    /// Where, for a person.
    pub detail: String,
}

/// How much there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts to send, repeats included.
    pub sends: usize,
    /// Positive answers.
    pub acked: usize,
    /// Answers that nothing was stored.
    pub rejected: usize,
    /// Attempts without a known outcome.
    pub unknown: usize,
    /// Events that reached clients.
    pub received: usize,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How much there was.
    pub counts: Counts,
    /// How long things took.
    pub timing: Timing,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

impl Counts {
    pub(super) fn of(history: &History) -> Self {
        let mut counts = Self::default();
        for record in &history.records {
            match &record.what {
                What::Send { .. } => counts.sends += 1,
                What::Recv { .. } => counts.received += 1,
                What::Ack { outcome, .. } => match outcome {
                    Outcome::Ok => counts.acked += 1,
                    Outcome::Rejected => counts.rejected += 1,
                    Outcome::Unknown => counts.unknown += 1,
                },
                _ => {}
            }
        }
        counts
    }
}

impl Report {
    /// Violations of one kind.
    #[must_use]
    pub fn count(&self, flaw: Flaw) -> usize {
        self.violations
            .iter()
            .filter(|violation| violation.flaw == flaw)
            .count()
    }

    /// The heading of the lines that [`Report::line`] makes.
    #[must_use]
    pub fn heading() -> &'static str {
        "fault | sends | acked | unknown | lost | doubled | reordered | holes | other flaws | converged in | prompt in | longest pause | rate before | rate after"
    }

    /// One line of figures.
    #[must_use]
    pub fn line(&self, fault: &str) -> String {
        let Counts {
            sends,
            acked,
            unknown,
            ..
        } = self.counts;
        let [lost, doubled, reordered, holes, invented, contradictions, leaked] = [
            Flaw::Lost,
            Flaw::Doubled,
            Flaw::Reordered,
            Flaw::Hole,
            Flaw::Invented,
            Flaw::Contradiction,
            Flaw::Leaked,
        ]
        .map(|flaw| self.count(flaw));
        let other = invented + contradictions + leaked;
        format!(
            "{fault} | {sends} | {acked} | {unknown} | {lost} | {doubled} | {reordered} | {holes} | {other} | {} | {} | {} | {:.0}/s | {:.0}/s",
            seconds(self.timing.converged),
            seconds(self.timing.settled),
            seconds(self.timing.longest_pause),
            self.timing.rate_before,
            self.timing.rate_after,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, {:?}", self.counts, self.timing)?;
        let mut counted = std::collections::BTreeMap::new();
        for Violation { invariant, flaw, .. } in &self.violations {
            *counted.entry((invariant, flaw)).or_insert(0) += 1;
        }
        for ((invariant, flaw), count) in counted {
            writeln!(f, "{invariant:?} {flaw:?}: {count}")?;
            let alike = self
                .violations
                .iter()
                .filter(|found| (found.invariant, found.flaw) == (*invariant, *flaw));
            for Violation { detail, .. } in alike.take(5) {
                writeln!(f, "    {detail}")?;
            }
        }
        Ok(())
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
