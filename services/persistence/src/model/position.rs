//! Positions of the feed in a conversation's events. Pure.

/// A position in a conversation's events: durable ones by seq, receipts by their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of durable events; [`Position::NOTHING`] where none is missing.
    pub seq: u64,
    /// Of receipts; likewise.
    pub receipts: u64,
}

impl Position {
    /// Beyond every event: as a lower bound, none is missing.
    pub const NOTHING: u64 = i64::MAX as u64;

    /// What comes after either comes after this.
    pub fn lower(self, other: Self) -> Self {
        Self {
            seq: self.seq.min(other.seq),
            receipts: self.receipts.min(other.receipts),
        }
    }

    /// Whether what comes after `other` comes after this as well.
    pub fn covers(&self, other: &Self) -> bool {
        self.seq <= other.seq && self.receipts <= other.receipts
    }
}
