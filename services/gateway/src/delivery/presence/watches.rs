//! Which users sessions watch, besides those they share small conversations with. Pure.
//!
//! A session watches only users it shares a conversation with. Where that may have ended, the watch is in doubt: it ends
//! at once, and goes on if persistence says so in an answer to a question that was asked after the last doubt. There is
//! one question at a time for each session, about all that it has in doubt, and `MOST_UNDER_WAY` for all of them.

use std::collections::{HashMap, HashSet, VecDeque};

use parlance_proto::UserId;

use crate::session::SessionId;

/// Users that one session watches at most.
pub(super) const MOST_WATCHED: usize = 10_000;
/// Questions under way at once.
const MOST_UNDER_WAY: usize = 8;

/// See the module. `S` is a session.
#[derive(Debug)]
pub(super) struct Watches<S> {
    sessions: HashMap<SessionId, Watching<S>>,
    watchers: HashMap<String, HashMap<SessionId, S>>,
    /// Sessions with something in doubt of which nothing is asked.
    due: VecDeque<SessionId>,
    under_way: usize,
}

#[derive(Debug)]
struct Watching<S> {
    session: S,
    owner: UserId,
    watched: HashSet<String>,
    /// In doubt, to be asked for.
    doubted: HashSet<String>,
    /// In doubt, asked for since.
    asked: HashSet<String>,
    /// Whether it is in `due`, or its question under way.
    is_queued: bool,
}

/// A question: which of these users the session may still watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt<S> {
    pub(super) session: S,
    pub(super) users: Vec<String>,
}

impl<S> Default for Watches<S> {
    fn default() -> Self {
        Self {
            sessions: HashMap::new(),
            watchers: HashMap::new(),
            due: VecDeque::new(),
            under_way: 0,
        }
    }
}

impl<S: Clone> Watches<S> {
    /// Whether a session watches the user.
    pub(super) fn is_watched(&self, user: &str) -> bool {
        self.watchers.contains_key(user)
    }

    /// The sessions that watch the user.
    pub(super) fn watchers(&self, user: &str) -> impl Iterator<Item = &S> {
        self.watchers.get(user).into_iter().flat_map(HashMap::values)
    }

    /// Has a session watch users, at once or, `in_doubt`, when persistence says that it may. False where it would watch
    /// too many.
    pub(super) fn watch(
        &mut self,
        id: SessionId,
        session: &S,
        owner: &UserId,
        users: &[String],
        in_doubt: bool,
    ) -> bool {
        let watching = self.sessions.entry(id).or_insert_with(|| Watching {
            session: session.clone(),
            owner: owner.clone(),
            watched: HashSet::new(),
            doubted: HashSet::new(),
            asked: HashSet::new(),
            is_queued: false,
        });
        let new = users.iter().filter(|user| !watching.has(user)).count();
        if watching.len() + new > MOST_WATCHED {
            return false;
        }
        for user in users {
            watching.asked.remove(user);
            if in_doubt {
                watching.doubted.insert(user.clone());
            } else {
                watching.doubted.remove(user);
                watching.watched.insert(user.clone());
                let watchers = self.watchers.entry(user.clone()).or_default();
                watchers.insert(id, session.clone());
            }
        }
        if in_doubt {
            for user in users {
                watching.watched.remove(user);
                forget(&mut self.watchers, id, user);
            }
            watching.queue(id, &mut self.due);
        }
        true
    }

    /// A session does not watch the user any more.
    pub(super) fn unwatch(&mut self, id: SessionId, user: &str) {
        if let Some(watching) = self.sessions.get_mut(&id) {
            watching.watched.remove(user);
            watching.doubted.remove(user);
            watching.asked.remove(user);
        }
        forget(&mut self.watchers, id, user);
    }

    /// A session ended.
    pub(super) fn gone(&mut self, id: SessionId) {
        let watching = self.sessions.remove(&id);
        for user in watching.into_iter().flat_map(|watching| watching.watched) {
            forget(&mut self.watchers, id, &user);
        }
    }

    /// A user may share fewer conversations with others: what they watch, and who watches them, is in doubt.
    pub(super) fn left(&mut self, user: &str) {
        for (&id, watching) in &mut self.sessions {
            if watching.owner.as_str() == user {
                for watched in watching.watched.drain() {
                    forget(&mut self.watchers, id, &watched);
                    watching.doubted.insert(watched);
                }
                watching.doubted.extend(watching.asked.drain());
            } else if watching.watched.remove(user) || watching.asked.remove(user) {
                forget(&mut self.watchers, id, user);
                watching.doubted.insert(user.to_owned());
            }
            watching.queue(id, &mut self.due);
        }
    }

    /// The next question; none where enough are under way.
    pub(super) fn next_doubt(&mut self) -> Option<Doubt<S>> {
        while self.under_way < MOST_UNDER_WAY {
            let id = self.due.pop_front()?;
            let Some(watching) = self.sessions.get_mut(&id) else {
                continue;
            };
            if watching.doubted.is_empty() {
                watching.is_queued = false;
                continue;
            }
            self.under_way += 1;
            watching.asked = std::mem::take(&mut watching.doubted);
            return Some(Doubt {
                session: watching.session.clone(),
                users: watching.asked.iter().cloned().collect(),
            });
        }
        None
    }

    /// The answer to a question. Returns those of the users that the session goes on watching: who has come into doubt
    /// since is asked for again.
    pub(super) fn answered(
        &mut self,
        id: SessionId,
        allowed: impl IntoIterator<Item = String>,
    ) -> HashSet<String> {
        self.under_way -= 1;
        let Some(watching) = self.sessions.get_mut(&id) else {
            return HashSet::new();
        };
        let mut asked = std::mem::take(&mut watching.asked);
        let restored: HashSet<String> = allowed.into_iter().filter(|user| asked.remove(user)).collect();
        for user in &restored {
            watching.watched.insert(user.clone());
            let watchers = self.watchers.entry(user.clone()).or_default();
            watchers.insert(id, watching.session.clone());
        }
        watching.is_queued = false;
        watching.queue(id, &mut self.due);
        restored
    }
}

