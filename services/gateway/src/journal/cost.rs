//! How unlikely it is that a client changed one text into another.

use std::cmp::Reverse;
use std::ops::Range;

use super::diff::Change;
use super::document::Mark;

/// In bytes; by what it can least have meant first. Less is likelier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Deleted, though it came from another so lately that the client may not have seen it.
    unseen: usize,
    /// What came lately from others and stands untouched: the client has seen it, then.
    kept: Reverse<usize>,
    /// What the client put in lately and would have changed in part. More likely it was off the screen when
    /// something like it was put in.
    broken: usize,
    /// Inserted and deleted.
    total: usize,
}

/// A stretch of a text that came lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) range: Range<usize>,
    pub(super) origin: Origin,
    pub(super) since: Since,
}

/// What a stretch came with; it is lately until that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// This version.
    Version(u64),
    /// An edit of the client that bears this mark.
    Edit(Mark),
}

/// Where a stretch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The client itself.
    Own,
    /// Another, and the client has seen it.
    Seen,
    /// Another, and the client may not have seen it.
    Unseen,
}

impl Cost {
    /// Of these changes of a text with these stretches.
    pub(super) fn of(changes: &[Change<'_>], stretches: &[Stretch]) -> Self {
        let mut cost = Self {
            unseen: 0,
            kept: Reverse(0),
            broken: 0,
            total: changes
                .iter()
                .map(|change| change.removed + change.inserted.len())
                .sum(),
        };
        // What came at once may lie in several stretches.
        let mut own: Vec<(Since, usize, usize)> = Vec::new();
        for Stretch { range, origin, since } in stretches {
            let removed: usize = changes
                .iter()
                .map(|change| common(range, &change.removed_range()))
                .sum();
            match origin {
                Origin::Own => match own.iter_mut().find(|(known, ..)| known == since) {
                    Some((_, gone, all)) => {
                        *gone += removed;
                        *all += range.len();
                    }
                    None => own.push((*since, removed, range.len())),
                },
                Origin::Seen | Origin::Unseen if removed == 0 => cost.kept.0 += range.len(),
                Origin::Unseen => cost.unseen += removed,
                Origin::Seen => {}
            }
        }
        let broken = own.iter().filter(|(_, gone, all)| 0 < *gone && gone < all);
        cost.broken = broken.map(|(.., all)| all).sum();
        cost
    }

    /// What any way from such a text to the other costs at least.
    pub(super) fn at_least(old: &str, new: &str, stretches: &[Stretch]) -> Self {
        let foreign = stretches.iter().filter(|stretch| stretch.origin != Origin::Own);
        Self {
            unseen: 0,
            kept: Reverse(foreign.map(|stretch| stretch.range.len()).sum()),
            broken: 0,
            total: old.len().abs_diff(new.len()),
        }
    }

    /// Whether nothing was changed.
    pub(super) fn is_nothing(&self) -> bool {
        self.total == 0
    }
}

fn common(a: &Range<usize>, b: &Range<usize>) -> usize {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}
