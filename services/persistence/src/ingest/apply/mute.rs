//! Muting a conversation: the actor's own affair, which takes no place in the sequence and which nobody else learns of.

use parlance_proto::v1;

use super::Scene;
use crate::model::permissions::Right;
use crate::model::refusals::refuse;
use crate::model::state::Outcome;
use crate::model::work::Mute;

/// Mutes, or ends that with `None`. Once more with another end moves the end.
pub(super) fn mute(scene: &mut Scene<'_>, mute: Option<Mute>) -> Result<Outcome, v1::Error> {
    scene.check(Right::Mute)?;
    if let Some(Mute {
        until_ms: Some(until_ms),
    }) = mute
        && until_ms <= scene.now_ms
    {
        return Err(refuse("until has passed; it is a time in the future, or absent"));
    }
    let key = (scene.id(), scene.actor().clone());
    scene.effects.muted.insert(key, mute);
    Ok(muted(scene, false))
}

/// The conversation as the actor sees it, muted or not.
pub(super) fn muted(scene: &Scene<'_>, repeated: bool) -> Outcome {
    Outcome::Muted {
        bare: Box::new(scene.bare()),
        repeated,
    }
}
