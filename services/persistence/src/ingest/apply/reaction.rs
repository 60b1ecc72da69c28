//! Marks on messages.

use std::collections::BTreeSet;

use parlance_proto::v1;
use prost::Message as _;

use super::CommandContext;
use super::message::quiet;
use crate::model::emoji::is_same;
use crate::model::events::EventParts;
use crate::model::permissions::Right;
use crate::model::refusals::{no_message, refuse};
use crate::model::state::{ChangeKind, Outcome};
use crate::model::work::React;

/// Different emoji on one message.
const MAX_EMOJI: usize = 50;
/// Marks on one message: it travels with all of them.
const MAX_MARKS: usize = 1_000;

pub(super) fn react(context: &mut CommandContext<'_>, react: &React) -> Result<Outcome, v1::Error> {
    context.check(Right::React)?;
    let id = context
        .conversation
        .message_id(react.message)
        .ok_or_else(no_message)?;
    let message = context.conversation.messages.get(&id).ok_or_else(no_message)?;
    if message.deleted_at_ms.is_some() {
        return Err(no_message());
    }
    // The form of the emoji that came first, so that all who mean it are counted together.
    let same = |mark: &&v1::Reaction| is_same(&mark.emoji, &react.emoji);
    let form = message.reactions.iter().find(same).map(|mark| &mark.emoji);
    let mark = v1::Reaction {
        user_id: context.actor().to_string(),
        emoji: form.unwrap_or(&react.emoji).clone(),
    };
    let place = message.reactions.iter().position(|other| *other == mark);
    if place.is_some() != react.remove {
        return Ok(quiet(message.clone()));
    }
    if !react.remove {
        let emoji: BTreeSet<&str> = message.reactions.iter().map(|mark| mark.emoji.as_str()).collect();
        if emoji.len() >= MAX_EMOJI && !emoji.contains(mark.emoji.as_str()) {
            return Err(refuse(format!("a message takes {MAX_EMOJI} different emoji")));
        }
        if message.reactions.len() >= MAX_MARKS {
            return Err(refuse(format!("a message takes {MAX_MARKS} reactions")));
        }
    }
    let message_seq = message.seq;
    let payload = v1::ReactionChanged {
        message: None,
        user_id: mark.user_id.clone(),
        emoji: mark.emoji.clone(),
        removed: react.remove,
    };
    let change = context.log(ChangeKind::Reaction, message_seq, payload.encode_to_vec());
    let key = (
        context.id(),
        message_seq,
        context.actor().clone(),
        mark.emoji.clone(),
    );
    context
        .effects
        .reactions
        .insert(key, (!react.remove).then_some((change.seq, change.at_ms)));
    let message = context
        .conversation
        .messages
        .get_mut(&id)
        .ok_or_else(no_message)?;
    match place {
        Some(place) => drop(message.reactions.remove(place)),
        None => message.reactions.push(mark),
    }
    let message = message.clone();
    let event = context.event(
        &change,
        EventParts {
            message: Some(message.clone()),
            ..EventParts::default()
        },
    );
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: false,
        event,
        hidden: false,
        then: Vec::new(),
    })
}
