//! The bases of an edit, and how large a change leads from each to the text sent: rule 4.

use std::collections::HashSet;
use std::ops::Range;

use crate::change::{self, Change};
use crate::diff::{Budget, diff_beside};
use crate::versions::Version;

/// What each change but the first counts more, in bytes, and each that inserts parts of several lines into the middle
/// of one: most edits are one change, and most paragraphs are inserted as whole lines.
const FURTHER_CHANGE: usize = 32;

/// A text that the client may have changed into the one it sent.
#[derive(Debug)]
pub(super) struct Basis {
    /// `None` for the own last text.
    pub(super) version: Option<u64>,
    pub(super) text: String,
    pub(super) fresh: Fresh,
    pub(super) changes: Vec<Change>,
}

/// The ranges of a text that came since the acknowledged version, or since the common one.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh {
    pub(super) others: Vec<Range<usize>>,
    pub(super) own: Vec<Range<usize>>,
}

/// Measures the changes that lead from bases to the text sent.
pub(super) struct Measure<'a> {
    /// Whole lines that the text sent holds and that others inserted or deleted. A base without such a line is hardly
    /// the basis: the client would have written the same line at the same time.
    lines: HashSet<&'a str>,
    /// Whether the bases are known for sure.
    is_certain: bool,
}

impl<'a> Measure<'a> {
    pub(super) fn new(sent: &str, versions: impl Iterator<Item = &'a Version>, is_certain: bool) -> Self {
        let sent: HashSet<&str> = sent.split_inclusive('\n').collect();
        let changes = versions.flat_map(|version| version.changes.iter().chain(&version.undo));
        let lines = changes.flat_map(|change| change.inserted.split_inclusive('\n'));
        let lines =
            lines.filter(|line| line.ends_with('\n') && !line.trim().is_empty() && sent.contains(line));
        Self {
            lines: lines.collect(),
            is_certain,
        }
    }

    /// The size of the change, in bytes.
    pub(super) fn size(&self, basis: &Basis) -> usize {
        if self.is_certain && basis.changes.is_empty() {
            return usize::MAX;
        }
        let made = match self.is_certain {
            true => basis.changes.clone(),
            false => change::keeping(basis.changes.clone(), &basis.fresh.others),
        };
        let splits = made
            .iter()
            .filter(|change| splits_line(&basis.text, change))
            .count();
        let further = made.len().saturating_sub(1) + splits;
        change::size(&made) + further * FURTHER_CHANGE + self.lacking(&basis.text)
    }

    /// Bytes of the lines that the text lacks.
    fn lacking(&self, text: &str) -> usize {
        if self.lines.is_empty() {
            return 0;
        }
        let lines: HashSet<&str> = text.split_inclusive('\n').collect();
        self.lines.difference(&lines).map(|line| line.len()).sum()
    }
}

/// Whether a change inserts parts of several lines into the middle of one.
fn splits_line(text: &str, change: &Change) -> bool {
    let lines = change.inserted.trim_matches('\n');
    let (before, after) = (text.get(..change.at), text.get(change.at + change.removed..));
    lines.contains('\n')
        && before.is_some_and(|before| !before.is_empty() && !before.ends_with('\n'))
        && after.is_some_and(|after| !after.is_empty() && !after.starts_with('\n'))
}

impl Fresh {
    /// The ranges in the text after these changes, with the text that they insert.
    pub(super) fn carry(self, changes: &[Change], is_own: bool) -> Self {
        let inserted = change::inserted_ranges(changes);
        let (others, own) = match is_own {
            true => (Vec::new(), inserted),
            false => (inserted, Vec::new()),
        };
        let carry = |ranges: Vec<Range<usize>>, inserted: Vec<Range<usize>>| {
            let ranges = ranges.into_iter().flat_map(|range| change::carry(range, changes));
            change::joined(ranges.chain(inserted).collect())
        };
        Self {
            others: carry(self.others, others),
            own: carry(self.own, own),
        }
    }

    /// Whether the changes remove nothing that others wrote.
    pub(super) fn stays(&self, changes: &[Change]) -> bool {
        change::size(&change::keeping(changes.to_vec(), &self.others)) == change::size(changes)
    }

    /// The changes from a text with these ranges to the one sent, by rule 4.
    pub(super) fn diff(&self, text: &str, sent: &str, budget: &mut Budget) -> Vec<Change> {
        let changes = diff_beside(text, sent, &self.others, budget);
        if changes.len() < 2 || self.own.is_empty() {
            return changes;
        }
        let all = change::joined([self.others.as_slice(), &self.own].concat());
        diff_beside(text, sent, &all, budget)
    }
}
