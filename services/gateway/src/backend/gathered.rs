//! What many clients ask at the same time when they connect: gathered, and asked of persistence in one.
//!
//! A replica of the version before does not know these queries. It answers each question by itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::{
    self, Actor, Arrive, ArrivedUser, CatchUp, CatchingUp, CaughtUpSession, Client, Conversation,
    ConversationReceipts, ConversationView, ErrorCode, Event, EventPage, FindMembers, FindMissedReceipts,
    FindRemovals, GetConversation, GetRoom, GetRooms, ListMemberships, MemberName, Membership, Participant,
    ProvisionUser, ReceiptsSince, Removal, Room, User, UserSince, ViewConversations, Viewing, query, reply,
};
use parlance_proto::{ConversationId, UserId};

use super::gathering::{Answers, Gathering};
use super::{Backend, unexpected};
use crate::error::ClientError;

/// Conversations of a user in one answer.
const MEMBERSHIPS: u32 = 2_000;
/// How often the pages of memberships may be read of a user whose conversations change meanwhile.
const ATTEMPTS: u32 = 5;
/// Events of one session that is asked about alone.
const EVENTS: u32 = 200;
/// Questions asked one by one at a time.
const SINGLES: usize = 32;

/// Questions that wait for others of their kind. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Gathered {
    creating: Gathering<v1::Arrival, ArrivedUser>,
    finding: Gathering<v1::Arrival, ArrivedUser>,
    rooms: Gathering<ConversationId, Room>,
    views: Gathering<Viewing, Conversation>,
    members: Gathering<MemberName, Option<Participant>>,
    missed: Gathering<CatchingUp, MissedEvents>,
    removals: Gathering<UserSince, Vec<Removal>>,
    receipts: Gathering<ReceiptsSince, Vec<ConversationReceipts>>,
}

/// A user whose client connects.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Who.
    pub user_id: String,
    /// As the token says; empty where it says none.
    pub username: String,
    /// The page that returns; empty where none does.
    pub page: String,
    /// Whether the conversations are wanted.
    pub memberships: bool,
}

/// A conversation that a client opens.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Who opens it.
    pub user_id: String,
    /// Which.
    pub id: ConversationId,
    /// Whose position is wanted.
    pub client: Option<Client>,
    /// Whether is wanted how the participants are seen.
    pub presence: bool,
}

/// What a session missed of a conversation, from its position on: a page that others who come back share.
#[derive(Debug, Clone)]
pub struct MissedEvents {
    page: Arc<EventPage>,
    after: u64,
    hidden: Vec<u64>,
}

impl MissedEvents {
    fn of_one(page: EventPage, after: u64) -> Self {
        Self {
            page: Arc::new(page),
            after,
            hidden: Vec::new(),
        }
    }

    /// Where the position says nothing: the epoch and the seq of the head.
    pub fn resync(&self) -> Option<(&str, u64)> {
        let page = &self.page;
        page.resync.then_some((page.epoch.as_str(), page.head_seq))
    }

    /// In their order, as the user of the session may see them; none where the page has nothing more.
    pub fn events(&self) -> impl Iterator<Item = Cow<'_, Event>> {
        let known = self.page.events.partition_point(|event| event.seq <= self.after);
        self.page.events.iter().skip(known).map(|event| {
            let message = event.message();
            if !message.is_some_and(|message| self.hidden.contains(&message.seq)) {
                return Cow::Borrowed(event);
            }
            let mut hidden = event.clone();
            hidden.message_mut().map(v1::Message::hide);
            Cow::Owned(hidden)
        })
    }
}

