//! The latest versions of one journal, shared by all sessions of a gateway that have it open.
//!
//! Each version is applied once. What is kept of it: its update, what it wrote, and how the text changed, forwards
//! and backwards; so the text of any kept version is known without keeping a text per version.

use std::collections::VecDeque;
use std::sync::Arc;

use yrs::merge_updates_v1;

use crate::change::{self, Change};
use crate::diff::Budget;
use crate::document::{Document, EMPTY_UPDATE, Writer};
use crate::error::Error;
use crate::update::{Incoming, Written};

/// Versions kept at least.
const KEPT: usize = 256;
/// Bytes of updates and changed text above which fewer are kept.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a text that are moved for one step of a [`Budget`].
const BYTES_MOVED_PER_STEP: usize = 256;

/// The latest versions of a journal.
pub struct Versions {
    document: Document,
    newest: u64,
    text: Arc<str>,
    /// The document before the first of `kept`, and its version.
    checkpoint: Vec<u8>,
    oldest: u64,
    /// Ascending.
    kept: VecDeque<Version>,
    bytes: usize,
}

/// One version.
pub(crate) struct Version {
    pub(crate) number: u64,
    pub(crate) update: Vec<u8>,
    pub(crate) written: Written,
    /// Bytes of the text.
    pub(crate) length: usize,
    /// From the text before.
    pub(crate) changes: Vec<Change>,
    /// Back to the text before.
    pub(crate) undo: Vec<Change>,
}

/// The text of one version after the other, from the newest one backwards.
pub(crate) struct PastText<'a> {
    versions: &'a Versions,
    number: u64,
    text: String,
}

impl PastText<'_> {
    /// The text of a version that is not newer than the one before.
    pub(crate) fn back_to(&mut self, number: u64, budget: &mut Budget) -> &str {
        for version in self.versions.between(number, self.number).rev() {
            let moved = change::make(&mut self.text, &version.undo);
            // Linear work is not refused.
            let _ = budget.spend(1 + moved / BYTES_MOVED_PER_STEP);
        }
        self.number = self.number.min(number);
        &self.text
    }
}

impl Versions {
    /// Begins with this document as version `number`, which is 1 at least.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(number: u64, checkpoint: &[u8]) -> Result<Self, Error> {
        let document = Document::load([checkpoint], Writer::NONE)?;
        // It changes nothing from the one before, so that it is a version like any other.
        let text: Arc<str> = document.text().into();
        let first = Version {
            number,
            length: text.len(),
            update: EMPTY_UPDATE.to_vec(),
            written: Written::default(),
            changes: Vec::new(),
            undo: Vec::new(),
        };
        Ok(Self {
            newest: number,
            text,
            checkpoint: checkpoint.to_vec(),
            oldest: number.saturating_sub(1),
            kept: VecDeque::from([first]),
            bytes: 0,
            document,
        })
    }

    /// Adds the next version. A version that is known already changes nothing.
    ///
    /// # Errors
    /// See [`Error`]: the journal must be loaded again.
    pub fn push(&mut self, number: u64, update: &[u8]) -> Result<(), Error> {
        if number <= self.newest {
            return Ok(());
        }
        let written = Incoming::decode(update)?.written;
        let changes = self.document.apply_stored(update)?;
        let undo = change::inverse(&self.text, &changes);
        self.bytes += update.len() + change::size(&changes);
        self.text = change::apply(&self.text, &changes).into();
        self.newest = number;
        self.kept.push_back(Version {
            number,
            update: update.to_vec(),
            written,
            length: self.text.len(),
            changes,
            undo,
        });
        self.forget()
    }

    /// The number of the newest version.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The text of the newest version.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The document of the newest version.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// What the versions after this one changed, as one update; the whole document where they are not all kept.
    ///
    /// # Errors
    /// See [`Error`]: the journal must be loaded again.
    pub fn update_since(&self, number: u64) -> Result<Vec<u8>, Error> {
        if number < self.oldest {
            return Ok(self.document.checkpoint());
        }
        let updates: Vec<_> = self
            .between(number, u64::MAX)
            .map(|version| &version.update)
            .collect();
        merge_updates_v1(updates).map_err(|_| Error::Malformed)
    }

    /// Whether this version is kept, so that it is known what came after it.
    pub fn holds(&self, number: u64) -> bool {
        number > self.oldest
    }

    /// The number of the oldest version whose text is known.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Kept versions after `after`, through `through`.
    pub(crate) fn between(&self, after: u64, through: u64) -> impl DoubleEndedIterator<Item = &Version> {
        let start = self.kept.partition_point(|version| version.number <= after);
        let end = self.kept.partition_point(|version| version.number <= through);
        self.kept.range(start..end.max(start))
    }

    /// The texts of the versions, from the newest one backwards.
    pub(crate) fn past(&self) -> PastText<'_> {
        PastText {
            versions: self,
            number: self.newest,
            text: self.text.to_string(),
        }
    }

    /// The text of a version.
    pub(crate) fn text_at(&self, number: u64, budget: &mut Budget) -> String {
        let mut past = self.past();
        past.back_to(number, budget);
        past.text
    }

    /// The document of a version, to be written in.
    pub(crate) fn document_at(&self, number: u64, writer: Writer) -> Result<Document, Error> {
        let updates = self.between(0, number).map(|version| version.update.as_slice());
        Document::load(std::iter::once(self.checkpoint.as_slice()).chain(updates), writer)
    }

    /// Keeps at least [`KEPT`] versions. A new checkpoint costs as much as loading the document, so it is made for
    /// as many versions at once as are kept.
    fn forget(&mut self) -> Result<(), Error> {
        let surplus = match self.kept.len() {
            len if len >= 2 * KEPT => len - KEPT,
            len if self.bytes > MAX_BYTES => len.div_ceil(2),
            _ => return Ok(()),
        };
        let Some(last) = self.kept.get(surplus.saturating_sub(1)) else {
            return Ok(());
        };
        self.oldest = last.number;
        self.checkpoint = self.document_at(self.oldest, Writer::NONE)?.checkpoint();
        for version in self.kept.drain(..surplus) {
            self.bytes -= version.update.len() + change::size(&version.changes);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Versions")
            .field("oldest", &self.oldest)
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}
