//! Parts of the logs of conversations, as statements take them.

use parlance_proto::ConversationId;
use uuid::Uuid;

use super::seq_to;

/// Rows that one stretch yields at most.
pub(super) const MOST: i64 = 1_000;

/// A part of a conversation's log: `after` < seq <= `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Whose log.
    pub conversation: ConversationId,
    /// Excluded.
    pub after: u64,
    /// Included.
    pub through: u64,
}

/// The columns conversation_id, after and through of these stretches.
pub(super) fn columns(stretches: &[Stretch]) -> (Vec<Uuid>, Vec<i64>, Vec<i64>) {
    let column = |of: fn(&Stretch) -> u64| stretches.iter().map(|stretch| seq_to(of(stretch))).collect();
    (
        stretches
            .iter()
            .map(|stretch| stretch.conversation.uuid())
            .collect(),
        column(|stretch| stretch.after),
        column(|stretch| stretch.through),
    )
}
