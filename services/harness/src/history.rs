//! What the players of a fault test did and saw, as the player wrote it down. Must not judge any of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// One line of a history.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// Milliseconds of a clock that never goes back.
    pub at: f64,
    /// Milliseconds since 1970, to compare with times in the database.
    pub wall: f64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// A message was sent, perhaps not for the first time.
    Send {
        /// The sender.
        user: String,
        /// Where to.
        conversation: String,
        /// The sender's own id of the message.
        client_msg_id: String,
        /// The sender's queue: its messages must keep their order.
        queue: String,
        /// Counted from 1 in the queue.
        serial: u64,
        /// Start of the SHA-256 of the content.
        digest: String,
    },
    /// An attempt to send was answered, or given up.
    Ack {
        /// The sender.
        user: String,
        /// Where to.
        conversation: String,
        /// The sender's own id of the message.
        client_msg_id: String,
        /// The answer.
        outcome: Outcome,
        /// The stored message's id when it is `ok`.
        #[serde(default)]
        id: Option<String>,
        /// The stored message's seq when it is `ok`.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// A client learnt of an event.
    Recv {
        /// Whose client.
        user: String,
        /// Of which conversation.
        conversation: String,
        /// The event.
        event: Event,
        /// The message's id.
        id: String,
        /// Live: the message's seq. From a sync: the event's.
        seq: u64,
        /// How the client learnt of it.
        source: Source,
    },
    /// A client follows a conversation on a fresh connection.
    Join {
        /// Whose client.
        user: String,
        /// Which.
        conversation: String,
        /// The conversation's head at that time.
        head: u64,
    },
    /// A connection is gone.
    Disconnect {
        /// Whose.
        user: String,
        /// What the client library calls it.
        #[serde(default)]
        reason: String,
        /// What the server said where the transport failed.
        #[serde(default)]
        detail: String,
    },
    /// A connection did not come about.
    Refused {
        /// Whose.
        user: String,
        /// What the client library calls it.
        reason: String,
        /// What the server said.
        #[serde(default)]
        detail: String,
    },
    /// The server said that what the client knows is void.
    Resync {
        /// To whom.
        user: String,
        /// Of which conversation.
        conversation: String,
    },
    /// An edit or a deletion came to its end.
    Change {
        /// Who changed.
        user: String,
        /// Where.
        conversation: String,
        /// The message's id.
        id: String,
        /// `message:edit` or `message:delete`.
        event: String,
        /// The answer.
        outcome: Outcome,
    },
    /// The test marked this moment.
    Mark {
        /// As what.
        name: String,
    },
    /// Of no matter for any invariant: connect, sync.
    #[serde(other)]
    Other,
}

/// The three outcomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is stored.
    Ok,
    /// It is surely not stored.
    Rejected,
    /// Nobody knows; also when no answer came.
    Unknown,
}

/// What clients see happen to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Event {
    /// Created.
    #[serde(rename = "message:new")]
    New,
    /// Its content was changed.
    #[serde(rename = "message:edited")]
    Edited,
    /// Its content was taken away.
    #[serde(rename = "message:deleted")]
    Deleted,
}

/// How a client learnt of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Delivered unasked.
    Live,
    /// By catching up.
    Sync,
}

/// What a client has of its conversations at the end.
#[derive(Clone, Debug, Deserialize)]
pub struct FinalState {
    /// Whose client.
    pub user: String,
    /// Messages in seq order by conversation.
    pub conversations: BTreeMap<String, Vec<Seen>>,
}

/// A message as a client or the database has it: id, seq, start of the content's SHA-256, edited, deleted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Seen(pub String, pub u64, pub String, pub bool, pub bool);

/// Everything a player left behind.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order of their times.
    pub records: Vec<Record>,
    /// Of every client.
    pub finals: Vec<FinalState>,
}

impl History {
    /// Reads both files of a player.
    ///
    /// # Errors
    /// One cannot be read or is not what a player writes; names the line.
    pub fn read(history: &Path, finals: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let text = read(history)?;
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("line {} of the history", number + 1))
        };
        let records = text
            .lines()
            .enumerate()
            .map(parse)
            .collect::<anyhow::Result<_>>()?;
        let finals = serde_json::from_str(&read(finals)?).context("the final states")?;
        Ok(Self { records, finals })
    }

    /// The record of a mark.
    #[must_use]
    pub fn mark(&self, wanted: &str) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| matches!(&record.what, What::Mark { name } if name == wanted))
    }
}
