//! A change of a text: what leads from one text to the next. Offsets are bytes and lie between characters.

use std::ops::Range;

/// One range of the old text replaced by another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Byte offset in the old text.
    pub at: usize,
    /// Bytes removed from the old text.
    pub removed: usize,
    /// The text in their place.
    pub inserted: String,
}

impl Change {
    /// The removed range of the old text.
    pub fn removed_range(&self) -> Range<usize> {
        self.at..self.at + self.removed
    }
}

/// Bytes removed and inserted.
pub fn size(changes: &[Change]) -> usize {
    changes
        .iter()
        .map(|change| change.removed + change.inserted.len())
        .sum()
}

/// The text after these changes, which are ascending and disjoint.
pub fn apply(old: &str, changes: &[Change]) -> String {
    let mut new = String::with_capacity(old.len() + size(changes));
    let mut from = 0;
    for change in changes {
        new.push_str(slice(old, from..change.at));
        new.push_str(&change.inserted);
        from = change.at + change.removed;
    }
    new.push_str(slice(old, from..old.len()));
    new
}

/// The changes that lead back to `old`.
pub fn inverse(old: &str, changes: &[Change]) -> Vec<Change> {
    let inserted = inserted_ranges(changes).into_iter();
    inserted
        .zip(changes)
        .map(|(range, change)| Change {
            at: range.start,
            removed: range.len(),
            inserted: slice(old, change.removed_range()).to_owned(),
        })
        .collect()
}

/// Where each inserted text stands in the new text; empty ranges included.
pub fn inserted_ranges(changes: &[Change]) -> Vec<Range<usize>> {
    let (mut grown, mut shrunk) = (0, 0);
    let mut ranges = Vec::with_capacity(changes.len());
    for change in changes {
        let start = change.at + grown - shrunk;
        ranges.push(start..start + change.inserted.len());
        grown += change.inserted.len();
        shrunk += change.removed;
    }
    ranges
}

/// Where the surviving parts of a range of the old text stand in the new text.
pub fn carry(range: Range<usize>, changes: &[Change]) -> Vec<Range<usize>> {
    let (mut grown, mut shrunk, mut at) = (0, 0, range.start);
    let mut parts = Vec::new();
    for change in changes {
        let end = change.at.min(range.end);
        if at < end {
            parts.push(at + grown - shrunk..end + grown - shrunk);
        }
        at = at.max(change.at + change.removed);
        grown += change.inserted.len();
        shrunk += change.removed;
    }
    if at < range.end {
        parts.push(at + grown - shrunk..range.end + grown - shrunk);
    }
    parts
}

/// The same changes without the removal of any byte of `kept`.
pub fn keeping(changes: Vec<Change>, kept: &[Range<usize>]) -> Vec<Change> {
    let mut result = Vec::with_capacity(changes.len());
    for mut change in changes {
        let removed = change.removed_range();
        let mut from = removed.start;
        // The replacement stands before the first kept part, where the old text began to differ.
        for kept in kept
            .iter()
            .filter(|kept| kept.start < removed.end && removed.start < kept.end)
        {
            result.push(Change {
                at: from,
                removed: kept.start.saturating_sub(from),
                inserted: std::mem::take(&mut change.inserted),
            });
            from = kept.end;
        }
        result.push(Change {
            at: from,
            removed: removed.end.saturating_sub(from),
            inserted: change.inserted,
        });
    }
    result.retain(|change| change.removed > 0 || !change.inserted.is_empty());
    result
}

/// The same ranges, ascending, disjoint and not empty.
pub(crate) fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Offsets always lie between characters; a wrong one yields no text rather than a panic.
pub(crate) fn slice(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}
