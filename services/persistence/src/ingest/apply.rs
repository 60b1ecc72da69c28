//! Carries commands out, in order, on what was loaded: gives seqs, finds repeats, checks rights.
//!
//! Pure: no database, no clock, no bus. Every rule of a conversation stands here or in `permissions`;
//! nothing that a client can observe is decided anywhere else. Later commands see the effects of earlier ones.

mod create;
mod message;
mod receipt;
#[cfg(test)]
mod tests;

use parlance_proto::v1::{self, ErrorCode};

use super::state::{ConversationState, Effects, Loaded, Outcome};
use super::work::{Action, Work};

/// Applies all commands of a batch and tells what to write and to answer.
pub fn apply<'a>(loaded: &mut Loaded, works: impl IntoIterator<Item = &'a Work>) -> Effects {
    let mut effects = Effects::default();
    for work in works {
        let outcome = one(loaded, &mut effects, work).unwrap_or_else(Outcome::Rejected);
        effects.outcomes.push(outcome);
    }
    effects
}

fn one(loaded: &mut Loaded, effects: &mut Effects, work: &Work) -> Result<Outcome, v1::Error> {
    if let Action::Create(create) = &work.action {
        return create::create(loaded, effects, work, create);
    }
    let now_ms = loaded.now_ms;
    let conversation = loaded
        .conversations
        .get_mut(&work.conversation)
        .ok_or_else(no_conversation)?;
    match &work.action {
        Action::Create(_) => Err(no_conversation()),
        Action::Send(send) => message::send(conversation, effects, work, send, now_ms),
        Action::Edit { message, content } => {
            message::change(conversation, effects, work, *message, Some(content), now_ms)
        }
        Action::Delete { message } => message::change(conversation, effects, work, *message, None, now_ms),
        Action::Read { up_to, messages } => receipt::read(conversation, effects, work, *up_to, messages),
    }
}

impl ConversationState {
    /// The next place in the sequence.
    fn next_seq(&mut self) -> u64 {
        self.head_seq += 1;
        self.head_seq
    }

    /// Time never runs backwards within a conversation, whichever machine the database runs on.
    fn time(&self, now_ms: i64) -> i64 {
        now_ms.max(self.updated_at_ms)
    }
}

/// The answer to everyone who may not know whether the conversation exists.
pub fn no_conversation() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such conversation")
}
