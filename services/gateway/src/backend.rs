//! Questions to persistence, with errors as clients shall see them.

mod asking;
mod deadline;
mod gathered;
mod gathering;
mod hedging;
mod replicas;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parlance_bus::Bus;
use parlance_proto::v1::{
    Actor, BanPage, BlockPage, BlockSet, ChangeClaim, ChangeSettled, ClaimChange, Client, ControlPage,
    Conversation, ConversationPage, CountUnread, Edits, EventPage, GetConversation, GetHeads, GetListState,
    GetMessage, GetPresence, Heads, JournalUpdates, JournalVersion, JournalVersions, ListBans, ListBlocks,
    ListControl, ListConversations, ListEdits, ListEvents, ListJournalUpdates, ListJournalVersions,
    ListJournals, ListMessages, ListMissedReceipts, ListParticipants, ListPresenceChanges, ListReceipts,
    ListRemovals, ListReports, ListServed, ListState, ListThreads, Message, MessagePage, MissedReceipts,
    Participant, ParticipantPage, Pong, Position, PresenceReported, Presences, ProvisionUser, Query,
    ReadJournal, Receipts, Removals, Reply, ReportPage, ReportPresence, ReportResolved, ReportServed,
    Resolve, ResolveReport, Resolved, SenderKind, ServedPosition, ServedPositions, ServedReported, SetAgent,
    SetBlock, SetName, SettleChange, StopStream, StreamStopRequested, Sync, Thread, Threads, UnreadTotal,
    User, query, reply,
};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::health::Condition;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ClientError;
pub use deadline::together;
use gathered::Gathered;
pub use gathered::{Arrival, MissedEvents, Opening};
use hedging::Hedging;
use replicas::Replicas;

/// Bytes of conversations after which a page of them ends early: their participants may have much to their names.
const LIST_BYTES: usize = 4 << 20;
/// Participants in one answer.
const PARTICIPANTS: u32 = 100;
/// Users in one question about a list.
const LIST_USERS: usize = 2_000;
/// Events answered by one sync.
pub const SYNC_EVENTS: u32 = 500;
/// How often NATS and persistence are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often while one of them is away.
const WATCH_AGAIN: Duration = Duration::from_millis(100);

/// How long one answer to that is waited for.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long persistence may be silent before handshakes are refused: it is while a replica is replaced.
const SILENCE: Duration = Duration::from_secs(3);
/// How many pings in a row must have had no answer by then: one that is late says little.
const MISSES: u32 = 3;
/// How many in a row must be answered before handshakes are admitted again.
const RETURNS: u32 = 2;

/// Persistence as the gateway sees it. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    bus: Bus,
    ready: Arc<AtomicBool>,
    /// See [`Backend::misfiles`].
    misfiles: Arc<AtomicBool>,
    gathered: Gathered,
    replicas: Replicas,
    hedging: Hedging,
    /// Participants up to which a group is held whole here.
    small_group: u32,
    stop: CancellationToken,
}

/// Distinguishes a persistence that is away from one that missed a ping or two.
#[derive(Debug, Default)]
struct Patience {
    answered_at: Option<Instant>,
    /// Pings in a row without an answer.
    missed: u32,
    /// Pings in a row with one.
    answered: u32,
    /// Whether clients were turned away lately.
    is_away: bool,
}

impl Patience {
    /// Whether clients may come, by what was found out now.
    fn judge(&mut self, connected: bool, answered: bool, now: Instant) -> bool {
        if answered {
            self.answered_at = Some(now);
            self.answered += 1;
            self.missed = 0;
        } else {
            self.answered = 0;
            self.missed += 1;
        }
        let Some(answered_at) = self.answered_at else {
            return false;
        };
        if self.missed >= MISSES && now >= answered_at + SILENCE {
            self.is_away = true;
        } else if self.answered >= RETURNS {
            self.is_away = false;
        }
        connected && !self.is_away
    }

    fn has_seen_an_answer(&self) -> bool {
        self.answered_at.is_some()
    }

    /// When to look again: soon while it is not certain how things are.
    fn pause(&self) -> Duration {
        if self.missed > 0 || self.is_away {
            WATCH_AGAIN
        } else {
            WATCH_INTERVAL
        }
    }
}

