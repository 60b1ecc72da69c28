//! The document: the only module, besides the decoding of updates, that names what `yrs` is.
//!
//! A Yjs document with the one text [`TEXT`]. Encoded updates go in, text comes out. An update is checked and priced
//! before it is applied; when it is refused, the document stays as it was.
//!
//! Cost: applying takes at most its [`price`](Document::price), plus one pass over the blocks and the text.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use yrs::types::Delta;
use yrs::updates::encoder::Encode as _;
use yrs::{
    Any, ClientID, Doc, GetString as _, Observable as _, OffsetKind, Options, Out, ReadTxn as _, StateVector,
    Text as _, TextRef, Transact as _, Update,
};

use crate::change::Change;
use crate::diff::{Budget, diff};
use crate::error::Error;
use crate::update::{Incoming, Written, decode_state_vector};

/// The name of the text in the document, as CRDT clients open it.
pub const TEXT: &str = "content";

/// An update that changes nothing.
pub const EMPTY_UPDATE: &[u8] = Update::EMPTY_V1;

/// The identity under which changes are written: at most 53 bits, and never the same in two documents that change
/// independently of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Writer(ClientID);

impl Writer {
    /// Of a document that is only read and merged into.
    pub const NONE: Self = Self(ClientID::new(0));

    /// From 64 random bits, or bits of a unique id.
    pub const fn new(bits: u64) -> Self {
        // 53 bits: what JavaScript can count.
        Self(ClientID::new(bits >> 11))
    }
}

/// A journal's text with all that is needed to merge changes of it.
pub struct Document {
    doc: Doc,
    text: TextRef,
    /// The changes of the latest transaction, as the observer of the text reports them.
    observed: Arc<Mutex<Vec<Change>>>,
    /// An upper bound of the blocks in the document.
    blocks: u64,
}

/// A change written by this process, as an update.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The change alone; needs what the document held before it.
    pub update: Vec<u8>,
    pub(crate) written: Written,
}

impl Document {
    /// An empty document.
    pub fn new(writer: Writer) -> Self {
        let doc = Doc::with_options(Options {
            // Of this process only; updates count UTF-16 units.
            offset_kind: OffsetKind::Bytes,
            ..Options::with_guid_and_client_id("journal".into(), writer.0)
        });
        let text = doc.get_or_insert_text(TEXT);
        let observed = Arc::new(Mutex::new(Vec::new()));
        let changes = Arc::clone(&observed);
        text.observe("changes", move |txn, event| {
            *changes.lock().unwrap_or_else(PoisonError::into_inner) = changes_of(event.delta(txn));
        });
        Self {
            doc,
            text,
            observed,
            blocks: 0,
        }
    }

    /// The document that a checkpoint and the updates since make. Empty bytes are no update.
    ///
    /// # Errors
    /// See [`apply_stored`](Self::apply_stored).
    pub fn load<B: AsRef<[u8]>>(updates: impl IntoIterator<Item = B>, writer: Writer) -> Result<Self, Error> {
        let mut document = Self::new(writer);
        for update in updates {
            if !update.as_ref().is_empty() {
                document.apply_stored(update.as_ref())?;
            }
        }
        Ok(document)
    }

    /// The text.
    pub fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// The whole document as one update.
    pub fn checkpoint(&self) -> Vec<u8> {
        self.doc
            .transact()
            .encode_state_as_update_v1(&StateVector::default())
    }

