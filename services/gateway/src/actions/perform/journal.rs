//! Journals of a session: joining, leaving, and turning whole texts into changes.

use std::sync::Arc;
use std::time::Duration;

use parlance_journal::{ClientState, EMPTY_UPDATE, Error};
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Actor, Conversation, ConversationKind, EditJournal, ErrorCode, JournalEdited, command,
};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;

use super::Planned;
use super::session::{self, SessionActions};
use crate::actions::commands;
use crate::actions::core::Core;
use crate::actions::idempotency::Change;
use crate::clock::now;
use crate::delivery::awareness::identify;
use crate::delivery::journal::{Current, OpenJournal, Synced, Unedited, blocking, may_edit};
use crate::dialect::{Answer, ConversationRef, JournalChange, Outbound};
use crate::error::ClientError;
use crate::session::Session;
use crate::session::following::Following;

/// Times a change of which nobody knows whether it was stored is published again.
const REPUBLISHED: u32 = 12;
/// Pause before it is.
const REPUBLISH_PAUSE: Duration = Duration::from_secs(1);

/// A change of a journal that was made of a whole text, until its outcome is known.
pub(super) struct WholeTextChange {
    pub core: Core,
    pub session: Arc<Session>,
    pub actor: Actor,
    pub journal: Arc<OpenJournal>,
    pub id: ConversationId,
}

impl SessionActions {
    /// Follows a journal: from the version in the answer on, or from what a client knows of it that keeps the document itself.
    pub(super) async fn join_journal(
        &mut self,
        journal: ConversationRef,
        state_vector: Option<Vec<u8>>,
    ) -> Result<Answer, ClientError> {
        let id = self.core.conversation(journal).await?;
        match state_vector {
            Some(state_vector) => self.sync_journal(id, state_vector).await,
            None => self.show_journal(id).await,
        }
    }

    async fn show_journal(&mut self, id: ConversationId) -> Result<Answer, ClientError> {
        let seen = self.seen_journal(id).await?;
        let shows = self.session.dialect().shows_joined_journals();
        // Who finds the text in the answer begins with that.
        let returns = shows && returns(&seen);
        let settles = returns && !self.journals.contains_key(&id);
        let journal = self.open_journal(id, true, settles).await?;
        let (joining, session) = (Arc::clone(&journal), self.session.id);
        let current = blocking(move || Ok::<_, Error>(joining.join(session, returns))).await;
        let current = current.map_err(|error| unusable(id, error))?;
        if shows {
            show(&self.core, &self.session, id, &journal, current.clone()).await;
        }
        self.journals.insert(id, journal);
        let content = Arc::clone(&current.content);
        let joined = current.into_event(id, seen.number, seen.updated_at_ms);
        Ok(Answer::Journal(joined, Some(content)))
    }

    async fn sync_journal(
        &mut self,
        id: ConversationId,
        state_vector: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        let seen = self.seen_journal(id).await?;
        let following = Following {
            joined: true,
            takes_updates: Some(true),
            ..Following::default()
        };
        let journal = self.attach_journal(id, following).await?;
        let (syncing, session) = (Arc::clone(&journal), self.session.id);
        let synced = blocking(move || syncing.sync(session, &state_vector)).await;
        let Synced {
            version,
            update,
            state_vector,
        } = synced.map_err(|error| match error {
            Error::Malformed => ClientError::invalid("state_vector is not a Yjs (v1) state vector"),
            error => unusable(id, error),
        })?;
        self.journals.insert(id, journal);
        let journal = JournalEdited {
            journal_id: id.to_string(),
            journal_number: seen.number,
            version,
            update,
            at_ms: seen.updated_at_ms,
            ..JournalEdited::default()
        };
        Ok(Answer::JournalSync {
            journal,
            state_vector,
        })
    }

    /// Follows it no more.
    pub(super) async fn leave_journal(&mut self, journal: ConversationRef) -> Result<Answer, ClientError> {
        if let Some(id) = self.left(journal).await? {
            self.core.rooms.leave(id, self.session.id);
            if let Some(journal) = self.journals.remove(&id) {
                session::forget(journal, self.session.id);
            }
        }
        Ok(Answer::Done)
    }

    /// Shows the others the states of this page.
    pub(super) async fn share_awareness(
        &self,
        journal: ConversationRef,
        states: Vec<ClientState>,
    ) -> Result<Answer, ClientError> {
        let id = self.core.conversation(journal).await?;
        if !self.session.is_attached(id) {
            self.seen_journal(id).await?;
            return Err(ClientError::not_joined());
        }
        let states = identify(states, self.session.user.as_str(), &self.session.username)?;
        let rooms = &self.core.rooms;
        rooms.share_awareness(id, self.session.id, states).await?;
        Ok(Answer::Done)
    }

