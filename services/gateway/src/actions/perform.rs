//! Carries out what a session's client asks for: changes become commands, queries go to persistence, the rest is asked of
//! rooms and presence. The actions of one session are performed one after the other.

mod journal;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parlance_proto::v1::{
    Actor, Conversation, CreateThread, DeleteMessage, EditMessage, Ephemeral, HideMessage, MarkRead,
    Position, React, RoomPresence, SendMessage, Served, Typing, command, ephemeral,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use parlance_runtime::tasks;
use tokio::time::Instant;

use super::core::Core;
use crate::actions::commands::{Then, Waiter};
use crate::actions::idempotency::{Change, Claim};
use crate::actions::resolver::Resolver;
use crate::backend::actor;
use crate::backend::{Opening, SYNC_EVENTS};
use crate::clock::now;
use crate::delivery::journal::OpenJournal;
use crate::delivery::served::SETTLES;
use crate::dialect::key::KeyedRequest;
use crate::dialect::{
    Action, Answer, Backlog, ConversationRef, Decoded, JournalChange, MessageRef, SendAction,
};
use crate::error::ClientError;
use crate::session::following::{Following, Missed, Unread};
use crate::session::{Ack, Request, Sent, Session};
use journal::WholeTextChange;

/// How long ago a change was made that other sessions may just have got.
const RECENT_MS: i64 = 1_000;

/// What an action comes to.
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived; boxing would cost every reader a line"
)]
enum Outcome {
    /// Answered here.
    Now(Result<Answer, ClientError>),
    /// A change; answered once it is confirmed.
    Command(ConversationId, command::Body),
    /// A change of a journal by its whole text; the same.
    WholeText(command::Body, WholeTextChange),
}

/// A session whose actions are performed, with what it has begun.
pub struct Acting {
    core: Core,
    session: Arc<Session>,
    /// Conversations the client joined at least once.
    joined: HashSet<ConversationId>,
    /// Conversations whose participants were shown that this client looks.
    shown_in: HashSet<ConversationId>,
    /// Conversations in which the client's user began to type.
    typing_in: HashSet<ConversationId>,
    /// Journals that the client follows or edits.
    journals: HashMap<ConversationId, Arc<OpenJournal>>,
}

/// An event whose action is to be performed.
pub struct ClientEvent {
    /// Its name in the dialect.
    pub event: &'static str,
    /// When it came.
    pub at: Instant,
    /// Where the answer goes.
    pub ack: Ack,
    /// Its idempotency key, where it has one.
    pub keyed: Option<KeyedRequest>,
}

impl Acting {
    /// A session that has begun nothing yet.
    pub fn new(core: Core, session: Arc<Session>) -> Self {
        Self {
            core,
            session,
            joined: HashSet::new(),
            shown_in: HashSet::new(),
            typing_in: HashSet::new(),
            journals: HashMap::new(),
        }
    }

    /// Whether the client joined the conversation by name.
    pub fn has_joined(&self, conversation: ConversationId) -> bool {
        self.joined.contains(&conversation)
    }

    /// Shows the others that the client neither types nor looks any more.
    pub async fn end(&mut self) {
        for conversation in std::mem::take(&mut self.typing_in) {
            self.shows_typing(conversation, false).await;
        }
        for conversation in std::mem::take(&mut self.shown_in) {
            self.show(conversation, false).await;
        }
    }

