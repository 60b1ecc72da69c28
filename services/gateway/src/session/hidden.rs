//! The users whose presence and typing are hidden from the sessions of one user: those the user has blocked, and those who have
//! blocked the user. Shared by all sessions of the user here. Must not say which of both they are: clients learn nothing of
//! those who have blocked them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use tokio::sync::{Mutex, MutexGuard};

/// See the module.
#[derive(Debug, Default)]
pub struct Hidden {
    /// Whether any is: most users have no blocks, and this is read for every ephemeral event.
    any: AtomicBool,
    users: RwLock<HiddenUsers>,
    reading: Mutex<()>,
}

/// Those who are hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HiddenUsers {
    /// These.
    pub ids: HashSet<String>,
    /// Everybody, because there are more than are held.
    pub everybody: bool,
}

/// What a reading changed, as far as users are named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HiddenChanges {
    /// Those who are hidden now and were not.
    pub hidden: Vec<String>,
    /// Those who were hidden and are not any more.
    pub shown: Vec<String>,
}

impl Hidden {
    /// Whether the user is hidden. What comes from no user, whose id is empty, is not.
    pub fn hides(&self, user: &str) -> bool {
        if user.is_empty() || !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.everybody || users.ids.contains(user)
    }

    /// The turn to read them: what is read last counts, so it must have been asked for last.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Takes over what was read. Returns what that changed.
    pub fn replace(&self, now: HiddenUsers) -> HiddenChanges {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let changes = HiddenChanges {
            hidden: now.ids.difference(&users.ids).cloned().collect(),
            shown: users.ids.difference(&now.ids).cloned().collect(),
        };
        self.any
            .store(now.everybody || !now.ids.is_empty(), Ordering::Relaxed);
        *users = now;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(ids: &[&str], everybody: bool) -> HiddenUsers {
        HiddenUsers {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            everybody,
        }
    }

    #[test]
    fn what_was_read_last_is_hidden_and_nothing_else() {
        let hidden = Hidden::default();
        assert!(!hidden.hides("bob"));
        let changes = hidden.replace(users(&["bob"], false));
        assert_eq!(changes.hidden, ["bob"]);
        assert!(hidden.hides("bob") && !hidden.hides("carol"));
        let changes = hidden.replace(users(&["carol"], false));
        assert_eq!(
            (changes.hidden, changes.shown),
            (vec!["carol".to_owned()], vec!["bob".to_owned()])
        );
        assert!(!hidden.hides("bob") && hidden.hides("carol"));
        hidden.replace(users(&[], true));
        assert!(hidden.hides("bob") && !hidden.hides(""));
        hidden.replace(HiddenUsers::default());
        assert!(!hidden.hides("bob") && !hidden.hides("carol"));
    }
}
