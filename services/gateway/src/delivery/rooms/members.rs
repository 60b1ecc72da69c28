//! Who is in which of the conversations followed here: the way from a user to those who share a conversation.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parlance_proto::v1::ConversationKind;
use parlance_proto::{ConversationId, UserId};

use crate::delivery::presence_input::{Happened, PresenceReports};
use crate::dialect::Place;

/// The members of all followed conversations, journals and large groups left out. Cheap to clone.
#[derive(Clone)]
pub struct Members {
    table: Arc<Mutex<HashMap<String, HashSet<ConversationId>>>>,
    pub(super) reports: PresenceReports,
}

impl Members {
    /// Nobody yet.
    pub fn new(reports: PresenceReports) -> Self {
        Self {
            table: Arc::default(),
            reports,
        }
    }

    /// The conversations followed here that a user is in.
    pub fn conversations_of(&self, user: &str) -> Vec<ConversationId> {
        let table = self.lock();
        table.get(user).into_iter().flatten().copied().collect()
    }

    /// Whether a user is in any conversation followed here.
    pub fn is_known(&self, user: &str) -> bool {
        self.lock().contains_key(user)
    }

    /// How often a user left a conversation followed here.
    pub fn removals(&self) -> u64 {
        self.reports.removals()
    }

    /// Some users are hidden from a user from now on, and others no more.
    pub fn hidden(&self, user: UserId, hidden: Vec<String>, shown: Vec<String>) {
        self.reports.report(Happened::Hidden { user, hidden, shown });
    }

    /// A conversation is another one now, or not followed any more.
    pub(super) fn changed(&self, before: Option<&Place>, after: Option<&Place>) {
        let (before, now) = (ids(before), ids(after));
        let added: Vec<String> = now.difference(&before).map(|id| (*id).to_owned()).collect();
        let Some(conversation) = after.map(|place| place.id) else {
            return;
        };
        let mut table = self.lock();
        for user in &added {
            table.entry(user.clone()).or_default().insert(conversation);
        }
        for user in before.difference(&now) {
            remove(&mut table, user, conversation);
        }
        drop(table);
        // Of a conversation that is followed anew everyone is greeted who is attached to it.
        if !before.is_empty() && !added.is_empty() {
            self.reports.report(Happened::Joined(conversation, added));
        }
    }

    /// A conversation is not followed any more.
    pub(super) fn forget(&self, place: &Place) {
        let mut table = self.lock();
        for user in ids(Some(place)) {
            remove(&mut table, user, place.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<ConversationId>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(table: &mut HashMap<String, HashSet<ConversationId>>, user: &str, conversation: ConversationId) {
    if let Some(conversations) = table.get_mut(user) {
        conversations.remove(&conversation);
        if conversations.is_empty() {
            table.remove(user);
        }
    }
}

fn ids(place: Option<&Place>) -> HashSet<&str> {
    place
        .filter(|place| place.kind != ConversationKind::Journal)
        .into_iter()
        .flat_map(|place| &place.participants)
        .map(|participant| participant.user_id.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::Participant;

    use super::*;

    fn place(number: i64, kind: ConversationKind, users: &[&str]) -> Place {
        let participant = |user: &&str| Participant {
            user_id: (*user).into(),
            ..Participant::default()
        };
        Place {
            id: format!("0190a6e0-0000-7000-8000-{number:012}").parse().unwrap(),
            number,
            kind,
            title: String::new(),
            participants: users.iter().map(participant).collect(),
            participant_count: users.len() as u64,
            head_seq: 0,
        }
    }

    #[test]
    fn members_come_and_go_with_their_conversations() {
        let (reports, mut inbox) = crate::delivery::presence_input::channel();
        let members = Members::new(reports);
        let group = |users: &[&str]| place(1, ConversationKind::Group, users);
        let first = group(&["alice", "bob"]);
        members.changed(None, Some(&first));
        assert!(inbox.next_waiting().is_none());
        let second = group(&["bob", "carol"]);
        members.changed(Some(&first), Some(&second));
        let Some(Happened::Joined(id, users)) = inbox.next_waiting() else {
            panic!("carol joined");
        };
        assert_eq!((id, users), (first.id, vec!["carol".to_owned()]));
        assert!(!members.is_known("alice"));
        let other = place(2, ConversationKind::Direct, &["bob", "dora"]);
        members.changed(None, Some(&other));
        members.changed(None, Some(&place(3, ConversationKind::Journal, &["eve", "bob"])));
        assert_eq!(members.conversations_of("bob").len(), 2);
        assert!(!members.is_known("eve"));
        members.forget(&second);
        assert_eq!(members.conversations_of("bob"), [other.id]);
        assert!(!members.is_known("carol"));
    }
}
