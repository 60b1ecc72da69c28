//! What was told of whom. Versions keep an older change from overwriting a newer one, whatever way they take.

use std::collections::HashMap;

use parlance_proto::v1::{Presence, PresenceStatus};

/// The users whose presence somebody here may want to know.
#[derive(Debug, Default)]
pub(super) struct Board {
    known: HashMap<String, Presence>,
}

/// What a piece of news comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing newer than what is known.
    Old,
    /// To be told; what was told before, if anything.
    Told(Option<PresenceStatus>),
}

impl Board {
    /// What is known of a user.
    pub(super) fn get(&self, user: &str) -> Option<&Presence> {
        self.known.get(user)
    }

    /// Whether something is known of a user.
    pub(super) fn knows(&self, user: &str) -> bool {
        self.known.contains_key(user)
    }

    /// Takes in what is so.
    pub(super) fn put(&mut self, presence: &Presence) -> News {
        match self.known.get_mut(&presence.user_id) {
            Some(known) if known.version >= presence.version => News::Old,
            Some(known) => {
                let before = known.status();
                known.clone_from(presence);
                News::Told(Some(before))
            }
            None => {
                self.known.insert(presence.user_id.clone(), presence.clone());
                News::Told(None)
            }
        }
    }

    /// Forgets those that nobody here may want to know any more.
    pub(super) fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.known.retain(|user, _| wanted(user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(version: u64, status: PresenceStatus) -> Presence {
        Presence {
            user_id: "alice".into(),
            version,
            status: status.into(),
            ..Presence::default()
        }
    }

    #[test]
    fn only_what_is_newer_is_told_and_once() {
        use PresenceStatus::{Offline, Online};
        let mut board = Board::default();
        assert_eq!(board.put(&presence(3, Online)), News::Told(None));
        assert_eq!(board.put(&presence(3, Online)), News::Old);
        assert_eq!(board.put(&presence(2, Offline)), News::Old);
        assert_eq!(board.get("alice").unwrap().status(), Online);
        assert_eq!(board.put(&presence(5, Offline)), News::Told(Some(Online)));
        assert_eq!(board.put(&presence(4, Online)), News::Old);
        assert_eq!(board.get("alice").unwrap().status(), Offline);
        board.keep(|_| false);
        assert!(!board.knows("alice"));
    }
}
