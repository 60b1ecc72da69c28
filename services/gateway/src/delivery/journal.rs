//! Journals that are open on this replica: the latest versions of each, and what the clients that edit it by whole
//! texts may show of it. Below, what REST computes of documents that are not open.
//!
//! One lock holds both, so that a version is added, and found out to whom it is emitted, in one step. Under it texts are
//! compared: whatever takes it is for a blocking pool ([`blocking`]), never for the runtime. Must not know rooms, sockets
//! or the bus.

pub mod turns;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parlance_journal::{Blame, Budget, Document, EMPTY_UPDATE, Error, Versions, WholeTextSession, Writer};
use parlance_proto::ConversationId;
use parlance_proto::v1::{ErrorCode, JournalEdited, Participant, Role};
use parlance_runtime::tasks;
use tokio::sync::watch;

use crate::error::ClientError;
use crate::session::SessionId;

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

/// Whom a version is emitted to, if they follow the journal.
#[derive(Debug, Clone)]
pub enum Receivers {
    /// All of them.
    Everyone,
    /// Others later.
    Only(Arc<HashSet<SessionId>>),
}

/// A version is emitted.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Its text; `None` if it was there.
    pub text: Option<Arc<str>>,
    /// Those of the receivers that sent its text as their own: they are not emitted it.
    pub silent: Vec<SessionId>,
    /// Whether some of them may not show it, and are to be looked after once they pause.
    pub leaves_behind: bool,
}

