//! What one client may have on its screen of one journal, and what an edit of its whole text changes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use yrs::{ClientID, ID, merge_updates_v1};

use super::cost::{Cost, Origin, Since, Stretch};
use super::diff;
use super::document::{Document, Mark, Rewritten, Unreadable};
use super::history::{History, PATIENCE, View, WINDOW};

/// Names a client wrote under lately; each may stand in some version that is not settled.
const MAX_WRITERS: usize = 64;

/// One client's view of one journal.
pub struct Shadow {
    history: Arc<History>,
    generation: u64,
    /// Whether the client is sent new versions.
    joined: bool,
    /// What it sent last, unless that is surely replaced on its screen.
    own: Option<Own>,
    /// It has seen this version; older ones it has not on its screen any more.
    seen: u64,
    /// The last character written for it.
    written: Option<ID>,
    /// The names it wrote under, latest last.
    writers: Vec<ClientID>,
}

/// The document as the client made it.
struct Own {
    document: Document,
    text: String,
    at: Instant,
    /// What came lately in it.
    lately: Vec<Stretch>,
    /// Its latest edit that changed anything.
    latest: Option<Mark>,
    /// Edits in no version yet. Sent again with each further one, which cannot be merged without them.
    unsettled: Vec<(Mark, Vec<u8>)>,
}

/// A text that may be on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Screen {
    Own,
    /// So many versions after the settled one.
    Version(usize),
}

impl Shadow {
    /// Of a client that got the newest version just now. `joined`: it is sent all further ones.
    pub fn new(history: Arc<History>, joined: bool) -> Self {
        Self {
            history,
            generation: 0,
            joined,
            own: None,
            seen: 0,
            written: None,
            writers: Vec::new(),
        }
    }

    /// Where the versions come from.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Whether the client is sent new versions.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// The client is sent no further versions: the newest one stays on its screen.
    ///
    /// # Errors
    /// The document cannot be read; the shadow is as before.
    pub fn leave(&mut self, now: Instant) -> Result<(), Unreadable> {
        let view = self.history.view(now);
        self.forget(&view);
        if self.own.is_none() {
            self.own = Some(self.begin(&view, view.versions.len(), now)?);
        }
        self.joined = false;
        Ok(())
    }

    /// What it means that the client showed this text when that arrived: a Yjs (v1) update. `None` where it
    /// changed nothing.
    ///
    /// # Errors
    /// The document cannot be read.
    pub fn edit(&mut self, content: &str, arrived: Instant) -> Result<Option<Vec<u8>>, Unreadable> {
        let view = self.history.view(arrived);
        self.forget(&view);
        let deadline = Instant::now() + PATIENCE;
        let mut own = match (self.base(&view, content, deadline), self.own.take()) {
            (Screen::Version(after), before) => {
                let mut own = self.begin(&view, after, arrived)?;
                own.latest = before.and_then(|before| before.latest);
                own
            }
            (Screen::Own, Some(own)) => own,
            (Screen::Own, None) => self.begin(&view, *view.screens().end(), arrived)?,
        };
        if let Some(rewritten) = own.document.rewrite(content, deadline) {
            if let Mark::Inserted(id) = rewritten.mark {
                self.wrote(id);
            }
            own.rewritten(rewritten);
        }
        content.clone_into(&mut own.text);
        own.at = arrived;
        let update = match own.unsettled.as_slice() {
            [] => None,
            [(_, update)] => Some(update.clone()),
            several => {
                Some(merge_updates_v1(several.iter().map(|(_, update)| update)).map_err(|_| Unreadable)?)
            }
        };
        self.own = Some(own);
        Ok(update)
    }

