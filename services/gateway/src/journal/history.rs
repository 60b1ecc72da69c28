//! The latest versions of a journal: what clients on this replica may have on their screens.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use yrs::updates::decoder::Decode as _;
use yrs::{ClientID, IdSet, Snapshot, Update, merge_updates_v1};

use super::cost::{Origin, Since, Stretch};
use super::diff;
use super::document::{Document, Mark, Unreadable};

/// How long after a text was sent to a client it may have another one on its screen.
pub const WINDOW: Duration = Duration::from_secs(2);
/// Versions kept apart at most, and the bytes of their texts: bounds for memory and for the work of an edit.
const MAX_VERSIONS: usize = 512;
/// Of these so many are compared with a text, the latest a client may have got when it sent that.
const MAX_SCREENS: usize = 64;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long texts may be compared before the comparison gets coarser.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// When what a client sent and what is not dealt with yet arrived, ascending. An edit that waits was typed on
/// what was on the screen when it arrived, and not on what came to be meanwhile.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<VecDeque<Instant>>);

/// The versions of a journal that a room brought to its sessions lately. Shared by all of them.
pub struct History(Mutex<Inner>);

struct Inner {
    /// Grows when the document is replaced by another one.
    generation: u64,
    /// The document before the first of `versions`.
    document: Document,
    settled: Arc<Settled>,
    /// Ascending.
    versions: VecDeque<Arc<Version>>,
    bytes: usize,
    /// What the editors' edits wait for.
    awaited: Vec<Weak<Arrivals>>,
}

/// The newest version that every client has surely got.
pub(super) struct Settled {
    pub(super) number: u64,
    pub(super) text: Arc<str>,
    pub(super) at: Instant,
    /// The whole document; made when it is first asked for.
    whole: OnceLock<(Vec<u8>, Snapshot)>,
}

/// A version some clients may not have got yet.
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) text: Arc<str>,
    /// When it was sent to the clients here.
    pub(super) at: Instant,
    update: Vec<u8>,
    inserted: IdSet,
    deleted: IdSet,
    /// What stands in the text only since this version or one of those before it.
    fresh: Vec<Fresh>,
}

/// A stretch of a text that came with a version not yet settled.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fresh {
    range: Range<usize>,
    version: u64,
}

/// All that the history holds at one moment.
pub(super) struct View {
    pub(super) generation: u64,
    pub(super) settled: Arc<Settled>,
    /// Ascending.
    pub(super) versions: Vec<Arc<Version>>,
    /// So many of them had been sent by the time that was asked for.
    sent: usize,
}

/// The newest version.
#[derive(Debug, Clone)]
pub struct Current {
    /// Its number.
    pub version: u64,
    /// Its text.
    pub content: Arc<str>,
    /// The whole document as a Yjs (v1) update.
    pub state: Vec<u8>,
}

impl Arrivals {
    /// Something came.
    pub fn push(&self, at: Instant) {
        self.lock().push_back(at);
    }

    /// What came first is dealt with.
    pub fn pop(&self) {
        self.lock().pop_front();
    }

    /// Nobody deals with the rest any more.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn oldest(&self) -> Option<Instant> {
        self.lock().front().copied()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// A history that begins with this version, taken for just sent.
    pub fn new(document: Document, version: u64, now: Instant) -> Self {
        Self(Mutex::new(Inner::new(0, document, version, now)))
    }

    /// Begins anew: what was known is void.
    pub fn reset(&self, document: Document, version: u64, now: Instant) {
        let mut inner = self.lock();
        let generation = inner.generation + 1;
        let awaited = std::mem::take(&mut inner.awaited);
        *inner = Inner::new(generation, document, version, now);
        inner.awaited = awaited;
    }

