//! What was changed between two texts: by lines, then by words, then by characters. Coarse units first, so
//! that a paragraph put in stays in one piece when others write beside it.

use std::ops::Range;
use std::time::Instant;

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

/// Characters compared one by one at most; the work grows with the square.
const FINE: usize = 4_000;

/// One stretch of the old text that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change<'a> {
    /// Byte offset in the old text.
    pub(super) at: usize,
    /// Bytes of the old text that go.
    pub(super) removed: usize,
    /// What comes in their place.
    pub(super) inserted: &'a str,
}

impl Change<'_> {
    /// What goes, in the old text.
    pub(super) fn removed_range(&self) -> Range<usize> {
        self.at..self.at + self.removed
    }

    fn moved(self, by: usize) -> Self {
        Self {
            at: self.at + by,
            ..self
        }
    }
}

/// The changes from `old` to `new`, ascending and disjoint, never inside a character. After `deadline` they
/// get coarser, but stay true.
pub(super) fn changes<'a>(old: &str, new: &'a str, deadline: Instant) -> Vec<Change<'a>> {
    let (front, back) = alike(old, new, |text, at| {
        at == 0 || at == text.len() || text.as_bytes()[at - 1] == b'\n'
    });
    let (old, new) = (&old[front..old.len() - back], &new[front..new.len() - back]);
    let whole = trimmed(old, new);
    if whole.removed == 0 || whole.inserted.is_empty() {
        return if old == new {
            Vec::new()
        } else {
            vec![whole.moved(front)]
        };
    }
    let mut found = Vec::new();
    let (lines, new_lines) = (split(old, line), split(new, line));
    for lines in compare(&lines, &new_lines, new, deadline) {
        let gone = &old[lines.at..lines.at + lines.removed];
        let (words, new_words) = (split(gone, word), split(lines.inserted, word));
        for words in compare(&words, &new_words, lines.inserted, deadline) {
            let gone = &gone[words.at..words.at + words.removed];
            let finest = characters(gone, words.inserted, deadline);
            let finest = finest.unwrap_or_else(|| vec![trimmed(gone, words.inserted)]);
            found.extend(finest.into_iter().map(|change| change.moved(lines.at + words.at)));
        }
    }
    if !one_sided(&found)
        && let Some(finest) = characters(old, new, deadline)
    {
        found = finest;
    }
    found.into_iter().map(|change| change.moved(front)).collect()
}

/// Where what was inserted stands in the new text.
pub(super) fn inserted(changes: &[Change<'_>]) -> Vec<Range<usize>> {
    let mut grown = 0;
    let mut shrunk = 0;
    let mut found = Vec::new();
    for change in changes {
        let start = change.at + grown - shrunk;
        found.push(start..start + change.inserted.len());
        grown += change.inserted.len();
        shrunk += change.removed;
    }
    found.retain(|range| !range.is_empty());
    found
}

/// Where what is left of a stretch of the old text stands in the new one.
pub(super) fn carried(changes: &[Change<'_>], range: Range<usize>) -> Vec<Range<usize>> {
    let mut grown = 0;
    let mut shrunk = 0;
    let mut at = range.start;
    let mut found = Vec::new();
    for change in changes {
        let kept = at..change.at.min(range.end);
        if !kept.is_empty() {
            found.push(kept.start + grown - shrunk..kept.end + grown - shrunk);
        }
        at = at.max(change.at + change.removed);
        grown += change.inserted.len();
        shrunk += change.removed;
    }
    if at < range.end {
        found.push(at + grown - shrunk..range.end + grown - shrunk);
    }
    found
}

/// The changes by characters, where they only put in or only take out. Letters that a word happens to share
/// with the one it replaces are no reason to mix the two.
fn characters<'a>(old: &str, new: &'a str, deadline: Instant) -> Option<Vec<Change<'a>>> {
    let whole = trimmed(old, new);
    if whole.removed == 0 || whole.inserted.is_empty() {
        return Some(vec![whole]);
    }
    if whole.removed + whole.inserted.len() > FINE {
        return None;
    }
    let gone = &old[whole.at..whole.at + whole.removed];
    let (chars, new_chars) = (split(gone, character), split(whole.inserted, character));
    let fine = compare(&chars, &new_chars, whole.inserted, deadline);
    one_sided(&fine).then(|| fine.into_iter().map(|change| change.moved(whole.at)).collect())
}

/// Everything between what two texts share at both ends, as one change.
fn trimmed<'a>(old: &str, new: &'a str) -> Change<'a> {
    let (front, back) = alike(old, new, str::is_char_boundary);
    Change {
        at: front,
        removed: old.len() - front - back,
        inserted: &new[front..new.len() - back],
    }
}

