//! Marking messages as read: the set only grows, and only growth makes a new version.

use parlance_proto::MessageId;
use parlance_proto::v1;

use super::no_conversation;
use crate::ingest::state::{ConversationState, Effects, Outcome};
use crate::ingest::work::{Work, refuse};

pub(super) fn read(
    conversation: &mut ConversationState,
    effects: &mut Effects,
    work: &Work,
    up_to: u64,
    messages: &[MessageId],
) -> Result<Outcome, v1::Error> {
    let member = conversation
        .members
        .get_mut(&work.actor.id)
        .ok_or_else(no_conversation)?;
    let seqs: Vec<u64> = messages
        .iter()
        .filter_map(|id| conversation.messages.get(id))
        .map(|m| m.seq)
        .collect();
    if up_to == 0 && seqs.is_empty() {
        return Err(refuse("none of message_ids is a message of this conversation"));
    }
    let mut grown = member.read.insert(1, up_to.min(conversation.head_seq));
    for seq in seqs {
        grown |= member.read.insert(seq, seq);
    }
    let first_news = {
        let news = effects
            .readers
            .entry((work.conversation, work.actor.id.clone()))
            .or_default();
        let first = grown && !*news;
        *news |= grown;
        first
    };
    // All marks of one participant in one batch are one change.
    if first_news {
        conversation.receipts_version += 1;
        member.receipts_version = conversation.receipts_version;
        effects.moved.insert(work.conversation);
    }
    Ok(Outcome::Receipt)
}
