//! What lists of conversations show of a room: its latest message, and each user's count. Kept right where nothing
//! new was sent: by deletions, edits, and what is read on another device.

use parlance_proto::v1::{ListState, Message};
use parlance_runtime::tasks;

use super::Room;
use crate::session::following::Unread;

/// The latest message, as far as it is known here, and the question for it.
#[derive(Default)]
pub(super) struct Lists {
    last: Option<Message>,
    /// Shown where nothing is left but what was deleted.
    tombstone: Option<Message>,
    /// An answer that is older than this seq is asked for once more.
    needed: u64,
    /// A question is under way.
    asked: bool,
    /// Whose count changed meanwhile.
    counted: Vec<String>,
}

impl Lists {
    pub(super) fn created(&mut self, message: &Message) {
        self.last = Some(message.clone());
    }

    /// A message that streams has more text, which lists show when they change the next time.
    pub(super) fn grown(&mut self, message: &Message) {
        if let Some(last) = self.last.as_mut().filter(|last| last.id == message.id) {
            last.content.clone_from(&message.content);
        }
    }

    pub(super) fn deleted(&mut self, message: &Message) {
        self.tombstone = Some(message.clone());
    }
}

impl Room {
    pub(super) fn edited(&mut self, message: &Message) {
        match &mut self.lists.last {
            Some(last) if last.id == message.id => {
                last.clone_from(message);
                self.audience.update_lists(&self.place, message, |_| true);
            }
            Some(_) => {}
            None => self.look_up_lists(),
        }
    }

    /// What this user has not read is another number.
    pub(super) fn counted(&mut self, user: &str) {
        match &self.lists.last {
            Some(last) => self
                .audience
                .update_lists(&self.place, last, |other| other == user),
            None => {
                self.lists.counted.push(user.to_owned());
                self.look_up_lists();
            }
        }
    }

    /// Asks what is latest now, and what of it those concerned have not read: one question for all of them, beside the
    /// room, because an answer that takes long must not hold up what comes next.
    pub(super) fn look_up_lists(&mut self) {
        self.lists.needed = self.head_seq;
        if std::mem::replace(&mut self.lists.asked, true) {
            return;
        }
        let users = self.audience.with_unread();
        let (rooms, conversation) = (self.rooms.clone(), self.conversation);
        tasks::spawn("look up lists", async move {
            // Without an answer the next change is looked up.
            let state = rooms.backend.list_state(conversation, &users).await;
            rooms.listed(conversation, state.unwrap_or_default());
        });
    }

    pub(super) fn listed(&mut self, state: ListState) {
        self.lists.asked = false;
        if state.head_seq == 0 {
            return;
        }
        if state.head_seq < self.lists.needed {
            self.look_up_lists();
            return;
        }
        let mut changed = std::mem::take(&mut self.lists.counted);
        for counted in state.unread {
            let unread = Unread {
                count: counted.unread,
                head_seq: state.head_seq,
            };
            if self.audience.set_unread(&counted.user_id, unread) {
                changed.push(counted.user_id);
            }
        }
        // What came live meanwhile is later.
        let before = self.lists.last.take();
        let is_newer = |last: &Message| last.seq > state.head_seq;
        let known = before.clone();
        self.lists.last = before.filter(is_newer).or(state.last_message);
        let latest = self.lists.last.as_ref().or(self.lists.tombstone.as_ref());
        let Some(latest) = latest else {
            return;
        };
        let is_same = known.as_ref() == Some(latest);
        let concerns = |user: &str| !is_same || changed.iter().any(|other| other == user);
        self.audience.update_lists(&self.place, latest, concerns);
    }
}
