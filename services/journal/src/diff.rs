//! The one text diff: by lines, then by words, then by grapheme clusters.
//!
//! Coarse units come first, so that a paragraph inserted beside another stays in one piece. No change ever cuts
//! a grapheme cluster, and so none cuts a UTF-16 surrogate pair.
//!
//! Cost: splitting and comparing common ends is linear in the two texts. What lies between is compared by Myers'
//! algorithm. Both take their steps from a [`Budget`]; when that is used up, the search ends and what lies between
//! the common ends is one replacement. The search takes 4 bytes of memory a step at most.
//!
//! `similar` bounds its search by a clock and by a limit of its own that cannot be counted or chosen, and
//! `imara-diff` by heuristics for lines of code; so the thirty lines of the algorithm stand here.

use std::collections::HashMap;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::change::{Change, slice};

/// Bytes that are split and compared from both ends for one step.
pub(crate) const BYTES_PER_STEP: usize = 8;

/// Steps that may still be spent. One step compares two tokens or looks at one diagonal, or passes over 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(u64);

impl Budget {
    /// The default for one edit: 1,400 changed lines between unchanged ones. Used up, it took 0.16 s of a release build.
    pub const EDIT: Self = Self(1_000_000);

    /// A budget of so many steps.
    pub const fn steps(steps: u64) -> Self {
        Self(steps)
    }

    /// The steps left.
    pub const fn left(self) -> u64 {
        self.0
    }

    /// Takes this many steps; `None`, and none is left, if there are fewer.
    pub(crate) fn spend(&mut self, steps: usize) -> Option<()> {
        let left = self.0.checked_sub(steps as u64);
        self.0 = left.unwrap_or_default();
        left.map(|_| ())
    }
}

/// The changes from `old` to `new`: ascending and disjoint.
pub fn diff(old: &str, new: &str, budget: &mut Budget) -> Vec<Change> {
    diff_beside(old, new, &[], budget)
}

/// Like [`diff`]; a line that holds text of `others` (ascending ranges of `old`) is never turned into a similar line
/// by changing a part of it: it is replaced as a whole. So of two similar paragraphs, inserted at one place by
/// two writers, neither passes for a correction of the other. Pure deletions and pure insertions stay exact.
pub(crate) fn diff_beside(old: &str, new: &str, others: &[Range<usize>], budget: &mut Budget) -> Vec<Change> {
    // Linear work is not refused, but leaves less for the search and for further diffs.
    let _ = budget.spend((old.len() + new.len()) / BYTES_PER_STEP);
    let mut changes = Vec::new();
    compare(Unit::Line, old, new, 0, others, budget, &mut changes);
    changes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Line,
    Word,
    Grapheme,
}

fn compare(
    unit: Unit,
    old: &str,
    new: &str,
    at: usize,
    others: &[Range<usize>],
    budget: &mut Budget,
    changes: &mut Vec<Change>,
) {
    let (tokens, new_tokens) = (unit.split(old), unit.split(new));
    let (front, back) = common_ends(&tokens, &new_tokens);
    let (starts, new_starts) = (starts(&tokens), starts(&new_tokens));
    let change = |gone: &Range<usize>, come: &Range<usize>| Change {
        at: at + starts[gone.start],
        removed: starts[gone.end] - starts[gone.start],
        inserted: slice(new, new_starts[come.start]..new_starts[come.end]).to_owned(),
    };
    let between = (front..tokens.len() - back, front..new_tokens.len() - back);
    let inner = (&tokens[between.0.clone()], &new_tokens[between.1.clone()]);
    let parts = match replaced(inner.0, inner.1, budget) {
        Some(parts) => parts
            .into_iter()
            .map(|(gone, come)| (moved(gone, front), moved(come, front)))
            .collect(),
        None => vec![between.clone()],
    };
    let one_sided =
        parts.iter().all(|(gone, _)| gone.is_empty()) || parts.iter().all(|(_, come)| come.is_empty());
    if unit == Unit::Grapheme && !one_sided {
        // Letters that two words happen to share are no reason to mix the words.
        changes.push(change(&between.0, &between.1));
        return;
    }
    for (gone, come) in parts {
        let coarse = change(&gone, &come);
        let Some(finer) = unit
            .finer()
            .filter(|_| coarse.removed > 0 && !coarse.inserted.is_empty())
        else {
            changes.push(coarse);
            continue;
        };
        let mut fine = Vec::new();
        let old = slice(old, coarse.at - at..coarse.at - at + coarse.removed);
        compare(finer, old, &coarse.inserted, coarse.at, others, budget, &mut fine);
        if unit == Unit::Line && rewrites(&fine, others) {
            changes.push(coarse);
        } else {
            changes.append(&mut fine);
        }
    }
}

