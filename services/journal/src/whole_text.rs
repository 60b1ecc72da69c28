//! Edits by clients that send their whole text on each change.
//!
//! Such a client shows a text. It sends the whole of it on each change, and replaces it by the text of each version
//! emitted to it. It says neither what it changed nor in which text. Per session, a [`WholeTextSession`] keeps what
//! the client may show: a fork of the document with the client's own last text, the versions emitted since, and the
//! newest version that the client has acknowledged by editing it. The rule:
//!
//! 1. The *bases* of an edit are the own last text and the versions emitted since the acknowledged one. A version that
//!    lacks an edit of the client is not emitted, nor is one that holds only what the own last text holds; a client that
//!    other texts were emitted to since is emitted the newest version once it pauses.
//! 2. A single base is the basis. So a lone writer is never merged.
//! 3. A base equal to the text sent is not the basis: an edit changes something.
//! 4. Of several bases, the basis is the one from which the text sent is the smallest change; on a tie the own last
//!    text, then the older version. The size is the bytes removed and inserted, more for each further change, and
//!    more for each line that others changed lately and that only the text sent holds. A line that others inserted
//!    lately is never changed in part, except by one insertion or one removal: it is replaced.
//! 5. The difference between the basis and the text sent is written to the document *of the basis*, and merges as a
//!    Yjs update with everything else. The basis is thereby acknowledged.
//! 6. After a reconnect or a refused edit every version is a base, rule 3 does not hold, and text newer than the last
//!    common version is not removed, until an edit keeps all such text of its basis. Where the budget ends before all
//!    bases are looked at, text of others newer than the acknowledged version is not removed.
//! 7. Each update carries all of the session's edits that no version holds yet. So the next command repairs a lost one,
//!    and a repeated one changes nothing.
//!
//! Proof obligations, with the tests in `tests/model/` and `tests/inputs.rs` that hold them:
//!
//! - *A lone writer's text is the text sent*: by 1 and 2 the difference is written to the very text it was taken from.
//! - *A keystroke in the own last text is never taken for a correction of another's text*: it is one change of one
//!   grapheme cluster, and a version that is a smaller change equals the text sent, which 3 excludes. For longer
//!   insertions 4 makes a similar line the larger change.
//! - *Text is inserted exactly once*: if the basis is the text that the client showed, the difference holds what the
//!   client inserted and nothing else, and Yjs merges an insertion once, however often it comes (7).
//! - *A deletion may lose against a concurrent insertion, never the other way round*: a Yjs update deletes only what
//!   the document of the basis holds, and that holds only what was emitted to the client, or by 6 less.
//! - *A deletion of text that nobody else touched stays*: Yjs never brings deleted text back, and a base without such a
//!   text is not the basis of a text that holds it, since another base is the smaller change (4).
//!
//! Texts cannot distinguish everything. Where a text is one insertion into one base and a replacement in another, it is
//! taken for the insertion, which loses nothing: a client that replaces the word that another base lacks keeps the
//! word. Two replacements of one word are distinguished by their characters. A client that pastes over a part of a line just
//! received from another is taken to have inserted a similar line: both stay. A client whose own paragraph, on its way
//! to the server, is replaced by a version without it, and that then inserts a paragraph differing in a letter or two
//! at the same place, is taken to have corrected its own. A client that sends the text it sent before, while another's
//! change is emitted to it, is taken to have removed that change: clients must send changes only.
//!
//! Cost of an edit: all of it takes steps from one [`Budget`]: carrying what is new in each version on to the next,
//! walking back from the newest version, and comparing each base with the text sent. Bases beyond the budget are not looked
//! at, the oldest ones first; what the first base and the version that becomes the basis need is not refused: at most
//! one pass over the text for each kept version. Where a version becomes the basis that lacks an edit on its way, its
//! document is loaded, which is linear in the document.

mod basis;

use yrs::merge_updates_v1;

use basis::{Basis, Fresh, Measure};

use crate::change;
use crate::diff::{BYTES_PER_STEP, Budget};
use crate::document::{Document, Writer};
use crate::error::Error;
use crate::update::Written;
use crate::versions::{Version, Versions};

/// What one client that knows only whole texts may show of one journal.
#[derive(Debug)]
pub struct WholeTextSession {
    /// The newest version that the client has acknowledged.
    acknowledged: u64,
    /// The client's own last text, if that is newer.
    own: Option<OwnText>,
    /// While the bases are not known for sure (rule 6): the newest version that the client has surely shown.
    common: Option<u64>,
    /// Versions emitted to the client that are not acknowledged for sure; ascending.
    emitted: Vec<u64>,
    /// Edits that no acknowledged version holds.
    edits: Vec<SentEdit>,
    /// What those edits wrote.
    written: Written,
    /// What the fork holds of it.
    held: Written,
    /// Versions up to this one have been looked at for `edits`.
    looked_at: u64,
    /// Whether the last edit made another text than the client sent.
    is_inexact: bool,
}

