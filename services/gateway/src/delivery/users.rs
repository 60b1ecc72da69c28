//! The users connected here: follows their notices and keeps their sessions attached to all of their
//! conversations.
//!
//! One subscription serves them all, because notices are as rare as changes of membership, while a
//! subscription and a task for each user would double what an idle connection costs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use parlance_bus::Bus;
use parlance_proto::v1::{
    Conversation, ErrorCode, Membership, Message, MessageHidden, MuteChanged, NoticedUser, Position, User,
    UserNotice, user_notice,
};
use parlance_proto::{ConversationId, ErrorCodeExt as _, UserId};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::actor;
use crate::backend::{Backend, Opening};
use crate::delivery::rooms::Rooms;
use crate::delivery::served::SETTLES;
use crate::dialect::{Backlog, Outbound, Place};
use crate::error::ClientError;
use crate::session::Session;
use crate::session::following::{Following, Missed, Unread};
use crate::session::hidden::{Hidden, HiddenChanges, HiddenUsers};
use crate::session::page::Page;

/// Rooms opened at once for one user.
const ATTACH_CONCURRENCY: usize = 256;
/// Blocks in one page, and pages of one user: of one with more, everybody is hidden. A user can block as many as one page holds.
const BLOCKS: u32 = 1_000;
const BLOCK_PAGES: usize = 3;
/// Pause before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest of these pauses, below the time in which everything must be right again after a fault.
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// The connected users of this replica. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    bus: Bus,
    backend: Backend,
    rooms: Rooms,
    table: Arc<Mutex<HashMap<UserId, Connected>>>,
}

/// One connected user; kept as long as a session is there or expected.
#[derive(Default)]
struct Connected {
    /// Version of the set of conversations; 0 until it is loaded.
    version: u64,
    loaded: bool,
    conversations: HashMap<ConversationId, Belonging>,
    sessions: Vec<Arc<Session>>,
    expected: usize,
    hidden: Arc<Hidden>,
}

/// Keeps a user's notices followed while a client is about to arrive.
pub struct Expected {
    users: Users,
    user: UserId,
    is_loaded: bool,
}

/// How far a user is in a conversation, as of when it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Belonging {
    unread: Unread,
    /// Latest seq that was marked as delivered; those who come later were delivered what was before them.
    delivered_seq: u64,
    /// Latest seq that the user was served.
    served_seq: u64,
    /// Latest seq up to which a list counted what is unread.
    listed_seq: u64,
}

/// Conversations of a user.
type Conversations = Vec<(ConversationId, Belonging)>;

/// What a client says it has got, by conversation.
pub struct Since(HashMap<ConversationId, Missed>);

/// Up to where a page that returns was emitted each conversation.
pub type Emitted = HashMap<ConversationId, u64>;

/// What a page that returns was emitted, as its user's memberships say; `None` where a replica of the version before
/// does not.
pub fn emitted_of(membership: &Membership) -> Option<Emitted> {
    let Membership {
        conversation_ids,
        emitted_before,
        ..
    } = membership;
    if emitted_before.len() != conversation_ids.len() {
        return None;
    }
    let each = conversation_ids.iter().zip(emitted_before);
    Some(
        each.filter_map(|(id, before)| Some((id.parse().ok()?, before.checked_sub(1)?)))
            .collect(),
    )
}

impl Since {
    /// The conversations that are named and are none of these.
    fn without(&self, conversations: &[(ConversationId, Belonging)]) -> Vec<String> {
        let known: HashSet<_> = conversations.iter().map(|(id, _)| id).collect();
        let others = self.0.keys().filter(|id| !known.contains(id));
        others.map(ToString::to_string).collect()
    }

    /// These positions; those that name no conversation are left out.
    pub fn new(positions: Vec<Position>) -> Self {
        let missed = positions.into_iter().filter_map(|position| {
            let id = position.conversation_id.parse().ok()?;
            let missed = Missed {
                after: position.seq,
                epoch: position.epoch,
                receipts_after: position.receipts_version,
                exact: true,
                own_after: 0,
            };
            Some((id, missed))
        });
        Self(missed.collect())
    }
}

/// What a notice asks for, for one user.
enum Step {
    Nothing,
    Reload,
    Add(Vec<Arc<Session>>),
    Hide(Vec<Arc<Session>>),
    Mute(Vec<Arc<Session>>),
    Block(Vec<Arc<Session>>),
}