    /// Changes a journal: by an update, or by the whole text as this client shows it.
    pub(super) async fn edit_journal(
        &mut self,
        journal: ConversationRef,
        edit: JournalChange,
        change: &Change,
    ) -> Result<Planned, ClientError> {
        let id = self.core.conversation(journal).await?;
        let content = match edit {
            JournalChange::Update(update) => return Ok(Planned::Command(id, edit_command(update), None)),
            JournalChange::Content(content) => content,
        };
        if change.is_resumed()
            && let Some(outcome) = self.resumed_edit(id, change).await
        {
            return outcome.map(Planned::from);
        }
        let (update, journal) = self.rewrite_journal(id, content).await?;
        let change = WholeTextChange {
            core: self.core.clone(),
            session: Arc::clone(&self.session),
            actor: self.user.actor(),
            journal,
            id,
        };
        Ok(Planned::Command(id, edit_command(update), Some(change)))
    }

    /// The outcome of a whole text that an earlier attempt made a change of; `None` where that was not stored. Made once
    /// more of a text that others changed since, it would undo what they did.
    async fn resumed_edit(&self, id: ConversationId, change: &Change) -> Option<Result<Answer, ClientError>> {
        let commands = &self.core.commands;
        let outcome = commands.resumed_edit(self.user.actor(), change, id).await?;
        if let (Ok(Answer::Journal(stored, _)), Some(journal)) = (&outcome, self.journals.get(&id)) {
            journal.reached(stored.version).await;
            let (showing, session) = (Arc::clone(journal), self.session.id);
            let current = blocking(move || Ok::<_, Error>(showing.show_newest(session))).await;
            if let Ok(Some(current)) = current {
                show(&self.core, &self.session, id, journal, current).await;
            }
        }
        Some(outcome)
    }

    async fn rewrite_journal(
        &mut self,
        id: ConversationId,
        content: String,
    ) -> Result<(Vec<u8>, Arc<OpenJournal>), ClientError> {
        let known = self
            .journals
            .get(&id)
            .filter(|journal| journal.knows(self.session.id));
        // Once removed, a session is attached no more, and what it was shown may be of another room.
        let known = known.filter(|_| self.session.is_attached(id)).cloned();
        let (journal, returns) = match known {
            Some(journal) => {
                let place = self.core.rooms.place(id);
                let may = place.map(|place| may_edit(&place.participants, self.session.user.as_str()));
                if let Some(Err(error)) = may {
                    take_off(&self.core, &self.session, id, &journal).await;
                    return Err(error);
                }
                (journal, false)
            }
            None => {
                let seen = self.seen_journal(id).await?;
                may_edit(&seen.participants, self.session.user.as_str())?;
                let returns = returns(&seen);
                let journal = self.open_journal(id, false, returns).await?;
                self.journals.insert(id, Arc::clone(&journal));
                (journal, returns)
            }
        };
        let (editing, session) = (Arc::clone(&journal), self.session.id);
        let turn = self.core.turns.turn(self.session.user.clone()).await?;
        let edit = turn
            .compute(move || editing.edit(session, &content, returns))
            .await?;
        let edit = edit.map_err(|error| unedited(id, error))?;
        if let Some(current) = edit.show {
            show(&self.core, &self.session, id, &journal, current).await;
        }
        Ok((edit.update, journal))
    }

    /// The journal as this client sees it, with what its page was shown of it.
    async fn seen_journal(&self, id: ConversationId) -> Result<Conversation, ClientError> {
        let backend = &self.core.backend;
        let seen = backend
            .conversation_for(Some(self.user.actor()), id, self.session.client())
            .await?;
        if seen.kind() != ConversationKind::Journal {
            return Err(no_journal());
        }
        Ok(seen)
    }

    /// What the page edited over a connection that is lost may still be on its way: it comes before a change that
    /// changes nothing. Returns the version that holds all of it; `None` for those who may not edit.
    async fn settle(&self, id: ConversationId) -> Option<u64> {
        let commands = &self.core.commands;
        let outcome = commands
            .execute(
                self.user.actor(),
                &Change::fresh(),
                id,
                edit_command(EMPTY_UPDATE.to_vec()),
            )
            .await;
        match outcome.ok()?.answer {
            Answer::Journal(journal, _) => Some(journal.version),
            _ => None,
        }
    }

    /// Follows a journal; where it `settles`, with what the page edited before.
    async fn open_journal(
        &self,
        id: ConversationId,
        joined: bool,
        settles: bool,
    ) -> Result<Arc<OpenJournal>, ClientError> {
        let settled = match settles {
            true => self.settle(id).await,
            false => None,
        };
        let journal = self.follow_journal(id, joined).await?;
        if let Some(version) = settled {
            journal.reached(version).await;
        }
        Ok(journal)
    }