impl Backend {
    /// Makes a user known, and says where they stand.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn arrive(
        &self,
        arrival: Arrival,
        create: bool,
    ) -> Result<(User, Option<Membership>), ClientError> {
        let Arrival {
            user_id,
            username,
            page,
            memberships,
        } = arrival;
        let asked = v1::Arrival {
            user_id,
            username,
            memberships,
            page: page.clone(),
            after: String::new(),
        };
        let gathering = match create {
            true => &self.gathered.creating,
            false => &self.gathered.finding,
        };
        let backend = self.clone();
        let send = move |arrivals| backend.clone().arrive_all(arrivals, create);
        let arrived = gathering.ask(asked, send).await?;
        let user = arrived.user.ok_or_else(unexpected)?;
        match arrived.membership {
            Some(membership) => Ok((user, Some(self.complete(membership, &page).await?))),
            None if memberships => Err(unexpected()),
            None => Ok((user, None)),
        }
    }

    /// The conversations a user is in.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn membership(&self, user_id: &str) -> Result<Membership, ClientError> {
        let arrival = Arrival {
            user_id: user_id.to_owned(),
            username: String::new(),
            page: String::new(),
            memberships: true,
        };
        let (_, membership) = self.arrive(arrival, false).await?;
        membership.ok_or_else(unexpected)
    }

    /// What a room starts from; on behalf of a user only one that they are in.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn room(&self, actor: Option<Actor>, id: ConversationId) -> Result<Room, ClientError> {
        if actor.is_some() {
            return self.room_alone(actor, id).await;
        }
        let backend = self.clone();
        let send = move |ids| backend.clone().all_rooms(ids);
        self.gathered.rooms.ask(id, send).await
    }

    /// The user as participant of a conversation; `None` where they are none.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn member(
        &self,
        id: ConversationId,
        user_id: &str,
    ) -> Result<Option<Participant>, ClientError> {
        let name = MemberName {
            conversation_id: id.to_string(),
            user_id: user_id.to_owned(),
        };
        let backend = self.clone();
        let send = move |names| backend.clone().all_members(names);
        self.gathered.members.ask(name, send).await
    }

    /// A conversation as who opens it sees it.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn opened(&self, opening: Opening) -> Result<Conversation, ClientError> {
        let viewing = Viewing {
            user_id: opening.user_id,
            conversation_id: opening.id.to_string(),
            client: opening.client,
            presence: opening.presence,
        };
        let backend = self.clone();
        let send = move |viewings| backend.clone().view_all(viewings);
        self.gathered.views.ask(viewing, send).await
    }

    /// What a session of the user missed after its position.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn missed_events(
        &self,
        user: &UserId,
        id: ConversationId,
        after: u64,
    ) -> Result<MissedEvents, ClientError> {
        let catching_up = CatchingUp {
            user_id: user.to_string(),
            conversation_id: id.to_string(),
            after,
        };
        let backend = self.clone();
        let send = move |sessions| backend.clone().catch_up_all(sessions);
        self.gathered.missed.ask(catching_up, send).await
    }

    /// The conversations that a user belongs to no more since then, in Unix milliseconds: the latest 100.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn removals_since(&self, user: &UserId, since_ms: i64) -> Result<Vec<Removal>, ClientError> {
        let asked = UserSince {
            user_id: user.to_string(),
            since_ms,
        };
        let backend = self.clone();
        let send = move |users| backend.clone().find_removals(users);
        self.gathered.removals.ask(asked, send).await
    }

    /// What became of a user's messages since then, in Unix milliseconds: in one conversation, or in all.
    ///
    /// # Errors
    /// As the client shall see it.
    pub async fn receipts_since(
        &self,
        user: &UserId,
        since_ms: i64,
        only: Option<ConversationId>,
    ) -> Result<Vec<ConversationReceipts>, ClientError> {
        let asked = ReceiptsSince {
            user_id: user.to_string(),
            since_ms,
            conversation_id: only.map(|id| id.to_string()).unwrap_or_default(),
        };
        let backend = self.clone();
        let send = move |asked| backend.clone().find_missed_receipts(asked);
        self.gathered.receipts.ask(asked, send).await
    }

    /// All pages of a user's memberships, of one version.
    async fn complete(&self, first: Membership, page: &str) -> Result<Membership, ClientError> {
        let mut first = first;
        for _ in 0..ATTEMPTS {
            let user = first.user_id.clone();
            if let Some(whole) = self.rest(first, page).await? {
                return Ok(whole);
            }
            first = self.part(&user, String::new(), page).await?;
        }
        let message = "the conversations of the user change too often";
        Err(ClientError::new(ErrorCode::Unavailable, message))
    }

    /// Memberships with those that come after them; `None` where they changed meanwhile.
    async fn rest(&self, mut whole: Membership, page: &str) -> Result<Option<Membership>, ClientError> {
        while !whole.next.is_empty() {
            let after = std::mem::take(&mut whole.next);
            let part = self.part(&whole.user_id, after, page).await?;
            if part.version != whole.version {
                return Ok(None);
            }
            append(&mut whole, part);
        }
        Ok(Some(whole))
    }

    async fn part(&self, user: &str, after: String, page: &str) -> Result<Membership, ClientError> {
        let arrival = v1::Arrival {
            user_id: user.to_owned(),
            username: String::new(),
            memberships: true,
            page: page.to_owned(),
            after,
        };
        let backend = self.clone();
        let send = move |arrivals| backend.clone().arrive_all(arrivals, false);
        let arrived = self.gathered.finding.ask(arrival, send).await?;
        arrived.membership.ok_or_else(unexpected)
    }

    async fn all_memberships(&self, user: &str) -> Result<Membership, ClientError> {
        let question = query::Body::ListMemberships(ListMemberships {
            user_ids: vec![user.to_owned()],
        });
        match self.ask(None, question).await? {
            reply::Body::Memberships(mut answer) => answer.memberships.pop().ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    async fn arrive_all(self, arrivals: Vec<v1::Arrival>, create: bool) -> Answers<ArrivedUser> {
        let question = query::Body::Arrive(Arrive {
            arrivals: arrivals.clone(),
            create,
            limit: MEMBERSHIPS,
        });
        match self.ask(None, question).await {
            Ok(reply::Body::Arrived(arrived)) => {
                let users = arrived.users.into_iter();
                Ok(users
                    .map(|user| Some(or_error(user.error.clone(), user)))
                    .collect())
            }
            Ok(_) => Err(unexpected()),
            Err(error) => one_by_one(error, arrivals, |arrival| self.arrive_alone(arrival, create)).await,
        }
    }

    async fn arrive_alone(&self, arrival: v1::Arrival, create: bool) -> Result<ArrivedUser, ClientError> {
        let me = actor_named(&arrival.user_id, &arrival.username);
        let provision = query::Body::ProvisionUser(ProvisionUser { create });
        let user = match self.ask(Some(me), provision).await? {
            reply::Body::User(user) => user,
            _ => return Err(unexpected()),
        };
        let membership = match arrival.memberships {
            true => Some(self.all_memberships(&arrival.user_id).await?),
            false => None,
        };
        Ok(ArrivedUser {
            error: None,
            user: Some(user),
            membership,
        })
    }

    async fn all_rooms(self, ids: Vec<ConversationId>) -> Answers<Room> {
        let question = query::Body::GetRooms(GetRooms {
            conversation_ids: ids.iter().map(ToString::to_string).collect(),
            small: self.small_group,
        });
        let answer = match self.ask(None, question).await {
            Ok(reply::Body::Rooms(answer)) => answer,
            Ok(_) => return Err(unexpected()),
            Err(error) => {
                return one_by_one(error, ids, |id| self.room_alone(None, id)).await;
            }
        };
        let mut rooms: HashMap<String, Room> = HashMap::with_capacity(answer.rooms.len());
        for room in answer.rooms {
            rooms.insert(room.conversation_id.clone(), room);
        }
        let answered = |id: ConversationId| {
            let id = id.to_string();
            match rooms.get(&id) {
                Some(room) => Some(Ok(room.clone())),
                None => answer
                    .missing
                    .contains(&id)
                    .then(|| Err(ClientError::no_conversation())),
            }
        };
        Ok(ids.into_iter().map(answered).collect())
    }

    async fn room_alone(&self, actor: Option<Actor>, id: ConversationId) -> Result<Room, ClientError> {
        let question = query::Body::GetRoom(GetRoom {
            conversation_id: id.to_string(),
            small: self.small_group,
        });
        match self.ask(actor, question).await? {
            reply::Body::Room(room) => Ok(room),
            _ => Err(unexpected()),
        }
    }

    async fn all_members(self, names: Vec<MemberName>) -> Answers<Option<Participant>> {
        let question = query::Body::FindMembers(FindMembers { names });
        match self.ask(None, question).await? {
            reply::Body::FoundMembers(found) => Ok(found
                .members
                .into_iter()
                .map(|member| Some(Ok(member.participant)))
                .collect()),
            _ => Err(unexpected()),
        }
    }

    async fn view_all(self, viewings: Vec<Viewing>) -> Answers<Conversation> {
        let question = query::Body::ViewConversations(ViewConversations {
            viewings: viewings.clone(),
        });
        let answer = match self.ask(None, question).await {
            Ok(reply::Body::ConversationViews(answer)) => answer,
            Ok(_) => return Err(unexpected()),
            Err(error) => {
                return one_by_one(error, viewings, |viewing| self.view_alone(viewing)).await;
            }
        };
        let (views, conversations) = (answer.views, answer.conversations);
        Ok(views
            .into_iter()
            .map(|view| Some(seen(view, &conversations)))
            .collect())
    }

    async fn catch_up_all(self, sessions: Vec<CatchingUp>) -> Answers<MissedEvents> {
        let catch_up = query::Body::CatchUp(CatchUp {
            sessions: sessions.clone(),
        });
        let answer = match self.ask(None, catch_up).await {
            Ok(reply::Body::CaughtUp(answer)) => answer,
            Ok(_) => return Err(unexpected()),
            Err(error) => {
                return one_by_one(error, sessions, |session| self.catch_up_alone(session)).await;
            }
        };
        let pages: Vec<Arc<EventPage>> = answer.pages.into_iter().map(Arc::new).collect();
        let answered = answer.sessions.into_iter().zip(&sessions);
        Ok(answered
            .map(|(answer, session)| missed(answer, session.after, &pages))
            .collect())
    }

    async fn catch_up_alone(&self, session: CatchingUp) -> Result<MissedEvents, ClientError> {
        let id = session.conversation_id.parse().map_err(|_| unexpected())?;
        let me = actor_named(&session.user_id, "");
        let page = self.events(Some(me), id, session.after, EVENTS).await?;
        Ok(MissedEvents::of_one(page, session.after))
    }

    async fn find_removals(self, users: Vec<UserSince>) -> Answers<Vec<Removal>> {
        let find = query::Body::FindRemovals(FindRemovals { users: users.clone() });
        match self.ask(None, find).await {
            Ok(reply::Body::FoundRemovals(found)) => {
                let each = found.users.into_iter();
                Ok(each.map(|user| Some(Ok(user.removals))).collect())
            }
            Ok(_) => Err(unexpected()),
            Err(error) => one_by_one(error, users, |user| self.removals_alone(user)).await,
        }
    }

    async fn removals_alone(&self, user: UserSince) -> Result<Vec<Removal>, ClientError> {
        let me = actor_named(&user.user_id, "");
        let removals = self.removals(Some(me), user.since_ms, Vec::new()).await?;
        Ok(removals.removals)
    }

    async fn find_missed_receipts(self, asked: Vec<ReceiptsSince>) -> Answers<Vec<ConversationReceipts>> {
        let find = query::Body::FindMissedReceipts(FindMissedReceipts { asked: asked.clone() });
        match self.ask(None, find).await {
            Ok(reply::Body::FoundMissedReceipts(found)) => {
                let each = found.missed.into_iter();
                Ok(each.map(|missed| Some(Ok(missed.conversations))).collect())
            }
            Ok(_) => Err(unexpected()),
            Err(error) => one_by_one(error, asked, |one| self.missed_receipts_alone(one)).await,
        }
    }

    async fn missed_receipts_alone(
        &self,
        one: ReceiptsSince,
    ) -> Result<Vec<ConversationReceipts>, ClientError> {
        let me = actor_named(&one.user_id, "");
        let missed = self
            .missed_receipts(Some(me), one.since_ms, one.conversation_id)
            .await?;
        Ok(missed.conversations)
    }

    async fn view_alone(&self, viewing: Viewing) -> Result<Conversation, ClientError> {
        let me = actor_named(&viewing.user_id, "");
        let question = query::Body::GetConversation(GetConversation {
            conversation_id: viewing.conversation_id,
            client: viewing.client,
        });
        match self.ask(Some(me), question).await? {
            reply::Body::Conversation(conversation) => Ok(conversation),
            _ => Err(unexpected()),
        }
    }
}

/// A conversation with what of it is its viewer's own.
fn seen(view: ConversationView, conversations: &[Conversation]) -> Result<Conversation, ClientError> {
    let ConversationView {
        error,
        conversation,
        unread,
        delivered_seq,
        last_message,
        served,
        participant,
        mute,
    } = view;
    if let Some(error) = error {
        return Err(error.into());
    }
    let place = usize::try_from(conversation).unwrap_or(usize::MAX);
    let shared = conversations.get(place).ok_or_else(unexpected)?;
    let mut seen = Conversation {
        unread,
        delivered_seq,
        last_message,
        served,
        mute,
        ..shared.clone()
    };
    if let Some(viewer) = participant {
        seen.list_viewer(viewer);
    }
    Ok(seen)
}

/// `None` where it did not fit.
fn missed(
    answer: CaughtUpSession,
    after: u64,
    pages: &[Arc<EventPage>],
) -> Option<Result<MissedEvents, ClientError>> {
    let CaughtUpSession {
        error,
        page,
        void,
        hidden_seqs,
    } = answer;
    if let Some(error) = error {
        return Some(Err(error.into()));
    }
    if let Some(void) = void {
        return Some(Ok(MissedEvents::of_one(void, after)));
    }
    let page = page.and_then(|page| usize::try_from(page).ok());
    Some(Ok(MissedEvents {
        page: Arc::clone(page.and_then(|page| pages.get(page))?),
        after,
        hidden: hidden_seqs,
    }))
}

/// What is answered where one query for all failed: a replica of the version before cannot read it, and answers each by itself.
async fn one_by_one<Q, A, Fut>(error: ClientError, asked: Vec<Q>, ask: impl Fn(Q) -> Fut) -> Answers<A>
where
    Fut: Future<Output = Result<A, ClientError>>,
{
    if error.code != ErrorCode::Invalid.name() {
        return Err(error);
    }
    let each = futures::stream::iter(asked.into_iter().map(ask));
    Ok(each.buffered(SINGLES).map(Some).collect().await)
}

fn or_error<A>(error: Option<v1::Error>, answer: A) -> Result<A, ClientError> {
    match error {
        Some(error) => Err(error.into()),
        None => Ok(answer),
    }
}

fn actor_named(user: &str, username: &str) -> Actor {
    Actor {
        user_id: user.to_owned(),
        username: username.to_owned(),
        ..Actor::default()
    }
}

fn append(whole: &mut Membership, part: Membership) {
    let Membership {
        user_id: _,
        version: _,
        conversation_ids,
        unread,
        head_seqs,
        delivered_seqs,
        served_seqs,
        listed_seqs,
        emitted_before,
        next,
    } = part;
    whole.conversation_ids.extend(conversation_ids);
    whole.unread.extend(unread);
    whole.head_seqs.extend(head_seqs);
    whole.delivered_seqs.extend(delivered_seqs);
    whole.served_seqs.extend(served_seqs);
    whole.listed_seqs.extend(listed_seqs);
    whole.emitted_before.extend(emitted_before);
    whole.next = next;
}
