//! Tokens that are void before their time. Knows only what it is told, and forgets what has expired anyway.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use parlance_proto::UserId;

use super::Grant;

/// The list of revocations. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The list is not read yet: who is on it is not known.
    awaited: AtomicBool,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Token ids, with the end of the token in seconds since 1970 where it is known.
    tokens: HashMap<String, Option<i64>>,
    /// Tokens issued before this are void.
    users: HashMap<UserId, i64>,
    /// Expired entries are looked for once there are so many.
    full: usize,
}

/// Fewest entries worth looking for expired ones.
const FEW: usize = 1024;

impl Revocations {
    /// Until [`Revocations::set_read`] no token can be told from a revoked one.
    pub fn await_reading(&self) {
        self.0.awaited.store(true, Ordering::Release);
    }

    /// What was revoked so far is on the list.
    pub fn set_read(&self) {
        self.0.awaited.store(false, Ordering::Release);
    }

    /// Whether what was revoked so far is on the list.
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.0.awaited.load(Ordering::Acquire)
    }

    /// Puts a token on the list. `expires_at`: its own end, if known.
    pub fn revoke_token(&self, token_id: String, expires_at: Option<i64>, now: i64) {
        let mut table = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        table.tokens.insert(token_id, expires_at);
        if table.tokens.len() >= table.full.max(FEW) {
            // Whoever has a token that is over is refused without the list; the leeway is seconds.
            table.tokens.retain(|_, end| end.is_none_or(|end| end + 60 > now));
            table.full = table.tokens.len() * 2;
        }
    }

    /// Puts all tokens of a user on the list that were issued before, in seconds since 1970. Never fewer
    /// than are on it already.
    pub fn revoke_user(&self, user: UserId, issued_before: i64) {
        let mut table = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = table.users.entry(user).or_insert(issued_before);
        *before = issued_before.max(*before);
    }

    /// Whether a token of this user is on the list.
    #[must_use]
    pub fn includes(&self, user: &UserId, grant: &Grant) -> bool {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        let token = grant.token_id.as_ref();
        let issued_too_early = |before: &i64| grant.issued_at.is_none_or(|issued| issued < *before);
        token.is_some_and(|id| table.tokens.contains_key(id))
            || table.users.get(user).is_some_and(issued_too_early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn grant(token_id: Option<&str>, issued_at: Option<i64>) -> Grant {
        Grant {
            expires_at: NOW + 60,
            issued_at,
            token_id: token_id.map(str::to_owned),
        }
    }

    #[test]
    fn a_token_is_on_the_list_by_its_own_id_whoever_has_it() {
        let list = Revocations::default();
        list.revoke_token("t-1".to_owned(), Some(NOW + 60), NOW);
        assert!(list.includes(&user("alice"), &grant(Some("t-1"), None)));
        assert!(!list.includes(&user("alice"), &grant(Some("t-2"), None)));
        assert!(!list.includes(&user("alice"), &grant(None, None)));
    }

    #[test]
    fn a_user_s_earlier_tokens_are_on_the_list_and_those_that_do_not_say_when() {
        let list = Revocations::default();
        list.revoke_user(user("alice"), NOW);
        list.revoke_user(user("alice"), NOW - 100);
        let alice = user("alice");
        assert!(list.includes(&alice, &grant(None, Some(NOW - 1))));
        assert!(list.includes(&alice, &grant(Some("t"), None)));
        assert!(!list.includes(&alice, &grant(None, Some(NOW))));
        assert!(!list.includes(&user("bob"), &grant(None, Some(NOW - 1))));
    }

    #[test]
    fn tokens_that_have_ended_leave_the_list_and_others_stay() {
        let list = Revocations::default();
        list.revoke_token("unknown end".to_owned(), None, NOW);
        list.revoke_token("later".to_owned(), Some(NOW + 10_000), NOW);
        for number in 0..10 * FEW {
            list.revoke_token(format!("t-{number}"), Some(NOW + 10), NOW + 5_000);
        }
        assert!(list.0.table.read().unwrap().tokens.len() <= 2 * FEW);
        for id in ["unknown end", "later"] {
            assert!(list.includes(&user("alice"), &grant(Some(id), None)), "{id}");
        }
    }
}