/// Whether these changes do more to one of the ranges than one insertion or one removal.
fn rewrites(changes: &[Change], ranges: &[Range<usize>]) -> bool {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
        return false;
    };
    let end = last.removed_range().end.max(last.at + 1);
    let before = ranges.partition_point(|range| range.end <= first.at);
    let mut ranges = ranges[before..].iter().take_while(|range| range.start < end);
    ranges.any(|range| {
        // What ends or inserts at the start of the range does not touch it.
        let before = changes.partition_point(|change| change.removed_range().end <= range.start);
        let mut touching = changes[before..]
            .iter()
            .take_while(|change| change.at < range.end);
        match (touching.next(), touching.next()) {
            (Some(only), None) => only.removed > 0 && !only.inserted.is_empty(),
            (_, another) => another.is_some(),
        }
    })
}

impl Unit {
    fn finer(self) -> Option<Self> {
        match self {
            Self::Line => Some(Self::Word),
            Self::Word => Some(Self::Grapheme),
            Self::Grapheme => None,
        }
    }

    fn split(self, text: &str) -> Vec<&str> {
        match self {
            Self::Line => text.split_inclusive('\n').collect(),
            Self::Word => words(text),
            Self::Grapheme => text.graphemes(true).collect(),
        }
    }
}

/// Words, and single grapheme clusters between them. Built of grapheme clusters, because word boundaries of
/// Unicode may cut one.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut end) = (0, 0);
    for grapheme in text.graphemes(true) {
        let in_word = grapheme.chars().next().is_some_and(char::is_alphanumeric);
        if !in_word && start < end {
            words.push(&text[start..end]);
            start = end;
        }
        end += grapheme.len();
        if !in_word {
            words.push(&text[start..end]);
            start = end;
        }
    }
    if start < end {
        words.push(&text[start..end]);
    }
    words
}

/// The number of tokens that two texts share at their beginnings and at their ends.
fn common_ends(old: &[&str], new: &[&str]) -> (usize, usize) {
    let front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old[front..].iter().rev().zip(new[front..].iter().rev());
    (front, rest.take_while(|(a, b)| a == b).count())
}

