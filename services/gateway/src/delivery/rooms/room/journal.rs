//! The room of a journal: keeps its versions, and knows which of its clients show one already.

use std::sync::Arc;
use std::time::Duration;

use parlance_journal::Error;
use parlance_proto::v1::{ConversationKind, ErrorCode, JournalEdited};
use parlance_proto::{ConversationId, ErrorCodeExt as _};

use tokio::time::Instant;

use super::{Room, retries};
use crate::backend::Backend;
use crate::clock::now;
use crate::delivery::journal::{CaughtUp, Current, OpenJournal, Pushed, Receivers, blocking};
use crate::error::ClientError;
use crate::session::SessionId;

/// How long a client does not write that has paused.
const PAUSE: Duration = Duration::from_millis(400);
/// Bytes of whole texts that a client is sent each second, about: a large journal that many write at once must not cost
/// its readers, and everybody else here, a multiple of its length with every keystroke.
const TEXT_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Pauses between texts that nobody would notice.
const NO_PAUSE: Duration = Duration::from_millis(20);

/// The pace of the whole texts.
#[derive(Default)]
pub(super) struct Texts {
    next_at: Option<Instant>,
    held: Option<HeldBack>,
}

/// Versions that clients of whole texts were not emitted yet.
struct HeldBack {
    /// Just below the first of them.
    since: u64,
    last: JournalEdited,
}

impl Texts {
    /// When what is held back is to be emitted.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.held.as_ref().and(self.next_at)
    }

    fn are_early(&self) -> bool {
        self.held.is_some() || self.next_at.is_some_and(|at| at > Instant::now())
    }

    fn hold(&mut self, edited: &JournalEdited) {
        let before = edited.version.saturating_sub(1);
        self.held = Some(HeldBack {
            since: self.held.as_ref().map_or(before, |held| held.since),
            last: edited.clone(),
        });
    }

    fn sent(&mut self, bytes: usize) {
        let pause = Duration::from_micros(bytes as u64 * 1_000_000 / TEXT_BYTES_PER_SECOND);
        if pause > NO_PAUSE {
            self.next_at = Some(Instant::now() + pause);
        }
    }
}

/// The journal as of this place of the conversation; `None` for any other conversation.
pub(super) async fn open(
    backend: &Backend,
    id: ConversationId,
    kind: ConversationKind,
    head_seq: u64,
) -> Result<Option<Arc<OpenJournal>>, ClientError> {
    if kind != ConversationKind::Journal {
        return Ok(None);
    }
    let document = backend.journal_document(None, id, head_seq).await?;
    let journal = blocking(move || OpenJournal::new(head_seq, &document.parts)).await;
    journal.map(|journal| Some(Arc::new(journal))).map_err(|error| {
        tracing::error!(conversation = %id, %error, "the state of a journal cannot be read; are versions mixed?");
        ClientError::internal()
    })
}

impl Room {
    pub(super) async fn journal_edited(&mut self, edited: &JournalEdited) {
        let Some(journal) = self.journal.clone() else {
            self.audience.emit_version(edited, None, |_| true);
            return;
        };
        let is_early = self.texts.are_early();
        let receivers = match is_early {
            true => Receivers::Only(Arc::new(self.audience.readers_of_updates())),
            false => Receivers::Everyone,
        };
        let (version, update) = (edited.version, edited.update.clone());
        let added = blocking(move || journal.push(version, &update, &receivers)).await;
        match added {
            Ok(pushed) if is_early => {
                self.emit_version(edited, None, &pushed, |_| true);
                if pushed.text.is_some() && self.audience.owe_version() {
                    self.texts.hold(edited);
                }
                if self.texts.due_at().is_some_and(|at| at <= Instant::now()) {
                    self.show_held_back().await;
                }
            }
            Ok(pushed) => self.emit_version(edited, pushed.text.as_deref(), &pushed, |_| true),
            Err(error) => {
                tracing::error!(conversation = %self.conversation, %error, "a change of a journal cannot be read");
                self.audience.emit_version(edited, None, |_| true);
                self.restore_journal().await;
            }
        }
    }

    /// Emits the newest version to the clients of whole texts that the last ones were held back from.
    pub(super) async fn show_held_back(&mut self) {
        let (Some(journal), Some(held)) = (self.journal.clone(), self.texts.held.take()) else {
            return;
        };
        let owed = Arc::new(self.audience.take_owed());
        let receivers = Receivers::Only(Arc::clone(&owed));
        let caught_up = blocking(move || journal.catch_up(held.since, &receivers)).await;
        match caught_up {
            Ok(CaughtUp {
                version,
                update,
                pushed,
            }) => {
                let newest = JournalEdited {
                    version,
                    update,
                    ..held.last
                };
                self.emit_version(&newest, pushed.text.as_deref(), &pushed, |id| owed.contains(&id));
            }
            Err(error) => {
                tracing::error!(conversation = %self.conversation, %error, "changes of a journal cannot be merged");
                self.restore_journal().await;
            }
        }
    }

    fn emit_version(
        &mut self,
        edited: &JournalEdited,
        text: Option<&str>,
        pushed: &Pushed,
        receives: impl Fn(SessionId) -> bool,
    ) {
        let receives = |id| receives(id) && !pushed.silent.contains(&id);
        self.audience.emit_version(edited, text, receives);
        self.texts.sent(text.map_or(0, str::len));
        if pushed.leaves_behind {
            self.pauses_at.get_or_insert_with(|| Instant::now() + PAUSE);
        }
    }

    /// Shows the newest version to clients that may not show what they wrote, once they have paused: while they write,
    /// it would take words from them that are on their way.
    pub(super) async fn show_paused(&mut self) {
        self.pauses_at = None;
        let Some(journal) = self.journal.clone() else {
            return;
        };
        let Ok(paused) = blocking(move || Ok::<_, Error>(journal.paused(PAUSE))).await else {
            return;
        };
        if paused.leaves_behind {
            self.pauses_at = Some(Instant::now() + PAUSE);
        }
        if let Some(newest) = paused.newest {
            let content = Arc::clone(&newest.content);
            let newest = self.present(newest);
            let receives = |id| paused.clients.contains(&id);
            self.audience.emit_version(&newest, Some(&content), receives);
        }
    }

    fn present(&self, current: Current) -> JournalEdited {
        current.into_event(self.conversation, self.place.number, now().timestamp_millis())
    }

    /// Reads the journal again from the database, and shows it to everyone: clients that know only whole texts have no
    /// other way to ask.
    pub(super) async fn restore_journal(&mut self) {
        let Some(journal) = self.journal.clone() else {
            return;
        };
        self.texts.held = None;
        self.audience.take_owed();
        let mut backoff = retries();
        let document = loop {
            match self
                .rooms
                .backend
                .journal_document(None, self.conversation, 0)
                .await
            {
                Ok(document) => break document,
                // Deleted: the last event says so.
                Err(error) if error.code == ErrorCode::NotFound.name() => return,
                Err(_) if !self.rooms.backend.pause(&mut backoff).await => return,
                Err(_) => {}
            }
        };
        let current = match blocking(move || journal.reset(document.version.version, &document.parts)).await {
            Ok(current) => current,
            Err(error) => {
                tracing::error!(conversation = %self.conversation, %error, "the state of a journal cannot be read");
                return;
            }
        };
        let content = Arc::clone(&current.content);
        let restored = self.present(current);
        self.audience.emit_version(&restored, Some(&content), |_| true);
    }
}
