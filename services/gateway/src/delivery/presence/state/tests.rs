//! Of presence as a state machine: scenarios, and random runs that must end in what is so.

use std::cell::RefCell;
use std::rc::Rc;

use parlance_proto::v1::Participant;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Page {
    id: SessionId,
    user: UserId,
    hidden: Rc<RefCell<HashSet<String>>>,
}

impl Viewer for Page {
    fn id(&self) -> SessionId {
        self.id
    }

    fn user(&self) -> &UserId {
        &self.user
    }

    fn is_greeted(&self) -> bool {
        true
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn hides(&self, user: &str) -> bool {
        self.hidden.borrow().contains(user)
    }
}

struct World(Vec<Arc<Place>>);

impl World {
    /// Conversations of these users, numbered from 1 on.
    fn of(conversations: &[&[&str]]) -> Self {
        let participant = |user: &&str| Participant {
            user_id: (*user).to_owned(),
            ..Participant::default()
        };
        let place = |(number, users): (i64, &&[&str])| {
            Arc::new(Place {
                kind: ConversationKind::Group,
                participants: users.iter().map(participant).collect(),
                participant_count: users.len() as u64,
                ..Place::unknown(conversation(number), number)
            })
        };
        Self((1..).zip(conversations).map(place).collect())
    }
}

impl Followed for World {
    fn place(&self, conversation: ConversationId) -> Option<Arc<Place>> {
        self.0.iter().find(|place| place.id == conversation).cloned()
    }

    fn conversations_of(&self, user: &str) -> Vec<ConversationId> {
        let places = self.0.iter().filter(|place| place.participant(user).is_some());
        places.map(|place| place.id).collect()
    }

    fn is_known(&self, user: &str) -> bool {
        !self.conversations_of(user).is_empty()
    }

    fn removals(&self) -> u64 {
        0
    }
}

fn conversation(number: i64) -> ConversationId {
    format!("0190a6e0-0000-7000-8000-{number:012}").parse().unwrap()
}

fn page(number: u64, user: &str) -> Page {
    Page {
        id: SessionId::of_test(number),
        user: UserId::parse(user).unwrap(),
        hidden: Rc::default(),
    }
}

/// A state with the world around it: persistence, which answers when it is made to, and what pages were emitted.
struct Run {
    state: PresenceState<Page>,
    world: World,
    now: Moment,
    truth: HashMap<String, Presence>,
    /// Emissions in their order: to whom, of whom, how.
    emitted: Vec<(u64, String, PresenceStatus)>,
    versions: HashMap<(SessionId, String), u64>,
    /// The answer to the query that is under way, as of when it was asked.
    lookup: Option<Vec<Presence>>,
    lookups: usize,
    is_reading: bool,
}

impl Run {
    fn of(conversations: &[&[&str]]) -> Self {
        let at = Instant::now();
        let mut run = Self {
            state: PresenceState::new(3, Duration::from_secs(10), at),
            world: World::of(conversations),
            now: Moment { at, unix_ms: 1 },
            truth: HashMap::new(),
            emitted: Vec::new(),
            versions: HashMap::new(),
            lookup: None,
            lookups: 0,
            is_reading: false,
        };
        run.input(PresenceInput::Due);
        run
    }

    fn input(&mut self, input: PresenceInput<Page>) {
        for effect in self.state.apply(input, &self.world, self.now) {
            match effect {
                PresenceEffect::Emit { seen, to, .. } => {
                    for page in to {
                        let key = (page.id, seen.user_id.clone());
                        let before = self.versions.insert(key, seen.version);
                        assert!(
                            before.is_none_or(|before| before <= seen.version),
                            "older after newer"
                        );
                        assert_ne!(page.user.as_str(), seen.user_id, "one's own presence");
                        let to = page.id.number();
                        self.emitted.push((to, seen.user_id.clone(), seen.status()));
                    }
                }
                PresenceEffect::LookUp(users) => {
                    assert!(self.lookup.is_none(), "two queries at a time");
                    self.lookups += 1;
                    let found = users.iter().map(|user| self.presence(user)).collect();
                    self.lookup = Some(found);
                }
                PresenceEffect::ReadChanges(_) => {
                    assert!(!self.is_reading, "two readings at a time");
                    self.is_reading = true;
                }
                PresenceEffect::Reply(reply, known) => drop(reply.send(known)),
                PresenceEffect::ReplyToWatch(reply, outcome) => drop(reply.send(outcome)),
                PresenceEffect::Recheck(_) => {}
            }
        }
    }