/// Whether something was only put in, or only taken out.
fn one_sided(changes: &[Change<'_>]) -> bool {
    changes.iter().all(|change| change.removed == 0)
        || changes.iter().all(|change| change.inserted.is_empty())
}

/// Compares two texts given as tokens; `new` is the text of the new tokens.
fn compare<'a>(old: &[&str], new_tokens: &[&str], new: &'a str, deadline: Instant) -> Vec<Change<'a>> {
    let (starts, new_starts) = (starts(old), starts(new_tokens));
    capture_diff_slices_deadline(Algorithm::Myers, old, new_tokens, Some(deadline))
        .into_iter()
        .filter(|op| !matches!(op, DiffOp::Equal { .. }))
        .map(|op| {
            let (range, new_range) = (op.old_range(), op.new_range());
            Change {
                at: starts[range.start],
                removed: starts[range.end] - starts[range.start],
                inserted: &new[new_starts[new_range.start]..new_starts[new_range.end]],
            }
        })
        .collect()
}

/// Where each token begins, and the end.
fn starts(tokens: &[&str]) -> Vec<usize> {
    let ends = tokens.iter().scan(0, |at, token| {
        *at += token.len();
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Bytes that two texts share at their beginnings and ends, as far as both may be cut there.
fn alike(old: &str, new: &str, may_cut: impl Fn(&str, usize) -> bool) -> (usize, usize) {
    let shared = |a: &mut dyn Iterator<Item = (u8, u8)>| a.take_while(|(a, b)| a == b).count();
    let mut front = shared(&mut old.bytes().zip(new.bytes()));
    while !(may_cut(old, front) && may_cut(new, front)) {
        front -= 1;
    }
    let (rest, new_rest) = (&old.as_bytes()[front..], &new.as_bytes()[front..]);
    let mut back = shared(&mut rest.iter().copied().rev().zip(new_rest.iter().copied().rev()));
    while !(may_cut(old, old.len() - back) && may_cut(new, new.len() - back)) {
        back -= 1;
    }
    (front, back)
}

fn split(text: &str, first: impl Fn(&str) -> usize) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (token, after) = rest.split_at(first(rest));
        tokens.push(token);
        rest = after;
    }
    tokens
}

/// The length of the first line, with its end.
fn line(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |at| at + 1)
}

/// The length of the first word, or of what stands between words: one character.
fn word(text: &str) -> usize {
    match text.find(|char: char| !char.is_alphanumeric()) {
        Some(0) => character(text),
        Some(end) => end,
        None => text.len(),
    }
}

/// The length of the first character.
fn character(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn of<'a>(old: &str, new: &'a str) -> Vec<Change<'a>> {
        changes(old, new, Instant::now() + Duration::from_secs(60))
    }

    fn apply(old: &str, changes: &[Change<'_>]) -> String {
        let mut text = old.to_owned();
        for change in changes.iter().rev() {
            text.replace_range(change.at..change.at + change.removed, change.inserted);
        }
        text
    }

    #[test]
    fn a_new_paragraph_is_one_insertion_wherever_it_stands() {
        for (old, new, at) in [
            ("p1\np3\n", "p1\np2\np3\n", 3),
            ("p1\np3\n", "p2\np1\np3\n", 0),
            ("p1\np3\n", "p1\np3\np2\n", 6),
        ] {
            let inserted = Change {
                at,
                removed: 0,
                inserted: "p2\n",
            };
            assert_eq!(of(old, new), [inserted]);
        }
    }

    #[test]
    fn letters_typed_into_a_word_delete_nothing() {
        let changes = of("abcd efgh\n", "aXbcYd efZgh\n");
        assert!(changes.iter().all(|change| change.removed == 0), "{changes:?}");
    }

    #[test]
    fn a_replaced_word_comes_in_one_piece() {
        let change = Change {
            at: 4,
            removed: 4,
            inserted: "even",
        };
        assert_eq!(of("the once\n", "the even\n").len(), 1);
        assert_eq!(
            of("the oxen\n", "the even\n"),
            [Change {
                removed: 2,
                inserted: "ev",
                ..change
            }]
        );
    }

    #[test]
    fn a_passed_deadline_still_gives_a_true_answer() {
        let old: String = (0..2_000).map(|n| format!("line {n}\n")).collect();
        let new: String = (0..2_000).map(|n| format!("line {}\n", n * 3)).collect();
        let changes = changes(&old, &new, Instant::now());
        assert_eq!(apply(&old, &changes), new);
    }

    proptest! {
        #[test]
        fn the_changes_lead_from_old_to_new(old in "[ab \n👍🏽é]{0,40}", new in "[ab \n👍🏽é]{0,40}") {
            prop_assert_eq!(apply(&old, &of(&old, &new)), new);
        }

        #[test]
        fn what_was_only_typed_in_deletes_nothing(old in "[abé \n]{0,40}", at in 0usize..40, typed in "[xy\n]{1,9}") {
            let at = (0..=at.min(old.len())).rev().find(|at| old.is_char_boundary(*at)).unwrap();
            let new = format!("{}{typed}{}", &old[..at], &old[at..]);
            let changes = of(&old, &new);
            prop_assert!(changes.iter().all(|change| change.removed == 0), "{:?}", changes);
        }
    }
}
