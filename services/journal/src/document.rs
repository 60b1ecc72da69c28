//! The document: the only module, besides the decoding of updates, that names what `yrs` is.
//!
//! A Yjs document with the one text [`TEXT`]. Encoded updates go in, text comes out. An update is checked and priced
//! before it is applied; when it is refused, the document stays as it was.
//!
//! `yrs` counts UTF-16 units here, as the ids do: a client may build on or delete one half of a surrogate pair, of which
//! `yrs` and Yjs make two replacement characters, and then bytes counted before are wrong. Offsets of changes are bytes.
//!
//! Cost: applying takes at most its [`price`](Document::price), plus one pass over the blocks and the text; two where the
//! text may be more than ASCII, three where it may hold surrogate pairs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use yrs::types::Delta;
use yrs::updates::encoder::Encode as _;
use yrs::{
    Any, ClientID, Doc, GetString as _, Observable as _, OffsetKind, Options, Out, ReadTxn as _, StateVector,
    Text as _, TextRef, Transact as _, Update,
};

use crate::change::{self, Change};
use crate::diff::{Budget, diff};
use crate::error::Error;
use crate::update::{Incoming, TEXT, Written, decode_state_vector};

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
    /// The changes of the latest transaction, as the observer of the text reports them, in UTF-16 units.
    observed: Arc<Mutex<Vec<Change>>>,
    /// An upper bound of the blocks in the document.
    blocks: u64,
    /// Whether the text is nothing but ASCII, so that bytes are UTF-16 units.
    is_ascii: bool,
    /// Whether the text may hold surrogate pairs.
    has_pairs: bool,
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
            offset_kind: OffsetKind::Utf16,
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
            is_ascii: true,
            has_pairs: false,
        }
    }

    /// The document that a checkpoint and the updates since make. Empty bytes are no update.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if an update builds on what those before it do not hold; otherwise see [`Error`].
    pub fn load<B: AsRef<[u8]>>(updates: impl IntoIterator<Item = B>, writer: Writer) -> Result<Self, Error> {
        let mut document = Self::new(writer);
        let updates = updates.into_iter();
        document.apply_all(updates.filter(|update| !update.as_ref().is_empty()))?;
        Ok(document)
    }

    /// The text.
    pub fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// Bytes of the text, which is read for it only if it may be more than ASCII.
    pub fn text_bytes(&self) -> usize {
        match self.is_ascii {
            true => self.text.len(&self.doc.transact()) as usize,
            false => self.text().len(),
        }
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
        Ok(self.apply_new(update, limit)?.unwrap_or_default())
    }

    /// The same; `None` if the document has all that the update writes.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub fn apply_new(&mut self, update: &[u8], limit: u64) -> Result<Option<Vec<Change>>, Error> {
        let incoming = Incoming::decode(update)?;
        self.check(&incoming)?;
        let work = self.work(&incoming);
        if work > limit {
            return Err(Error::TooCostly { work, limit });
        }
        if self.has(&incoming.written) {
            return Ok(None);
        }
        if incoming.crosses_clients(&self.state()) {
            // Blocks that build on each other in a circle would stay in the document as pending.
            let mut copy = Self::new(Writer::NONE);
            copy.integrate([Incoming::decode(&self.checkpoint())?])?;
            copy.integrate([Incoming::decode(update)?])
                .map_err(|_| Error::Malformed)?;
        }
        self.merge([incoming]).map(Some).map_err(|_| Error::Broken)
    }

    /// Merges the update of a version, which was applied before it was stored: without a limit, and without the work that
    /// only forged updates need.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn apply_stored(&mut self, update: &[u8]) -> Result<Vec<Change>, Error> {
        let incoming = Incoming::decode(update)?;
        self.check(&incoming)?;
        self.merge([incoming]).map_err(|_| Error::Broken)
    }

    /// Merges the updates of several versions at once, at the cost of one pass over the text for all of them, and returns
    /// how they changed the text together. After any error the document must be loaded again.
    pub(crate) fn apply_all<B: AsRef<[u8]>>(
        &mut self,
        updates: impl IntoIterator<Item = B>,
    ) -> Result<Vec<Change>, Error> {
        let decode = |update: B| Incoming::decode(update.as_ref());
        let updates = updates.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        self.merge(updates)
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
        let places = match self.is_ascii {
            true => changes.iter().map(Change::removed_range).collect(),
            false => change::utf16_ranges(changes, &self.text()),
        };
        let update = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = doc.transact_mut();
            // Backwards: what lies before a change keeps its place.
            for (change, place) in changes.iter().zip(places).rev() {
                if change.removed > 0 {
                    text.remove_range(&mut txn, offset(place.start), offset(place.len()));
                }
                if !change.inserted.is_empty() {
                    text.insert(&mut txn, offset(place.start), &change.inserted);
                }
            }
            txn.encode_update_v1()
        }));
        let update = update.map_err(|_| Error::Broken)?;
        let incoming = Incoming::decode(&update)?;
        self.blocks += 3 * incoming.blocks + 2 * incoming.deletions;
        self.is_ascii &= incoming.is_ascii;
        self.has_pairs |= incoming.has_pairs;
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
        // Such an update is tried on a copy first.
        let is_copied = incoming.crosses_clients(&self.state());
        let copied = if is_copied { 3 * self.blocks } else { 0 };
        incoming
            .blocks
            .saturating_mul(blocks)
            .saturating_add(incoming.deletions)
            .saturating_add(copied)
    }

    fn merge(&mut self, updates: impl IntoIterator<Item = Incoming>) -> Result<Vec<Change>, Error> {
        let before = (!self.is_ascii).then(|| self.text());
        let has_pairs = self.has_pairs;
        let changes = self.integrate(updates)?;
        let Some(before) = before else {
            return Ok(changes);
        };
        let changes = change::from_utf16(changes, &before);
        if !has_pairs && let Some(changes) = changes {
            return Ok(changes);
        }
        // Where a pair is cut, its characters change without being reported.
        let text = self.text();
        let changes = changes.filter(|changes| change::apply(&before, changes) == text);
        Ok(changes.unwrap_or_else(|| diff(&before, &text, &mut Budget::EDIT.clone())))
    }

    fn integrate(&mut self, updates: impl IntoIterator<Item = Incoming>) -> Result<Vec<Change>, Error> {
        self.observed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let (doc, blocks) = (&self.doc, &mut self.blocks);
        let (is_ascii, has_pairs) = (&mut self.is_ascii, &mut self.has_pairs);
        // What passes the checks is not known to make `yrs` panic; one update must not stop the work on others.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = doc.transact_mut();
            for incoming in updates {
                // Each may cut the blocks at both of its ends.
                *blocks += 3 * incoming.blocks + 2 * incoming.deletions;
                *is_ascii &= incoming.is_ascii;
                *has_pairs |= incoming.has_pairs;
                txn.apply_update(incoming.update).map_err(|_| Error::Broken)?;
                if txn.has_missing_updates() {
                    return Err(Error::Incomplete);
                }
            }
            Ok(())
        }));
        applied.unwrap_or(Err(Error::Broken))?;
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

/// Texts are far shorter than 4 Gi units.
fn offset(units: usize) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}
