//! An exact set of seqs as ascending, disjoint, non-adjacent ranges; the Rust face of `int8multirange`.
//! Pure; only grows.

use std::fmt::Write as _;
use std::str::FromStr;

use parlance_proto::v1::SeqRange;

/// A set of seqs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// Inclusive bounds.
    ranges: Vec<(u64, u64)>,
}

/// A text that is no `int8multirange`.
#[derive(Debug, thiserror::Error)]
#[error("not a multirange of seqs")]
pub struct NotAReadSet;

impl ReadSet {
    /// Most ranges that reading may make: what is stored, loaded and sent with each receipt. A healthy reader has one.
    pub const MOST_RANGES: usize = 2_000;

    /// How many ranges it has.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Adds everything from `first` to `last`, both included. Tells whether that changed anything.
    pub fn insert(&mut self, first: u64, last: u64) -> bool {
        if last < first {
            return false;
        }
        // Ranges from `from` up to `to` touch or overlap the new one and are melted into it.
        let from = self
            .ranges
            .partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self
            .ranges
            .partition_point(|&(start, _)| start <= last.saturating_add(1));
        if let Some(&(start, end)) = self.ranges.get(from)
            && start <= first
            && last <= end
        {
            return false;
        }
        let touched = self.ranges.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(first, |range| range.0.min(first));
        let end = touched.last().map_or(last, |range| range.1.max(last));
        self.ranges.splice(from..to, [(start, end)]);
        true
    }

    /// What is in this set and not in `other`. Takes one pass over both.
    pub fn without(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut gone = other.ranges.iter().copied().peekable();
        for &(first, last) in &self.ranges {
            let mut from = first;
            while let Some((gone_first, gone_last)) = gone.next_if(|range| range.1 <= last) {
                if gone_first > from {
                    ranges.push((from, gone_first - 1));
                }
                from = from.max(gone_last + 1);
            }
            // It may reach into the next range too.
            let until = gone
                .peek()
                .map_or(last, |range| last.min(range.0.saturating_sub(1)));
            if from <= until {
                ranges.push((from, until));
            }
        }
        Self { ranges }
    }

    /// The lowest and the highest seq; `None` for the empty set.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        Some((self.ranges.first()?.0, self.ranges.last()?.1))
    }

    /// Everything up to this seq is in the set; 0 if not even 1 is.
    pub fn watermark(&self) -> u64 {
        match self.ranges.first() {
            Some(&(first, last)) if first <= 1 => last,
            _ => 0,
        }
    }

    /// Whether the set holds `seq`.
    pub fn contains(&self, seq: u64) -> bool {
        let after = self.ranges.partition_point(|&(start, _)| start <= seq);
        after > 0 && self.ranges.get(after - 1).is_some_and(|&(_, end)| seq <= end)
    }

    /// The set as the wire shows it.
    pub fn to_wire(&self) -> Vec<SeqRange> {
        self.ranges
            .iter()
            .map(|&(first, last)| SeqRange { first, last })
            .collect()
    }

    /// The set as `int8multirange` text.
    pub fn to_sql(&self) -> String {
        let mut text = String::from("{");
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}[{first},{last}]");
        }
        text.push('}');
        text
    }
}

impl FromStr for ReadSet {
    type Err = NotAReadSet;

    /// Reads the form Postgres prints: `{[1,5),[7,9)}`, upper bounds excluded.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .ok_or(NotAReadSet)?;
        let mut set = Self::default();
        for range in inner
            .split_inclusive(')')
            .map(|range| range.trim_start_matches(','))
        {
            let bounds = range
                .strip_prefix('[')
                .and_then(|t| t.strip_suffix(')'))
                .ok_or(NotAReadSet)?;
            let (first, beyond) = bounds.split_once(',').ok_or(NotAReadSet)?;
            let first: u64 = first.parse().map_err(|_| NotAReadSet)?;
            let beyond: u64 = beyond.parse().map_err(|_| NotAReadSet)?;
            set.insert(first, beyond.checked_sub(1).ok_or(NotAReadSet)?);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_postgres_form_is_read() {
        let set: ReadSet = "{[1,5),[7,9)}".parse().unwrap();
        assert_eq!(set.to_sql(), "{[1,4],[7,8]}");
        assert_eq!("{}".parse::<ReadSet>().unwrap(), ReadSet::default());
        assert!("{[1,".parse::<ReadSet>().is_err() && "".parse::<ReadSet>().is_err());
    }

    #[test]
    fn the_watermark_begins_at_one() {
        let mut set = ReadSet::default();
        set.insert(2, 4);
        assert_eq!(set.watermark(), 0);
        set.insert(1, 1);
        assert_eq!(set.watermark(), 4);
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_only_one_has(
            ours in prop::collection::vec((1u64..60, 0u64..12), 0..10),
            theirs in prop::collection::vec((1u64..60, 0u64..12), 0..10),
        ) {
            let (mut a, mut b) = (ReadSet::default(), ReadSet::default());
            ours.iter().for_each(|&(first, length)| { a.insert(first, first + length); });
            theirs.iter().for_each(|&(first, length)| { b.insert(first, first + length); });
            let rest = a.without(&b);
            prop_assert!((0..80).all(|seq| rest.contains(seq) == (a.contains(seq) && !b.contains(seq))));
            let seqs: Vec<u64> = (0..80).filter(|&seq| rest.contains(seq)).collect();
            prop_assert_eq!(rest.bounds(), seqs.first().copied().zip(seqs.last().copied()));
        }

        #[test]
        fn it_equals_a_plain_set_and_never_shrinks(ranges in prop::collection::vec((1u64..60, 0u64..12), 0..40)) {
            let mut set = ReadSet::default();
            let mut plain = BTreeSet::new();
            for (first, length) in ranges {
                let before = plain.len();
                plain.extend(first..=first + length);
                prop_assert_eq!(set.insert(first, first + length), plain.len() != before);
                prop_assert!((0..80).all(|seq| set.contains(seq) == plain.contains(&seq)));
            }
            let wire = set.to_wire();
            prop_assert!(wire.windows(2).all(|w| w[0].last + 1 < w[1].first));
            prop_assert_eq!(wire.iter().map(|r| r.last - r.first + 1).sum::<u64>(), plain.len() as u64);
        }
    }
}
