//! How a session takes part in a conversation: what it asks of the room, and what it begins with there.

/// How a session takes part in a conversation.
#[derive(Debug, Clone, Default)]
pub struct Following {
    /// Whether the client follows the conversation itself, or only its place in a list.
    pub joined: bool,
    /// What the user had not read, where that is known.
    pub unread: Option<Unread>,
    /// What the client is emitted of the past before it is emitted what happens from now on.
    pub missed: Option<Missed>,
    /// Whether the client keeps the document of a joined journal itself and is emitted updates without texts; `None` leaves
    /// that as it is.
    pub takes_updates: Option<bool>,
}

/// What a client has not got of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// Every event with a higher seq.
    pub after: u64,
    /// The epoch of that seq; empty where the client does not say.
    pub epoch: String,
    /// Receipts with a higher version; `None` for no receipts.
    pub receipts_after: Option<u64>,
    /// The client says so itself: it gets all of the rest. Else what makes no difference any more is left out.
    pub exact: bool,
    /// Messages of its own user belong to it where they have a higher seq than this; those before it sent itself, as far
    /// as is known.
    pub own_after: u64,
}

/// Messages of others a user has not read, as of a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// How many.
    pub count: u64,
    /// Counted up to here.
    pub head_seq: u64,
}

impl Following {
    /// What a session begins with, and what its client asks for at the same time, in one.
    pub fn and(self, asked: Self) -> Self {
        Self {
            joined: self.joined || asked.joined,
            unread: asked.unread.or(self.unread),
            missed: self.missed.or(asked.missed),
            takes_updates: asked.takes_updates.or(self.takes_updates),
        }
    }
}
