//! Journals on a socket: joining, leaving, and turning whole texts into changes.

use std::sync::Arc;
use std::time::Instant;

use parlance_proto::ConversationId;
use parlance_proto::v1::{ConversationKind, EditJournal, JournalEdited, command, edit_journal};

use super::Serving;
use crate::dialect::{Answer, JournalChange, Outbound};
use crate::error::ClientError;
use crate::journal::{Current, History, Shadow, Unreadable};
use crate::rooms::Following;

/// A Yjs (v1) update that changes nothing. It is sent like any other: whether the user may edit is not known
/// here.
const NO_CHANGE: [u8; 2] = [0, 0];

impl Serving {
    /// Follows a journal from the version in the answer on.
    pub(super) async fn join_journal(&mut self, id: ConversationId) -> Result<Answer, ClientError> {
        let seen = self.shared.backend.conversation(Some(self.actor()), id).await?;
        if seen.kind() != ConversationKind::Journal {
            return Err(no_journal());
        }
        let history = self.follow_journal(id, true).await?;
        let current = history.current(Instant::now());
        let followed = |shadow: &Shadow| shadow.is_joined() && Arc::ptr_eq(shadow.history(), &history);
        if !self.journals.get(&id).is_some_and(followed) {
            history.wait_for(&self.arrivals);
            self.journals.insert(id, Shadow::new(history, true));
        }
        let joined = told(id, seen.number, current, seen.updated_at_ms);
        if self.session.dialect().shows_joined_journals() {
            self.session.tell(Outbound::JournalEdited(&joined));
        }
        Ok(Answer::Journal(joined))
    }

    /// Follows it no more.
    pub(super) fn leave_journal(&mut self, id: ConversationId) {
        self.shared.rooms.leave(id, self.session.id);
        if let Some(shadow) = self.journals.get_mut(&id)
            && shadow.leave(Instant::now()).is_err()
        {
            self.journals.remove(&id);
        }
    }

    /// The command for a change of a journal.
    pub(super) async fn edit_journal(
        &mut self,
        id: ConversationId,
        change: JournalChange,
    ) -> Result<command::Body, ClientError> {
        let update = match change {
            JournalChange::Update(update) => {
                self.shared.limits.journal_update(&update)?;
                update
            }
            JournalChange::Content(content) => {
                self.shared.limits.journal(&content)?;
                self.rewrite_journal(id, &content).await?
            }
        };
        Ok(command::Body::EditJournal(EditJournal {
            change: Some(edit_journal::Change::Update(update)),
            base_version: 0,
        }))
    }

    async fn rewrite_journal(&mut self, id: ConversationId, content: &str) -> Result<Vec<u8>, ClientError> {
        // Once removed, a session is attached no more, and what it had seen may be of another room.
        if !self.session.is_attached(id) || !self.journals.contains_key(&id) {
            let history = self.follow_journal(id, false).await?;
            history.wait_for(&self.arrivals);
            self.journals.insert(id, Shadow::new(history, false));
        }
        let shadow = self.journals.get_mut(&id).ok_or_else(ClientError::internal)?;
        let now = Instant::now();
        let update = shadow
            .edit(content, self.arrived)
            .map_err(|error| unreadable(id, error))?;
        if let Some(update) = update {
            return Ok(update);
        }
        let current = shadow.history().current(now);
        if shadow.is_joined() && *current.content != *content {
            // It will hear of no change, so that is how it gets to the present text.
            let number = self.shared.rooms.place(id).map_or(0, |place| place.number);
            let at_ms = crate::commands::now().timestamp_millis();
            self.session
                .tell(Outbound::JournalEdited(&told(id, number, current, at_ms)));
        }
        Ok(NO_CHANGE.to_vec())
    }

    async fn follow_journal(&self, id: ConversationId, joined: bool) -> Result<Arc<History>, ClientError> {
        let following = Following {
            joined,
            ..Following::default()
        };
        let session = Arc::clone(&self.session);
        let attached = self.shared.rooms.attach(id, session, following).await?;
        attached.journal.ok_or_else(no_journal)
    }
}

/// The present version as an event nobody caused.
fn told(id: ConversationId, number: i64, current: Current, at_ms: i64) -> JournalEdited {
    JournalEdited {
        journal_id: id.to_string(),
        journal_number: number,
        version: current.version,
        content: current.content.to_string(),
        update: current.state,
        actor_id: String::new(),
        at_ms,
    }
}

fn unreadable(id: ConversationId, error: Unreadable) -> ClientError {
    tracing::error!(conversation = %id, %error, "the state of a journal cannot be read; are versions mixed?");
    ClientError::internal()
}

/// The same answer as for a journal that is none of the caller's business.
fn no_journal() -> ClientError {
    ClientError::no_conversation()
}