impl<S> Watching<S> {
    fn len(&self) -> usize {
        self.watched.len() + self.doubted.len() + self.asked.len()
    }

    fn has(&self, user: &str) -> bool {
        self.watched.contains(user) || self.doubted.contains(user) || self.asked.contains(user)
    }

    fn queue(&mut self, id: SessionId, due: &mut VecDeque<SessionId>) {
        if !self.is_queued && !self.doubted.is_empty() {
            self.is_queued = true;
            due.push_back(id);
        }
    }
}

fn forget<S>(watchers: &mut HashMap<String, HashMap<SessionId, S>>, id: SessionId, user: &str) {
    if let Some(sessions) = watchers.get_mut(user) {
        sessions.remove(&id);
        if sessions.is_empty() {
            watchers.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn names(users: &[&str]) -> Vec<String> {
        users.iter().map(|&user| user.to_owned()).collect()
    }

    fn asked(watches: &mut Watches<&'static str>) -> Option<(&'static str, Vec<String>)> {
        watches.next_doubt().map(|mut doubt| {
            doubt.users.sort();
            (doubt.session, doubt.users)
        })
    }

    /// Alice's session 1 watches bob and carol, dave's session 2 bob.
    fn watches() -> Watches<&'static str> {
        let mut watches = Watches::default();
        let all = names(&["bob", "carol"]);
        assert!(watches.watch(SessionId::of_test(1), &"alice", &owner("alice"), &all, false));
        assert!(watches.watch(SessionId::of_test(2), &"dave", &owner("dave"), &all[..1], false));
        watches
    }

    #[test]
    fn a_watch_in_doubt_ends_and_goes_on_when_persistence_allows_it() {
        let mut watches = watches();
        watches.left("alice");
        assert!(!watches.is_watched("carol"));
        assert_eq!(watches.watchers("bob").collect::<Vec<_>>(), [&"dave"]);
        assert_eq!(asked(&mut watches), Some(("alice", names(&["bob", "carol"]))));
        assert_eq!(asked(&mut watches), None);
        let restored = watches.answered(SessionId::of_test(1), names(&["carol", "mallory"]));
        assert_eq!(restored, HashSet::from(["carol".to_owned()]));
        assert!(watches.is_watched("carol") && !watches.is_watched("mallory"));
        assert_eq!(asked(&mut watches), None);
    }

    #[test]
    fn an_answer_from_before_a_removal_restores_nothing() {
        let mut watches = watches();
        watches.left("bob");
        let (first, second) = (asked(&mut watches), asked(&mut watches));
        assert!(first.is_some() && second.is_some());
        watches.left("bob");
        assert!(
            watches
                .answered(SessionId::of_test(1), names(&["bob"]))
                .is_empty()
        );
        assert!(!watches.is_watched("bob"));
        assert_eq!(asked(&mut watches), Some(("alice", names(&["bob"]))));
        watches.left("alice");
        assert!(
            watches
                .answered(SessionId::of_test(1), names(&["bob"]))
                .is_empty()
        );
        assert_eq!(asked(&mut watches), Some(("alice", names(&["bob", "carol"]))));
    }

    #[test]
    fn what_was_allowed_before_a_removal_is_asked_for_before_it_is_watched() {
        let mut watches = Watches::default();
        let bob = names(&["bob"]);
        assert!(watches.watch(SessionId::of_test(1), &"alice", &owner("alice"), &bob, true));
        assert!(!watches.is_watched("bob"));
        assert_eq!(asked(&mut watches), Some(("alice", bob.clone())));
        watches.unwatch(SessionId::of_test(1), "bob");
        assert!(watches.answered(SessionId::of_test(1), bob).is_empty());
        assert!(!watches.is_watched("bob"));
    }

    #[test]
    fn removals_are_gathered_into_few_questions() {
        let mut watches = Watches::default();
        let users: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
        for number in 1..=20 {
            let who = owner(&format!("watcher-{number}"));
            assert!(watches.watch(SessionId::of_test(number), &"watcher", &who, &users, false));
        }
        let mut questions = 0;
        for user in &users {
            watches.left(user);
            questions += usize::from(watches.next_doubt().is_some());
        }
        assert_eq!(questions, MOST_UNDER_WAY);
        for number in 1..=20 {
            watches.gone(SessionId::of_test(number));
        }
        for number in 1..=8 {
            watches.answered(SessionId::of_test(number), users.clone());
        }
        assert_eq!(watches.next_doubt(), None);
        assert!(watches.watchers.is_empty());
    }

    #[test]
    fn a_session_watches_no_more_than_its_share() {
        let mut watches = Watches::default();
        let users: Vec<String> = (0..MOST_WATCHED).map(|number| format!("user-{number}")).collect();
        let alice = owner("alice");
        assert!(watches.watch(SessionId::of_test(1), &"alice", &alice, &users, false));
        assert!(watches.watch(SessionId::of_test(1), &"alice", &alice, &users[..3], false));
        assert!(!watches.watch(
            SessionId::of_test(1),
            &"alice",
            &alice,
            &names(&["one-more"]),
            false
        ));
        watches.unwatch(SessionId::of_test(1), "user-0");
        assert!(watches.watch(
            SessionId::of_test(1),
            &"alice",
            &alice,
            &names(&["one-more"]),
            false
        ));
    }
}