    /// What journals know of the session is dropped.
    pub fn forget_journals(self) {
        for journal in self.journals.into_values() {
            journal::forget(journal, self.session.id);
        }
    }

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
                .claim_in_turn(self.actor(), keyed)
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
        let planned = match self.plan(action, &ids).await {
            Ok(Outcome::Now(outcome)) => Err(outcome),
            Ok(Outcome::Command(conversation, body)) => Ok((conversation, body, None)),
            Ok(Outcome::WholeText(body, change)) => Ok((change.id, body, Some(change))),
            Err(error) => Err(Err(error)),
        };
        let outcome = match planned {
            Err(outcome) => outcome.map_err(|error| ids.failure(error)),
            Ok((conversation, body, change)) => {
                let me = self.actor();
                self.note_sent(&body, tag.as_deref(), ack.is_wanted());
                let waiter = Waiter::Socket {
                    attempt,
                    session: Arc::clone(&self.session),
                    ack,
                    event,
                    tag,
                    alone,
                    then: change.map(|change| -> Then { Box::new(move |outcome| change.ends(outcome)) }),
                };
                let commands = &self.core.commands;
                return commands.submit(me, &ids, conversation, body, at, waiter).await;
            }
        };
        let place = outcome
            .as_ref()
            .ok()
            .and_then(|answer| self.core.rooms.place_of(answer));
        if let Some(attempt) = attempt {
            let dialect = self.session.dialect();
            attempt.settle_event(dialect, outcome.as_ref(), place.as_deref());
        }
        let request = request(ack);
        self.session.answer(request, outcome.as_ref(), place.as_deref());
    }

    /// Remembers a message whose event this session receives in another form than others.
    fn note_sent(&self, body: &command::Body, tag: Option<&str>, is_acked: bool) {
        let differs = tag.is_some() || (is_acked && !self.session.dialect().echoes());
        if let command::Body::SendMessage(message) = body
            && differs
        {
            self.session.sends(Sent {
                message_id: message.message_id.clone(),
                tag: tag.map(str::to_owned),
                is_acked,
            });
        }
    }

    async fn plan(&mut self, action: Action, ids: &Change) -> Result<Outcome, ClientError> {
        let core = self.core.clone();
        let resolver = &core.resolver;
        Ok(match action {
            Action::Join(conversation) => {
                let id = resolver.conversation(conversation).await?;
                Outcome::Now(self.join(id).await)
            }
            Action::Leave(conversation) => {
                if let Some(id) = left(resolver, conversation).await? {
                    self.leave(id).await;
                }
                Outcome::Now(Ok(Answer::Done))
            }
            Action::Typing {
                conversation,
                is_typing,
            } => {
                let id = resolver.conversation(conversation).await?;
                Outcome::Now(self.typing(id, is_typing).await)
            }
            Action::SwitchThread { conversation, thread } => {
                let id = resolver.conversation(conversation).await?;
                // A client's own view; only whether there is such a thing to look at is ours to say.
                let (backend, me) = (&self.core.backend, self.actor());
                match thread {
                    Some(thread) => drop(backend.thread(me, id, thread.to_string()).await?),
                    None => drop(backend.conversation(Some(me), id).await?),
                }
                Outcome::Now(Ok(Answer::Done))
            }
            Action::ListParticipants {
                conversation,
                after,
                limit,
            } => Outcome::Now(self.participants(conversation, after, limit).await),
            Action::Stop {
                conversation,
                message,
            } => Outcome::Now(self.stop(conversation, message).await),
            Action::Sync(positions) => Outcome::Now(self.sync(positions).await),
            Action::Presence { status } => {
                core.presence.set(&self.session, status);
                Outcome::Now(Ok(Answer::Done))
            }
            Action::WatchPresence(users) => Outcome::Now(self.watch(users).await),
            Action::UnwatchPresence(users) => {
                core.presence.unwatch(self.session.id, users);
                Outcome::Now(Ok(Answer::Done))
            }
            Action::JoinJournal {
                journal,
                state_vector,
            } => {
                let id = resolver.conversation(journal).await?;
                Outcome::Now(match state_vector {
                    Some(state_vector) => self.sync_journal(id, state_vector).await,
                    None => self.join_journal(id).await,
                })
            }
            Action::LeaveJournal(journal) => {
                if let Some(id) = left(resolver, journal).await? {
                    self.leave_journal(id);
                }
                Outcome::Now(Ok(Answer::Done))
            }
            Action::ShareAwareness { journal, states } => {
                let id = resolver.conversation(journal).await?;
                Outcome::Now(self.share_awareness(id, states).await)
            }
            Action::EditJournal { journal, change } => {
                let id = resolver.conversation(journal).await?;
                self.plan_edit(id, change, ids).await?
            }
            changing => command(resolver, &self.session.user, ids, changing).await?,
        })
    }

    async fn plan_edit(
        &mut self,
        id: ConversationId,
        change: JournalChange,
        ids: &Change,
    ) -> Result<Outcome, ClientError> {
        if matches!(change, JournalChange::Content(_))
            && ids.is_resumed()
            && let Some(outcome) = self.resumed_edit(id, ids).await
        {
            return Ok(Outcome::Now(outcome));
        }
        Ok(match self.edit_journal(id, change).await? {
            (body, Some(change)) => Outcome::WholeText(body, change),
            (body, None) => Outcome::Command(id, body),
        })
    }

    async fn participants(
        &self,
        conversation: ConversationRef,
        after: String,
        limit: u32,
    ) -> Result<Answer, ClientError> {
        let id = self.core.resolver.conversation(conversation).await?;
        let backend = &self.core.backend;
        let page = backend.participants(Some(self.actor()), id, after, limit).await?;
        Ok(Answer::Participants(page))
    }

    /// Asks the service of a message that streams to end it.
    async fn stop(
        &self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
    ) -> Result<Answer, ClientError> {
        let found = self.core.resolver.message(conversation, message).await?;
        let backend = &self.core.backend;
        backend
            .stop_stream(Some(self.actor()), found.conversation, found.message)
            .await?;
        Ok(Answer::Done)
    }

    async fn join(&mut self, id: ConversationId) -> Result<Answer, ClientError> {
        let backend = &self.core.backend;
        let dialect = self.session.dialect();
        let appends = dialect.backlog() == Backlog::AtJoin;
        let opening = Opening {
            user_id: self.session.user.to_string(),
            id,
            client: appends.then(|| self.session.client()),
            // Others of these are known here, see `show_presence`.
            presence: !dialect.shows_presence() || dialect.joins_by_itself(),
        };
        let mut joined = backend.opened(opening.clone()).await?;
        let missed = self.missed(&joined);
        // Of the page itself, and as it is now.
        let is_exact = self.session.is_settled && joined.served.is_some_and(|served| served.exact);
        if appends
            && !is_exact
            && missed.is_none_or(|missed| missed.after < joined.head_seq)
            && now().timestamp_millis() - joined.updated_at_ms < RECENT_MS
        {
            // Another session may have got it, or have opened it for the first time, a moment ago.
            tokio::time::sleep(SETTLES).await;
            joined = backend.opened(opening).await?;
        }
        let following = Following {
            joined: true,
            unread: Some(Unread {
                count: joined.unread,
                head_seq: joined.head_seq,
            }),
            missed: self.missed(&joined),
            takes_updates: None,
        };
        let session = Arc::clone(&self.session);
        let is_back = self.session.seen_at_ms > 0 && self.session.dialect().backlog() == Backlog::AtJoin;
        let attached = self.core.rooms.attach(id, session, following).await?;
        if self.joined.insert(id) && is_back {
            let (rooms, session) = (self.core.rooms.clone(), Arc::clone(&self.session));
            tasks::spawn("missed receipts", async move {
                rooms.tell_missed_receipts(&session, Some(id)).await
            });
        }
        // What follows live begins after this seq, whatever the database has reached meanwhile.
        joined.head_seq = attached.head_seq;
        joined.epoch = attached.epoch;
        if self.session.dialect().shows_who_looks() && self.shown_in.insert(id) {
            self.show(id, true).await;
        }
        self.show_presence(&mut joined).await;
        Ok(Answer::Conversation(joined))
    }

    /// What the client is emitted of the past when it joins: what it was not served itself, or its user where nothing
    /// is known of it, unless they never opened the conversation.
    fn missed(&self, joining: &Conversation) -> Option<Missed> {
        let Served { seq, exact } = joining.served?;
        let after = if exact {
            seq
        } else {
            seq.max(joining.delivered_seq)
        };
        (self.session.dialect().backlog() == Backlog::AtJoin).then(|| Missed {
            after,
            own_after: if exact { 0 } else { joining.head_seq },
            ..Missed::default()
        })
    }

    /// How the others in a joined conversation are seen: in the answer, or as the dialect tells it. What changes
    /// afterwards is told.
    async fn show_presence(&self, joined: &mut Conversation) {
        let (session, presence) = (&self.session, &self.core.presence);
        if !session.dialect().shows_presence() {
            return;
        }
        if session.dialect().joins_by_itself() {
            if let Ok(id) = joined.id.parse() {
                presence.greet(Arc::clone(session), id);
            }
            return;
        }
        if joined.participant_count > self.core.large_group as u64 {
            // It would not be told when it changes.
            for participant in &mut joined.participants {
                participant.presence = None;
            }
            return;
        }
        let ids = joined.participants.iter().map(|one| one.user_id.clone());
        let seen = presence.look(ids.collect()).await;
        for participant in &mut joined.participants {
            let found = seen.iter().find(|one| one.user_id == participant.user_id);
            participant.presence = found.cloned().or(participant.presence.take());
        }
    }

    async fn watch(&self, users: Vec<String>) -> Result<Answer, ClientError> {
        let me = Some(self.actor());
        let removals = self.core.presence.removals();
        let allowed = self.core.backend.presence(me, users).await?.presences;
        let session = Arc::clone(&self.session);
        let seen = self.core.presence.watch(session, allowed, removals).await?;
        Ok(Answer::Presence(seen))
    }

    async fn leave(&mut self, id: ConversationId) {
        self.core.rooms.leave(id, self.session.id);
        if self.typing_in.contains(&id) {
            self.shows_typing(id, false).await;
        }
        if self.shown_in.remove(&id) {
            self.show(id, false).await;
        }
    }

    /// Shows the others that this client opened or closed a conversation.
    async fn show(&self, id: ConversationId, joined: bool) {
        let presence = ephemeral::Body::RoomPresence(RoomPresence {
            user_id: self.session.user.to_string(),
            username: self.session.username.clone(),
            joined,
            user_number: self.session.number,
        });
        self.whisper(id, presence).await;
    }

    async fn typing(&mut self, id: ConversationId, is_typing: bool) -> Result<Answer, ClientError> {
        if !self.session.is_attached(id) {
            return Err(ClientError::no_conversation());
        }
        self.shows_typing(id, is_typing).await;
        Ok(Answer::Done)
    }

    /// Shows the others that this client's user begins to type, or ends to.
    async fn shows_typing(&mut self, id: ConversationId, is_typing: bool) {
        if is_typing {
            self.typing_in.insert(id);
        } else {
            self.typing_in.remove(&id);
        }
        let typing = ephemeral::Body::Typing(Typing {
            user_id: self.session.user.to_string(),
            username: self.session.username.clone(),
            is_typing,
            user_number: self.session.number,
            at_ms: now().timestamp_millis(),
        });
        self.whisper(id, typing).await;
    }

    async fn whisper(&self, id: ConversationId, body: ephemeral::Body) {
        let ephemeral = Ephemeral {
            conversation_id: id.to_string(),
            body: Some(body),
        };
        // Without a connection it would be sent when nobody wants to know any more.
        if self.core.bus.link().borrow().connected
            && let Err(error) = self.core.bus.publish_ephemeral(id, &ephemeral).await
        {
            tracing::debug!(%error, "an ephemeral event was lost");
        }
    }

    async fn sync(&self, positions: Vec<Position>) -> Result<Answer, ClientError> {
        let pages = self
            .core
            .backend
            .sync(Some(self.actor()), positions, SYNC_EVENTS)
            .await?;
        Ok(Answer::Pages(pages))
    }

    fn actor(&self) -> Actor {
        Actor {
            kind: self.session.kind.into(),
            ..actor(&self.session.user, &self.session.username)
        }
    }
}