impl Users {
    /// An empty table.
    pub fn new(bus: Bus, backend: Backend, rooms: Rooms) -> Self {
        Self {
            bus,
            backend,
            rooms,
            table: Arc::default(),
        }
    }

    /// Follows the notices of all users until `stop`.
    ///
    /// # Errors
    /// The subscription cannot be made.
    pub async fn follow(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut notices = self.bus.subscribe_users().await?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                notice = notices.next() => match notice {
                    Some(notice) => self.noticed(notice),
                    None => anyhow::bail!("the connection to NATS is closed"),
                },
            }
        }
    }

    /// Follows a user before a client of theirs is told that it is connected, so that it hears of every
    /// conversation it is added to from then on.
    pub fn expect(&self, user: &UserId) -> Expected {
        let mut table = self.lock();
        let connected = table.entry(user.clone()).or_default();
        connected.expected += 1;
        Expected {
            users: self.clone(),
            user: user.clone(),
            is_loaded: connected.loaded,
        }
    }

    /// Takes over where a user stands, as a client of theirs found when it arrived.
    pub async fn load(&self, expected: &Expected, membership: Membership) {
        self.adopt(&expected.user, membership, expected.is_loaded).await;
    }

    /// What a page of the user that returns was emitted of each conversation, where that may not have been stored yet when
    /// this was `found`.
    pub async fn emitted_lately(&self, user: &UserId, page: Page, found: Emitted) -> Emitted {
        let is_behind = self.lock().get(user).is_some_and(|connected| {
            let mut each = connected.conversations.iter();
            each.any(|(id, belonging)| found.get(id).is_some_and(|seq| *seq < belonging.unread.head_seq))
        });
        if !is_behind {
            return found;
        }
        tokio::time::sleep(SETTLES).await;
        self.emitted(user, page).await
    }

    /// What a page of the user that returns was emitted of each conversation.
    pub async fn emitted(&self, user: &UserId, page: Page) -> Emitted {
        let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
        loop {
            match self.backend.served(actor(user, ""), page.to_string()).await {
                Ok(positions) => {
                    let each = positions.into_iter();
                    return each
                        .filter_map(|one| Some((one.conversation_id.parse().ok()?, one.seq)))
                        .collect();
                }
                // A replica of the version before knows of no pages.
                Err(error) if !error.retry => return Emitted::default(),
                Err(_) => {}
            }
            if !self.backend.pause(&mut backoff).await || !self.lock().contains_key(user) {
                return Emitted::default();
            }
        }
    }

    /// Loads once more what the user was served, where a session of theirs that has just ended may have got what is not
    /// known of yet.
    pub async fn settle(&self, user: &UserId) {
        let is_behind = |belonging: &Belonging| {
            belonging.served_seq.max(belonging.delivered_seq) < belonging.unread.head_seq
        };
        let behind = self
            .lock()
            .get(user)
            .is_some_and(|connected| connected.conversations.values().any(is_behind));
        if behind {
            tokio::time::sleep(SETTLES).await;
            self.reload(user, true).await;
        }
    }

    /// A session began. `since`: what its client has got, where it says so; `emitted`: what its page was emitted, where
    /// it returns. Returns the task that attaches it, where there is something to attach it to.
    pub fn arrived(
        &self,
        session: Arc<Session>,
        since: Option<Arc<Since>>,
        emitted: &Emitted,
    ) -> Option<JoinHandle<()>> {
        let conversations = {
            let mut table = self.lock();
            let connected = table.entry(session.user.clone()).or_default();
            connected.sessions.push(Arc::clone(&session));
            connected.conversations()
        };
        self.begin(session, since, emitted, conversations)
    }

    /// A session that was attached to none of its conversations, or only to some, begins once more: its client speaks
    /// another dialect than was taken for granted.
    pub async fn arrives_again(&self, session: Arc<Session>) {
        let delivers = session.dialect().backlog() != Backlog::AtJoin;
        let expected = self.expect(&session.user);
        if delivers || !expected.is_loaded {
            self.reload(&session.user, expected.is_loaded).await;
        }
        let emitted = match delivers {
            true => self.emitted(&session.user, session.page).await,
            false => Emitted::default(),
        };
        let conversations = self.lock().get(&session.user).map(Connected::conversations);
        drop(self.begin(session, None, &emitted, conversations.unwrap_or_default()));
    }

    /// Attaches a session that begins to its user's conversations, in the way of its dialect.
    fn begin(
        &self,
        session: Arc<Session>,
        since: Option<Arc<Since>>,
        emitted: &Emitted,
        conversations: Conversations,
    ) -> Option<JoinHandle<()>> {
        let left = since
            .as_ref()
            .map_or_else(Vec::new, |since| since.without(&conversations));
        if conversations.is_empty() && left.is_empty() && session.seen_at_ms == 0 {
            return None;
        }
        let opening = |(id, belonging): &(ConversationId, Belonging)| {
            let named = since.as_ref().map(|since| since.0.get(id));
            let missed = match named {
                Some(named) => named.cloned(),
                None => belonging.missed(session.dialect().backlog(), emitted.get(id).copied()),
            };
            let following = Following {
                joined: session.dialect().joins_by_itself() || matches!(named, Some(Some(_))),
                unread: Some(belonging.unread),
                missed,
                takes_updates: None,
            };
            (*id, following)
        };
        session.opens(conversations.iter().map(opening).collect());
        let users = self.clone();
        Some(tasks::spawn("attach a session", async move {
            users.emit_removals(&session, left).await;
            let session = [session];
            // Whatever it was attached to by its client meanwhile stays as it is.
            users
                .attach(&session, &conversations, |_, _, _| Following::default())
                .await;
            let [session] = session;
            if session.dialect().joins_by_itself() && session.seen_at_ms > 0 {
                users.rooms.tell_missed_receipts(&session, None).await;
            }
        }))
    }

    /// Emits that the user was removed from conversations, or that they were deleted, since the user was last seen; and
    /// which of those that the client names.
    async fn emit_removals(&self, session: &Session, named: Vec<String>) {
        if named.is_empty() && session.seen_at_ms == 0 {
            return;
        }
        let found = if named.is_empty() {
            self.backend
                .removals_since(&session.user, session.seen_at_ms)
                .await
        } else {
            let me = actor(&session.user, &session.username);
            let removals = self.backend.removals(Some(me), session.seen_at_ms, named).await;
            removals.map(|found| found.removals)
        };
        let removals = match found {
            Ok(removals) => removals,
            Err(error) => {
                // A list that is read again, or a sync, shows it too.
                tracing::debug!(code = error.code, "removals are not emitted");
                return;
            }
        };
        for removal in removals {
            if let Ok(id) = removal.conversation_id.parse() {
                session.tell(Outbound::ConversationRemoved(&Place::unknown(id, removal.number)));
            }
        }
    }

    /// A session ended.
    pub fn gone(&self, session: &Session) {
        let mut table = self.lock();
        if let Some(connected) = table.get_mut(&session.user) {
            connected.sessions.retain(|other| other.id != session.id);
        }
        forget(&mut table, &session.user);
    }

    /// All users connected here.
    pub fn connected(&self) -> Vec<String> {
        self.lock().keys().map(ToString::to_string).collect()
    }

    /// Lets the users whose conversations changed catch up.
    pub fn check(&self, users: Vec<User>) {
        let behind: Vec<UserId> = {
            let table = self.lock();
            let is_behind = |user: User| {
                let id = UserId::parse(user.user_id).ok()?;
                let known = table.get(&id)?;
                (known.loaded && known.version < user.memberships_version).then_some(id)
            };
            users.into_iter().filter_map(is_behind).collect()
        };
        for user in behind {
            self.reload_beside(user);
        }
    }

    fn noticed(&self, notice: UserNotice) {
        let UserNotice {
            user_id,
            memberships_version,
            users,
            body: Some(body),
        } = notice
        else {
            return;
        };
        let one = NoticedUser {
            user_id,
            memberships_version,
        };
        for noticed in users.into_iter().chain([one]) {
            // Of a notice to several, the one user is empty.
            let Ok(user) = UserId::parse(noticed.user_id) else {
                continue;
            };
            match self.step(&user, noticed.memberships_version, &body) {
                Step::Nothing => {}
                Step::Reload => self.reload_beside(user),
                Step::Hide(sessions) => {
                    if let user_notice::Body::MessageHidden(hidden) = &body {
                        self.hide(hidden, &sessions);
                    }
                }
                Step::Mute(sessions) => {
                    if let user_notice::Body::MuteChanged(changed) = &body {
                        mute(changed, &sessions);
                    }
                }
                Step::Block(sessions) => {
                    if let user_notice::Body::BlockChanged(changed) = &body
                        && changed.user_id == user.as_str()
                    {
                        emit(&sessions, Outbound::BlockChanged(changed));
                    }
                    self.read_blocks_beside(user);
                }
                Step::Add(sessions) => {
                    if let user_notice::Body::ConversationAdded(added) = &body
                        && let Some((id, belonging)) = gained(added)
                    {
                        tasks::spawn(
                            "add a conversation",
                            self.clone().add(user, id, belonging, sessions),
                        );
                    }
                }
            }
        }
    }

    /// Attaches the sessions of a user to a conversation that is new to them, and shows it to their clients as the user
    /// sees it, if that is to be had. Those who gain it together are answered by one query.
    async fn add(self, user: UserId, id: ConversationId, belonging: Belonging, sessions: Vec<Arc<Session>>) {
        let conversation = self.gained_view(&user, id).await;
        let seen = conversation.as_ref().map(|conversation| Unread {
            count: conversation.unread,
            head_seq: conversation.head_seq,
        });
        let belonging = Belonging {
            unread: seen.unwrap_or(belonging.unread),
            ..belonging
        };
        // In any case: the conversation is known here as one of the user's, and no comparison would attach them later. The
        // room asks itself whether they belong to it.
        self.attach(&sessions, &[(id, belonging)], added_while_here).await;
        if let Some(conversation) = conversation {
            emit(&sessions, Outbound::ConversationAdded(&conversation));
        }
    }

    /// A conversation that a user gained as they see it; `None` where they do not belong to it any more, or have gone.
    async fn gained_view(&self, user: &UserId, id: ConversationId) -> Option<Conversation> {
        let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
        loop {
            let opening = Opening {
                user_id: user.to_string(),
                id,
                client: None,
                presence: false,
            };
            match self.backend.opened(opening).await {
                Ok(conversation) => return Some(conversation),
                Err(error) if !error.retry => return None,
                Err(_) => {}
            }
            if !self.backend.pause(&mut backoff).await || !self.lock().contains_key(user) {
                return None;
            }
        }
    }

    fn step(&self, user: &UserId, version: u64, body: &user_notice::Body) -> Step {
        let mut table = self.lock();
        let Some(connected) = table.get_mut(user) else {
            return Step::Nothing;
        };
        // While it is being loaded, what comes may or may not be part of what is loaded.
        if !connected.loaded || version > connected.version + 1 {
            return Step::Reload;
        }
        connected.version = connected.version.max(version);
        match body {
            user_notice::Body::ConversationAdded(added) => {
                let Some((id, belonging)) = gained(added) else {
                    return Step::Nothing;
                };
                match connected.conversations.insert(id, belonging) {
                    Some(_) => Step::Nothing,
                    None => Step::Add(connected.sessions.clone()),
                }
            }
            // The room tells, and detaches, when the event comes to its turn in the sequence.
            user_notice::Body::ConversationRemoved(id) => {
                if let Ok(id) = id.parse() {
                    connected.conversations.remove(&id);
                }
                Step::Nothing
            }
            user_notice::Body::MessageHidden(_) => Step::Hide(connected.sessions.clone()),
            user_notice::Body::MuteChanged(_) => Step::Mute(connected.sessions.clone()),
            user_notice::Body::BlockChanged(_) => Step::Block(connected.sessions.clone()),
        }
    }

    fn hide(&self, hidden: &MessageHidden, sessions: &[Arc<Session>]) {
        let id = hidden.conversation_id.parse().ok();
        let place = id.and_then(|id| self.rooms.place(id));
        let (Some(place), Some(message)) = (place, &hidden.message) else {
            return;
        };
        let message = Message {
            id: message.id.clone(),
            conversation_id: hidden.conversation_id.clone(),
            conversation_number: place.number,
            seq: message.seq,
            ..Message::default()
        };
        emit(sessions, Outbound::MessageHidden(&place, &message));
    }

    /// A notice was missed, which may have been about a block.
    fn reload_beside(&self, user: UserId) {
        self.read_blocks_beside(user.clone());
        let users = self.clone();
        tasks::spawn("reload a user", async move { users.reload(&user, true).await });
    }

    fn read_blocks_beside(&self, user: UserId) {
        let users = self.clone();
        tasks::spawn("read the blocks of a user", async move {
            let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
            while users.read_blocks(&user).await.is_err_and(|error| error.retry) {
                if !users.backend.pause(&mut backoff).await || !users.lock().contains_key(&user) {
                    return;
                }
            }
        });
    }

    /// Reads which others the sessions of a user, connected or expected here, are not shown.
    ///
    /// # Errors
    /// Persistence cannot be asked now.
    pub async fn read_blocks(&self, user: &UserId) -> Result<(), ClientError> {
        let Some(hidden) = self
            .lock()
            .get(user)
            .map(|connected| Arc::clone(&connected.hidden))
        else {
            return Ok(());
        };
        let _turn = hidden.turn().await;
        let mut now = HiddenUsers {
            everybody: true,
            ..HiddenUsers::default()
        };
        let mut after = String::new();
        for _ in 0..BLOCK_PAGES {
            let me = Some(actor(user, ""));
            let page = self.backend.blocks(me, after, BLOCKS, true).await?;
            now.ids.extend(page.user_ids);
            after = page.next;
            if after.is_empty() {
                now.everybody = false;
                break;
            }
        }
        let HiddenChanges { hidden, shown } = hidden.replace(now);
        if !hidden.is_empty() || !shown.is_empty() {
            self.rooms.members().hidden(user.clone(), hidden, shown);
        }
        Ok(())
    }

    /// Takes over the user's conversations from the database; tells of those that are added, but for the
    /// first time.
    async fn reload(&self, user: &UserId, tell_added: bool) {
        let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
        let membership = loop {
            if let Ok(membership) = self.backend.membership(user.as_str()).await {
                break membership;
            }
            if !self.backend.pause(&mut backoff).await || !self.lock().contains_key(user) {
                return;
            }
        };
        self.adopt(user, membership, tell_added).await;
    }

    async fn adopt(&self, user: &UserId, membership: Membership, tell_added: bool) {
        let Some((added, sessions)) = self.take_over(user, membership) else {
            return;
        };
        self.attach(&sessions, &added, added_while_here).await;
        for (id, _) in added.into_iter().filter(|_| tell_added) {
            if let Some(conversation) = self.gained_view(user, id).await {
                emit(&sessions, Outbound::ConversationAdded(&conversation));
            }
        }
    }

    /// Returns what is added, and for whom; `None` where the user has gone or something newer is known.
    fn take_over(&self, user: &UserId, membership: Membership) -> Option<(Conversations, Vec<Arc<Session>>)> {
        let mut table = self.lock();
        let connected = table.get_mut(user)?;
        if connected.loaded && membership.version < connected.version {
            return None;
        }
        connected.loaded = true;
        connected.version = membership.version;
        let counts = membership.unread.iter().zip(&membership.head_seqs);
        let belongings = counts
            .zip(&membership.delivered_seqs)
            // A replica of the version before says nothing of these.
            .zip(membership.served_seqs.iter().chain(std::iter::repeat(&0)))
            .zip(membership.listed_seqs.iter().chain(std::iter::repeat(&0)))
            .map(
                |((((count, head_seq), delivered_seq), served_seq), listed_seq)| Belonging {
                    unread: Unread {
                        count: *count,
                        head_seq: *head_seq,
                    },
                    delivered_seq: *delivered_seq,
                    served_seq: *served_seq,
                    listed_seq: *listed_seq,
                },
            );
        let ids = membership
            .conversation_ids
            .iter()
            .map(|id| id.parse::<ConversationId>());
        let now = ids
            .zip(belongings)
            .filter_map(|(id, belonging)| Some((id.ok()?, belonging)))
            .collect();
        let known = std::mem::replace(&mut connected.conversations, now);
        let added = connected
            .conversations
            .iter()
            .filter(|(id, _)| !known.contains_key(*id));
        let added = added.map(|(id, belonging)| (*id, *belonging)).collect();
        Some((added, connected.sessions.clone()))
    }

    async fn attach(
        &self,
        sessions: &[Arc<Session>],
        conversations: &[(ConversationId, Belonging)],
        following: impl Fn(&Session, &ConversationId, &Belonging) -> Following,
    ) {
        let mut wanted = Vec::with_capacity(sessions.len() * conversations.len());
        for session in sessions {
            wanted.extend(
                conversations
                    .iter()
                    .map(|(id, belonging)| (*id, following(session, id, belonging), Arc::clone(session))),
            );
        }
        let rooms = self.rooms.clone();
        futures::stream::iter(wanted)
            .for_each_concurrent(ATTACH_CONCURRENCY, move |(id, following, session)| {
                let rooms = rooms.clone();
                async move {
                    if session.closed.is_cancelled() {
                        return;
                    }
                    let Err(error) = rooms.attach(id, Arc::clone(&session), following).await else {
                        return;
                    };
                    tracing::debug!(conversation = %id, code = error.code, "not attached");
                    if error.code != ErrorCode::NotFound.name() {
                        // A client that is not told of one of its conversations must come again.
                        session.close_transport();
                    }
                }
            })
            .await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Connected>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    fn conversations(&self) -> Conversations {
        let each = self.conversations.iter();
        each.map(|(id, belonging)| (*id, *belonging)).collect()
    }
}

