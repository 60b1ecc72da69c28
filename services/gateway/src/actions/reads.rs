//! What users read without changing anything: every query of a route is asked here. What a socket asks for is an action.

use parlance_journal::{Blame, Error, Span};
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    BanPage, Conversation, ConversationKind, ConversationPage, Edits, ErrorCode, EventPage, JournalVersion,
    JournalVersions, ListConversations, ListEdits, ListJournalUpdates, ListMessages, ListThreads, Message,
    MessagePage, Presence, Thread, Threads, UnreadTotal,
};
use uuid::Uuid;

use super::core::Core;
use super::user::ActingUser;
use crate::delivery::journal as document;
use crate::delivery::journal::turns::Turn;
use crate::dialect::{ConversationRef, MessageRef, Place};
use crate::error::ClientError;

/// Versions whose authors are looked for, from the newest on.
const BLAMED_VERSIONS: u64 = 2_000;
/// Bytes of them.
const BLAMED_BYTES: u64 = 4 * 1024 * 1024;

/// What a user may read.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    core: &'a Core,
    user: &'a ActingUser,
}

/// Which messages of a conversation are wanted.
pub struct History {
    /// At most so many.
    pub limit: u32,
    /// Those before this seq.
    pub before: Option<u64>,
    /// Those after this seq.
    pub after: Option<u64>,
    /// Skips that many of the latest.
    pub offset: u32,
    /// Those of this thread.
    pub thread: Option<Uuid>,
    /// Without the messages of threads.
    pub main_line: bool,
    /// Without the tombstones of deleted ones.
    pub without_deleted: bool,
}

/// Who wrote which part of a journal.
pub struct Authorship {
    /// As of which version.
    pub version: u64,
    /// The text.
    pub content: String,
    /// User ids.
    pub authors: Vec<String>,
    /// The text from its beginning to its end: UTF-16 units, and the place of their author in `authors` where that is known.
    pub spans: Vec<(usize, Option<usize>)>,
}

impl Core {
    /// What this user may read.
    pub fn reads<'a>(&'a self, user: &'a ActingUser) -> Reads<'a> {
        Reads { core: self, user }
    }
}

