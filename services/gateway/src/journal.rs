//! Journals that are open on this replica: the latest versions of each, and what the clients that edit it by whole
//! texts may show of it.
//!
//! One lock holds both, so that a version is added, and found out to whom it is emitted, in one step. Under it texts are
//! compared: whatever takes it is for a blocking pool ([`blocking`]), never for the runtime. Must not know rooms, sockets
//! or the bus.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parlance_journal::{Budget, EMPTY_UPDATE, Error, Versions, WholeTextSession, Writer};
use parlance_proto::ConversationId;
use parlance_proto::v1::JournalEdited;
use tokio::sync::watch;

use crate::socket::session::SessionId;

/// How long a version that is known to be stored may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of one client's changes that may wait to be stored, and of a text beside them: together they travel in one command.
const MAX_UNSTORED: usize = 448 * 1024;

/// A journal that sessions here follow or edit.
#[derive(Debug)]
pub struct OpenJournal {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
    /// The clients of the state; for those who must not wait for it.
    known: Mutex<HashSet<SessionId>>,
    /// Those whose changes are being published again.
    repaired: Mutex<HashSet<SessionId>>,
}

#[derive(Debug)]
struct State {
    versions: Versions,
    /// Those that follow it, and those that edit it by whole texts.
    clients: HashMap<SessionId, Client>,
}

#[derive(Debug)]
struct Client {
    texts: WholeTextSession,
    has_joined: bool,
    edited_at: Option<Instant>,
    /// Whether a version was kept from it that it may not show.
    is_behind: bool,
}

/// A version was added.
#[derive(Debug, Default)]
pub struct Pushed {
    /// The clients that sent its text as their own: they are not emitted it.
    pub silent: Vec<SessionId>,
    /// Whether some of them may not show it, and are to be looked after once they pause.
    pub leaves_behind: bool,
}

/// Clients that have paused.
#[derive(Debug)]
pub struct Paused {
    /// They are emitted the newest version.
    pub clients: Vec<SessionId>,
    /// What that is, where there are any.
    pub newest: Option<Current>,
    /// Whether others still write.
    pub leaves_behind: bool,
}

/// Ends when dropped.
#[derive(Debug)]
pub struct Repair {
    journal: Arc<OpenJournal>,
    id: SessionId,
}

/// The newest version.
#[derive(Debug, Clone)]
pub struct Current {
    /// Its number.
    pub version: u64,
    /// Its text.
    pub content: Arc<str>,
    /// The whole document as an update.
    pub state: Vec<u8>,
}

/// A whole text as a change.
#[derive(Debug)]
pub struct Edit {
    /// What is to be published; it changes nothing where all of it is stored.
    pub update: Vec<u8>,
    /// What the client is to be shown, because no version follows that would bring it.
    pub show: Option<Current>,
}

/// Why a whole text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unedited {
    /// The document does not take it.
    #[error(transparent)]
    Document(#[from] Error),
    /// The client's earlier changes wait to be stored.
    #[error("earlier changes of this journal are not stored yet")]
    TooMuchUnstored,
}

/// Runs what may take long beside the runtime.
///
/// # Errors
/// Those of `work`; [`Error::Broken`] if it panics.
pub async fn blocking<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::Broken.into()))
}

