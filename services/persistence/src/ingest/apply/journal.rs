//! Changes of a journal's text, merged with whatever others did meanwhile.

use parlance_journal::{EMPTY_UPDATE, Error};
use parlance_proto::v1::{self, ErrorCode};

use super::CommandContext;
use crate::model::events::EventParts;
use crate::model::journal::{Journal, Limits, Refusal};
use crate::model::permissions::Right;
use crate::model::state::{ChangeKind, Effects, JournalState, Loaded, Outcome, Version};

/// Versions between two that are stored with the whole document, at most.
const CHECKPOINT_EVERY: u64 = 32;
/// Bytes of updates between them above which the document is stored, if it is no larger than they are.
const CHECKPOINT_BYTES: usize = 64 * 1024;
/// Bytes of a text that is stored with each version: it costs less than to make it of updates when it is asked for.
const SMALL_TEXT: usize = 8 * 1024;

/// Merges an update. An empty one only asks how the edit with its command id was answered, and comes here where there was
/// none.
pub(super) fn edit(context: &mut CommandContext<'_>, update: &[u8]) -> Result<Outcome, v1::Error> {
    context.check(Right::EditText)?;
    if update.is_empty() {
        let message = "no such change was processed";
        return Err(v1::Error::with(ErrorCode::Conflict, message));
    }
    let limits = &context.bounds.journals;
    let is_new = present(context)?.journal.merge(update, limits).map_err(refused)?;
    if !is_new {
        return Ok(Outcome::Journal {
            edited: Box::new(unchanged(context)?),
            repeated: true,
            event: None,
        });
    }
    Ok(log(context, update))
}

/// A new document, with a first text if there is an update.
pub(super) fn begin(update: &[u8], limits: &Limits) -> Result<Journal, v1::Error> {
    let mut journal = Journal::new(Vec::new());
    if !update.is_empty() {
        journal.merge(update, limits).map_err(refused)?;
    }
    Ok(journal)
}

/// Stores the first version of a new document.
pub(super) fn first(context: &mut CommandContext<'_>, journal: Journal, update: &[u8]) -> Outcome {
    context.conversation.journal = Some(JournalState::new(journal));
    log(context, if update.is_empty() { EMPTY_UPDATE } else { update })
}

/// Takes the next seq for a version that is merged, with its event.
fn log(context: &mut CommandContext<'_>, update: &[u8]) -> Outcome {
    let change = context.log(ChangeKind::JournalEdited, 0, Vec::new());
    let id = context.id();
    if let Some(state) = &mut context.conversation.journal {
        state.version = change.seq;
        state.bytes_since += update.len();
    }
    context.conversation.updated_at_ms = change.at_ms;
    let told = v1::JournalEdited {
        journal_id: id.to_string(),
        journal_number: context.conversation.number,
        version: change.seq,
        update: update.to_vec(),
        actor_id: change.actor.clone(),
        at_ms: change.at_ms,
    };
    let version = Version {
        version: change.seq,
        update: update.to_vec(),
        checkpoint: None,
        actor: change.actor.clone(),
        at_ms: change.at_ms,
    };
    context.effects.versions.push((id, version));
    let event = context.event(
        &change,
        EventParts {
            journal: Some(told.clone()),
            ..EventParts::default()
        },
    );
    Outcome::Journal {
        edited: Box::new(told),
        repeated: false,
        event,
    }
}

/// The documents of the journals that the batch changed where it is time to store them, and their texts: of small ones
/// each time, of large ones with the documents.
pub(super) fn settle(loaded: &mut Loaded, effects: &mut Effects) {
    // From the last version of each backwards: it is the one stored with the whole document.
    for (id, version) in effects.versions.iter_mut().rev() {
        let conversation = loaded.conversations.get_mut(id);
        let Some(state) = conversation.and_then(|conversation| conversation.journal.as_mut()) else {
            continue;
        };
        if version.version != state.version {
            continue;
        }
        let is_due = state.checkpoint_version == 0
            || state.version - state.checkpoint_version >= CHECKPOINT_EVERY
            || state.bytes_since > CHECKPOINT_BYTES.max(state.checkpoint_bytes);
        // The merge has made the document: it is there.
        let is_small = state.journal.text_bytes().is_ok_and(|bytes| bytes <= SMALL_TEXT);
        let text = (is_due || is_small).then(|| state.journal.text().ok()).flatten();
        effects.journals.insert(*id, text);
        if is_due && let Ok(checkpoint) = state.journal.checkpoint() {
            state.checkpoint_version = state.version;
            state.checkpoint_bytes = checkpoint.len();
            state.bytes_since = 0;
            version.checkpoint = Some(checkpoint);
        }
    }
}

/// The journal as it is, where a command changed nothing.
pub(super) fn unchanged(context: &mut CommandContext<'_>) -> Result<v1::JournalEdited, v1::Error> {
    let version = present(context)?.version;
    Ok(v1::JournalEdited {
        journal_id: context.id().to_string(),
        journal_number: context.conversation.number,
        version,
        update: Vec::new(),
        actor_id: context.actor().to_string(),
        at_ms: context.conversation.updated_at_ms,
    })
}

fn present<'a>(context: &'a mut CommandContext<'_>) -> Result<&'a mut JournalState, v1::Error> {
    let missing = || v1::Error::with(ErrorCode::Internal, "the journal has no document");
    context.conversation.journal.as_mut().ok_or_else(missing)
}

fn refused(refusal: Refusal) -> v1::Error {
    let code = match refusal {
        Refusal::TooLarge { .. } => ErrorCode::TooLarge,
        Refusal::Document(Error::TooCostly { .. }) => ErrorCode::TooCostly,
        Refusal::Document(Error::Broken) => ErrorCode::Internal,
        Refusal::Document(Error::Malformed | Error::Incomplete | Error::NotStorable) => ErrorCode::Invalid,
    };
    v1::Error::with(code, refusal.to_string())
}