/// Every one fails as the client shall see it: there is no such thing for the user, or persistence cannot be asked now.
impl Reads<'_> {
    /// A page of the user's conversations, the latest first.
    ///
    /// # Errors
    /// See above.
    pub async fn conversations(&self, wanted: ListConversations) -> Result<ConversationPage, ClientError> {
        self.core
            .backend
            .all_conversations(self.user.actor(), wanted)
            .await
    }

    /// One conversation.
    ///
    /// # Errors
    /// See above.
    pub async fn conversation(&self, id: ConversationId) -> Result<Conversation, ClientError> {
        self.core.backend.conversation(Some(self.user.actor()), id).await
    }

    /// What the user has not read, without muted conversations.
    ///
    /// # Errors
    /// See above.
    pub async fn unread_total(&self) -> Result<UnreadTotal, ClientError> {
        self.core.backend.unread_total(Some(self.user.actor())).await
    }

    /// A page of the users who are banned from a group.
    ///
    /// # Errors
    /// See above.
    pub async fn bans(&self, id: ConversationId, after: String, limit: u32) -> Result<BanPage, ClientError> {
        let me = Some(self.user.actor());
        self.core.backend.bans(me, id, after, limit).await
    }

    /// A conversation with everyone's receipts.
    ///
    /// # Errors
    /// See above.
    pub async fn place(&self, id: ConversationId) -> Result<Place, ClientError> {
        let room = self.core.backend.room(Some(self.user.actor()), id).await?;
        Ok(Place {
            id,
            number: room.number,
            kind: room.kind(),
            title: room.title,
            participants: room.members,
            participant_count: room.member_count,
            head_seq: room.head_seq,
        })
    }

    /// What happened in a conversation after a seq.
    ///
    /// # Errors
    /// See above.
    pub async fn events(&self, id: ConversationId, after: u64, limit: u32) -> Result<EventPage, ClientError> {
        let me = Some(self.user.actor());
        self.core.backend.events(me, id, after, limit).await
    }

    /// A page of the messages of a conversation.
    ///
    /// # Errors
    /// See above.
    pub async fn history(&self, id: ConversationId, wanted: History) -> Result<MessagePage, ClientError> {
        let request = ListMessages {
            conversation_id: id.to_string(),
            limit: wanted.limit,
            before: wanted.before,
            after: wanted.after,
            thread_id: wanted.thread.map_or_else(String::new, |id| id.to_string()),
            offset: wanted.offset,
            main_line: wanted.main_line,
            without_deleted: wanted.without_deleted,
        };
        self.core.backend.history(self.user.actor(), request).await
    }

    /// One message.
    ///
    /// # Errors
    /// See above.
    pub async fn message(
        &self,
        conversation: Option<ConversationRef>,
        message: MessageRef,
    ) -> Result<Message, ClientError> {
        let found = self.core.message(conversation, message).await?;
        let me = Some(self.user.actor());
        self.core
            .backend
            .message(me, found.conversation, found.message)
            .await
    }

    /// What a message said before it was changed, the oldest first.
    ///
    /// # Errors
    /// See above.
    pub async fn edits(
        &self,
        conversation: ConversationRef,
        message: MessageRef,
        after: u64,
        limit: u32,
    ) -> Result<Edits, ClientError> {
        let found = self.core.message(Some(conversation), message).await?;
        let request = ListEdits {
            conversation_id: found.conversation.to_string(),
            message_id: found.message,
            limit,
            after,
        };
        self.core.backend.all_edits(self.user.actor(), request).await
    }

    /// The threads of a conversation, the oldest first.
    ///
    /// # Errors
    /// See above.
    pub async fn threads(&self, id: ConversationId, after: u64, limit: u32) -> Result<Threads, ClientError> {
        let request = ListThreads {
            conversation_id: id.to_string(),
            limit,
            after,
            ..ListThreads::default()
        };
        self.core.backend.all_threads(self.user.actor(), request).await
    }

    /// One thread.
    ///
    /// # Errors
    /// See above.
    pub async fn thread(&self, id: ConversationId, thread: Uuid) -> Result<Thread, ClientError> {
        let me = self.user.actor();
        self.core.backend.thread(me, id, thread.to_string()).await
    }

    /// The presence of those of these users that share a conversation with the user.
    ///
    /// # Errors
    /// See above.
    pub async fn presence(&self, users: Vec<String>) -> Result<Vec<Presence>, ClientError> {
        let seen = self.core.backend.presence(Some(self.user.actor()), users).await?;
        Ok(seen.presences)
    }

    /// A page of the journals the user may read, without their texts.
    ///
    /// # Errors
    /// See above.
    pub async fn journals(&self, limit: u32, cursor: String) -> Result<ConversationPage, ClientError> {
        self.core
            .backend
            .journals(Some(self.user.actor()), limit, cursor)
            .await
    }

    /// One journal. A conversation of another kind is none.
    ///
    /// # Errors
    /// See above.
    pub async fn journal(&self, id: ConversationId) -> Result<Conversation, ClientError> {
        let seen = self.conversation(id).await?;
        if seen.kind() != ConversationKind::Journal {
            return Err(ClientError::no_conversation());
        }
        Ok(seen)
    }

    /// A page of the versions of a journal older than one, without their texts, the latest first; 0 for the newest.
    ///
    /// # Errors
    /// See above.
    pub async fn journal_versions(
        &self,
        id: ConversationId,
        before: u64,
        limit: u32,
    ) -> Result<JournalVersions, ClientError> {
        let me = Some(self.user.actor());
        self.core.backend.journal_versions(me, id, limit, before).await
    }

    /// What a journal said at a version. Changes of its title and members have numbers too, and are no versions.
    ///
    /// # Errors
    /// See above.
    pub async fn journal_version(
        &self,
        id: ConversationId,
        version: u64,
    ) -> Result<(JournalVersion, String), ClientError> {
        let latest = self.journal_versions(id, version.saturating_add(1), 1).await?;
        let latest = latest.versions.first();
        if latest.is_none_or(|latest| latest.version != version) {
            return Err(ClientError::new(ErrorCode::NotFound, "no such version"));
        }
        let turn = self.core.turns.turn(self.user.id.clone()).await?;
        let me = Some(self.user.actor());
        let found = self.core.backend.journal_document(me, id, version).await?;
        let text = computed(&turn, move || document::text(&found.parts)).await?;
        Ok((found.version, text))
    }

    /// Who wrote which part of a journal. What is older than the latest versions that are looked at has no author.
    ///
    /// # Errors
    /// See above.
    pub async fn authorship(&self, id: ConversationId) -> Result<Authorship, ClientError> {
        let (backend, me) = (&self.core.backend, Some(self.user.actor()));
        let present = self.journal(id).await?;
        let turn = self.core.turns.turn(self.user.id.clone()).await?;
        let mut request = ListJournalUpdates {
            journal_id: id.to_string(),
            after: 0,
            through: present.head_seq,
            most: BLAMED_VERSIONS,
            most_bytes: BLAMED_BYTES,
        };
        let mut page = backend.journal_updates(me.clone(), request.clone()).await?;
        let mut version = page.after;
        let before = match page.after {
            0 => Vec::new(),
            after => backend.journal_document(me.clone(), id, after).await?.parts,
        };
        let mut blame = computed(&turn, move || document::blame(&before)).await?;
        loop {
            version = page.updates.last().map_or(version, |last| last.version);
            let updates = page.updates;
            blame = computed(&turn, move || {
                for run in updates.chunk_by(|one, next| one.actor_id == next.actor_id) {
                    let author = run
                        .first()
                        .map(|update| update.actor_id.clone())
                        .unwrap_or_default();
                    blame.apply_all(&author, run.iter().map(|update| &update.update))?;
                }
                Ok(blame)
            })
            .await?;
            if page.next == 0 || page.next >= present.head_seq {
                break;
            }
            request.after = page.next;
            page = backend.journal_updates(me.clone(), request.clone()).await?;
        }
        computed(&turn, move || Ok(authorship(version, &blame))).await
    }
}

fn authorship(version: u64, blame: &Blame<String>) -> Authorship {
    let mut authors: Vec<String> = Vec::new();
    let spans = blame.utf16_spans().into_iter().map(|Span { length, author }| {
        let author = author.map(|author| {
            let known = authors.iter().position(|known| *known == author);
            known.unwrap_or_else(|| {
                authors.push(author);
                authors.len() - 1
            })
        });
        (length, author)
    });
    let spans = spans.collect();
    Authorship {
        version,
        content: blame.text(),
        authors,
        spans,
    }
}

/// What documents and texts make, beside the runtime.
pub(super) async fn computed<T: Send + 'static>(
    turn: &Turn,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ClientError> {
    turn.compute(work).await?.map_err(|error| match error {
        Error::NotStorable => ClientError::invalid(error.to_string()),
        error => {
            tracing::error!(%error, "a stored journal cannot be read; are versions mixed?");
            ClientError::internal()
        }
    })
}