fn starts(tokens: &[&str]) -> Vec<usize> {
    let ends = tokens.iter().scan(0, |at, token| {
        *at += token.len();
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

fn moved(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// The ranges of `old` that are replaced, each with its replacement in `new`. `None` when the budget is used up.
fn replaced(old: &[&str], new: &[&str], budget: &mut Budget) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    if old.is_empty() || new.is_empty() {
        let nothing = old.is_empty() && new.is_empty();
        return Some(if nothing {
            Vec::new()
        } else {
            vec![(0..old.len(), 0..new.len())]
        });
    }
    let mut known = HashMap::new();
    let mut number = |token| {
        let next = known.len();
        *known.entry(token).or_insert(next)
    };
    let old: Vec<usize> = old.iter().map(|token| number(*token)).collect();
    let new: Vec<usize> = new.iter().map(|token| number(*token)).collect();
    let mut ranges: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for (gone, come) in edit_script(&old, &new, budget)? {
        match ranges.last_mut() {
            Some((last, last_new)) if last.end == gone.start && last_new.end == come.start => {
                last.end = gone.end;
                last_new.end = come.end;
            }
            _ => ranges.push((gone, come)),
        }
    }
    Some(ranges)
}

/// Where in `old` a diagonal ends. Small: a search keeps one for each of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach(u32);

impl Reach {
    /// Not within the grid.
    const OUTSIDE: Self = Self(u32::MAX);

    /// A place that cannot be written down is outside: texts have less than four billion tokens.
    fn new(at: usize) -> Self {
        u32::try_from(at).map_or(Self::OUTSIDE, Self)
    }

    fn get(self) -> Option<usize> {
        (self != Self::OUTSIDE).then_some(self.0 as usize)
    }
}

/// Myers' greedy algorithm: single removals and insertions, ascending.
fn edit_script(
    old: &[usize],
    new: &[usize],
    budget: &mut Budget,
) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    // Row d holds how far into `old` d edits reach on each of the diagonals x - y = -d, -d+2, … d.
    let mut rows: Vec<Vec<Reach>> = Vec::new();
    let (width, height) = (old.len(), new.len());
    loop {
        let d = rows.len();
        budget.spend(d + 1)?;
        let mut row = Vec::with_capacity(d + 1);
        for i in 0..=d {
            let start = match rows.last() {
                Some(last) => step(last, i, width, height).map(|(x, _)| x),
                None => Some(0),
            };
            row.push(match start {
                Some(mut x) => {
                    while x < width && x + d < 2 * i + height && old[x] == new[x + d - 2 * i] {
                        budget.spend(1)?;
                        x += 1;
                    }
                    Reach::new(x)
                }
                None => Reach::OUTSIDE,
            });
        }
        let corner = (d + width).checked_sub(height).filter(|twice| twice % 2 == 0);
        let done = corner.and_then(|twice| row.get(twice / 2)) == Some(&Reach::new(width));
        rows.push(row);
        if done {
            break;
        }
    }
    let mut script = Vec::with_capacity(rows.len());
    let (mut x, mut y) = (width, height);
    for d in (1..rows.len()).rev() {
        let i = (x + d - y) / 2;
        let (after, removes) = step(&rows[d - 1], i, width, height)?;
        let after_y = after + d - 2 * i;
        if removes {
            (x, y) = (after - 1, after_y);
            script.push((x..after, y..y));
        } else {
            (x, y) = (after, after_y - 1);
            script.push((x..x, y..after_y));
        }
    }
    script.reverse();
    Some(script)
}

/// Where the `i`th diagonal of the row after `last` begins, and whether a removal leads there; `None` outside the
/// grid.
fn step(last: &[Reach], i: usize, width: usize, height: usize) -> Option<(usize, bool)> {
    let d = last.len();
    let removal = i
        .checked_sub(1)
        .and_then(|i| last[i].get())
        .filter(|x| *x < width);
    let insertion = last.get(i).and_then(|reach| reach.get());
    let insertion = insertion.filter(|x| x + d <= 2 * i + height);
    match (removal, insertion) {
        (Some(left), Some(above)) if above > left => Some((above, false)),
        (Some(left), _) => Some((left + 1, true)),
        (None, above) => above.map(|x| (x, false)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::{apply, size};

    fn of(old: &str, new: &str) -> Vec<Change> {
        diff(old, new, &mut Budget::EDIT.clone())
    }

    fn insertion(at: usize, inserted: &str) -> Change {
        Change {
            at,
            removed: 0,
            inserted: inserted.to_owned(),
        }
    }

    #[test]
    fn a_new_paragraph_is_one_insertion_wherever_it_stands() {
        assert_eq!(of("p1\np3\n", "p1\np2\np3\n"), [insertion(3, "p2\n")]);
        assert_eq!(of("p1\np3\n", "p2\np1\np3\n"), [insertion(0, "p2\n")]);
        assert_eq!(of("p1\np3\n", "p1\np3\np2\n"), [insertion(6, "p2\n")]);
    }

    #[test]
    fn letters_typed_into_words_delete_nothing() {
        let changes = of("abcd efgh\n", "aXbcYd efZgh\n");
        assert!(changes.iter().all(|change| change.removed == 0), "{changes:?}");
    }

    #[test]
    fn a_replaced_word_is_not_mixed_with_the_one_it_replaces() {
        let changes = of("one three five\n", "one twelve five\n");
        assert_eq!((changes.len(), changes[0].inserted.as_str()), (1, "welv"));
    }

    #[test]
    fn grapheme_clusters_and_surrogate_pairs_are_never_cut() {
        for (old, new) in [
            ("x👍🏽y", "x👍🏿y"),
            ("e", "e\u{301}"),
            ("👩\u{200d}👩\u{200d}👧", "👩\u{200d}👩\u{200d}👦"),
            ("\r\n", "\n"),
            ("한그", "한글"),
        ] {
            let boundaries = |text: &str| -> Vec<usize> {
                let starts = text.grapheme_indices(true).map(|(at, _)| at);
                starts.chain([text.len()]).collect()
            };
            let (cuts, new_cuts) = (boundaries(old), boundaries(new));
            let changes = of(old, new);
            for (change, inserted) in changes.iter().zip(crate::change::inserted_ranges(&changes)) {
                let removed = change.removed_range();
                assert!(
                    cuts.contains(&removed.start) && cuts.contains(&removed.end),
                    "{old:?}"
                );
                assert!(
                    new_cuts.contains(&inserted.start) && new_cuts.contains(&inserted.end),
                    "{new:?}"
                );
            }
        }
    }

    #[test]
    fn a_similar_line_of_another_writer_is_replaced_as_a_whole_but_shortened_exactly() {
        let budget = &mut Budget::EDIT.clone();
        let others = std::slice::from_ref(&(0..13));
        let replaced = diff_beside("paragraph 12\n", "paragraph 13\n", others, budget);
        assert_eq!(size(&replaced), 26);
        let shortened = diff_beside("paragraph 12\n", "paragraph 1\n", others, budget);
        assert_eq!(size(&shortened), 1);
    }

    #[test]
    fn a_used_up_budget_replaces_what_lies_between_the_common_ends() {
        let words = |word: &str| format!("same\n{}same\n", format!("{word}\nx\n").repeat(500));
        let (old, new) = (words("old"), words("new"));
        let mut budget = Budget::steps(1_000);
        let changes = diff(&old, &new, &mut budget);
        assert_eq!((changes.len(), changes[0].at), (1, 5));
        assert_eq!(apply(&old, &changes), new);
    }

    #[test]
    fn work_stays_within_the_budget_whatever_the_texts() {
        // Nothing in common, much in common, and 384 KB of different lines.
        let alternating = |a: &str, b: &str| format!("{a}{b}").repeat(100_000);
        let lines = |seed: usize| (0..40_000).map(|n| format!("{}\n", n * seed)).collect::<String>();
        for (old, new) in [
            (alternating("a", "b"), alternating("b", "c")),
            (alternating("a ", "b\n"), alternating("b ", "a\n")),
            (lines(3), lines(7)),
        ] {
            assert_eq!(apply(&old, &of(&old, &new)), new);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn changes_lead_from_old_to_new_and_back(old in "[ab \n👍🏽é\u{301}]{0,40}", new in "[ab \n👍🏽é\u{301}]{0,40}", steps in 0u64..300) {
            for mut budget in [Budget::EDIT, Budget::steps(steps)] {
                let changes = diff(&old, &new, &mut budget);
                prop_assert_eq!(&apply(&old, &changes), &new);
                prop_assert_eq!(apply(&new, &crate::change::inverse(&old, &changes)), old.as_str());
            }
        }
    }
}
