//! Room for what each user may have under way at once.
//!
//! A user who has nothing under way, and for whom nobody waits, leaves no trace. Must not know what is done.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use parlance_proto::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ClientError;

type Rooms = Arc<Mutex<HashMap<UserId, Arc<Semaphore>>>>;

/// The slots of all users. Cheap to clone.
#[derive(Clone)]
pub struct Slots {
    per_user: NonZeroUsize,
    rooms: Rooms,
}

/// One of them, until it is dropped; or a place in the queue for one.
pub struct Slot {
    user: UserId,
    rooms: Rooms,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// None is taken; a user has so many.
    pub fn new(per_user: NonZeroUsize) -> Self {
        Self {
            per_user,
            rooms: Rooms::default(),
        }
    }

    /// One of the user's slots; `None` where all are taken.
    pub fn take(&self, user: UserId) -> Option<Slot> {
        let mut slot = self.queue(user);
        slot.permit = Some(self.room(&slot.user).try_acquire_owned().ok()?);
        Some(slot)
    }

    /// The same as soon as one is free, in the order of the calls.
    ///
    /// # Errors
    /// None in practice: the slots are never closed.
    pub async fn wait(&self, user: UserId) -> Result<Slot, ClientError> {
        let mut slot = self.queue(user);
        let permit = self.room(&slot.user).acquire_owned().await;
        slot.permit = Some(permit.map_err(|_| ClientError::internal())?);
        Ok(slot)
    }

    fn queue(&self, user: UserId) -> Slot {
        Slot {
            user,
            rooms: Arc::clone(&self.rooms),
            permit: None,
        }
    }

    fn room(&self, user: &UserId) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.entry(user.clone());
        Arc::clone(room.or_insert_with(|| Arc::new(Semaphore::new(self.per_user.get()))))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        self.permit = None;
        // Nobody has a slot of it, or waits for one.
        if let Entry::Occupied(room) = rooms.entry(self.user.clone())
            && Arc::strong_count(room.get()) == 1
        {
            room.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn slots(per_user: usize) -> Slots {
        Slots::new(NonZeroUsize::new(per_user).unwrap())
    }

    fn is_empty(slots: &Slots) -> bool {
        slots.rooms.lock().unwrap().is_empty()
    }

    #[test]
    fn a_user_has_so_many_under_way_and_no_trace_once_they_ended() {
        let slots = slots(8);
        let mut taken: Vec<_> = (0..8).map(|_| slots.take(user("alice")).unwrap()).collect();
        assert!(slots.take(user("alice")).is_none());
        assert!(slots.take(user("bob")).is_some());
        taken.pop();
        assert!(slots.take(user("alice")).is_some());
        taken.clear();
        assert!(is_empty(&slots));
    }

    #[tokio::test]
    async fn slots_are_given_in_the_order_of_the_calls() {
        let slots = slots(8);
        let mut taken: Vec<_> = (0..8).map(|_| slots.take(user("alice")).unwrap()).collect();
        let (first, second) = (slots.wait(user("alice")), slots.wait(user("alice")));
        tokio::pin!(first, second);
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        taken.pop();
        assert!(futures::poll!(&mut second).is_pending());
        let first = first.await.ok().unwrap();
        drop((taken, first));
        drop(second.await.ok().unwrap());
        assert!(is_empty(&slots));
    }

    #[tokio::test]
    async fn who_waits_no_more_leaves_no_trace() {
        let slots = slots(1);
        let taken = slots.take(user("alice")).unwrap();
        let mut waiting = Box::pin(slots.wait(user("alice")));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(taken);
        drop(waiting);
        assert!(is_empty(&slots));
    }
}
