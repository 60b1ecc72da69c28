//! The one door: carries out every action, of sockets and of routes. Ids are resolved, commands built and outcomes awaited
//! here and nowhere else.
//!
//! | module | owns |
//! | --- | --- |
//! | [`session`] | a session that acts, and what only a session can ask for |
//! | `journal` | journals that a session follows or edits |
//! | `conversations` | conversations and their participants |
//! | `documents` | journals as a whole |
//!
//! Guarantees: one handler for each action, and a `match` without a wildcard, so that the compiler names what a new action
//! lacks. Must not check limits again: an [`Action`] that is made of what a client sent has been checked.

mod conversations;
mod documents;
mod journal;
pub mod session;

use std::sync::Arc;

use parlance_proto::v1::{
    CreateThread, DeleteMessage, EditMessage, ErrorCode, HideMessage, MarkRead, Mute, MuteConversation,
    React, ReportMessage, SendMessage, command,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use uuid::Uuid;

use super::commands::{Confirmed, Outcome, Then, Waiter};
use super::core::Core;
use super::idempotency::{Change, Claim};
use super::user::ActingUser;
use crate::backend::SYNC_EVENTS;
use crate::dialect::{Action, Answer, ConversationRef, Decoded, MessageRef, ReportAction, SendAction};
use crate::error::ClientError;
use crate::session::Request;
use journal::WholeTextChange;
use session::{ClientEvent, SessionActions};

/// What an action comes to.
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived; boxing would cost every reader a line"
)]
enum Planned {
    /// It is done.
    Done(Confirmed),
    /// A change, done once its command is confirmed; of a journal's whole text with what follows the outcome.
    Command(ConversationId, command::Body, Option<WholeTextChange>),
}

/// An action under way.
struct Performing<'a> {
    core: &'a Core,
    /// On whose behalf.
    user: &'a ActingUser,
    /// From which the ids of what is made are taken.
    change: &'a Change,
}

impl Core {
    /// Performs an action without a session, and waits for its outcome.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn perform(&self, user: &ActingUser, change: &Change, action: Action) -> Outcome {
        let is_alone = action.names_messages_alone();
        let performing = Performing {
            core: self,
            user,
            change,
        };
        let outcome = match performing.plan(None, action).await {
            Ok(Planned::Done(confirmed)) => Ok(confirmed),
            Ok(Planned::Command(conversation, body, _)) => performing.execute(conversation, body).await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if is_alone => Err(error.of_message_alone()),
            outcome => outcome,
        }
    }
}

impl SessionActions {
    /// Performs the action of an event, and answers the event; a change is answered once it is confirmed.
    pub async fn perform(&mut self, received: ClientEvent, decoded: Decoded) {
        let ClientEvent {
            event,
            at,
            ack,
            keyed,
        } = received;
        let Decoded { action, tag } = decoded;
        let claim = match keyed {
            Some(keyed) => self
                .core
                .idempotency
                .claim_in_turn(self.user.actor(), keyed)
                .await
                .map(Some),
            None => Ok(None),
        };
        let request = |ack| Request {
            ack,
            event,
            tag: tag.as_deref(),
        };
        let attempt = match claim {
            Ok(Some(Claim::Claimed(attempt))) => Some(attempt),
            Ok(Some(Claim::Answered(kept))) => {
                return self.session.answer_again(request(ack), &kept);
            }
            Ok(None) => None,
            Err(error) => return self.session.answer(request(ack), Err(&error), None),
        };
        let ids = attempt
            .as_ref()
            .map_or_else(Change::fresh, |attempt| attempt.change.clone());
        let alone = action.names_messages_alone();
        let (core, user) = (self.core.clone(), self.user.clone());
        let performing = Performing {
            core: &core,
            user: &user,
            change: &ids,
        };
        let outcome = match performing.plan(Some(self), action).await {
            Ok(Planned::Done(confirmed)) => Ok(confirmed.answer),
            Err(error) => Err(ids.failure(error)),
            Ok(Planned::Command(conversation, body, whole_text)) => {
                let me = user.actor();
                self.note_sent(&body, tag.as_deref(), ack.is_wanted());
                let waiter = Waiter::Socket {
                    attempt,
                    session: Arc::clone(&self.session),
                    ack,
                    event,
                    tag,
                    alone,
                    then: whole_text.map(|change| -> Then { Box::new(move |outcome| change.ends(outcome)) }),
                };
                let commands = &core.commands;
                return commands.submit(me, &ids, conversation, body, at, waiter).await;
            }
        };
        let place = outcome
            .as_ref()
            .ok()
            .and_then(|answer| core.rooms.place_of(answer));
        if let Some(attempt) = attempt {
            let dialect = self.session.dialect();
            attempt.settle_event(dialect, outcome.as_ref(), place.as_deref());
        }
        let request = request(ack);
        self.session.answer(request, outcome.as_ref(), place.as_deref());
    }
}