impl Belonging {
    /// What a client is emitted of the past when it connects: where its page returns, what that was not emitted itself.
    fn missed(&self, backlog: Backlog, emitted: Option<u64>) -> Option<Missed> {
        let after = match (backlog, emitted) {
            (Backlog::AtJoin, _) => return None,
            (Backlog::UntilMarked, Some(emitted)) => self.delivered_seq.min(emitted),
            (_, Some(emitted)) => emitted,
            (Backlog::UntilMarked, None) => self.delivered_seq,
            (Backlog::AtConnect, None) => self.delivered_seq.max(self.served_seq),
            (Backlog::Uncounted, None) => self.delivered_seq.max(self.served_seq).max(self.listed_seq),
        };
        Some(Missed {
            after,
            // What comes from now on is of other sessions too.
            own_after: if emitted.is_some() {
                0
            } else {
                self.unread.head_seq
            },
            ..Missed::default()
        })
    }
}

/// A conversation that users gained, and how far each of them is in it: of what came after they joined nothing is read,
/// delivered or emitted.
fn gained(added: &Conversation) -> Option<(ConversationId, Belonging)> {
    let belonging = Belonging {
        unread: Unread {
            count: 0,
            head_seq: added.head_seq,
        },
        delivered_seq: added.head_seq,
        served_seq: added.head_seq,
        listed_seq: 0,
    };
    Some((added.id.parse().ok()?, belonging))
}

