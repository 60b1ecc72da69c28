//! Journals as a whole, without a session that follows them: made, rewritten, shared, ended. Each is done once the journal was
//! read again, which is the answer.

use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Conversation, ConversationKind, CreateConversation, DeleteConversation, UpdateConversation, command,
};

use super::conversations::{change_role, remove_member};
use super::journal::edit_command;
use super::{Performing, Planned};
use crate::actions::commands::Confirmed;
use crate::actions::reads::{Reads, computed};
use crate::delivery::journal as document;
use crate::dialect::{Answer, JournalAction};
use crate::error::ClientError;

impl Performing<'_> {
    pub(super) async fn change_journal(&self, action: JournalAction) -> Result<Planned, ClientError> {
        let core = self.core;
        let (id, repeated) = match action {
            JournalAction::Create { title, content } => (self.create_journal(title, content).await?, false),
            JournalAction::Update {
                journal,
                title,
                content,
                base_version,
            } => {
                let id = core.conversation(journal).await?;
                self.update_journal(id, title, content, base_version).await?;
                (id, false)
            }
            JournalAction::Restore { journal, version } => {
                let id = core.conversation(journal).await?;
                let present = self.reads().journal(id).await?;
                let (_, content) = self.reads().journal_version(id, version).await?;
                self.rewrite(&present, id, 0, content).await?;
                (id, false)
            }
            JournalAction::Share { journal, user, role } => {
                let id = core.conversation(journal).await?;
                // For non-members there is none.
                self.reads().journal(id).await?;
                let present = core.backend.member(id, user.as_str()).await?.is_some();
                let added = self.execute(id, self.add_members(&[user], Some(role))).await?;
                (id, present || added.repeated)
            }
            JournalAction::ChangeRole { journal, user, role } => {
                let id = core.conversation(journal).await?;
                self.reads().journal(id).await?;
                (id, self.execute(id, change_role(&user, role)).await?.repeated)
            }
            JournalAction::Delete(journal) => {
                let id = core.conversation(journal).await?;
                self.was_seen(id).await?;
                let body = command::Body::DeleteConversation(DeleteConversation {});
                return Ok(Planned::command(id, body));
            }
            JournalAction::Unshare { journal, user } => {
                let id = core.conversation(journal).await?;
                self.was_seen(id).await?;
                return Ok(Planned::command(id, remove_member(&user)));
            }
        };
        let answer = Answer::Conversation(self.reads().journal(id).await?);
        Ok(Planned::Done(Confirmed { repeated, answer }))
    }

    fn reads(&self) -> Reads<'_> {
        self.core.reads(self.user)
    }

    async fn create_journal(&self, title: String, content: String) -> Result<ConversationId, ClientError> {
        let turn = self.core.turns.turn(self.user.id.clone()).await?;
        let journal = computed(&turn, move || document::first(&content)).await?;
        drop(turn);
        let id = self.new_conversation();
        let body = command::Body::CreateConversation(CreateConversation {
            kind: ConversationKind::Journal.into(),
            title,
            journal,
            ..CreateConversation::default()
        });
        self.execute(id, body).await?;
        Ok(id)
    }

    /// The text first: what can go wrong with it must not leave a new title behind.
    async fn update_journal(
        &self,
        id: ConversationId,
        title: Option<String>,
        content: Option<String>,
        base_version: u64,
    ) -> Result<(), ClientError> {
        let present = self.reads().journal(id).await?;
        if let Some(content) = content {
            if base_version > present.head_seq {
                return Err(ClientError::invalid("base_version is later than the journal"));
            }
            self.rewrite(&present, id, base_version, content).await?;
        }
        if title.is_some() {
            let update = command::Body::UpdateConversation(UpdateConversation {
                title,
                ..UpdateConversation::default()
            });
            self.execute(id, update).await?;
        }
        Ok(())
    }

    /// Makes the text of a version into this one; 0 for the present. Whatever others changed since stays.
    async fn rewrite(
        &self,
        journal: &Conversation,
        id: ConversationId,
        base_version: u64,
        content: String,
    ) -> Result<(), ClientError> {
        let (core, me) = (self.core, self.user.actor());
        if self.change.is_resumed()
            && let Some(outcome) = core.commands.resumed_edit(me.clone(), self.change, id).await
        {
            return outcome.map(drop);
        }
        document::may_edit(&journal.participants, self.user.id.as_str())?;
        let turn = core.turns.turn(self.user.id.clone()).await?;
        let base = core.backend.journal_document(Some(me), id, base_version).await?;
        let update = computed(&turn, move || document::rewrite(&base.parts, &content)).await?;
        drop(turn);
        self.execute(id, edit_command(update)).await.map(drop)
    }

    /// Whether there is such a journal for the user, or was before this very change ended that: its command decides.
    async fn was_seen(&self, id: ConversationId) -> Result<(), ClientError> {
        match self.core.backend.conversation(Some(self.user.actor()), id).await {
            Ok(seen) if seen.kind() != ConversationKind::Journal => Err(ClientError::no_conversation()),
            Err(error) if self.change.is_resumed() && error == ClientError::no_conversation() => Ok(()),
            seen => seen.map(drop),
        }
    }
}
