//! One document: the only module that names the library's document and transactions.

use std::time::Instant;

use yrs::updates::decoder::Decode as _;
use yrs::{
    ClientID, Doc, GetString as _, ID, OffsetKind, Options, ReadTxn as _, Snapshot, StateVector, Text as _,
    TextRef, Transact as _, Update,
};

use super::diff::{self, Change};

/// The name of the text in the document, as CRDT clients open it.
const TEXT: &str = "content";
/// Of a document that is only merged into: nothing is ever written under it.
const READER: ClientID = ClientID::new(0);

/// A journal's text with all that is needed to merge changes of it.
pub struct Document {
    doc: Doc,
    text: TextRef,
}

/// These bytes are no Yjs (v1) update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Yjs (v1) update")]
pub struct Unreadable;

/// Something an edit did, by which it is recognised in a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Its last inserted character.
    Inserted(ID),
    /// A character it deleted; for edits that insert nothing.
    Deleted(ID),
}

/// What an edit of a document made.
pub(super) struct Rewritten<'a> {
    pub(super) changes: Vec<Change<'a>>,
    /// Holds this edit alone; needs what was there before it.
    pub(super) update: Vec<u8>,
    pub(super) mark: Mark,
}

impl Document {
    /// A document from all of its state as an update; no bytes are an empty document.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn from_state(state: &[u8]) -> Result<Self, Unreadable> {
        Self::from_updates([state], READER)
    }

    /// A document that is written under a name of its own. The same name on two documents that grow apart
    /// would make different texts out of the same updates.
    pub(super) fn from_updates<'a>(
        updates: impl IntoIterator<Item = &'a [u8]>,
        writer: ClientID,
    ) -> Result<Self, Unreadable> {
        let doc = Doc::with_options(Options {
            // Of this process only: updates do not hold it.
            offset_kind: OffsetKind::Bytes,
            ..Options::with_guid_and_client_id("journal".into(), writer)
        });
        let text = doc.get_or_insert_text(TEXT);
        let mut document = Self { doc, text };
        for update in updates {
            document.apply(update)?;
        }
        Ok(document)
    }

    /// Merges a change; one that is there already changes nothing.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn apply(&mut self, update: &[u8]) -> Result<(), Unreadable> {
        if update.is_empty() {
            return Ok(());
        }
        let update = Update::decode_v1(update).map_err(|_| Unreadable)?;
        self.doc
            .transact_mut()
            .apply_update(update)
            .map_err(|_| Unreadable)
    }

    /// The text.
    pub fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// The whole document as an update.
    pub fn state(&self) -> Vec<u8> {
        self.doc
            .transact()
            .encode_state_as_update_v1(&StateVector::default())
    }

    /// What the document knows of, without the text.
    pub(super) fn extent(&self) -> Snapshot {
        self.doc.transact().snapshot()
    }

    /// Makes the text into this one. `None` where it is this one.
    pub(super) fn rewrite<'a>(&mut self, content: &'a str, deadline: Instant) -> Option<Rewritten<'a>> {
        let old = self.text();
        let changes = diff::changes(&old, content, deadline);
        if changes.is_empty() {
            return None;
        }
        let mut txn = self.doc.transact_mut();
        // Backwards: what lies before a change keeps its place.
        for change in changes.iter().rev() {
            let at = offset(change.at);
            if change.removed > 0 {
                self.text.remove_range(&mut txn, at, offset(change.removed));
            }
            if !change.inserted.is_empty() {
                self.text.insert(&mut txn, at, change.inserted);
            }
        }
        let writer = self.doc.client_id();
        let written = txn.state_vector().get(&writer);
        let mark = if written > txn.before_state().get(&writer) {
            Mark::Inserted(ID::new(writer, written - 1))
        } else {
            let (client, clocks) = txn.delete_set().iter().next()?;
            Mark::Deleted(ID::new(*client, clocks.into_iter().next()?.start))
        };
        let update = txn.encode_update_v1();
        Some(Rewritten {
            changes,
            update,
            mark,
        })
    }
}

/// Texts are far shorter than 4 GiB.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
