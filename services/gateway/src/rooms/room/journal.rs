//! The room of a journal: keeps its versions, and knows which of its clients show one already.

use std::sync::Arc;
use std::time::Duration;

use parlance_journal::Error;
use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::{ConversationKind, ErrorCode, JournalEdited};

use tokio::time::Instant;

use super::{RETRY, Room};
use crate::commands::now;
use crate::dialect::Outbound;
use crate::error::ClientError;
use crate::journal::{Current, OpenJournal, Pushed, blocking};

/// How long a client does not write that has paused.
const PAUSE: Duration = Duration::from_millis(400);

/// The journal that begins with this state; `None` for any other conversation.
pub(super) async fn open(
    kind: ConversationKind,
    state: Option<Vec<u8>>,
    version: u64,
) -> Result<Option<Arc<OpenJournal>>, ClientError> {
    if kind != ConversationKind::Journal {
        return Ok(None);
    }
    let state = state.unwrap_or_default();
    let journal = blocking(move || OpenJournal::new(version, &state))
        .await
        .map_err(|error| {
            tracing::error!(%error, "the state of a journal cannot be read; are versions mixed?");
            ClientError::internal()
        })?;
    Ok(Some(Arc::new(journal)))
}

impl Room {
    pub(super) async fn journal_edited(&mut self, edited: &JournalEdited) {
        let added = match self.journal.clone() {
            Some(journal) => {
                let (version, update) = (edited.version, edited.update.clone());
                blocking(move || journal.push(version, &update)).await
            }
            None => Ok(Pushed::default()),
        };
        match added {
            Ok(Pushed {
                silent,
                leaves_behind,
            }) => {
                let receives = |id| !silent.contains(&id);
                self.audience
                    .emit_version(Outbound::JournalEdited(edited), receives);
                if leaves_behind {
                    self.pauses_at.get_or_insert_with(|| Instant::now() + PAUSE);
                }
            }
            Err(error) => {
                tracing::error!(conversation = %self.conversation, %error, "a change of a journal cannot be read");
                self.audience.tell_joined(Outbound::JournalEdited(edited));
                self.restore_journal().await;
            }
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
            let newest = self.present(newest);
            let receives = |id| paused.clients.contains(&id);
            self.audience
                .emit_version(Outbound::JournalEdited(&newest), receives);
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
        let room = loop {
            match self.rooms.backend.room(None, self.conversation).await {
                Ok(room) => break room,
                // Deleted: the last event says so.
                Err(error) if error.code == ErrorCode::NotFound.name() => return,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let (version, state) = (room.head_seq, room.journal_state.unwrap_or_default());
        let current = match blocking(move || journal.reset(version, &state)).await {
            Ok(current) => current,
            Err(error) => {
                tracing::error!(conversation = %self.conversation, %error, "the state of a journal cannot be read");
                return;
            }
        };
        let restored = self.present(current);
        self.audience.tell_joined(Outbound::JournalEdited(&restored));
    }
}