    fn presence(&self, user: &str) -> Presence {
        let unchanged = || Presence {
            user_id: user.to_owned(),
            status: PresenceStatus::Offline.into(),
            version: 1,
            ..Presence::default()
        };
        self.truth.get(user).cloned().unwrap_or_else(unchanged)
    }

    /// The presence of a user changes; the bus may lose it.
    fn change(&mut self, user: &str, status: PresenceStatus, is_lost: bool) {
        let presence = Presence {
            status: status.into(),
            version: self.presence(user).version + 1,
            ..self.presence(user)
        };
        self.truth.insert(user.to_owned(), presence.clone());
        if !is_lost {
            self.input(PresenceInput::Changed(presence));
        }
    }

    fn arrive(&mut self, page: &Page) {
        self.input(PresenceInput::Reported(Happened::Arrived(page.clone())));
    }

    fn attach(&mut self, page: &Page, number: i64) {
        let attached = Happened::Attached(page.clone(), conversation(number));
        self.input(PresenceInput::Reported(attached));
    }

    /// A user is hidden from a page, or not any more.
    fn hide(&mut self, page: &Page, other: &str, is_hidden: bool) {
        let other = other.to_owned();
        let mut now = page.hidden.borrow_mut();
        let (hidden, shown) = match is_hidden {
            true => (vec![other.clone()], Vec::new()),
            false => (Vec::new(), vec![other.clone()]),
        };
        if is_hidden {
            now.insert(other);
        } else {
            now.remove(&other);
        }
        drop(now);
        let user = page.user.clone();
        self.input(PresenceInput::Reported(Happened::Hidden { user, hidden, shown }));
    }

    fn wait(&mut self, duration: Duration) {
        self.now.at += duration;
        if self.state.due_at().is_some_and(|due| due <= self.now.at) {
            self.input(PresenceInput::Due);
        }
    }

    /// Persistence answers what it was asked.
    fn answer(&mut self) {
        if let Some(found) = self.lookup.take() {
            self.input(PresenceInput::LookedUp(found));
        }
        if std::mem::take(&mut self.is_reading) {
            self.input(PresenceInput::ChangesRead(Presences {
                presences: self.truth.values().cloned().collect(),
                complete: true,
                ..Presences::default()
            }));
        }
    }

    fn settle(&mut self) {
        self.input(PresenceInput::Reconnected);
        for _ in 0..8 {
            self.answer();
            self.wait(Duration::from_secs(1));
        }
    }