    async fn follow_journal(
        &self,
        id: ConversationId,
        joined: bool,
    ) -> Result<Arc<OpenJournal>, ClientError> {
        let following = Following {
            joined,
            takes_updates: joined.then_some(false),
            ..Following::default()
        };
        self.attach_journal(id, following).await
    }

    async fn attach_journal(
        &self,
        id: ConversationId,
        following: Following,
    ) -> Result<Arc<OpenJournal>, ClientError> {
        let session = Arc::clone(&self.session);
        let attached = self.core.rooms.attach(id, session, following).await?;
        attached.journal.ok_or_else(no_journal)
    }
}

impl WholeTextChange {
    /// The change has this outcome. What was refused is taken off the client's page; what may be stored later, or is
    /// already, is published again: however often it is, it is stored once.
    pub(super) fn ends(self, outcome: &commands::Outcome) {
        let Err(error) = outcome else {
            return;
        };
        let may_be_stored = error.retry;
        tasks::spawn("end a whole-text change", async move {
            let is_refused = if may_be_stored {
                self.republish().await
            } else {
                true
            };
            if is_refused {
                self.refuse().await;
            }
        });
    }

    /// Returns whether it was refused. One of the session's changes is enough for all: it carries the others.
    async fn republish(&self) -> bool {
        let Some(turn) = self.journal.repair(self.session.id) else {
            return false;
        };
        let mut is_refused = false;
        let mut unstored = self.unstored().await;
        let mut backoff = Backoff::new(REPUBLISH_PAUSE, REPUBLISH_PAUSE);
        for _ in 0..REPUBLISHED {
            backoff.pause().await;
            // Of a client that is gone meanwhile what it had then.
            if self.journal.knows(self.session.id) {
                unstored = self.unstored().await;
            }
            let Some(update) = unstored.clone() else {
                break;
            };
            let commands = &self.core.commands;
            let (me, change) = (self.actor.clone(), Change::fresh());
            match commands.execute(me, &change, self.id, edit_command(update)).await {
                Err(error) if error.retry => {}
                outcome => {
                    is_refused = outcome.is_err();
                    break;
                }
            }
        }
        drop(turn);
        is_refused
    }

    async fn unstored(&self) -> Option<Vec<u8>> {
        let (journal, session) = (Arc::clone(&self.journal), self.session.id);
        let unstored = blocking(move || Ok::<_, Error>(journal.unstored(session))).await;
        unstored.ok().flatten()
    }

    async fn refuse(self) {
        take_off(&self.core, &self.session, self.id, &self.journal).await;
    }
}

/// Takes what was refused off the client's page.
async fn take_off(core: &Core, session: &Session, id: ConversationId, journal: &Arc<OpenJournal>) {
    let (refusing, client) = (Arc::clone(journal), session.id);
    if let Ok(Some(current)) = blocking(move || Ok::<_, Error>(refusing.refuse(client))).await {
        show(core, session, id, journal, current).await;
    }
}

/// The command of an update.
pub(super) fn edit_command(update: Vec<u8>) -> command::Body {
    command::Body::EditJournal(EditJournal { update })
}

/// Whether the client's page was here before. What was emitted to it then it may not have got.
fn returns(seen: &Conversation) -> bool {
    seen.served.is_some_and(|served| served.exact)
}

/// Shows the present version to a client that no other event brings it to. The last that it is shown must be the newest,
/// and the room may have emitted that one meanwhile.
async fn show(
    core: &Core,
    session: &Session,
    id: ConversationId,
    journal: &Arc<OpenJournal>,
    first: Current,
) {
    let mut current = first;
    loop {
        let version = current.version;
        let number = core.rooms.place(id).map_or(0, |place| place.number);
        let at_ms = now().timestamp_millis();
        let content = Arc::clone(&current.content);
        let event = current.into_event(id, number, at_ms);
        session.tell(Outbound::JournalEdited(&event, Some(&content)));
        if journal.version() <= version || session.closed.is_cancelled() {
            return;
        }
        let journal = Arc::clone(journal);
        match blocking(move || Ok::<_, Error>(journal.current())).await {
            Ok(newer) => current = newer,
            Err(_) => return,
        }
    }
}

fn unedited(id: ConversationId, error: Unedited) -> ClientError {
    match error {
        Unedited::Document(Error::NotStorable) => ClientError::invalid(error.to_string()),
        Unedited::TooMuchUnstored => ClientError::new(ErrorCode::Unavailable, error.to_string()),
        Unedited::Document(error) => unusable(id, error),
    }
}

fn unusable(id: ConversationId, error: Error) -> ClientError {
    tracing::error!(conversation = %id, %error, "the state of a journal cannot be read; are versions mixed?");
    ClientError::internal()
}

/// The same answer as for a journal that is none of the caller's business.
fn no_journal() -> ClientError {
    ClientError::no_conversation()
}
