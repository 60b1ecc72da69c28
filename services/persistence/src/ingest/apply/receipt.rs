//! What participants got and read: both only grow, and only growth makes a new version.

use parlance_proto::v1::{self, ErrorCode};

use super::CommandContext;
use crate::model::permissions::Right;
use crate::model::read_set::ReadSet;
use crate::model::refusals::{no_conversation, refuse};
use crate::model::state::{Outcome, Reader};
use crate::model::work::Receive;

pub(super) fn receive(context: &mut CommandContext<'_>, receive: &Receive) -> Result<Outcome, v1::Error> {
    context.check(Right::Receipts)?;
    let seqs: Vec<u64> = receive
        .messages
        .iter()
        .filter_map(|&name| context.conversation.message(name))
        .map(|m| m.seq)
        .collect();
    if receive.up_to == 0 && seqs.is_empty() {
        return Err(refuse("none of message_ids is a message of this conversation"));
    }
    let latest = seqs.iter().copied().max().filter(|_| receive.through);
    let up_to = receive
        .up_to
        .max(latest.unwrap_or_default())
        .min(context.conversation.head_seq);
    let key = (context.work.conversation, context.work.actor.id.clone());
    let Some(member) = context.conversation.members.get_mut(&key.1) else {
        return Err(no_conversation());
    };
    let mut all_read = member.read.clone();
    let mut has_read = false;
    if !receive.delivered_only {
        has_read = all_read.insert(1, up_to);
        for &seq in &seqs {
            has_read |= all_read.insert(seq, seq);
        }
        // A set that is larger already may still shrink.
        if all_read.ranges() > ReadSet::MOST_RANGES.max(member.read.ranges()) {
            return Err(too_scattered());
        }
    }
    let reader = context.effects.readers.entry(key).or_insert_with(|| Reader {
        read: member.read.clone(),
        delivered_seq: member.delivered_seq,
        news: false,
        has_read: false,
    });
    // Deliveries are in order: what came last came after all before it.
    let delivered = seqs.iter().copied().fold(up_to, u64::max);
    let grown = has_read || delivered > member.delivered_seq;
    member.delivered_seq = member.delivered_seq.max(delivered);
    member.read = all_read;
    reader.has_read |= has_read;
    // All marks of one participant in one batch are one change.
    if grown && !reader.news {
        reader.news = true;
        context.conversation.receipts_version += 1;
        member.receipts_version = context.conversation.receipts_version;
        context.effects.moved.insert(context.work.conversation);
    }
    Ok(Outcome::Receipt)
}

fn too_scattered() -> v1::Error {
    let most = ReadSet::MOST_RANGES;
    let message = format!(
        "what is read would be more than {most} separate ranges: mark everything through a message or up to a seq"
    );
    v1::Error::with(ErrorCode::TooCostly, message)
}