/// For who is connected while a conversation is added: it is told what is sent until it is attached.
fn added_while_here(session: &Session, _: &ConversationId, belonging: &Belonging) -> Following {
    let joined = session.dialect().joins_by_itself();
    Following {
        joined,
        unread: Some(belonging.unread),
        missed: belonging
            .missed(session.dialect().backlog(), None)
            .filter(|_| joined),
        takes_updates: None,
    }
}

impl Expected {
    /// Whom the user is not shown.
    pub fn hidden(&self) -> Arc<Hidden> {
        let table = self.users.lock();
        let connected = table.get(&self.user);
        connected.map_or_else(Arc::default, |connected| Arc::clone(&connected.hidden))
    }

    /// Whether it was known already in which conversations the user is.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut table = self.users.lock();
        if let Some(connected) = table.get_mut(&self.user) {
            connected.expected -= 1;
        }
        forget(&mut table, &self.user);
    }
}

fn forget(table: &mut HashMap<UserId, Connected>, user: &UserId) {
    let idle = |connected: &Connected| connected.sessions.is_empty() && connected.expected == 0;
    if table.get(user).is_some_and(idle) {
        table.remove(user);
    }
}

fn mute(changed: &MuteChanged, sessions: &[Arc<Session>]) {
    if let Ok(id) = changed.conversation_id.parse() {
        emit(sessions, Outbound::MuteChanged(&Place::unknown(id, 0), changed));
    }
}

fn emit(sessions: &[Arc<Session>], outbound: Outbound<'_>) {
    for session in sessions {
        session.tell(outbound);
    }
}