/// What an edit of a whole text amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeTextEdit {
    /// The update to publish; `None` if every edit of the session is in a version already.
    pub update: Option<Vec<u8>>,
    /// Whether the text sent was taken as it is. If it was not and `update` is `None`, no version follows that the client
    /// would be sent: emit the newest one to it.
    pub is_exact: bool,
}

#[derive(Debug)]
struct OwnText {
    document: Document,
    text: String,
    fresh: Fresh,
}

#[derive(Debug)]
struct SentEdit {
    update: Vec<u8>,
    /// What no version holds yet.
    missing: Written,
    /// The first version that holds all of it.
    stored_in: Option<u64>,
}

impl SentEdit {
    /// Notes what these versions hold of it.
    fn look_at<'a>(&mut self, mut versions: impl Iterator<Item = &'a Version>) {
        let holds_rest = versions.find(|version| {
            self.missing.remove(&version.written);
            self.missing.is_empty()
        });
        self.stored_in = holds_rest.map(|version| version.number);
    }
}

impl WholeTextSession {
    /// Of a client that shows nothing else than the text of this version, which it was just sent.
    pub fn joined(version: u64) -> Self {
        Self {
            acknowledged: version,
            own: None,
            common: None,
            emitted: Vec::new(),
            edits: Vec::new(),
            written: Written::default(),
            held: Written::default(),
            looked_at: version,
            is_inexact: false,
        }
    }

    /// Of a client that may show an older text, with changes that are lost or not stored yet. `common` is the newest
    /// version that it has surely shown; 0 if none is known, or one that [`Versions`] do not hold.
    pub fn resumed(common: u64) -> Self {
        Self {
            common: Some(common),
            ..Self::joined(common)
        }
    }

    /// Whether a version is to be emitted to the client; emit it if so. Not called for a version that is left out because
    /// a later one is emitted instead. One that the client was emitted already, with a later one or as it joined, is not; nor
    /// is a version that lacks an edit of the client, or that holds only what the client shows for having written it: the
    /// client may have typed on.
    pub fn emits(&mut self, version: u64, versions: &Versions) -> bool {
        self.look_at(versions);
        let lacks = |edit: &SentEdit| edit.stored_in.is_none_or(|stored_in| stored_in > version);
        if self.edits.iter().any(lacks) {
            return false;
        }
        let shown = self.emitted.last().map_or(0, |last| *last).max(self.acknowledged);
        if version <= shown {
            return false;
        }
        let is_own = || {
            versions
                .between(shown, version)
                .all(|version| self.holds(version))
        };
        if self.own.is_some() && shown >= versions.oldest() && is_own() {
            return false;
        }
        if self
            .emitted
            .first()
            .is_some_and(|first| *first <= versions.oldest())
        {
            self.emitted.retain(|emitted| *emitted > versions.oldest());
        }
        self.emitted.push(version);
        self.is_inexact = false;
        true
    }

    /// Whether the client may show another text than it is taken to have written, because others were emitted to it
    /// since, or because its own was not taken as it is: once it has paused, it is to be emitted the newest version.
    /// Not before that holds all edits of the client.
    pub fn is_behind(&self, versions: &Versions) -> bool {
        let lacks = |own: &OwnText| own.text != **versions.text();
        let is_stored = self.edits.iter().all(|edit| edit.stored_in.is_some());
        is_stored && (self.is_inexact || !self.emitted.is_empty() || self.own.as_ref().is_some_and(lacks))
    }

    /// The newest version is emitted to the client, whatever it holds.
    pub fn shows_newest(&mut self, versions: &Versions) {
        self.is_inexact = false;
        self.emitted.retain(|emitted| *emitted > versions.oldest());
        self.emitted.push(versions.newest());
    }

