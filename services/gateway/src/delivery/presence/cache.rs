//! The presence of users as it was last published here. Versions keep an older change from overwriting a newer one, whatever way they take.

use std::collections::HashMap;

use parlance_proto::v1::{Presence, PresenceStatus};

/// The presence of users that sessions here may want to know.
#[derive(Debug, Default)]
pub(super) struct PresenceCache {
    known: HashMap<String, Presence>,
}

/// What a change comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PresenceUpdate {
    /// Nothing newer than what is known.
    Stale,
    /// To be emitted; what was emitted before, if anything.
    Newer(Option<PresenceStatus>),
}

impl PresenceCache {
    /// What is known of a user.
    pub(super) fn get(&self, user: &str) -> Option<&Presence> {
        self.known.get(user)
    }

    /// Whether something is known of a user.
    pub(super) fn knows(&self, user: &str) -> bool {
        self.known.contains_key(user)
    }

    /// Takes in a change.
    pub(super) fn put(&mut self, presence: &Presence) -> PresenceUpdate {
        match self.known.get_mut(&presence.user_id) {
            Some(known) if known.version >= presence.version => PresenceUpdate::Stale,
            Some(known) => {
                let before = known.status();
                known.clone_from(presence);
                PresenceUpdate::Newer(Some(before))
            }
            None => {
                self.known.insert(presence.user_id.clone(), presence.clone());
                PresenceUpdate::Newer(None)
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
    fn only_what_is_newer_is_emitted_and_once() {
        use PresenceStatus::{Offline, Online};
        let mut cache = PresenceCache::default();
        assert_eq!(cache.put(&presence(3, Online)), PresenceUpdate::Newer(None));
        assert_eq!(cache.put(&presence(3, Online)), PresenceUpdate::Stale);
        assert_eq!(cache.put(&presence(2, Offline)), PresenceUpdate::Stale);
        assert_eq!(cache.get("alice").unwrap().status(), Online);
        assert_eq!(
            cache.put(&presence(5, Offline)),
            PresenceUpdate::Newer(Some(Online))
        );
        assert_eq!(cache.put(&presence(4, Online)), PresenceUpdate::Stale);
        assert_eq!(cache.get("alice").unwrap().status(), Offline);
        cache.keep(|_| false);
        assert!(!cache.knows("alice"));
    }
}