    /// Keeps what edits of this client need that have arrived and wait for their turn.
    pub fn wait_for(&self, arrivals: &Arc<Arrivals>) {
        let mut inner = self.lock();
        let known = inner
            .awaited
            .iter()
            .any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(arrivals)));
        if !known {
            inner.awaited.push(Arc::downgrade(arrivals));
        }
    }

    /// Adds the next version; one that is known already changes nothing.
    ///
    /// # Errors
    /// The update cannot be read: the document must be fetched anew.
    pub fn push(&self, version: u64, content: &str, update: &[u8], now: Instant) -> Result<(), Unreadable> {
        let mut inner = self.lock();
        if version <= inner.newest() {
            return Ok(());
        }
        let read = match update {
            [] => Update::new(),
            update => Update::decode_v1(update).map_err(|_| Unreadable)?,
        };
        let fresh = inner.fresh(version, content, now);
        inner.bytes += content.len();
        inner.versions.push_back(Arc::new(Version {
            number: version,
            text: content.into(),
            at: now,
            update: update.to_vec(),
            inserted: read.insertions(true),
            deleted: read.delete_set().clone(),
            fresh,
        }));
        inner.settle(now);
        Ok(())
    }

    /// The newest version.
    pub fn current(&self, now: Instant) -> Current {
        let view = self.view(now);
        let (version, content) = match view.versions.last() {
            Some(newest) => (newest.number, Arc::clone(&newest.text)),
            None => (view.settled.number, Arc::clone(&view.settled.text)),
        };
        let updates = std::iter::once(view.settled.state()).chain(view.versions.iter().map(|v| v.update()));
        let state = merge_updates_v1(updates.filter(|update| !update.is_empty())).unwrap_or_default();
        Current {
            version,
            content,
            state,
        }
    }

    pub(super) fn view(&self, now: Instant) -> View {
        let mut inner = self.lock();
        inner.settle(now);
        let Inner {
            settled, document, ..
        } = &*inner;
        settled
            .whole
            .get_or_init(|| (document.state(), document.extent()));
        View {
            generation: inner.generation,
            settled: Arc::clone(&inner.settled),
            versions: inner.versions.iter().cloned().collect(),
            sent: inner.versions.partition_point(|version| version.at <= now),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(generation: u64, document: Document, version: u64, now: Instant) -> Self {
        let settled = Settled::new(version, document.text().into(), now);
        Self {
            generation,
            document,
            settled: Arc::new(settled),
            versions: VecDeque::new(),
            bytes: 0,
            awaited: Vec::new(),
        }
    }

    fn newest(&self) -> u64 {
        self.versions
            .back()
            .map_or(self.settled.number, |version| version.number)
    }

    /// The fresh stretches of the text that follows the newest one.
    fn fresh(&self, version: u64, content: &str, now: Instant) -> Vec<Fresh> {
        let (old, known) = match self.versions.back() {
            Some(newest) => (&newest.text, newest.fresh.as_slice()),
            None => (&self.settled.text, [].as_slice()),
        };
        let changes = diff::changes(old, content, now + PATIENCE);
        let known = known.iter().filter(|fresh| fresh.version > self.settled.number);
        let mut fresh: Vec<Fresh> = known
            .flat_map(|known| {
                let rest = diff::carried(&changes, known.range.clone());
                rest.into_iter().map(|range| Fresh {
                    range,
                    version: known.version,
                })
            })
            .collect();
        let new = diff::inserted(&changes);
        fresh.extend(new.into_iter().map(|range| Fresh { range, version }));
        fresh
    }

    /// Takes versions that have surely come, or that are too many, out of the window.
    fn settle(&mut self, now: Instant) {
        self.awaited.retain(|arrivals| arrivals.strong_count() > 0);
        let awaited = self.awaited.iter().filter_map(Weak::upgrade);
        let oldest = awaited.filter_map(|arrivals| arrivals.oldest()).min();
        let now = oldest.map_or(now, |oldest| oldest.min(now));
        while let Some(oldest) = self.versions.front()
            && (oldest.at + WINDOW <= now || self.versions.len() > MAX_VERSIONS || self.bytes > MAX_BYTES)
        {
            let oldest = Arc::clone(oldest);
            self.versions.pop_front();
            self.bytes -= oldest.text.len();
            if self.document.apply(&oldest.update).is_err() {
                // Read before, when it came; the text of the document says what is missing.
                tracing::error!("a change of a journal cannot be merged; are versions mixed?");
            }
            self.settled = Arc::new(Settled::new(oldest.number, Arc::clone(&oldest.text), oldest.at));
        }
    }
}

impl Settled {
    fn new(number: u64, text: Arc<str>, at: Instant) -> Self {
        Self {
            number,
            text,
            at,
            whole: OnceLock::new(),
        }
    }

    fn state(&self) -> &[u8] {
        self.whole.get().map_or(&[], |(state, _)| state)
    }

    fn has(&self, mark: Mark) -> bool {
        self.whole.get().is_some_and(|(_, extent)| match mark {
            Mark::Inserted(id) => extent.state_map.get(&id.client) > id.clock,
            Mark::Deleted(id) => extent.delete_set.contains(&id),
        })
    }
}

impl Version {
    pub(super) fn update(&self) -> &[u8] {
        &self.update
    }

    fn brings(&self, mark: Mark) -> bool {
        match mark {
            Mark::Inserted(id) => self.inserted.contains(&id),
            Mark::Deleted(id) => self.deleted.contains(&id),
        }
    }
}

impl View {
    /// Whether every client has surely got what came with this.
    pub(super) fn is_settled(&self, since: Since) -> bool {
        match since {
            Since::Version(number) => number <= self.settled.number,
            Since::Edit(mark) => self.settled.has(mark),
        }
    }

    /// The number of versions at the beginning that lack what bears this mark, the settled one counted too.
    pub(super) fn lacking(&self, mark: Mark) -> usize {
        if self.settled.has(mark) {
            return 0;
        }
        let first = self.versions.iter().position(|version| version.brings(mark));
        1 + first.unwrap_or(self.versions.len())
    }

    /// The versions that may be on a screen at the time that was asked for, counted after the settled one.
    pub(super) fn screens(&self) -> RangeInclusive<usize> {
        self.sent.saturating_sub(MAX_SCREENS)..=self.sent
    }

    /// Whether the newest version has what bears this mark.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.lacking(mark) <= self.versions.len()
    }

    /// The number of the version so many after the settled one.
    pub(super) fn number(&self, after: usize) -> u64 {
        match after.checked_sub(1) {
            Some(index) => self.versions[index].number,
            None => self.settled.number,
        }
    }

    /// Its text.
    pub(super) fn text(&self, after: usize) -> &str {
        match after.checked_sub(1) {
            Some(index) => &self.versions[index].text,
            None => &self.settled.text,
        }
    }

    /// What came lately in it, to whoever has seen the version `seen` and wrote under these names.
    pub(super) fn stretches(&self, after: usize, seen: u64, writers: &[ClientID]) -> Vec<Stretch> {
        let Some(version) = after.checked_sub(1).map(|index| &self.versions[index]) else {
            return Vec::new();
        };
        let origin = |number: u64| {
            let version = self.versions.iter().find(|version| version.number == number);
            if version.is_some_and(|version| version.inserted.client_ids().any(|id| writers.contains(&id))) {
                Origin::Own
            } else if number <= seen {
                Origin::Seen
            } else {
                Origin::Unseen
            }
        };
        let fresh = version
            .fresh
            .iter()
            .filter(|fresh| fresh.version > self.settled.number);
        fresh
            .map(|fresh| Stretch {
                range: fresh.range.clone(),
                origin: origin(fresh.version),
                since: Since::Version(fresh.version),
            })
            .collect()
    }

    /// When it was sent.
    pub(super) fn at(&self, after: usize) -> Instant {
        match after.checked_sub(1) {
            Some(index) => self.versions[index].at,
            None => self.settled.at,
        }
    }

    /// The document as of that version.
    pub(super) fn document(&self, after: usize, writer: ClientID) -> Result<Document, Unreadable> {
        let updates = self.versions.iter().take(after).map(|version| version.update());
        Document::from_updates(std::iter::once(self.settled.state()).chain(updates), writer)
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("newest", &self.lock().newest())
            .finish_non_exhaustive()
    }
}