impl Performing<'_> {
    /// Does what needs no command, and builds the command of everything else.
    async fn plan(
        &self,
        session: Option<&mut SessionActions>,
        action: Action,
    ) -> Result<Planned, ClientError> {
        let session = session.ok_or_else(no_session);
        let answer = match action {
            Action::Send(send) => return self.send(send).await,
            Action::Edit {
                conversation,
                message,
                content,
            } => return self.edit(conversation, message, content).await,
            Action::Delete {
                conversation,
                message,
                for_me,
            } => return self.delete(conversation, message, for_me).await,
            Action::React {
                conversation,
                message,
                emoji,
                remove,
            } => return self.react(conversation, message, emoji, remove).await,
            Action::Receipt {
                conversation,
                up_to_seq,
                messages,
                delivered_only,
                through,
            } => {
                let up_to_seq = up_to_seq.unwrap_or_default();
                let mark = mark(up_to_seq, delivered_only, through);
                return self.mark(conversation, messages, mark).await;
            }
            Action::CreateThread {
                conversation,
                title,
                root,
                parent,
            } => return self.create_thread(conversation, title, root, parent).await,
            Action::Report(report) => return self.report(report).await,
            Action::Mute { conversation, mute } => return self.mute(conversation, mute).await,
            Action::EditJournal { journal, change } => {
                return session?.edit_journal(journal, change, self.change).await;
            }
            // Boxed: sessions rarely ask for these, and each would hold the room for them while it performs anything.
            Action::Conversation(action) => return Box::pin(self.change_conversation(action)).await,
            Action::Journal(action) => return Box::pin(self.change_journal(action)).await,
            Action::Rename(name) => self.rename(name).await?,
            Action::Block { user, blocked } => self.block(&user, blocked).await?,
            Action::ListBlocks { after, limit } => self.blocks(after, limit).await?,
            Action::Stop {
                conversation,
                message,
            } => self.stop(conversation, message).await?,
            Action::SwitchThread { conversation, thread } => self.look_at(conversation, thread).await?,
            Action::ListParticipants {
                conversation,
                after,
                limit,
            } => self.participants(conversation, after, limit).await?,
            Action::Sync(positions) => {
                let me = Some(self.user.actor());
                Answer::Pages(self.core.backend.sync(me, positions, SYNC_EVENTS).await?)
            }
            Action::Join(conversation) => session?.join(conversation).await?,
            Action::Leave(conversation) => session?.leave(conversation).await?,
            Action::Typing {
                conversation,
                is_typing,
            } => session?.typing(conversation, is_typing).await?,
            Action::Presence { status } => session?.set_presence(status),
            Action::WatchPresence(users) => session?.watch(users).await?,
            Action::UnwatchPresence(users) => session?.unwatch(users),
            Action::JoinJournal {
                journal,
                state_vector,
            } => session?.join_journal(journal, state_vector).await?,
            Action::LeaveJournal(journal) => session?.leave_journal(journal).await?,
            Action::ShareAwareness { journal, states } => session?.share_awareness(journal, states).await?,
        };
        Ok(answer.into())
    }

    /// Sends a command and waits for its outcome.
    async fn execute(&self, conversation: ConversationId, body: command::Body) -> Outcome {
        let commands = &self.core.commands;
        commands
            .execute(self.user.actor(), self.change, conversation, body)
            .await
    }

    /// A client's own id makes the id of a message, so that a repeat is the same message.
    async fn send(&self, send: SendAction) -> Result<Planned, ClientError> {
        let conversation = self.core.conversation(send.conversation).await?;
        let id = match &send.client_msg_id {
            Some(own) => MessageId::derive(conversation, &self.user.id, own),
            None => MessageId::from_uuid(self.change.id_of("message")),
        };
        let message = SendMessage {
            message_id: id.to_string(),
            r#type: send.kind.into(),
            content: send.content,
            metadata_json: send.metadata,
            client_msg_id: send.client_msg_id,
            reply_to: self.within(conversation, send.reply_to).await?,
            encrypted: send.encrypted,
            thread_id: send.thread.map(|id| id.to_string()),
            streaming: false,
        };
        Ok(Planned::command(
            conversation,
            command::Body::SendMessage(message),
        ))
    }

    async fn edit(
        &self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
        content: String,
    ) -> Result<Planned, ClientError> {
        let found = self.core.message(conversation, message).await?;
        let message_id = found.message;
        let body = command::Body::EditMessage(EditMessage { message_id, content });
        Ok(Planned::command(found.conversation, body))
    }

    async fn delete(
        &self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
        for_me: bool,
    ) -> Result<Planned, ClientError> {
        let found = self.core.message(conversation, message).await?;
        let message_id = found.message;
        let body = if for_me {
            command::Body::HideMessage(HideMessage { message_id })
        } else {
            command::Body::DeleteMessage(DeleteMessage { message_id })
        };
        Ok(Planned::command(found.conversation, body))
    }

    async fn react(
        &self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
        emoji: String,
        remove: bool,
    ) -> Result<Planned, ClientError> {
        let found = self.core.message(conversation, message).await?;
        let body = command::Body::React(React {
            message_id: found.message,
            emoji,
            remove,
        });
        Ok(Planned::command(found.conversation, body))
    }

    /// Marks messages of one conversation, which the first of them names where nothing else does.
    async fn mark(
        &self,
        conversation: Option<ConversationRef>,
        messages: Vec<MessageRef>,
        mut mark: MarkRead,
    ) -> Result<Planned, ClientError> {
        let mut id = match conversation {
            Some(conversation) => Some(self.core.conversation(conversation).await?),
            None => None,
        };
        for message in messages {
            let found = self.core.message(id.map(ConversationRef::Id), message).await?;
            id = Some(found.conversation);
            mark.message_ids.push(found.message);
        }
        let id = id.ok_or_else(|| ClientError::invalid("neither conversation nor message is named"))?;
        Ok(Planned::command(id, command::Body::MarkRead(mark)))
    }

    async fn create_thread(
        &self,
        conversation: ConversationRef,
        title: String,
        root: Option<MessageRef>,
        parent: Option<Uuid>,
    ) -> Result<Planned, ClientError> {
        let id = self.core.conversation(conversation).await?;
        let body = command::Body::CreateThread(CreateThread {
            thread_id: self.change.id_of("thread").to_string(),
            title,
            root_message_id: self.within(id, root).await?,
            parent_thread_id: parent.map(|id| id.to_string()),
        });
        Ok(Planned::command(id, body))
    }

    async fn report(&self, report: ReportAction) -> Result<Planned, ClientError> {
        let found = self.core.message(report.conversation, report.message).await?;
        let body = command::Body::ReportMessage(ReportMessage {
            message_id: found.message,
            reason: report.reason.into(),
            comment: report.comment,
        });
        Ok(Planned::command(found.conversation, body))
    }

    async fn mute(&self, conversation: ConversationRef, mute: Option<Mute>) -> Result<Planned, ClientError> {
        let id = self.core.conversation(conversation).await?;
        let body = command::Body::MuteConversation(MuteConversation { mute });
        Ok(Planned::command(id, body))
    }

    /// A message of this conversation as commands name it.
    async fn within(
        &self,
        conversation: ConversationId,
        message: Option<MessageRef>,
    ) -> Result<Option<String>, ClientError> {
        let Some(message) = message else {
            return Ok(None);
        };
        let found = self.core.message(Some(conversation.into()), message).await?;
        Ok(Some(found.message))
    }

    /// Asks the service of a message that streams to end it.
    async fn stop(
        &self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
    ) -> Result<Answer, ClientError> {
        let found = self.core.message(conversation, message).await?;
        let (backend, me) = (&self.core.backend, Some(self.user.actor()));
        backend.stop_stream(me, found.conversation, found.message).await?;
        Ok(Answer::Done)
    }

    /// A client's own view; only whether there is such a thing to look at is ours to say.
    async fn look_at(
        &self,
        conversation: ConversationRef,
        thread: Option<Uuid>,
    ) -> Result<Answer, ClientError> {
        let id = self.core.conversation(conversation).await?;
        let (backend, me) = (&self.core.backend, self.user.actor());
        match thread {
            Some(thread) => drop(backend.thread(me, id, thread.to_string()).await?),
            None => drop(backend.conversation(Some(me), id).await?),
        }
        Ok(Answer::Done)
    }

    async fn participants(
        &self,
        conversation: ConversationRef,
        after: String,
        limit: u32,
    ) -> Result<Answer, ClientError> {
        let id = self.core.conversation(conversation).await?;
        let (backend, me) = (&self.core.backend, Some(self.user.actor()));
        let page = backend.participants(me, id, after, limit).await?;
        Ok(Answer::Participants(page))
    }

    async fn block(&self, user: &UserId, blocked: bool) -> Result<Answer, ClientError> {
        let (backend, me) = (&self.core.backend, Some(self.user.actor()));
        backend.set_block(me, user, blocked).await?;
        Ok(Answer::Done)
    }

    async fn blocks(&self, after: String, limit: u32) -> Result<Answer, ClientError> {
        let (backend, me) = (&self.core.backend, Some(self.user.actor()));
        let page = backend.blocks(me, after, limit, false).await?;
        Ok(Answer::Blocks(page))
    }

    async fn rename(&self, name: String) -> Result<Answer, ClientError> {
        let (backend, me) = (&self.core.backend, Some(self.user.actor()));
        let user = backend.set_name(me, &self.user.id, name, false).await?;
        Ok(Answer::User(user))
    }
}

impl Planned {
    fn command(conversation: ConversationId, body: command::Body) -> Self {
        Self::Command(conversation, body, None)
    }
}

impl From<Answer> for Planned {
    fn from(answer: Answer) -> Self {
        Self::Done(Confirmed {
            repeated: false,
            answer,
        })
    }
}

/// A receipt that names no message yet.
fn mark(up_to_seq: u64, delivered_only: bool, through: bool) -> MarkRead {
    MarkRead {
        up_to_seq,
        message_ids: Vec::new(),
        delivered_only,
        through,
    }
}

/// Routes ask for nothing that only a session can have.
fn no_session() -> ClientError {
    ClientError::new(ErrorCode::Invalid, "this takes a connection")
}
