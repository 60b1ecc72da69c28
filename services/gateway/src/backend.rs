//! Questions to persistence, with errors as clients shall see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parlance_bus::Bus;
use parlance_proto::v1::{
    Actor, Client, Conversation, ConversationPage, Edits, EventPage, GetConversation, GetHeads, GetListState,
    GetMessage, GetPresence, GetRoom, Heads, JournalVersions, ListConversations, ListEdits, ListEvents,
    ListJournalVersions, ListJournals, ListMemberships, ListMessages, ListMissedReceipts,
    ListPresenceChanges, ListReceipts, ListRemovals, ListServed, ListState, ListThreads, Membership, Message,
    MessagePage, MissedReceipts, Ping, Position, PresenceReported, Presences, ProvisionUser, Query, Receipts,
    Removals, Reply, ReportPresence, ReportServed, Resolve, Resolved, Room, ServedPositions, ServedReported,
    SetAgent, SetName, Sync, Thread, Threads, User, query, reply,
};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::health::Condition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ClientError;

/// How long an answer may take: a query is tried again by whoever needs it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// When a query that has no answer yet is asked once more. A replica that hangs still gets its share of
/// the questions, and NATS may take minutes to notice that it hangs.
const REPEATS: [Duration; 6] = [
    Duration::from_millis(400),
    Duration::from_millis(900),
    Duration::from_millis(1_500),
    Duration::from_millis(2_200),
    Duration::from_millis(3_000),
    Duration::from_millis(4_000),
];
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

/// Persistence as the gateway sees it. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    bus: Bus,
    ready: Arc<AtomicBool>,
}

/// Tells a persistence that is away from one that only did not answer once.
#[derive(Debug, Default)]
struct Patience {
    answered_at: Option<Instant>,
}

impl Patience {
    /// Whether clients may come, by what was found out now.
    fn judge(&mut self, connected: bool, answered: bool, now: Instant) -> bool {
        if answered {
            self.answered_at = Some(now);
        }
        connected && self.answered_at.is_some_and(|at| now < at + SILENCE)
    }

    fn has_seen_an_answer(&self) -> bool {
        self.answered_at.is_some()
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

impl Backend {
    /// Persistence behind this bus.
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            ready: Arc::default(),
        }
    }

    /// Whether NATS and persistence answered lately.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Keeps [`Backend::is_ready`] and the readiness condition true until `stop`.
    ///
    /// # Errors
    /// Never.
    pub async fn watch(&self, nats: Condition, stop: CancellationToken) -> anyhow::Result<()> {
        let mut link = self.bus.link();
        let mut patience = Patience::default();
        loop {
            let connected = link.borrow_and_update().connected;
            let pinged = tokio::time::timeout(PING_TIMEOUT, self.ping());
            let answered = connected && pinged.await.is_ok_and(|answer| answer.is_ok());
            let is_ready = patience.judge(connected, answered, Instant::now());
            self.ready.store(is_ready, Ordering::Relaxed);
            match (connected, patience.has_seen_an_answer()) {
                (false, _) => nats.set_unready("connecting to NATS"),
                // Handshakes are refused until then, so a load balancer must not send any.
                (true, false) => nats.set_unready("waiting for persistence"),
                // Later a missing answer makes no difference between replicas: none is any better.
                (true, true) => nats.set_ready(),
            }
            let pause = if answered { WATCH_INTERVAL } else { WATCH_AGAIN };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                changed = link.changed() => if changed.is_err() { return Ok(()) }
            }
        }
    }

    /// Whether a replica reaches its database.
    ///
    /// # Errors
    /// None does.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.ask(None, query::Body::Ping(Ping {})).await.map(drop)
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
        /// The actor's conversations.
        conversations(actor, wanted: ListConversations) -> Conversations / ConversationPage,
        query::Body::ListConversations(wanted)
    }

    ask! {
        /// One conversation as the actor sees it.
        conversation(actor, id: ConversationId) -> Conversation / Conversation,
        query::Body::GetConversation(GetConversation { conversation_id: id.to_string(), client: None })
    }

    ask! {
        /// The same, and what this client of the actor was served of it.
        conversation_for(actor, id: ConversationId, client: Client) -> Conversation / Conversation,
        query::Body::GetConversation(GetConversation { conversation_id: id.to_string(), client: Some(client) })
    }

    ask! {
        /// What a page of the actor was emitted, by conversation.
        served(actor, page: String) -> ServedPositions / ServedPositions,
        query::Body::ListServed(ListServed { page })
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
        /// What a room starts from.
        room(actor, id: ConversationId) -> Room / Room,
        query::Body::GetRoom(GetRoom { conversation_id: id.to_string() })
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
        /// What lists of conversations show of one, to these users.
        list_state(actor, id: ConversationId, user_ids: Vec<String>) -> ListState / ListState,
        query::Body::GetListState(GetListState { conversation_id: id.to_string(), user_ids })
    }

    ask! {
        /// Reports what sessions here got.
        report_served(actor, report: ReportServed) -> ServedReported / ServedReported,
        query::Body::ReportServed(report)
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

    /// The conversations a user is in.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn membership(&self, user_id: &str) -> Result<Membership, ClientError> {
        let question = query::Body::ListMemberships(ListMemberships {
            user_ids: vec![user_id.to_owned()],
        });
        match self.ask(None, question).await? {
            reply::Body::Memberships(mut answer) => answer.memberships.pop().ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    async fn ask(&self, actor: Option<Actor>, body: query::Body) -> Result<reply::Body, ClientError> {
        let query = Query {
            actor,
            body: Some(body),
        };
        let reply = self.answer(&query).await;
        match reply.map_err(|error| ClientError::from_query(&error))? {
            Reply {
                body: Some(reply::Body::Error(error)),
            } => Err(error.into()),
            Reply { body: Some(body) } => Ok(body),
            Reply { body: None } => Err(unexpected()),
        }
    }

    /// The first answer of any replica. Asking twice is harmless: queries change nothing, but for making a
    /// user known, which is the same when done again.
    async fn answer(&self, query: &Query) -> Result<Reply, parlance_bus::Error> {
        let begun = Instant::now();
        let mut asked = FuturesUnordered::new();
        asked.push(self.bus.query(query, TIMEOUT));
        for after in REPEATS {
            if let Ok(answer) = tokio::time::timeout_at(begun + after, asked.select_next_some()).await {
                return answer;
            }
            metrics::counter!("chat_gateway_queries_repeated_total").increment(1);
            asked.push(self.bus.query(query, TIMEOUT.saturating_sub(after)));
        }
        asked.select_next_some().await
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn unexpected() -> ClientError {
    tracing::error!("persistence answered another question; are versions mixed?");
    ClientError::internal()
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
        assert!(patience.judge(true, true, after(1_000)));
        assert!(patience.judge(true, false, after(2_000)));
        assert!(patience.judge(true, false, after(3_900)));
        assert!(!patience.judge(true, false, after(4_000)));
        assert!(patience.has_seen_an_answer());
        assert!(patience.judge(true, true, after(9_000)));
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