    /// The text the client most likely changed into this one; see the module.
    fn base(&mut self, view: &View, content: &str, deadline: Instant) -> Screen {
        let (oldest, newest) = view.screens().into_inner();
        let latest = self.own.as_ref().and_then(|own| own.latest);
        // Versions that lack the client's own latest edit are on its screen only for a moment.
        let stale = latest.map_or(0, |latest| view.lacking(latest));
        let screens = (stale.max(oldest)..=newest).rev().map(Screen::Version);
        let screens = screens.chain(self.own.as_ref().map(|_| Screen::Own));
        let screens = screens.chain((oldest..stale.min(newest + 1)).rev().map(Screen::Version));
        let mut best: Option<(Cost, Screen)> = None;
        let mut own_fits = false;
        let mut first_fit = newest;
        for screen in screens {
            let (old, lately) = match (screen, &self.own) {
                (Screen::Own, Some(own)) => (&*own.text, Cow::Borrowed(own.lately.as_slice())),
                (Screen::Version(after), _) if self.may_show(view, after) => {
                    let lately = view.stretches(after, self.seen, &self.writers);
                    (view.text(after), Cow::Owned(lately))
                }
                _ => continue,
            };
            if best.is_some_and(|(cost, _)| Cost::at_least(old, content, &lately) > cost) {
                continue;
            }
            let cost = Cost::of(&diff::changes(old, content, deadline), &lately);
            let as_if_idle = cost.is_nothing() && matches!(screen, Screen::Version(after) if after < stale);
            if as_if_idle || best.is_some_and(|(best, _)| cost > best) {
                continue;
            }
            if best.is_none_or(|(best, _)| cost < best) {
                best = Some((cost, screen));
                (own_fits, first_fit) = (false, newest);
            }
            match screen {
                Screen::Own => own_fits = true,
                Screen::Version(after) => first_fit = first_fit.min(after),
            }
        }
        let Some((_, screen)) = best else {
            return Screen::Version(newest);
        };
        if !own_fits {
            self.seen = view.number(first_fit);
        }
        screen
    }

    fn wrote(&mut self, last: ID) {
        self.written = Some(last);
        if self.writers.last() != Some(&last.client) {
            self.writers.push(last.client);
            let surplus = self.writers.len().saturating_sub(MAX_WRITERS);
            self.writers.drain(..surplus);
        }
    }

    /// Whether the client may have this version on its screen.
    fn may_show(&self, view: &View, after: usize) -> bool {
        // A version that had surely come before the client's own text was replaced by that.
        let replaced = |own: &Own| self.joined && view.at(after) + WINDOW <= own.at;
        match &self.own {
            Some(own) => view.number(after) > self.seen && !replaced(own),
            None => true,
        }
    }

    /// Forgets the client's own text where a version has surely taken its place.
    fn forget(&mut self, view: &View) {
        let void = self.generation != view.generation;
        if void {
            self.generation = view.generation;
            self.seen = 0;
            self.written = None;
        }
        self.own
            .take_if(|own| void || (self.joined && view.settled.at > own.at));
        if let Some(own) = &mut self.own {
            own.unsettled.retain(|(mark, _)| !view.has(*mark));
            own.lately.retain(|stretch| !view.is_settled(stretch.since));
        }
    }

    /// The document so many versions after the settled one, for the client to write in.
    fn begin(&self, view: &View, after: usize, now: Instant) -> Result<Own, Unreadable> {
        // The name is used on only where all that was written under it is there; one per edit would bloat
        // the document.
        let known = self
            .written
            .filter(|id| view.lacking(Mark::Inserted(*id)) <= after);
        let writer = known.map_or_else(ClientID::random, |id| id.client);
        let document = view.document(after, writer)?;
        let lately = view.stretches(after, self.seen, &self.writers);
        let seen = |stretch: Stretch| match stretch.origin {
            Origin::Unseen => Stretch {
                origin: Origin::Seen,
                ..stretch
            },
            _ => stretch,
        };
        Ok(Own {
            text: document.text(),
            document,
            lately: lately.into_iter().map(seen).collect(),
            at: now,
            latest: None,
            unsettled: Vec::new(),
        })
    }
}

impl Own {
    fn rewritten(&mut self, by: Rewritten<'_>) {
        let Rewritten {
            changes,
            update,
            mark,
        } = by;
        let before = std::mem::take(&mut self.lately).into_iter();
        let carried = before.flat_map(|stretch| {
            let ranges = diff::carried(&changes, stretch.range.clone()).into_iter();
            ranges.map(move |range| Stretch { range, ..stretch })
        });
        let own = diff::inserted(&changes).into_iter().map(|range| Stretch {
            range,
            origin: Origin::Own,
            since: Since::Edit(mark),
        });
        self.lately = carried.chain(own).collect();
        self.latest = Some(mark);
        self.unsettled.push((mark, update));
    }
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow")
            .field("joined", &self.joined)
            .finish_non_exhaustive()
    }
}
