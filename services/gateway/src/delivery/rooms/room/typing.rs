//! Who types in a room. A typist whose end is not heard of, because their gateway was lost, ends by itself.

use std::collections::HashMap;
use std::time::Duration;

use parlance_proto::v1::Typing;
use tokio::time::Instant;

use super::Room;
use crate::clock::now;
use crate::dialect::Outbound;

/// How long somebody types without saying so again.
const LASTS: Duration = Duration::from_secs(10);

/// The participants who type, each until when.
#[derive(Default)]
pub(super) struct Typists(HashMap<String, (Typing, Instant)>);

impl Typists {
    pub(super) fn saw(&mut self, typing: &Typing, now: Instant) {
        if typing.is_typing {
            let until = now + LASTS;
            self.0.insert(typing.user_id.clone(), (typing.clone(), until));
        } else {
            self.0.remove(&typing.user_id);
        }
    }

    /// When the next of them ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|(_, until)| *until).min()
    }

    /// Those who have ended by then, as the event that says so.
    fn ended(&mut self, by: Instant) -> Vec<Typing> {
        let ended = self.0.extract_if(|_, (_, until)| *until <= by);
        ended
            .map(|(_, (typing, _))| Typing {
                is_typing: false,
                at_ms: now().timestamp_millis(),
                ..typing
            })
            .collect()
    }
}

impl Room {
    pub(super) fn end_typing(&mut self) {
        for typing in self.typing.ended(Instant::now()) {
            let ended = Outbound::Typing(&self.place, &typing);
            self.audience.whisper(ended, &typing.user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typing(user: &str, is_typing: bool) -> Typing {
        Typing {
            user_id: user.into(),
            is_typing,
            ..Typing::default()
        }
    }

    #[test]
    fn typing_that_is_neither_renewed_nor_ended_ends_by_itself() {
        let (mut typists, start) = (Typists::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        typists.saw(&typing("alice", true), start);
        typists.saw(&typing("bob", true), after(4));
        typists.saw(&typing("carol", true), after(5));
        typists.saw(&typing("carol", false), after(6));
        assert_eq!(typists.next_end(), Some(after(10)));
        let ended: Vec<_> = typists
            .ended(after(11))
            .into_iter()
            .map(|one| (one.user_id, one.is_typing))
            .collect();
        assert_eq!(ended, [("alice".to_owned(), false)]);
        typists.saw(&typing("bob", true), after(12));
        assert!(typists.ended(after(20)).is_empty());
        assert_eq!(typists.ended(after(22)).len(), 1);
        assert_eq!(typists.next_end(), None);
    }
}