    /// Takes the text that a client sent. `writer` must be new with each call; it is used where the session begins to
    /// write or cannot write on under its present identity.
    ///
    /// # Errors
    /// [`Error::NotStorable`] if the text holds a NUL character; otherwise the versions must be loaded again.
    pub fn edit(
        &mut self,
        sent: &str,
        versions: &Versions,
        writer: Writer,
        budget: &mut Budget,
    ) -> Result<WholeTextEdit, Error> {
        if sent.contains('\0') {
            return Err(Error::NotStorable);
        }
        self.look_at(versions);
        let (basis, is_chosen_of_all) = self.choose(sent, versions, budget);
        let Basis {
            version,
            text,
            fresh,
            mut changes,
        } = basis;
        let mut own = match (version, self.own.take()) {
            (None, Some(own)) => own,
            (version, own) => self.begin(version, own, versions, writer)?,
        };
        if self.common.is_some() || !is_chosen_of_all {
            // An edit that keeps all such text shows that the client has shown its basis.
            self.common.take_if(|_| fresh.stays(&changes));
            changes = change::keeping(changes, &fresh.0);
        }
        let edit = own.document.write(&changes)?;
        own.text = change::apply(&text, &changes);
        own.fresh = match self.common {
            Some(_) => fresh.carry(&changes, true),
            None => Fresh::default(),
        };
        let is_exact = own.text == sent;
        self.is_inexact = !is_exact;
        self.own = Some(own);
        if let Some(edit) = edit {
            self.written.add(&edit.written);
            self.held.add(&edit.written);
            let mut edit = SentEdit {
                update: edit.update,
                missing: edit.written,
                stored_in: None,
            };
            // Versions after the basis may have deleted the same text.
            edit.look_at(versions.between(self.acknowledged, u64::MAX));
            self.edits.push(edit);
        }
        Ok(WholeTextEdit {
            update: self.unstored()?,
            is_exact,
        })
    }

    /// The update that carries all edits no version holds yet, to publish again after an outage.
    ///
    /// # Errors
    /// [`Error::Malformed`] never, unless memory is corrupt.
    pub fn unstored(&self) -> Result<Option<Vec<u8>>, Error> {
        let updates: Vec<_> = self
            .edits
            .iter()
            .filter(|edit| edit.stored_in.is_none())
            .map(|edit| &edit.update)
            .collect();
        match updates.as_slice() {
            [] => Ok(None),
            [update] => Ok(Some((*update).clone())),
            several => merge_updates_v1(several).map(Some).map_err(|_| Error::Malformed),
        }
    }

    /// The bytes of those edits.
    pub fn unstored_bytes(&self) -> usize {
        let unstored = self.edits.iter().filter(|edit| edit.stored_in.is_none());
        unstored.map(|edit| edit.update.len()).sum()
    }

    /// The edits that no version holds yet will never be stored: the journal's limits or the user's permission
    /// forbid them. The client still shows them.
    pub fn refused(&mut self) {
        let emitted = std::mem::take(&mut self.emitted);
        *self = Self {
            emitted,
            ..Self::resumed(self.acknowledged)
        };
    }

    /// Whether the session wrote all of this version.
    fn wrote(&self, version: &Version) -> bool {
        version.written.is_within(&self.written)
    }

    /// Whether the own last text holds all of this version, because the session wrote it.
    fn holds(&self, version: &Version) -> bool {
        version.written.is_within(&self.held)
    }

    /// Notes which edits the versions hold by now.
    fn look_at(&mut self, versions: &Versions) {
        let is_gap = self.looked_at < versions.oldest();
        for edit in self.edits.iter_mut().filter(|edit| edit.stored_in.is_none()) {
            edit.look_at(versions.between(self.looked_at, u64::MAX));
            if is_gap && edit.stored_in.is_none() && versions.document().has(&edit.missing) {
                edit.stored_in = Some(versions.oldest());
            }
        }
        self.looked_at = versions.newest();
    }

    /// The basis of an edit, by rules 1 to 4, and whether all bases were looked at.
    fn choose(&mut self, sent: &str, versions: &Versions, budget: &mut Budget) -> (Basis, bool) {
        self.skip_own(versions);
        let mut best = self.first_base(sent, versions, budget);
        let (begun, last) = self.window(versions);
        let since = Self::horizon(begun, last, versions, budget);
        let mut is_whole = since == begun;
        let measure = Measure::new(sent, versions.between(since, last), self.common.is_none());
        let bases = self.bases(since, last, versions, budget);
        if bases.is_empty() {
            return (best, is_whole);
        }
        let mut least = measure.size(&best);
        let mut past = versions.past();
        for (version, fresh) in bases.into_iter().rev() {
            // What is not removed because it is fresh costs nothing.
            let at_least = match self.common {
                None => version.length.abs_diff(sent.len()),
                Some(_) => sent.len().saturating_sub(version.length),
            };
            if at_least > least {
                continue;
            }
            let text = past.back_to(version.number, budget);
            if budget.left() == 0 {
                is_whole = false;
                break;
            }
            let basis = Basis {
                version: Some(version.number),
                changes: fresh.diff(text, sent, budget),
                text: text.to_owned(),
                fresh,
            };
            let size = measure.size(&basis);
            if size < least || (size == least && best.version.is_some()) {
                (least, best) = (size, basis);
            }
        }
        (best, is_whole)
    }

    /// The version after which bases are looked at: no more of them than half of the steps left are enough for, to
    /// carry what is new in each version on to the last one.
    fn horizon(since: u64, last: u64, versions: &Versions, budget: &mut Budget) -> u64 {
        let half = budget.left() / 2;
        for (later, version) in versions.between(since, last).rev().enumerate() {
            let carried = (1 + version.changes.len()) * (1 + later);
            let _ = budget.spend(carried + change::size(&version.changes) / BYTES_PER_STEP);
            if budget.left() < half {
                return version.number;
            }
        }
        since
    }