impl OpenJournal {
    /// With this document as its only version.
    ///
    /// # Errors
    /// The document cannot be read.
    pub fn new(version: u64, checkpoint: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            state: Mutex::new(State {
                versions: Versions::new(version, checkpoint)?,
                clients: HashMap::new(),
            }),
            newest: watch::Sender::new(version),
            known: Mutex::default(),
            repaired: Mutex::default(),
        })
    }

    /// Adds a version.
    ///
    /// # Errors
    /// The journal must be read again.
    pub fn push(&self, version: u64, update: &[u8]) -> Result<Pushed, Error> {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        let mut pushed = Pushed::default();
        if version <= versions.newest() {
            return Ok(pushed);
        }
        versions.push(version, update)?;
        // Others are emitted nothing.
        for (id, client) in clients.iter_mut().filter(|(_, client)| client.has_joined) {
            if client.texts.emits(version, versions) {
                client.is_behind = false;
            } else {
                client.is_behind = client.texts.is_behind(versions);
                pushed.silent.push(*id);
            }
            pushed.leaves_behind |= client.is_behind;
        }
        self.newest.send_replace(version);
        Ok(pushed)
    }

    /// The clients that were left behind and have not written for so long.
    pub fn paused(&self, pause: Duration) -> Paused {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        let (mut paused, mut leaves_behind) = (Vec::new(), false);
        for (id, client) in clients.iter_mut().filter(|(_, client)| client.is_behind) {
            if client.edited_at.is_some_and(|at| at.elapsed() < pause) {
                leaves_behind = true;
                continue;
            }
            client.is_behind = false;
            client.texts.shows_newest(versions);
            paused.push(*id);
        }
        let newest = (!paused.is_empty()).then(|| state.current());
        Paused {
            clients: paused,
            newest,
            leaves_behind,
        }
    }

    /// Begins again with this document, which every client is then shown.
    ///
    /// # Errors
    /// The document cannot be read.
    pub fn reset(&self, version: u64, checkpoint: &[u8]) -> Result<Current, Error> {
        let mut state = self.lock();
        state.versions = Versions::new(version, checkpoint)?;
        let State { versions, clients } = &mut *state;
        for client in clients.values_mut() {
            client.texts = WholeTextSession::resumed(0);
            client.texts.shows_newest(versions);
        }
        self.newest.send_replace(version);
        Ok(state.current())
    }

    /// The newest version.
    pub fn current(&self) -> Current {
        self.lock().current()
    }

    /// The number of the newest version.
    pub fn version(&self) -> u64 {
        *self.newest.borrow()
    }

    /// A client joins, and is shown what is returned. `returns`: its page was here before, and may show any older text with
    /// changes of its own.
    pub fn join(&self, id: SessionId, returns: bool) -> Current {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        let newest = versions.newest();
        let is_unsure = returns || clients.contains_key(&id);
        let client = clients.entry(id).or_insert_with(|| {
            Client::new(match returns {
                true => WholeTextSession::resumed(0),
                false => WholeTextSession::joined(newest),
            })
        });
        client.has_joined = true;
        if is_unsure {
            client.texts.shows_newest(versions);
        }
        lock(&self.known).insert(id);
        state.current()
    }

    /// A client is gone, or follows and edits no more.
    pub fn leave(&self, id: SessionId) {
        lock(&self.known).remove(&id);
        self.lock().clients.remove(&id);
    }

    /// Whether anything is known of this client.
    pub fn knows(&self, id: SessionId) -> bool {
        lock(&self.known).contains(&id)
    }

    /// Takes a whole text. `returns`: see [`OpenJournal::join`], for a client of which nothing is known. Any other is taken
    /// to edit the newest version.
    ///
    /// # Errors
    /// [`Unedited`].
    pub fn edit(&self, id: SessionId, text: &str, returns: bool) -> Result<Edit, Unedited> {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        let common = if returns { 0 } else { versions.newest() };
        let client = clients
            .entry(id)
            .or_insert_with(|| Client::new(WholeTextSession::resumed(common)));
        if client.texts.unstored_bytes() + text.len() > MAX_UNSTORED {
            return Err(Unedited::TooMuchUnstored);
        }
        lock(&self.known).insert(id);
        client.edited_at = Some(Instant::now());
        let writer = Writer::new(fastrand::u64(..));
        let edited = client.texts.edit(text, versions, writer, &mut { Budget::EDIT })?;
        let is_shown = edited.is_exact || edited.update.is_some();
        if !is_shown {
            client.texts.shows_newest(versions);
        }
        Ok(Edit {
            update: edited.update.unwrap_or_else(|| EMPTY_UPDATE.to_vec()),
            show: (!is_shown).then(|| state.current()),
        })
    }

    /// What this client edited is not stored and will not be: it is shown what is returned.
    pub fn refuse(&self, id: SessionId) -> Option<Current> {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        let client = clients.get_mut(&id)?;
        client.texts.refused();
        client.texts.shows_newest(versions);
        Some(state.current())
    }

    /// Begins to publish again what this client edited; `None` where that is under way.
    pub fn repair(self: &Arc<Self>, id: SessionId) -> Option<Repair> {
        let begins = lock(&self.repaired).insert(id);
        begins.then(|| Repair {
            journal: Arc::clone(self),
            id,
        })
    }

    /// What this client edited and no version is known to hold.
    pub fn unstored(&self, id: SessionId) -> Option<Vec<u8>> {
        self.lock().clients.get(&id)?.texts.unstored().ok().flatten()
    }

    /// Waits until this version has come.
    pub async fn reached(&self, version: u64) {
        let mut newest = self.newest.subscribe();
        // Without it the caller goes on from what is there.
        let comes = newest.wait_for(|newest| *newest >= version);
        drop(tokio::time::timeout(COMES_WITHIN, comes).await);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Repair {
    fn drop(&mut self) {
        lock(&self.journal.repaired).remove(&self.id);
    }
}

impl Current {
    /// As an event that nobody caused.
    pub fn into_event(self, journal: ConversationId, number: i64, at_ms: i64) -> JournalEdited {
        JournalEdited {
            journal_id: journal.to_string(),
            journal_number: number,
            version: self.version,
            content: self.content.to_string(),
            update: self.state,
            actor_id: String::new(),
            at_ms,
        }
    }
}

impl Client {
    fn new(texts: WholeTextSession) -> Self {
        Self {
            texts,
            has_joined: false,
            edited_at: None,
            is_behind: false,
        }
    }
}

impl State {
    fn current(&self) -> Current {
        Current {
            version: self.versions.newest(),
            content: Arc::clone(self.versions.text()),
            state: self.versions.document().checkpoint(),
        }
    }
}
