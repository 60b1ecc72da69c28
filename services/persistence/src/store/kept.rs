//! The documents of the journals that were written last, so that the next change of one is not preceded by reading and
//! decoding all of it.
//!
//! A document is taken out while a batch works on it, and put back once that is committed. It is used only where the
//! database, under the lock of the conversation, names the version that it is of: what other replicas wrote meanwhile,
//! or a restored database, is read. Must not be relied on: any document may be missing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use parlance_proto::ConversationId;

use crate::model::state::{JournalState, Loaded};

/// Bytes that the documents kept were made of, together. In memory they take several times as much.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a document that is kept: a larger one would drive out those of everybody else with each change.
const MOST_EACH: usize = MOST_BYTES / 8;
/// Documents kept.
const MOST: usize = 256;

/// The documents of journals, the one written last at the end.
#[derive(Debug, Default)]
pub struct KeptJournals(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    id: ConversationId,
    /// Of the database.
    epoch: String,
    state: JournalState,
}

impl KeptJournals {
    /// Takes out a journal, if it is kept as of this version.
    pub fn take(&self, id: ConversationId, epoch: &str, version: u64) -> Option<JournalState> {
        let mut kept = self.lock();
        let place = kept.iter().position(|kept| kept.id == id)?;
        let Kept { epoch: of, state, .. } = kept.remove(place)?;
        (of == epoch && state.version == version).then_some(state)
    }

    /// Puts in the journals of a batch that is committed.
    pub fn put(&self, loaded: Loaded) {
        let mut kept = self.lock();
        for (id, conversation) in loaded.conversations {
            let Some(mut state) = conversation.journal.filter(|_| !conversation.deleted) else {
                continue;
            };
            state.done.clear();
            kept.retain(|kept| kept.id != id);
            if state.journal.bytes() > MOST_EACH {
                continue;
            }
            let epoch = loaded.epoch.clone();
            kept.push_back(Kept { id, epoch, state });
        }
        let mut bytes: usize = kept.iter().map(|kept| kept.state.journal.bytes()).sum();
        while bytes > MOST_BYTES || kept.len() > MOST {
            let Some(oldest) = kept.pop_front() else { return };
            bytes -= oldest.state.journal.bytes();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