    /// What a page was emitted last of a user.
    fn last(&self, page: &Page, user: &str) -> Option<PresenceStatus> {
        let mut emitted = self.emitted.iter().rev();
        let found = emitted.find(|(to, of, _)| *to == page.id.number() && of == user);
        found.map(|(.., status)| *status)
    }
}

#[test]
fn a_change_is_emitted_once_to_each_session_that_shares_a_conversation_and_to_no_other() {
    let mut run = Run::of(&[&["alice", "bob"], &["alice", "bob", "carol"], &["dave", "carol"]]);
    let pages = [
        page(1, "alice"),
        page(2, "alice"),
        page(3, "bob"),
        page(4, "dave"),
    ];
    for page in &pages {
        run.arrive(page);
    }
    run.change("bob", PresenceStatus::Online, false);
    assert_eq!(run.emitted, []);
    run.wait(WINDOW);
    run.emitted.sort();
    let online = |to| (to, "bob".to_owned(), PresenceStatus::Online);
    assert_eq!(run.emitted, [online(1), online(2)]);
}

#[test]
fn a_change_that_is_taken_back_within_the_window_is_not_emitted() {
    let mut run = Run::of(&[&["alice", "bob"]]);
    let alice = page(1, "alice");
    run.arrive(&alice);
    run.change("bob", PresenceStatus::Online, false);
    run.wait(WINDOW);
    run.change("bob", PresenceStatus::Offline, false);
    run.change("bob", PresenceStatus::Online, false);
    run.wait(WINDOW);
    assert_eq!(run.emitted.len(), 1);
}

#[test]
fn members_of_a_large_group_do_not_see_each_other_for_that() {
    let mut run = Run::of(&[&["alice", "bob", "carol", "dave"]]);
    let alice = page(1, "alice");
    run.arrive(&alice);
    run.attach(&alice, 1);
    run.change("bob", PresenceStatus::Online, false);
    run.settle();
    assert_eq!(run.emitted, []);
}

#[test]
fn sessions_that_begin_together_are_greeted_by_one_query() {
    let mut run = Run::of(&[&["alice", "bob"], &["bob", "carol"]]);
    let (alice, carol) = (page(1, "alice"), page(2, "carol"));
    for (page, number) in [(&alice, 1), (&carol, 2)] {
        run.arrive(page);
        run.attach(page, number);
    }
    run.answer();
    assert_eq!(run.lookups, 0, "they are gathered");
    run.wait(GATHER);
    run.answer();
    assert_eq!(run.lookups, 1);
    for page in [&alice, &carol] {
        assert_eq!(run.last(page, "bob"), Some(PresenceStatus::Offline));
    }
}

#[test]
fn a_greeting_waits_for_a_query_that_succeeds_and_a_reply_does_not() {
    let mut run = Run::of(&[&["alice", "bob"]]);
    let alice = page(1, "alice");
    run.arrive(&alice);
    run.attach(&alice, 1);
    let (reply, mut replied) = oneshot::channel();
    run.wait(GATHER);
    run.input(PresenceInput::Reported(Happened::Asked(
        vec!["zoe".to_owned()],
        reply,
    )));
    let later = run.now.at + Duration::from_secs(1);
    assert!(run.lookup.take().is_some());
    run.input(PresenceInput::LookUpFailed(later));
    assert!(run.lookup.take().is_some(), "the reply waited behind it");
    run.input(PresenceInput::LookUpFailed(later));
    assert_eq!(
        (replied.try_recv(), run.lookup.is_some()),
        (Ok(Vec::new()), false)
    );
    run.wait(Duration::from_secs(1));
    run.answer();
    assert_eq!(run.last(&alice, "bob"), Some(PresenceStatus::Offline));
}

#[test]
fn a_hidden_user_goes_offline_for_one_user_alone_until_they_are_shown_again() {
    let mut run = Run::of(&[&["alice", "bob", "carol"], &["carol", "dave"]]);
    let (alice, carol) = (page(1, "alice"), page(2, "carol"));
    for page in [&alice, &carol] {
        run.arrive(page);
    }
    for user in ["bob", "dave"] {
        run.change(user, PresenceStatus::Online, false);
    }
    run.wait(WINDOW);
    run.hide(&alice, "bob", true);
    assert_eq!(run.last(&alice, "bob"), Some(PresenceStatus::Offline));
    run.change("bob", PresenceStatus::Away, false);
    run.attach(&alice, 1);
    run.settle();
    assert_eq!(run.last(&alice, "bob"), Some(PresenceStatus::Offline));
    assert_eq!(run.last(&carol, "bob"), Some(PresenceStatus::Away));
    run.hide(&alice, "bob", false);
    // She shares nothing with him.
    run.hide(&alice, "dave", true);
    run.hide(&alice, "dave", false);
    run.settle();
    assert_eq!(run.last(&alice, "bob"), Some(PresenceStatus::Away));
    assert_eq!(run.last(&alice, "dave"), None);
}

#[test]
fn a_user_who_is_hidden_while_a_change_to_offline_is_gathered_does_not_stay_online() {
    let mut run = Run::of(&[&["alice", "bob"]]);
    let alice = page(1, "alice");
    run.arrive(&alice);
    run.change("bob", PresenceStatus::Online, false);
    run.wait(WINDOW);
    run.change("bob", PresenceStatus::Offline, false);
    run.hide(&alice, "bob", true);
    run.settle();
    assert_eq!(run.last(&alice, "bob"), Some(PresenceStatus::Offline));
}

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// What happens in a random run.
#[derive(Debug, Clone)]
enum Step {
    Attach(usize, i64),
    Change(usize, bool, bool),
    Hide(usize, usize, bool),
    Answer,
    Fail,
    Wait(u64),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..USERS.len(), 1..=3_i64).prop_map(|(user, number)| Step::Attach(user, number)),
        (0..USERS.len(), any::<bool>(), any::<bool>())
            .prop_map(|(user, online, is_lost)| Step::Change(user, online, is_lost)),
        (0..USERS.len(), 0..USERS.len(), any::<bool>())
            .prop_map(|(user, other, is_hidden)| Step::Hide(user, other, is_hidden)),
        Just(Step::Answer),
        Just(Step::Fail),
        (0..500_u64).prop_map(Step::Wait),
        Just(Step::Reconnect),
    ]
}

