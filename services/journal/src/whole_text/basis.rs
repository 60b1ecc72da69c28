//! The bases of an edit, and how large a change leads from each to the text sent: rule 4.

use std::collections::HashSet;
use std::ops::Range;

use crate::change::{self, Change};
use crate::diff::{Budget, diff_beside};
use crate::versions::Version;

/// What each change but the first counts more, in bytes: most edits are one change.
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

/// The ranges of a text that others wrote since the acknowledged version, or since the common one; ascending and
/// disjoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh(pub(super) Vec<Range<usize>>);

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
            false => change::keeping(basis.changes.clone(), &basis.fresh.0),
        };
        let further = made.len().saturating_sub(1) * FURTHER_CHANGE;
        change::size(&made) + further + self.lacking(&basis.text)
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

impl Fresh {
    /// The ranges in the text after these changes, with the text that they insert unless that is the session's own.
    pub(super) fn carry(self, changes: &[Change], is_own: bool) -> Self {
        let mut ranges = change::carry(&self.0, changes);
        if !is_own {
            ranges.append(&mut change::inserted_ranges(changes));
        }
        Self(change::joined(ranges))
    }

    /// Whether the changes remove nothing of them.
    pub(super) fn stays(&self, changes: &[Change]) -> bool {
        change::size(&change::keeping(changes.to_vec(), &self.0)) == change::size(changes)
    }

    /// The changes from a text with these ranges to the one sent, by rule 4.
    pub(super) fn diff(&self, text: &str, sent: &str, budget: &mut Budget) -> Vec<Change> {
        diff_beside(text, sent, &self.0, budget)
    }
}
