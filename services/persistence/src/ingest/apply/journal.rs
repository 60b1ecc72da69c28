//! Changes of a journal's text, merged with whatever others did meanwhile.

use parlance_journal::{Error, Writer};
use parlance_proto::v1::{self, ErrorCode};

use super::Scene;
use crate::ingest::state::{ChangeKind, ConversationState, JournalState, Outcome, Version};
use crate::ingest::tell::Parts;
use crate::ingest::work::{EditJournal, refuse};
use crate::journal::{self, Edited, Refusal};
use crate::permissions::Right;

/// Versions between two that are stored with the whole document.
const CHECKPOINT_EVERY: u64 = 32;

pub(super) fn edit(scene: &mut Scene<'_>, edit: &EditJournal) -> Result<Outcome, v1::Error> {
    scene.check(Right::EditText)?;
    let head = scene.conversation.head_seq;
    let Some(present) = &scene.conversation.journal else {
        return Err(v1::Error::with(
            ErrorCode::Internal,
            "the journal has no document",
        ));
    };
    let edited = match edit {
        EditJournal::Update(update) => journal::merge(&present.state, update),
        EditJournal::Content { base_version, .. } if *base_version > head => {
            return Err(refuse("base_version is later than the journal"));
        }
        EditJournal::Content {
            content,
            base_version: 0,
        } => journal::rewrite(&present.state, None, content, own_writer(scene)),
        EditJournal::Content {
            content,
            base_version,
        } if *base_version >= present.version => {
            journal::rewrite(&present.state, None, content, own_writer(scene))
        }
        EditJournal::Content {
            content,
            base_version,
        } => {
            let base = present
                .bases
                .get(base_version)
                .ok_or_else(|| refuse("no such base_version"))?;
            journal::rewrite(
                &present.state,
                Some(base),
                content,
                journal::writer_of(scene.work.id.uuid()),
            )
        }
    };
    let Some(edited) = edited.map_err(refused)? else {
        let edited = unchanged(scene)?;
        return Ok(Outcome::Journal {
            edited: Box::new(edited),
            repeated: true,
            event: None,
        });
    };
    let told = commit(scene, edited);
    Ok(told)
}

/// The service itself changes the present document, one change after the other under the conversation's lock:
/// under one identity the document stays small. A fork of an earlier version has an identity of its own.
fn own_writer(scene: &Scene<'_>) -> Writer {
    journal::writer_of(scene.id().uuid())
}

/// Stores a new state of the document as the next version.
pub(super) fn commit(scene: &mut Scene<'_>, edited: Edited) -> Outcome {
    let Edited {
        state,
        update,
        content,
    } = edited;
    let change = scene.log(ChangeKind::JournalEdited, 0, Vec::new());
    let id = scene.id();
    let journal = scene.conversation.journal.get_or_insert_default();
    let whole =
        journal.checkpoint_version == 0 || change.seq - journal.checkpoint_version >= CHECKPOINT_EVERY;
    if whole {
        journal.checkpoint_version = change.seq;
    }
    let version = Version {
        version: change.seq,
        update: update.clone(),
        content: content.clone(),
        checkpoint: whole.then(|| state.clone()),
        actor: change.actor.clone(),
        at_ms: change.at_ms,
    };
    journal.version = change.seq;
    journal.state = state;
    scene.conversation.updated_at_ms = change.at_ms;
    let told = v1::JournalEdited {
        journal_id: id.to_string(),
        journal_number: scene.conversation.number,
        version: change.seq,
        content,
        update,
        actor_id: change.actor.clone(),
        at_ms: change.at_ms,
    };
    scene.effects.journals.insert(id);
    scene.effects.versions.push((id, version));
    let event = scene.event(
        &change,
        Parts {
            journal: Some(told.clone()),
            ..Parts::default()
        },
    );
    Outcome::Journal {
        edited: Box::new(told),
        repeated: false,
        event,
    }
}

/// The journal as it is, for whoever changed nothing.
fn unchanged(scene: &Scene<'_>) -> Result<v1::JournalEdited, v1::Error> {
    let ConversationState {
        number,
        updated_at_ms,
        journal,
        ..
    } = &*scene.conversation;
    let Some(JournalState { state, version, .. }) = journal else {
        return Err(v1::Error::with(
            ErrorCode::Internal,
            "the journal has no document",
        ));
    };
    Ok(v1::JournalEdited {
        journal_id: scene.id().to_string(),
        journal_number: *number,
        version: *version,
        content: journal::content_of(state).map_err(refused)?,
        update: Vec::new(),
        actor_id: scene.actor().to_string(),
        at_ms: *updated_at_ms,
    })
}

pub(super) fn refused(refusal: Refusal) -> v1::Error {
    let code = match refusal {
        Refusal::TooLarge => ErrorCode::TooLarge,
        Refusal::Document(Error::TooCostly { .. }) => ErrorCode::TooCostly,
        Refusal::Document(Error::Broken) => ErrorCode::Internal,
        Refusal::Document(Error::Malformed | Error::Incomplete | Error::NotStorable) => ErrorCode::Invalid,
    };
    v1::Error::with(code, refusal.to_string())
}