proptest! {
    /// Whatever is lost, late, refused or hidden: no older presence after a newer one, and in the end what is so. Of hidden
    /// users it is that they are offline.
    #[test]
    fn sessions_converge_on_the_presence_of_those_they_share_conversations_with(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let groups: [&[&str]; 3] = [&["alice", "bob"], &["bob", "carol"], &["alice", "bob", "carol"]];
        let mut run = Run::of(&groups);
        let pages: Vec<Page> = (1..).zip(USERS).map(|(number, user)| page(number, user)).collect();
        let mut attached = HashSet::new();
        for page in &pages {
            run.arrive(page);
        }
        for step in steps {
            match step {
                Step::Attach(user, number) => {
                    let index = usize::try_from(number - 1).unwrap();
                    if groups[index].contains(&USERS[user]) {
                        run.attach(&pages[user], number);
                        attached.insert((user, index));
                    }
                }
                Step::Change(user, online, is_lost) => {
                    let status = if online { PresenceStatus::Online } else { PresenceStatus::Offline };
                    run.change(USERS[user], status, is_lost);
                }
                Step::Hide(user, other, is_hidden) => run.hide(&pages[user], USERS[other], is_hidden),
                Step::Answer => run.answer(),
                Step::Fail => {
                    let later = run.now.at + Duration::from_millis(100);
                    if run.lookup.take().is_some() {
                        run.input(PresenceInput::LookUpFailed(later));
                    }
                    if std::mem::take(&mut run.is_reading) {
                        run.input(PresenceInput::ReadFailed(later));
                    }
                }
                Step::Wait(ms) => run.wait(Duration::from_millis(ms)),
                Step::Reconnect => run.input(PresenceInput::Reconnected),
            }
        }
        run.settle();
        for (user, group) in attached {
            for other in groups[group].iter().filter(|other| **other != USERS[user]) {
                let last = run.last(&pages[user], other);
                if pages[user].hides(other) {
                    let hidden = [None, Some(PresenceStatus::Offline)];
                    prop_assert!(hidden.contains(&last), "{} of {}: {:?}", USERS[user], other, last);
                } else {
                    let status = run.presence(other).status();
                    prop_assert_eq!(last, Some(status), "{} of {}", USERS[user], other);
                }
            }
        }
    }
}