/// The conversation a client leaves. Leaving none is as good as leaving: the answer must not tell them apart.
async fn left(
    resolver: &Resolver,
    conversation: ConversationRef,
) -> Result<Option<ConversationId>, ClientError> {
    match resolver.conversation(conversation).await {
        Ok(id) => Ok(Some(id)),
        Err(error) if error == ClientError::no_conversation() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The command for an action that changes something.
async fn command(
    resolver: &Resolver,
    user: &UserId,
    change: &Change,
    action: Action,
) -> Result<Outcome, ClientError> {
    Ok(match action {
        Action::Send(send) => {
            let id = resolver.conversation(send.conversation).await?;
            let message = send_message(resolver, user, change, id, send).await?;
            Outcome::Command(id, command::Body::SendMessage(message))
        }
        Action::Edit {
            conversation,
            message,
            content,
        } => {
            let found = resolver.message(conversation, message).await?;
            let message_id = found.message;
            let body = command::Body::EditMessage(EditMessage { message_id, content });
            Outcome::Command(found.conversation, body)
        }
        Action::Delete {
            conversation,
            message,
            for_me,
        } => {
            let found = resolver.message(conversation, message).await?;
            let message_id = found.message;
            let body = if for_me {
                command::Body::HideMessage(HideMessage { message_id })
            } else {
                command::Body::DeleteMessage(DeleteMessage { message_id })
            };
            Outcome::Command(found.conversation, body)
        }
        Action::React {
            conversation,
            message,
            emoji,
            remove,
        } => {
            let found = resolver.message(conversation, message).await?;
            let body = command::Body::React(React {
                message_id: found.message,
                emoji,
                remove,
            });
            Outcome::Command(found.conversation, body)
        }
        Action::Receipt {
            conversation,
            up_to_seq,
            messages,
            delivered_only,
            through,
        } => {
            let (id, message_ids) = places(resolver, conversation, &messages).await?;
            let body = command::Body::MarkRead(MarkRead {
                up_to_seq: up_to_seq.unwrap_or_default(),
                message_ids,
                delivered_only,
                through,
            });
            Outcome::Command(id, body)
        }
        Action::CreateThread {
            conversation,
            title,
            root,
            parent,
        } => {
            let id = resolver.conversation(conversation).await?;
            let body = command::Body::CreateThread(CreateThread {
                thread_id: change.id_of("thread").to_string(),
                title,
                root_message_id: within(resolver, id, root).await?,
                parent_thread_id: parent.map(|id| id.to_string()),
            });
            Outcome::Command(id, body)
        }
        // Planned by the session itself.
        _ => Outcome::Now(Err(ClientError::internal())),
    })
}

/// The command for a message; a client's own id makes its id, so that a repeat is the same message.
///
/// # Errors
/// The message it answers is not of this conversation, or cannot be looked up now.
pub async fn send_message(
    resolver: &Resolver,
    user: &UserId,
    change: &Change,
    conversation: ConversationId,
    send: SendAction,
) -> Result<SendMessage, ClientError> {
    let id = match &send.client_msg_id {
        Some(own) => MessageId::derive(conversation, user, own),
        None => MessageId::from_uuid(change.id_of("message")),
    };
    Ok(SendMessage {
        message_id: id.to_string(),
        r#type: send.kind.into(),
        content: send.content,
        metadata_json: send.metadata,
        client_msg_id: send.client_msg_id,
        reply_to: within(resolver, conversation, send.reply_to).await?,
        encrypted: send.encrypted,
        thread_id: send.thread.map(|id| id.to_string()),
        streaming: false,
    })
}

/// A message of this conversation as commands name it.
async fn within(
    resolver: &Resolver,
    conversation: ConversationId,
    message: Option<MessageRef>,
) -> Result<Option<String>, ClientError> {
    let Some(message) = message else {
        return Ok(None);
    };
    let found = resolver
        .message(Some(ConversationRef::Id(conversation)), message)
        .await?;
    Ok(Some(found.message))
}

/// Messages of one conversation as commands name them, with that conversation.
async fn places(
    resolver: &Resolver,
    conversation: Option<ConversationRef>,
    messages: &[MessageRef],
) -> Result<(ConversationId, Vec<String>), ClientError> {
    let mut id = match conversation {
        Some(conversation) => Some(resolver.conversation(conversation).await?),
        None => None,
    };
    let mut names = Vec::with_capacity(messages.len());
    for message in messages {
        let found = resolver.message(id.map(ConversationRef::Id), *message).await?;
        id = Some(found.conversation);
        names.push(found.message);
    }
    let id = id.ok_or_else(|| ClientError::invalid("neither conversation nor message is named"))?;
    Ok((id, names))
}
