//! What an editor changed: between two texts, by lines, then by words, then by the ends of words. Coarse units
//! first, because a paragraph that was put in must stay in one piece when others edit beside it.

use similar::{Algorithm, DiffOp, capture_diff_slices};
use unicode_segmentation::UnicodeSegmentation;

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

/// Most changes told apart: each costs a walk through the document. Texts with more have little in common.
const MAX_CHANGES: usize = 1_000;

/// The changes from `old` to `new`, ascending and disjoint. Never inside a grapheme.
pub(super) fn changes<'a>(old: &str, new: &'a str) -> Vec<Change<'a>> {
    let lines: Vec<&str> = old.split_inclusive('\n').collect();
    let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
    let by_lines = compare(&lines, &new_lines, new);
    if by_lines.len() > MAX_CHANGES {
        let whole = Change {
            at: 0,
            removed: old.len(),
            inserted: new,
        };
        return vec![trim(old, whole)];
    }
    let by_words = refine(old, &by_lines);
    if by_words.len() > MAX_CHANGES {
        by_lines
    } else {
        by_words
    }
}

/// The same changes, word by word.
fn refine<'a>(old: &str, by_lines: &[Change<'a>]) -> Vec<Change<'a>> {
    let mut found = Vec::new();
    for &change in by_lines {
        let within = slice(old, change.at, change.removed);
        if within.is_empty() || change.inserted.is_empty() {
            found.push(change);
            continue;
        }
        let words: Vec<&str> = within.split_word_bounds().collect();
        let new_words: Vec<&str> = change.inserted.split_word_bounds().collect();
        for finer in compare(&words, &new_words, change.inserted) {
            let finest = trim(within, finer);
            found.push(Change {
                at: change.at + finest.at,
                ..finest
            });
        }
    }
    found
}

/// Compares two texts given as tokens; `new` is the text of the new tokens.
fn compare<'a>(old_tokens: &[&str], new_tokens: &[&str], new: &'a str) -> Vec<Change<'a>> {
    let (old_starts, new_starts) = (starts(old_tokens), starts(new_tokens));
    let place = |starts: &[usize], index: usize| starts.get(index).copied().unwrap_or_default();
    capture_diff_slices(Algorithm::Myers, old_tokens, new_tokens)
        .into_iter()
        .filter(|op| !matches!(op, DiffOp::Equal { .. }))
        .map(|op| {
            let (old_range, new_range) = (op.old_range(), op.new_range());
            let at = place(&old_starts, old_range.start);
            let from = place(&new_starts, new_range.start);
            Change {
                at,
                removed: place(&old_starts, old_range.end) - at,
                inserted: slice(new, from, place(&new_starts, new_range.end) - from),
            }
        })
        .collect()
}

/// Where each token begins, and the end.
fn starts(tokens: &[&str]) -> Vec<usize> {
    let mut at = 0;
    let mut starts = Vec::with_capacity(tokens.len() + 1);
    for token in tokens {
        starts.push(at);
        at += token.len();
    }
    starts.push(at);
    starts
}

/// Leaves alone what a replaced stretch and its replacement have in common at both ends.
fn trim<'a>(old: &str, change: Change<'a>) -> Change<'a> {
    let gone: Vec<&str> = slice(old, change.at, change.removed).graphemes(true).collect();
    let come: Vec<&str> = change.inserted.graphemes(true).collect();
    let front = gone.iter().zip(&come).take_while(|(a, b)| a == b).count();
    let room = gone.len().min(come.len()) - front;
    let back = gone
        .iter()
        .rev()
        .zip(come.iter().rev())
        .take(room)
        .take_while(|(a, b)| a == b)
        .count();
    let bytes = |tokens: &[&str]| tokens.iter().map(|token| token.len()).sum::<usize>();
    let (head, tail) = (
        bytes(come.get(..front).unwrap_or_default()),
        bytes(&come[come.len() - back..]),
    );
    Change {
        at: change.at + head,
        removed: change.removed - head - tail,
        inserted: slice(change.inserted, head, change.inserted.len() - head - tail),
    }
}

/// Offsets of tokens are always character boundaries.
fn slice(text: &str, at: usize, len: usize) -> &str {
    text.get(at..at + len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(old: &str, changes: &[Change<'_>]) -> String {
        let mut text = old.to_owned();
        for change in changes.iter().rev() {
            text.replace_range(change.at..change.at + change.removed, change.inserted);
        }
        text
    }

    #[test]
    fn a_new_paragraph_is_one_insertion_wherever_it_stands() {
        for (old, new) in [
            ("a\nb\n", "a\nx y\nb\n"),
            ("a\nb\n", "x y\na\nb\n"),
            ("a\nb\n", "a\nb\nx y\n"),
        ] {
            let changes = changes(old, new);
            assert_eq!(changes.len(), 1, "{changes:?}");
            assert_eq!((changes[0].removed, changes[0].inserted), (0, "x y\n"));
        }
    }

    #[test]
    fn a_changed_word_leaves_its_neighbours_and_its_own_ends_alone() {
        let changes = changes("one two three\n", "one twelve three\n");
        assert_eq!(
            changes,
            [Change {
                at: 6,
                removed: 1,
                inserted: "elve"
            }]
        );
    }

    #[test]
    fn graphemes_are_never_cut() {
        // The same person with another colour of skin: one grapheme of several characters each.
        let changes = changes("x👍🏽y", "x👍🏿y");
        assert!(
            changes
                .iter()
                .all(|c| "👍🏿".contains(c.inserted) && c.inserted.starts_with('👍')),
            "{changes:?}"
        );
    }

    #[test]
    fn texts_with_little_in_common_are_replaced_in_coarse_pieces() {
        let words = |word: &str| format!("same\n{}\nsame\n", format!("{word} - ").repeat(MAX_CHANGES + 1));
        let (old, new) = (words("old"), words("new"));
        let by_lines = changes(&old, &new);
        assert_eq!((by_lines.len(), by_lines[0].at), (1, 5));
        let lines = |line: &str| format!("{line}\n=\n").repeat(MAX_CHANGES + 1);
        let (old, new) = (lines("old"), lines("new"));
        let whole = changes(&old, &new);
        assert_eq!((whole.len(), apply(&old, &whole)), (1, new.clone()));
    }

    proptest! {
        #[test]
        fn the_changes_lead_from_old_to_new(old in "[ab \n👍🏽é]{0,40}", new in "[ab \n👍🏽é]{0,40}") {
            prop_assert_eq!(apply(&old, &changes(&old, &new)), new);
        }
    }
}