/// The newest version, for clients that earlier ones were kept from.
#[derive(Debug)]
pub struct CaughtUp {
    /// Its number.
    pub version: u64,
    /// What the versions that were kept back changed, and it.
    pub update: Vec<u8>,
    /// How it is emitted.
    pub pushed: Pushed,
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

/// What a client and the server lack of each other's document.
#[derive(Debug)]
pub struct Synced {
    /// The number of the newest version.
    pub version: u64,
    /// What the client lacks.
    pub update: Vec<u8>,
    /// What the server knows.
    pub state_vector: Vec<u8>,
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
    let done = tasks::blocking("journal", work).await;
    done.unwrap_or_else(|_| Err(Error::Broken.into()))
}

impl OpenJournal {
    /// With this document as its only version; a checkpoint and the updates since.
    ///
    /// # Errors
    /// The document cannot be read.
    pub fn new(version: u64, document: &[Vec<u8>]) -> Result<Self, Error> {
        Ok(Self {
            state: Mutex::new(State {
                versions: versions_from(version, document)?,
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
    pub fn push(&self, version: u64, update: &[u8], receivers: &Receivers) -> Result<Pushed, Error> {
        let mut state = self.lock();
        if version <= state.versions.newest() {
            return Ok(Pushed::default());
        }
        state.versions.push(version, update)?;
        self.newest.send_replace(version);
        Ok(state.emit(receivers))
    }

    /// The newest version, for clients that were emitted none after `since`.
    ///
    /// # Errors
    /// The journal must be read again.
    pub fn catch_up(&self, since: u64, receivers: &Receivers) -> Result<CaughtUp, Error> {
        let mut state = self.lock();
        Ok(CaughtUp {
            version: state.versions.newest(),
            update: state.versions.update_since(since)?,
            pushed: state.emit(receivers),
        })
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
    pub fn reset(&self, version: u64, document: &[Vec<u8>]) -> Result<Current, Error> {
        let begun = versions_from(version, document)?;
        let mut state = self.lock();
        state.versions = begun;
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

    /// A client joins that keeps the document itself and knows this much of it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if that is not a state vector.
    pub fn sync(&self, id: SessionId, state_vector: &[u8]) -> Result<Synced, Error> {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        let (version, document) = (versions.newest(), versions.document());
        let synced = Synced {
            version,
            update: document.diff_since(state_vector)?,
            state_vector: document.state_vector(),
        };
        let texts = || Client::new(WholeTextSession::joined(version));
        clients.entry(id).or_insert_with(texts).has_joined = true;
        lock(&self.known).insert(id);
        Ok(synced)
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
        let edited = client
            .texts
            .edit(text, versions, any_writer(), &mut { Budget::EDIT })?;
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

    /// This client is shown what is returned.
    pub fn show_newest(&self, id: SessionId) -> Option<Current> {
        let mut state = self.lock();
        let State { versions, clients } = &mut *state;
        clients.get_mut(&id)?.texts.shows_newest(versions);
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

/// The first text of a new journal as an update; empty for none.
///
/// # Errors
/// The text cannot be stored.
pub fn first(content: &str) -> Result<Vec<u8>, Error> {
    let edit = Document::new(any_writer()).rewrite(content, &mut { Budget::EDIT })?;
    Ok(edit.map_or_else(Vec::new, |edit| edit.update))
}

/// The update that makes the text of a document, given as a checkpoint and the updates since, into this one.
///
/// # Errors
/// The document cannot be read, or the text not be stored.
pub fn rewrite(document: &[Vec<u8>], content: &str) -> Result<Vec<u8>, Error> {
    let edit = Document::load(document, any_writer())?.rewrite(content, &mut { Budget::EDIT })?;
    // Where nothing changes, it is still asked for: whether one may is for others to say.
    Ok(edit.map_or_else(|| EMPTY_UPDATE.to_vec(), |edit| edit.update))
}

/// The text of a document, given as a checkpoint and the updates since.
///
/// # Errors
/// The document cannot be read.
pub fn text(document: &[Vec<u8>]) -> Result<String, Error> {
    Ok(Document::load(document, Writer::NONE)?.text())
}

/// Whose text it is, before versions are applied: nobody's.
///
/// # Errors
/// The document cannot be read.
pub fn blame(document: &[Vec<u8>]) -> Result<Blame<String>, Error> {
    Blame::new(&Document::load(document, Writer::NONE)?.checkpoint())
}

/// Refuses those who may only read, before anything is computed for them. Persistence decides.
///
/// # Errors
/// The refusal.
pub fn may_edit(participants: &[Participant], user: &str) -> Result<(), ClientError> {
    let me = participants
        .iter()
        .find(|participant| participant.user_id == user);
    match me.map(Participant::role) {
        Some(Role::Viewer) => Err(ClientError::new(
            ErrorCode::Forbidden,
            "your role does not allow this here",
        )),
        _ => Ok(()),
    }
}

fn versions_from(version: u64, document: &[Vec<u8>]) -> Result<Versions, Error> {
    match document {
        [checkpoint] => Versions::new(version, checkpoint),
        parts => Versions::new(version, &Document::load(parts, Writer::NONE)?.checkpoint()),
    }
}

fn any_writer() -> Writer {
    Writer::new(fastrand::u64(..))
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

impl Receivers {
    fn contains(&self, id: SessionId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(ids) => ids.contains(&id),
        }
    }
}

impl State {
    /// Notes to whom the newest version is emitted.
    fn emit(&mut self, receivers: &Receivers) -> Pushed {
        let Self { versions, clients } = self;
        let mut pushed = Pushed {
            text: Some(Arc::clone(versions.text())),
            ..Pushed::default()
        };
        // Those that only edit are emitted nothing.
        let receives =
            |(id, client): &(&SessionId, &mut Client)| client.has_joined && receivers.contains(**id);
        for (id, client) in clients.iter_mut().filter(receives) {
            if client.texts.emits(versions.newest(), versions) {
                client.is_behind = false;
            } else {
                client.is_behind = client.texts.is_behind(versions);
                pushed.silent.push(*id);
            }
            pushed.leaves_behind |= client.is_behind;
        }
        pushed
    }

    fn current(&self) -> Current {
        Current {
            version: self.versions.newest(),
            content: Arc::clone(self.versions.text()),
            state: self.versions.document().checkpoint(),
        }
    }
}