macro_rules! ask {
    ($(#[$doc:meta])* $name:ident ( $actor:ident, $($arg:ident : $type:ty),* ) -> $answer:ident / $result:ty, $query:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// As the client shall see it.
        pub async fn $name(&self, $actor: Option<Actor>, $($arg: $type),*) -> Result<$result, ClientError> {
            match self.ask($actor, $query).await? {
                reply::Body::$answer(answer) => Ok(answer),
                _ => Err(unexpected()),
            }
        }
    };
}

/// A journal at one version.
#[derive(Debug)]
pub struct JournalDocument {
    /// Which.
    pub version: JournalVersion,
    /// The whole document at an earlier one, and the updates since.
    pub parts: Vec<Vec<u8>>,
}

impl Backend {
    /// Persistence behind this bus. Conversations of at most `small_group` participants are held whole here. After `stop`
    /// nothing is asked again.
    pub fn new(bus: Bus, small_group: u32, stop: CancellationToken) -> Self {
        Self {
            bus,
            small_group,
            stop,
            ready: Arc::default(),
            misfiles: Arc::default(),
            gathered: Gathered::default(),
            replicas: Replicas::default(),
            hedging: Hedging::default(),
        }
    }

    /// Participants up to which a group is held whole here.
    pub fn small_group(&self) -> u32 {
        self.small_group
    }

    /// Waits for the next pause before a query is asked again; false when this process ends and it shall not be.
    pub async fn pause(&self, backoff: &mut Backoff) -> bool {
        backoff.pause_unless(&self.stop).await
    }

    /// Whether NATS and persistence answered lately.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether this gateway has another number of partitions than persistence: a command would be parked, or lie where nobody
    /// looks for it, so none may be sent.
    pub fn misfiles(&self) -> bool {
        self.misfiles.load(Ordering::Relaxed)
    }

    /// Keeps [`Backend::is_ready`] and the readiness condition true until `stop`. They are false as well while persistence has
    /// another number of partitions than `partitions`, see [`Backend::misfiles`].
    ///
    /// # Errors
    /// Never.
    pub async fn watch(
        &self,
        nats: Condition,
        partitions: u16,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut link = self.bus.link();
        let mut patience = Patience::default();
        let mut mismatch = None;
        loop {
            let connected = link.borrow_and_update().connected;
            if connected {
                self.look_for_replicas();
            }
            let pinged = tokio::time::timeout(PING_TIMEOUT, self.ping()).await;
            let pong = pinged.ok().and_then(Result::ok).filter(|_| connected);
            let is_ready = patience.judge(connected, pong.is_some(), Instant::now());
            mismatch = pong.map_or(mismatch, |pong| {
                Some(pong.partitions).filter(|count| ![0, partitions.into()].contains(count))
            });
            self.misfiles.store(mismatch.is_some(), Ordering::Relaxed);
            self.ready
                .store(is_ready && mismatch.is_none(), Ordering::Relaxed);
            match (connected, patience.has_seen_an_answer(), mismatch) {
                (false, ..) => nats.set_unready("connecting to NATS"),
                // Handshakes are refused until then, so a load balancer must not send any.
                (true, false, _) => nats.set_unready("waiting for persistence"),
                (true, true, Some(theirs)) => nats.set_unready(format!(
                    "bus.partitions is {partitions}, but persistence has {theirs}: set it to what ingest.partitions is"
                )),
                // Later a missing answer makes no difference between replicas: none is any better.
                (true, true, None) => nats.set_ready(),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(patience.pause()) => {}
                changed = link.changed() => if changed.is_err() { return Ok(()) }
            }
        }
    }

    /// Whether a replica reaches its database. Asked once: the watch asks again by itself.
    ///
    /// # Errors
    /// None does.
    pub async fn ping(&self) -> Result<Pong, ClientError> {
        match read(self.ping_one(PING_TIMEOUT).await)? {
            reply::Body::Pong(pong) => Ok(pong),
            _ => Err(unexpected()),
        }
    }

    ask! {
        /// A part of the orders that were given before.
        control(actor, after_seq: u64) -> ControlPage / ControlPage,
        query::Body::ListControl(ListControl { after_seq })
    }

    ask! {
        /// Makes the actor known.
        provision(actor, create: bool) -> User / User,
        query::Body::ProvisionUser(ProvisionUser { create })
    }

    ask! {
        /// Gives a user a name.
        set_name(actor, user: &UserId, name: String, create: bool) -> User / User,
        query::Body::SetName(SetName { user_id: user.to_string(), name, create })
    }

    ask! {
        /// Marks a user as an agent, or as a person.
        set_agent(actor, user: &UserId, agent: bool, create: bool) -> User / User,
        query::Body::SetAgent(SetAgent { user_id: user.to_string(), agent, create })
    }

    ask! {
        /// A page of the actor's conversations.
        conversations(actor, wanted: ListConversations) -> Conversations / ConversationPage,
        query::Body::ListConversations(wanted)
    }

    ask! {
        /// One conversation as the actor sees it.
        conversation(actor, id: ConversationId) -> Conversation / Conversation,
        query::Body::GetConversation(GetConversation { conversation_id: id.to_string(), client: None })
    }

    ask! {
        /// What the actor has not read, without muted conversations.
        unread_total(actor,) -> UnreadTotal / UnreadTotal,
        query::Body::CountUnread(CountUnread {})
    }

    ask! {
        /// A page of the users who are banned from a group, by ascending id.
        bans(actor, id: ConversationId, after: String, limit: u32) -> Bans / BanPage,
        query::Body::ListBans(ListBans { conversation_id: id.to_string(), after, limit })
    }

    ask! {
        /// A page of the reports that nobody has settled, the oldest first.
        reports(actor, cursor: String, limit: u32) -> Reports / ReportPage,
        query::Body::ListReports(ListReports { cursor, limit })
    }

    ask! {
        /// Settles a report.
        resolve_report(actor, id: String, resolved_by: String, resolution: String) -> ReportResolved / ReportResolved,
        query::Body::ResolveReport(ResolveReport { id, resolved_by, resolution })
    }

    ask! {
        /// The actor blocks a user, or ends that.
        set_block(actor, user: &UserId, blocked: bool) -> BlockSet / BlockSet,
        query::Body::SetBlock(SetBlock { user_id: user.to_string(), blocked })
    }

    ask! {
        /// Whom the actor has blocked, `both_ways` with those who have blocked the actor; by ascending id.
        blocks(actor, after: String, limit: u32, both_ways: bool) -> Blocks / BlockPage,
        query::Body::ListBlocks(ListBlocks { after, limit, both_ways })
    }

    ask! {
        /// A page of the participants of a conversation, by ascending id.
        participants(actor, id: ConversationId, after: String, limit: u32) -> Participants / ParticipantPage,
        query::Body::ListParticipants(ListParticipants { conversation_id: id.to_string(), after, limit })
    }

    ask! {
        /// The same, and what this client of the actor was served of it.
        conversation_for(actor, id: ConversationId, client: Client) -> Conversation / Conversation,
        query::Body::GetConversation(GetConversation { conversation_id: id.to_string(), client: Some(client) })
    }

    ask! {
        /// A part of what a page of the actor was emitted, by conversation.
        served_part(actor, question: ListServed) -> ServedPositions / ServedPositions,
        query::Body::ListServed(question)
    }

    ask! {
        /// A page of history.
        messages(actor, request: ListMessages) -> Messages / MessagePage,
        query::Body::ListMessages(request)
    }

    ask! {
        /// A page of changes.
        events(actor, id: ConversationId, after: u64, limit: u32) -> Events / EventPage,
        query::Body::ListEvents(ListEvents { conversation_id: id.to_string(), after, limit })
    }

    ask! {
        /// Heads of many conversations and users.
        heads(actor, request: GetHeads) -> Heads / Heads,
        query::Body::GetHeads(request)
    }

    ask! {
        /// Receipts changed since a version.
        receipts(actor, id: ConversationId, after_version: u64) -> Receipts / Receipts,
        query::Body::ListReceipts(ListReceipts { conversation_id: id.to_string(), after_version })
    }

    ask! {
        /// What became of the actor's own messages since a time, in one conversation or, without an id, in all.
        missed_receipts(actor, since_ms: i64, conversation_id: String) -> MissedReceipts / MissedReceipts,
        query::Body::ListMissedReceipts(ListMissedReceipts { since_ms, conversation_id })
    }

    ask! {
        /// From what clients have to what we use.
        resolve(actor, request: Resolve) -> Resolved / Resolved,
        query::Body::Resolve(request)
    }

    ask! {
        /// One message.
        message(actor, id: ConversationId, message: String) -> Message / Message,
        query::Body::GetMessage(GetMessage { conversation_id: id.to_string(), message_id: message })
    }

    ask! {
        /// Asks the service of a message that streams to end it.
        stop_stream(actor, id: ConversationId, message: String) -> StreamStopRequested / StreamStopRequested,
        query::Body::StopStream(StopStream { conversation_id: id.to_string(), message_id: message })
    }

    ask! {
        /// A page of a conversation's threads, or one.
        threads(actor, request: ListThreads) -> Threads / Threads,
        query::Body::ListThreads(request)
    }

    ask! {
        /// The actor's journals.
        journals(actor, limit: u32, cursor: String) -> Conversations / ConversationPage,
        query::Body::ListJournals(ListJournals { limit, cursor })
    }

    ask! {
        /// A journal's versions, latest first.
        journal_versions(actor, id: ConversationId, limit: u32, before: u64) -> JournalVersions / JournalVersions,
        query::Body::ListJournalVersions(ListJournalVersions { journal_id: id.to_string(), limit, before })
    }

    /// The document of a journal as of the latest version up to this one; 0 for the present.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn journal_document(
        &self,
        actor: Option<Actor>,
        id: ConversationId,
        version: u64,
    ) -> Result<JournalDocument, ClientError> {
        let mut read = ReadJournal {
            journal_id: id.to_string(),
            version,
            offset: 0,
        };
        let mut encoded = Vec::new();
        loop {
            let reply::Body::JournalDocument(part) = self
                .ask(actor.clone(), query::Body::ReadJournal(read.clone()))
                .await?
            else {
                return Err(unexpected());
            };
            encoded.extend(part.part);
            let version = part.version.ok_or_else(unexpected)?;
            if part.next == 0 {
                let updates = JournalUpdates::decode(encoded.as_slice()).map_err(|_| unexpected())?;
                let parts = updates.updates.into_iter().map(|update| update.update).collect();
                return Ok(JournalDocument { version, parts });
            }
            // Whatever is stored meanwhile: the same document on.
            (read.version, read.offset) = (version.version, part.next);
        }
    }

    ask! {
        /// A page of the updates of a journal.
        journal_updates(actor, request: ListJournalUpdates) -> JournalUpdates / JournalUpdates,
        query::Body::ListJournalUpdates(request)
    }

    ask! {
        /// A page of earlier contents of a message.
        edits(actor, request: ListEdits) -> Edits / Edits,
        query::Body::ListEdits(request)
    }

    ask! {
        /// Reports sessions and renews the lease of this replica.
        report_presence(actor, report: ReportPresence) -> PresenceReported / PresenceReported,
        query::Body::ReportPresence(report)
    }

    ask! {
        /// The conversations the actor belongs to no more: since then, and of those named.
        removals(actor, since_ms: i64, conversation_ids: Vec<String>) -> Removals / Removals,
        query::Body::ListRemovals(ListRemovals { since_ms, conversation_ids })
    }

    ask! {
        /// What lists of conversations show of one, to some users.
        list_state_of(actor, question: GetListState) -> ListState / ListState,
        query::Body::GetListState(question)
    }

    ask! {
        /// Reports what sessions here got.
        report_served(actor, report: ReportServed) -> ServedReported / ServedReported,
        query::Body::ReportServed(report)
    }

    ask! {
        /// Claims a change that the actor names by an idempotency key.
        claim_change(actor, claim: ClaimChange) -> ChangeClaim / ChangeClaim,
        query::Body::ClaimChange(claim)
    }

    ask! {
        /// Ends an attempt at such a change.
        settle_change(actor, settle: SettleChange) -> ChangeSettled / ChangeSettled,
        query::Body::SettleChange(settle)
    }

    ask! {
        /// How users are seen; for an actor only those who share a conversation with them.
        presence(actor, user_ids: Vec<String>) -> Presences / Presences,
        query::Body::GetPresence(GetPresence { user_ids })
    }

    ask! {
        /// Changes of presence since a moment of the database's clock.
        presence_changes(actor, since_us: i64) -> Presences / Presences,
        query::Body::ListPresenceChanges(ListPresenceChanges { since_us })
    }

    /// A page of history. A reply holds what fits the bus; a page that is asked for without a cursor is asked on for
    /// until it is full or history ends, because whoever counts its rows would skip what a short page leaves out.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn history(&self, actor: Actor, mut request: ListMessages) -> Result<MessagePage, ClientError> {
        let is_counted = request.before.is_none() && request.after.is_none();
        let mut page = self.messages(Some(actor.clone()), request.clone()).await?;
        while is_counted && page.next != 0 {
            let missing = request.limit.saturating_sub(count(&page.messages));
            if missing == 0 {
                break;
            }
            request.before = Some(page.next);
            request.offset = 0;
            let earlier = ListMessages {
                limit: missing,
                ..request.clone()
            };
            let mut earlier = self.messages(Some(actor.clone()), earlier).await?;
            if earlier.messages.is_empty() {
                page.next = 0;
                break;
            }
            page.next = earlier.next;
            earlier.messages.append(&mut page.messages);
            page.messages = earlier.messages;
        }
        Ok(page)
    }

    /// What lists of conversations show of one, to these users, as of one seq.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn list_state(&self, id: ConversationId, users: &[String]) -> Result<ListState, ClientError> {
        let mut chunks = users.chunks(LIST_USERS);
        let question = |users: Option<&[String]>, head_seq| GetListState {
            conversation_id: id.to_string(),
            user_ids: users.map(<[String]>::to_vec).unwrap_or_default(),
            head_seq,
        };
        let mut state = self.list_state_of(None, question(chunks.next(), 0)).await?;
        for chunk in chunks {
            let more = self
                .list_state_of(None, question(Some(chunk), state.head_seq))
                .await?;
            state.unread.extend(more.unread);
        }
        Ok(state)
    }

    /// What a page of the actor was emitted, by conversation, over as many replies as that takes.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn served(&self, actor: Actor, page: String) -> Result<Vec<ServedPosition>, ClientError> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let question = ListServed {
                page: page.clone(),
                after,
            };
            let part = self.served_part(Some(actor.clone()), question).await?;
            all.extend(part.positions);
            if part.next.is_empty() {
                return Ok(all);
            }
            after = part.next;
        }
    }

    /// The actor's conversations as many as are asked for, over as many replies as that takes; fewer, and where the next
    /// begin, where these are large.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn all_conversations(
        &self,
        actor: Actor,
        mut request: ListConversations,
    ) -> Result<ConversationPage, ClientError> {
        let wanted = request.limit;
        let mut all = self.conversations(Some(actor.clone()), request.clone()).await?;
        let mut bytes = all.encoded_len();
        while !all.next.is_empty() && count(&all.conversations) < wanted && bytes < LIST_BYTES {
            request.cursor = all.next;
            request.limit = wanted - count(&all.conversations);
            let more = self.conversations(Some(actor.clone()), request.clone()).await?;
            bytes += more.encoded_len();
            all.conversations.extend(more.conversations);
            all.next = more.next;
        }
        Ok(all)
    }

    /// The participants of a conversation, but no more than one page beyond `most`.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn all_participants(
        &self,
        actor: Actor,
        id: ConversationId,
        most: usize,
    ) -> Result<Vec<Participant>, ClientError> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = self
                .participants(Some(actor.clone()), id, after, PARTICIPANTS)
                .await?;
            all.extend(page.participants);
            if page.next.is_empty() || all.len() > most {
                return Ok(all);
            }
            after = page.next;
        }
    }

    /// One thread.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn thread(
        &self,
        actor: Actor,
        id: ConversationId,
        thread: String,
    ) -> Result<Thread, ClientError> {
        let request = ListThreads {
            conversation_id: id.to_string(),
            thread_id: thread,
            ..ListThreads::default()
        };
        let mut found = self.threads(Some(actor), request).await?;
        found.threads.pop().ok_or_else(unexpected)
    }

    /// Threads as many as are asked for, over as many replies as that takes.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn all_threads(&self, actor: Actor, mut request: ListThreads) -> Result<Threads, ClientError> {
        let wanted = request.limit;
        let mut all = self.threads(Some(actor.clone()), request.clone()).await?;
        while all.next != 0 && count(&all.threads) < wanted {
            request.after = all.next;
            request.limit = wanted - count(&all.threads);
            let more = self.threads(Some(actor.clone()), request.clone()).await?;
            all.threads.extend(more.threads);
            all.next = more.next;
        }
        Ok(all)
    }

    /// Earlier contents as many as are asked for, over as many replies as that takes.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn all_edits(&self, actor: Actor, mut request: ListEdits) -> Result<Edits, ClientError> {
        let wanted = request.limit;
        let mut all = self.edits(Some(actor.clone()), request.clone()).await?;
        while all.next != 0 && count(&all.edits) < wanted {
            request.after = all.next;
            request.limit = wanted - count(&all.edits);
            let more = self.edits(Some(actor.clone()), request.clone()).await?;
            all.edits.extend(more.edits);
            all.next = more.next;
        }
        Ok(all)
    }

    /// Catch-up of many conversations.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn sync(
        &self,
        actor: Option<Actor>,
        positions: Vec<Position>,
        limit: u32,
    ) -> Result<Vec<EventPage>, ClientError> {
        match self
            .ask(actor, query::Body::Sync(Sync { positions, limit }))
            .await?
        {
            reply::Body::Sync(sync) => Ok(sync.pages),
            _ => Err(unexpected()),
        }
    }

    async fn ask(&self, actor: Option<Actor>, body: query::Body) -> Result<reply::Body, ClientError> {
        let query = Query {
            actor,
            body: Some(body),
            ..Query::default()
        };
        read(self.answer(&query).await)
    }
}