    /// The versions after the first one and up to the second one that may be the basis, ascending, with what is fresh
    /// in each.
    fn bases<'a>(
        &self,
        since: u64,
        last: u64,
        versions: &'a Versions,
        budget: &mut Budget,
    ) -> Vec<(&'a Version, Fresh)> {
        let mut bases = Vec::new();
        let mut fresh = self.fresh_at(since, versions, budget);
        for version in versions.between(since, last) {
            fresh = fresh.carry(&version.changes, self.wrote(version));
            if self.is_base(version) {
                bases.push((version, fresh.clone()));
            }
        }
        bases
    }

    /// The versions after the first one and up to the second one may be bases.
    fn window(&self, versions: &Versions) -> (u64, u64) {
        let first = self.emitted.first().map(|first| first.saturating_sub(1));
        let since = first.map_or(self.acknowledged, |first| first.min(self.acknowledged));
        match (self.common, self.emitted.last()) {
            (Some(common), _) => (since.min(common), versions.newest()),
            (None, Some(last)) => (since, *last),
            (None, None) => (since, since),
        }
    }

    /// Whether the client may show the text of this version. One that is acknowledged only because its text was the
    /// likeliest after a reconnect may be shown again.
    fn is_base(&self, version: &Version) -> bool {
        let is_unsure = self.common.is_some() && version.number > self.acknowledged;
        is_unsure || self.emitted.binary_search(&version.number).is_ok()
    }

    /// Versions that only the session wrote, before the first one emitted, are acknowledged by writing.
    fn skip_own(&mut self, versions: &Versions) {
        self.emitted.retain(|version| *version > versions.oldest());
        if self.own.is_some() {
            let end = self.emitted.first().map_or(u64::MAX, |first| first - 1);
            let own = versions
                .between(self.acknowledged, end)
                .take_while(|version| self.holds(version))
                .last()
                .map(|version| version.number);
            self.acknowledged = own.unwrap_or(self.acknowledged);
        }
        let acknowledged = self.acknowledged;
        self.edits
            .retain(|edit| edit.stored_in.is_none_or(|stored_in| stored_in > acknowledged));
        if self.edits.is_empty() {
            (self.written, self.held) = Default::default();
        }
    }

    /// The own last text, or the text of the acknowledged version.
    fn first_base(&self, sent: &str, versions: &Versions, budget: &mut Budget) -> Basis {
        let (text, fresh) = match &self.own {
            Some(own) => (own.text.clone(), own.fresh.clone()),
            None => (
                versions.text_at(self.acknowledged, budget),
                self.fresh_at(self.acknowledged, versions, budget),
            ),
        };
        Basis {
            version: None,
            changes: fresh.diff(&text, sent, budget),
            text,
            fresh,
        }
    }

    /// Text in a version that the client may never have shown, apart from versions that are its bases.
    fn fresh_at(&self, version: u64, versions: &Versions, budget: &mut Budget) -> Fresh {
        let mut fresh = Fresh::default();
        let Some(common) = self.common else {
            return fresh;
        };
        if common < versions.oldest() {
            fresh.0.push(0..versions.text_at(versions.oldest(), budget).len());
        }
        let since = versions.between(common, version);
        since.fold(fresh, |fresh, version| {
            // Linear work is not refused.
            let _ = budget.spend(1 + fresh.0.len() + version.changes.len());
            fresh.carry(&version.changes, self.wrote(version))
        })
    }

    /// The document of a version (of the acknowledged one for `None`), to write in, and acknowledges it.
    fn begin(
        &mut self,
        version: Option<u64>,
        own: Option<OwnText>,
        versions: &Versions,
        writer: Writer,
    ) -> Result<OwnText, Error> {
        let version = version.unwrap_or(self.acknowledged);
        let holds_all = |edit: &SentEdit| edit.stored_in.is_some_and(|stored_in| stored_in <= version);
        let document = match own {
            // The fork and the version differ only by what others wrote.
            Some(mut own) if version > self.acknowledged && self.edits.iter().all(holds_all) => {
                let since = versions.between(self.acknowledged, version);
                own.document.apply_all(since.map(|version| &version.update))?;
                own.document
            }
            _ => {
                // The client does not show its edits that are in no version yet, until it is sent one with them.
                self.held = Written::default();
                versions.document_at(version, writer)?
            }
        };
        if self.common.is_none() {
            self.emitted.retain(|emitted| *emitted > version);
        }
        self.acknowledged = version;
        Ok(OwnText {
            document,
            text: String::new(),
            fresh: Fresh::default(),
        })
    }
}
