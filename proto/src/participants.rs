//! Which participants a conversation lists where it has more than one answer carries.

use crate::v1::{Conversation, Participant};

impl Conversation {
    /// Has the viewer among the participants that are listed, with all that is known of them: in the place of the last one
    /// where they are left out.
    pub fn list_viewer(&mut self, viewer: Participant) {
        let mut listed = self.participants.iter_mut();
        match listed.find(|participant| participant.user_id == viewer.user_id) {
            Some(listed) => {
                let presence = listed.presence.take();
                *listed = viewer;
                listed.presence = listed.presence.take().or(presence);
            }
            None => {
                self.participants.pop();
                self.participants.push(viewer);
            }
        }
    }

    /// Whether the user is one of the participants that are listed.
    pub fn lists(&self, user: &str) -> bool {
        self.participants
            .iter()
            .any(|participant| participant.user_id == user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn participant(user: &str) -> Participant {
        Participant {
            user_id: user.into(),
            ..Participant::default()
        }
    }

    #[test]
    fn a_viewer_is_listed_once_and_no_more_are_than_before() {
        let mut conversation = Conversation {
            participants: vec![participant("alice"), participant("bob")],
            ..Conversation::default()
        };
        conversation.list_viewer(participant("alice"));
        conversation.list_viewer(participant("zoe"));
        let listed = conversation.participants.iter().map(|one| one.user_id.as_str());
        assert_eq!(listed.collect::<Vec<_>>(), ["alice", "zoe"]);
    }
}