    /// What the document knows of, encoded; a CRDT client sends its own to be sent the difference.
    pub fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }

    /// What a client with this state vector lacks, as an update.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the bytes are not a state vector.
    pub fn diff_since(&self, state_vector: &[u8]) -> Result<Vec<u8>, Error> {
        let state = decode_state_vector(state_vector)?;
        Ok(self.doc.transact().encode_state_as_update_v1(&state))
    }

    /// The work that this update may take, in units: a block to be inserted is compared with each block in the
    /// document at worst, and with each of the update; a deleted range is looked up. The blocks of the document are
    /// estimated from above, at three per block inserted. At the worst a unit took 0.2 µs of a release build.
    ///
    /// # Errors
    /// See [`Error`]: the update is checked as [`apply`](Self::apply) does.
    pub fn price(&self, update: &[u8]) -> Result<u64, Error> {
        let incoming = Incoming::decode(update)?;
        self.check(&incoming).map(|()| self.work(&incoming))
    }

    /// Merges an update and returns how the text changed. An update that is there already changes nothing.
    ///
    /// # Errors
    /// See [`Error`]. The document stays as it was, except after [`Error::Broken`].
    pub fn apply(&mut self, update: &[u8], limit: u64) -> Result<Vec<Change>, Error> {
        let incoming = Incoming::decode(update)?;
        self.check(&incoming)?;
        let work = self.work(&incoming);
        if work > limit {
            return Err(Error::TooCostly { work, limit });
        }
        if incoming.crosses_clients(&self.state()) {
            // Blocks that build on each other in a circle would stay in the document as pending.
            let mut copy = Self::new(Writer::NONE);
            copy.integrate(Incoming::decode(&self.checkpoint())?)?;
            copy.integrate(Incoming::decode(update)?)
                .map_err(|_| Error::Malformed)?;
        }
        self.integrate(incoming)
    }

    /// Merges the update of a version, which was applied before it was stored: without a limit, and without the work that
    /// only forged updates need.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn apply_stored(&mut self, update: &[u8]) -> Result<Vec<Change>, Error> {
        let incoming = Incoming::decode(update)?;
        self.check(&incoming)?;
        self.integrate(incoming)
    }

    /// Writes these changes of the present text. `None` if there are none.
    ///
    /// # Errors
    /// [`Error::NotStorable`] if a NUL character is inserted; [`Error::Broken`] if `yrs` fails.
    pub fn write(&mut self, changes: &[Change]) -> Result<Option<Edit>, Error> {
        if changes.is_empty() {
            return Ok(None);
        }
        if changes.iter().any(|change| change.inserted.contains('\0')) {
            return Err(Error::NotStorable);
        }
        let (doc, text) = (&self.doc, &self.text);
        let update = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = doc.transact_mut();
            // Backwards: what lies before a change keeps its place.
            for change in changes.iter().rev() {
                if change.removed > 0 {
                    text.remove_range(&mut txn, offset(change.at), offset(change.removed));
                }
                if !change.inserted.is_empty() {
                    text.insert(&mut txn, offset(change.at), &change.inserted);
                }
            }
            txn.encode_update_v1()
        }));
        let update = update.map_err(|_| Error::Broken)?;
        let incoming = Incoming::decode(&update)?;
        self.blocks += 3 * incoming.blocks + 2 * incoming.deletions;
        Ok(Some(Edit {
            update,
            written: incoming.written,
        }))
    }

    /// Turns the present text into `text`; restoring an old version is this. `None` if it is that text.
    ///
    /// # Errors
    /// See [`write`](Self::write).
    pub fn rewrite(&mut self, text: &str, budget: &mut Budget) -> Result<Option<Edit>, Error> {
        self.write(&diff(&self.text(), text, budget))
    }

    /// Whether the document has all of this.
    pub(crate) fn has(&self, written: &Written) -> bool {
        let snapshot = self.doc.transact().snapshot();
        let state = &snapshot.state_map;
        let mut inserted = written.inserted.iter();
        let deleted = written.deleted.diff(&snapshot.delete_set);
        deleted.is_empty()
            && inserted.all(|(client, ranges)| {
                let known = state.get(client);
                ranges.into_iter().all(|range| range.end <= known)
            })
    }

    fn state(&self) -> StateVector {
        self.doc.transact().state_vector()
    }

    fn check(&self, incoming: &Incoming) -> Result<(), Error> {
        if incoming.is_complete(&self.state()) {
            Ok(())
        } else {
            Err(Error::Incomplete)
        }
    }

    fn work(&self, incoming: &Incoming) -> u64 {
        let blocks = self.blocks + incoming.blocks;
        incoming
            .blocks
            .saturating_mul(blocks)
            .saturating_add(incoming.deletions)
    }

    fn integrate(&mut self, incoming: Incoming) -> Result<Vec<Change>, Error> {
        self.observed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let doc = &self.doc;
        let update = incoming.update;
        // What passes the checks is not known to make `yrs` panic; one update must not stop the work on others.
        let complete = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = doc.transact_mut();
            txn.apply_update(update).is_ok() && !txn.has_missing_updates()
        }));
        if !matches!(complete, Ok(true)) {
            return Err(Error::Broken);
        }
        // Each may cut the blocks at both of its ends.
        self.blocks += 3 * incoming.blocks + 2 * incoming.deletions;
        Ok(std::mem::take(
            &mut *self.observed.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document")
            .field("blocks", &self.blocks)
            .finish_non_exhaustive()
    }
}

/// Adjacent removals and insertions become one change.
fn changes_of(delta: &[Delta]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut at = 0;
    let change_at =
        |changes: &mut Vec<Change>, at: usize, removed: usize, inserted: &str| match changes.last_mut() {
            Some(last) if last.at + last.removed == at => {
                last.removed += removed;
                last.inserted.push_str(inserted);
            }
            _ => changes.push(Change {
                at,
                removed,
                inserted: inserted.to_owned(),
            }),
        };
    for part in delta {
        match part {
            Delta::Retain(length, _) => at += *length as usize,
            Delta::Deleted(length) => {
                change_at(&mut changes, at, *length as usize, "");
                at += *length as usize;
            }
            Delta::Inserted(Out::Any(Any::String(text)), _) => change_at(&mut changes, at, 0, text),
            Delta::Inserted(..) => {}
        }
    }
    changes
}

/// Texts are far shorter than 4 GiB.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
