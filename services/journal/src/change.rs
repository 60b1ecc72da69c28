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

/// The same changes of this text, of which they count UTF-16 units. `None` if one does not lie between characters.
pub fn from_utf16(changes: Vec<Change>, text: &str) -> Option<Vec<Change>> {
    let (mut units, mut bytes) = (0, 0);
    let mut chars = text.chars();
    let mut byte_at = |at: usize| {
        while units < at {
            let char = chars.next()?;
            units += char.len_utf16();
            bytes += char.len_utf8();
        }
        (units == at).then_some(bytes)
    };
    let mut in_bytes = |change: Change| {
        let (start, end) = (byte_at(change.at)?, byte_at(change.at + change.removed)?);
        Some(Change {
            at: start,
            removed: end - start,
            inserted: change.inserted,
        })
    };
    changes.into_iter().map(&mut in_bytes).collect()
}

/// What the changes remove of this text, in UTF-16 units.
pub fn utf16_ranges(changes: &[Change], text: &str) -> Vec<Range<usize>> {
    let (mut units, mut bytes) = (0, 0);
    let mut unit_at = |at: usize| {
        units += slice(text, bytes..at).encode_utf16().count();
        bytes = at;
        units
    };
    changes
        .iter()
        .map(|change| unit_at(change.at)..unit_at(change.at + change.removed))
        .collect()
}

/// Makes these changes in place, and returns how many bytes were moved for it.
pub fn make(text: &mut String, changes: &[Change]) -> usize {
    match changes {
        [] => 0,
        [change] if text.get(change.removed_range()).is_some() => {
            text.replace_range(change.removed_range(), &change.inserted);
            text.len() - change.at
        }
        _ => {
            *text = apply(text, changes);
            text.len()
        }
    }
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

/// Where the surviving parts of ranges of the old text, which are ascending and disjoint, stand in the new text.
pub fn carry(ranges: &[Range<usize>], changes: &[Change]) -> Vec<Range<usize>> {
    let (mut grown, mut shrunk, mut removed_to) = (0, 0, 0);
    let mut changes = changes.iter().peekable();
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut at = range.start.max(removed_to);
        while let Some(change) = changes.next_if(|change| change.at < range.end) {
            if at < change.at {
                parts.push(at + grown - shrunk..change.at + grown - shrunk);
            }
            removed_to = change.at + change.removed;
            at = at.max(removed_to);
            grown += change.inserted.len();
            shrunk += change.removed;
        }
        if at < range.end {
            parts.push(at + grown - shrunk..range.end + grown - shrunk);
        }
    }
    parts
}

/// The same changes without the removal of any byte of `kept`, which is ascending and disjoint.
pub fn keeping(changes: Vec<Change>, kept: &[Range<usize>]) -> Vec<Change> {
    let mut result = Vec::with_capacity(changes.len());
    for mut change in changes {
        let removed = change.removed_range();
        let mut from = removed.start;
        // The replacement stands before the first kept part, where the old text began to differ.
        let first = kept.partition_point(|kept| kept.end <= removed.start);
        for kept in kept[first..].iter().take_while(|kept| kept.start < removed.end) {
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
