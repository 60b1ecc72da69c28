//! Who may be attached to a room. The members of a small group are held by the room; of a large one it asks for those
//! who come, beside what happens in it, and in one query with what other rooms ask.
//!
//! Nobody is attached who was removed while the question was under way: then it is asked once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use parlance_proto::UserId;
use parlance_runtime::tasks;
use tokio::sync::oneshot;

use super::{Room, retries};
use crate::delivery::rooms::{Attached, Request};
use crate::error::ClientError;
use crate::session::following::Following;
use crate::session::{Session, SessionId};

/// A session that waits to be attached.
pub(super) struct Waiting {
    pub(super) session: Arc<Session>,
    pub(super) following: Following,
    pub(super) reply: oneshot::Sender<Result<Attached, ClientError>>,
}

/// Sessions that wait until it is known whether their users are participants.
#[derive(Default)]
pub(super) struct Admissions {
    waiting: HashMap<UserId, Vec<Waiting>>,
    /// Grows with each user who is removed.
    removals: u64,
}

impl Admissions {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The client left before it was attached.
    pub(super) fn leave(&mut self, id: SessionId) {
        for one in self.waiting.values_mut().flatten() {
            if one.session.id == id {
                one.following.joined = false;
                one.following.missed = None;
            }
        }
    }

    /// The session ended before it was attached.
    pub(super) fn detach(&mut self, id: SessionId) {
        for sessions in self.waiting.values_mut() {
            sessions.retain(|one| one.session.id != id);
        }
    }

    /// Somebody is no participant any more.
    pub(super) fn removed(&mut self) {
        self.removals += 1;
    }
}

impl Room {
    /// Attaches a session if its user is a participant, at once or when that is known.
    pub(super) async fn let_in(&mut self, one: Waiting) {
        let user = &one.session.user;
        if let Some(waiting) = self.admissions.waiting.get_mut(user) {
            waiting.push(one);
        } else if self.place.is_whole() {
            let mut is_participant = self.place.participant(user.as_str()).is_some();
            if !is_participant {
                // Perhaps since we looked.
                match self.load().await {
                    Ok(()) if !self.place.is_whole() => return self.ask_for(one),
                    Ok(()) => is_participant = self.place.participant(user.as_str()).is_some(),
                    // Whoever asked may have gone.
                    Err(error) => return drop(one.reply.send(Err(error))),
                }
            }
            self.settle(one, is_participant).await;
        } else if self.audience.has(user) {
            self.settle(one, true).await;
        } else {
            self.ask_for(one);
        }
    }

    /// Those of the users who are no participants, for as long as it takes to know.
    pub(super) async fn others_among(&self, users: HashSet<UserId>) -> Vec<UserId> {
        let asked = users.into_iter().map(|user| async {
            let is_participant = self.is_participant(&user).await;
            (!is_participant).then_some(user)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn is_participant(&self, user: &UserId) -> bool {
        if self.place.is_whole() {
            return self.place.participant(user.as_str()).is_some();
        }
        let backend = &self.rooms.backend;
        let mut backoff = retries();
        loop {
            match backend.member(self.conversation, user.as_str()).await {
                Ok(found) => return found.is_some(),
                // Nobody is emitted anything more.
                Err(_) if !backend.pause(&mut backoff).await => return true,
                Err(_) => {}
            }
        }
    }

    /// Takes in whether a user is a participant.
    pub(super) async fn admit(&mut self, user: UserId, found: Result<bool, ClientError>, removals: u64) {
        let waiting = self.admissions.waiting.remove(&user).unwrap_or_default();
        let is_outdated = removals != self.admissions.removals;
        for one in waiting {
            match &found {
                Ok(true) if is_outdated => self.ask_for(one),
                Ok(is_participant) => self.settle(one, *is_participant).await,
                // Whoever asked may have gone.
                Err(error) => drop(one.reply.send(Err(error.clone()))),
            }
        }
    }

    fn ask_for(&mut self, one: Waiting) {
        let user = one.session.user.clone();
        let waiting = self.admissions.waiting.entry(user.clone()).or_default();
        waiting.push(one);
        if waiting.len() > 1 {
            return;
        }
        let (rooms, conversation) = (self.rooms.clone(), self.conversation);
        let removals = self.admissions.removals;
        tasks::spawn("admit to a room", async move {
            let found = rooms.backend.member(conversation, user.as_str()).await;
            let found = found.map(|participant| participant.is_some());
            let answer = Request::Admit {
                user,
                found,
                removals,
            };
            rooms.send(conversation, answer);
        });
    }

    async fn settle(&mut self, one: Waiting, is_participant: bool) {
        let Waiting {
            session,
            following,
            reply,
        } = one;
        let outcome = match is_participant {
            true => self.attach(session, following).await,
            false => Err(ClientError::no_conversation()),
        };
        // Whoever asked has gone; the session detaches by itself.
        drop(reply.send(outcome));
    }
}
