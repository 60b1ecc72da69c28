//! A session whose actions are performed: what it has begun, its beginning and end, and what only a session can ask for: to
//! follow a conversation, to type, to be present.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Conversation, Ephemeral, PresenceStatus, RoomPresence, Served, Typing, command, ephemeral,
};
use parlance_runtime::tasks;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::actions::core::Core;
use crate::actions::user::ActingUser;
use crate::backend::Opening;
use crate::clock::now;
use crate::delivery::journal::OpenJournal;
use crate::delivery::served::SETTLES;
use crate::delivery::users::{Emitted, Since};
use crate::dialect::key::KeyedRequest;
use crate::dialect::{Answer, Backlog, ConversationRef, Dialect};
use crate::error::ClientError;
use crate::session::following::{Following, Missed, Unread};
use crate::session::{Ack, Sent, Session, SessionId};

/// How long ago a change was made that other sessions may just have got.
const RECENT_MS: i64 = 1_000;

/// A session whose actions are performed, with what it has begun.
pub struct SessionActions {
    pub(super) core: Core,
    pub(super) session: Arc<Session>,
    /// On whose behalf.
    pub(super) user: ActingUser,
    /// Conversations the client joined at least once.
    joined: HashSet<ConversationId>,
    /// Conversations whose participants were shown that this client looks.
    shown_in: HashSet<ConversationId>,
    /// Conversations in which the client's user began to type.
    typing_in: HashSet<ConversationId>,
    /// Journals that the client follows or edits.
    pub(super) journals: HashMap<ConversationId, Arc<OpenJournal>>,
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

/// What is known of a session when it begins.
pub struct Beginning<'a> {
    /// Its page was connected before.
    pub returns: bool,
    /// What its client has got, where it says so.
    pub since: Option<Arc<Since>>,
    /// What its page was emitted before.
    pub emitted: &'a Emitted,
}

impl SessionActions {
    /// Takes a session in that its client knows of now. Returns the task that attaches it to its user's conversations, where
    /// there are any.
    pub fn begin(
        core: Core,
        session: Arc<Session>,
        beginning: Beginning<'_>,
    ) -> (Self, Option<JoinHandle<()>>) {
        if let Some(oldest) = core.sessions.insert(Arc::clone(&session), beginning.returns) {
            oldest.displace(core.sessions.per_user());
        }
        core.presence.arrived(&session);
        let arrival = core
            .users
            .arrived(Arc::clone(&session), beginning.since, beginning.emitted);
        // Revoked between its check and now, when nobody could find it among the sessions.
        if session.is_revoked(core.auth.revocations()) {
            session.dismiss();
        } else if let Some(for_good) = core.sessions.sent_away(&session) {
            session.send_away(for_good);
        }
        let actions = Self {
            user: ActingUser {
                id: session.user.clone(),
                username: session.username.clone(),
                kind: session.kind,
            },
            core,
            session,
            joined: HashSet::new(),
            shown_in: HashSet::new(),
            typing_in: HashSet::new(),
            journals: HashMap::new(),
        };
        (actions, arrival)
    }

    /// The client has shown that it speaks another dialect than was taken for granted. What that one does by itself at connect
    /// happens now.
    pub async fn learn(&mut self, dialect: &'static dyn Dialect) {
        let session = &self.session;
        session.learn(dialect);
        for conversation in session.conversations() {
            // What the client joined by name it goes on to follow.
            if !self.joined.contains(&conversation) {
                session.detached(conversation);
                self.core.rooms.detach(conversation, session.id);
            }
        }
        // Before the event: a conversation that it joins begins with what the client missed.
        self.core.users.arrives_again(Arc::clone(session)).await;
    }

    /// The connection of the session has ended: shows the others that the client neither types nor looks any more, and detaches
    /// it from everything.
    pub async fn end(mut self) {
        for conversation in std::mem::take(&mut self.typing_in) {
            self.shows_typing(conversation, false).await;
        }
        for conversation in std::mem::take(&mut self.shown_in) {
            self.show(conversation, false).await;
        }
        let Self {
            core,
            session,
            journals,
            ..
        } = self;
        session.leave();
        core.sessions.ends(&session);
        core.users.gone(&session);
        core.presence.gone(&session);
        tokio::time::sleep(session.last_poll()).await;
        for conversation in session.conversations() {
            core.rooms.detach(conversation, session.id);
        }
        session.close_tracking();
        for journal in journals.into_values() {
            forget(journal, session.id);
        }
        tracing::debug!(user = %session.user, session = ?session.id, "disconnected");
        session.forgotten().await;
        core.sessions.ended(&session);
    }

    /// Remembers a message whose event this session receives in another form than others.
    pub(super) fn note_sent(&self, body: &command::Body, tag: Option<&str>, is_acked: bool) {
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

    pub(super) async fn join(&mut self, conversation: ConversationRef) -> Result<Answer, ClientError> {
        let id = self.core.conversation(conversation).await?;
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
        if self.session.dialect().announces_room_presence() && self.shown_in.insert(id) {
            self.show(id, true).await;
        }
        self.show_presence(&mut joined).await;
        // Whatever it comes from: no source of these knows who opens the conversation.
        let hides = |user: &str| self.session.hidden.hides(user);
        for participant in joined.participants.iter_mut().filter(|one| hides(&one.user_id)) {
            participant.presence = None;
        }
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

    /// Adds the presence of the others in a joined conversation: to the answer, or by the dialect's own events. Later changes
    /// are emitted.
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
            // Its client would not be emitted later changes.
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

    /// Ends to follow a conversation.
    pub(super) async fn leave(&mut self, conversation: ConversationRef) -> Result<Answer, ClientError> {
        if let Some(id) = self.left(conversation).await? {
            self.core.rooms.leave(id, self.session.id);
            if self.typing_in.contains(&id) {
                self.shows_typing(id, false).await;
            }
            if self.shown_in.remove(&id) {
                self.show(id, false).await;
            }
        }
        Ok(Answer::Done)
    }

    /// The conversation a client leaves. Leaving none is as good as leaving: the answer must be the same.
    pub(super) async fn left(
        &self,
        conversation: ConversationRef,
    ) -> Result<Option<ConversationId>, ClientError> {
        match self.core.conversation(conversation).await {
            Ok(id) => Ok(Some(id)),
            Err(error) if error == ClientError::no_conversation() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_presence(&self, status: PresenceStatus) -> Answer {
        self.core.presence.set(&self.session, status);
        Answer::Done
    }

    pub(super) async fn watch(&self, users: Vec<String>) -> Result<Answer, ClientError> {
        let me = Some(self.user.actor());
        let removals = self.core.presence.removals();
        let allowed = self.core.backend.presence(me, users).await?.presences;
        let session = Arc::clone(&self.session);
        let mut seen = self.core.presence.watch(session, allowed, removals).await?;
        // Blocked since persistence was asked.
        seen.retain(|one| !self.session.hidden.hides(&one.user_id));
        Ok(Answer::Presence(seen))
    }

    pub(super) fn unwatch(&self, users: Vec<String>) -> Answer {
        self.core.presence.unwatch(self.session.id, users);
        Answer::Done
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

    pub(super) async fn typing(
        &mut self,
        conversation: ConversationRef,
        is_typing: bool,
    ) -> Result<Answer, ClientError> {
        let id = self.core.conversation(conversation).await?;
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
}

/// What is known of the client is dropped, once nothing of the journal is compared.
pub(super) fn forget(journal: Arc<OpenJournal>, session: SessionId) {
    tasks::blocking("leave a journal", move || journal.leave(session));
}