/// The answer in a reply.
fn read(reply: Result<Reply, parlance_bus::Error>) -> Result<reply::Body, ClientError> {
    match reply.map_err(|error| ClientError::from_query(&error))? {
        Reply {
            body: Some(reply::Body::Error(error)),
        } => Err(error.into()),
        Reply { body: Some(body) } => Ok(body),
        Reply { body: None } => Err(unexpected()),
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn unexpected() -> ClientError {
    tracing::error!("persistence answered another question; are versions mixed?");
    ClientError::internal()
}

/// A user as the actor of commands and queries.
pub fn actor(user: &UserId, username: &str) -> Actor {
    Actor {
        user_id: user.to_string(),
        username: username.to_owned(),
        kind: SenderKind::User.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_come_from_the_first_answer_until_it_has_been_silent_for_a_while() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut patience = Patience::default();
        assert!(!patience.judge(true, false, start));
        assert!(!patience.has_seen_an_answer());
        // The first answer ever is enough.
        assert!(patience.judge(true, true, after(1_000)));
        assert!(patience.judge(true, false, after(2_000)));
        assert!(patience.judge(true, false, after(3_900)));
        assert!(!patience.judge(true, false, after(4_000)));
        assert!(patience.has_seen_an_answer());
        // A single answer may be luck.
        assert!(!patience.judge(true, true, after(9_000)));
        assert!(patience.judge(true, true, after(9_100)));
    }

    #[test]
    fn one_late_ping_turns_no_client_away() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut patience = Patience::default();
        assert!(patience.judge(true, true, start));
        // However late it is: this process may have stood still itself.
        assert!(patience.judge(true, false, after(60_000)));
        assert!(patience.judge(true, false, after(61_000)));
        assert_eq!(patience.pause(), WATCH_AGAIN);
        assert!(patience.judge(true, true, after(61_100)));
        assert_eq!(patience.pause(), WATCH_INTERVAL);
        for second in 62..64 {
            assert!(patience.judge(true, false, after(second * 1_000)));
        }
        assert!(!patience.judge(true, false, after(65_000)));
    }

    #[test]
    fn without_nats_no_client_may_come() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(patience.judge(true, true, start));
        assert!(!patience.judge(false, false, start));
        assert!(patience.judge(true, false, start + Duration::from_secs(1)));
    }
}
