//! Muting a conversation: the actor's own affair, which takes no place in the sequence and which nobody else learns of.

use parlance_proto::v1;

use super::CommandContext;
use crate::model::permissions::Right;
use crate::model::refusals::refuse;
use crate::model::state::Outcome;
use crate::model::work::Mute;

/// Mutes, or ends that with `None`. Once more with another end moves the end.
pub(super) fn mute(context: &mut CommandContext<'_>, mute: Option<Mute>) -> Result<Outcome, v1::Error> {
    context.check(Right::Mute)?;
    if let Some(Mute {
        until_ms: Some(until_ms),
    }) = mute
        && until_ms <= context.now_ms
    {
        return Err(refuse("until has passed; it is a time in the future, or absent"));
    }
    let key = (context.id(), context.actor().clone());
    context.effects.muted.insert(key, mute);
    Ok(muted(context, false))
}

/// The conversation as the actor sees it, muted or not.
pub(super) fn muted(context: &CommandContext<'_>, repeated: bool) -> Outcome {
    Outcome::Muted {
        bare: Box::new(context.bare()),
        repeated,
    }
}
