//! The text of a journal as a CRDT, so that people who edit at once lose nothing. Pure: bytes in, bytes out.
//!
//! The document is a Yjs document with one text named `content`. Whoever sends the whole text is compared
//! with the version they changed; the difference becomes an update on a fork of that version, which merges
//! into the present document like any other.

mod check;
mod diff;

use std::panic::{AssertUnwindSafe, catch_unwind};

use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::{
    ClientID, Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, TextRef, Transact, Update,
};

/// Longest text in bytes. Text and update must fit one message on the bus together.
pub const MAX_TEXT_BYTES: usize = 384 * 1024;
/// Longest update in bytes.
pub const MAX_UPDATE_BYTES: usize = 448 * 1024;

/// Longest document in bytes, with all that was ever deleted.
pub const MAX_STATE_BYTES: usize = 4 * 1024 * 1024;

/// The name of the text in the document, as clients open it.
const TEXT: &str = "content";

/// A document after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole document as an update.
    pub state: Vec<u8>,
    /// The change as an update.
    pub update: Vec<u8>,
    /// The whole text.
    pub content: String,
}

/// A change that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no update of a plain text.
    #[error("not a Yjs (v1) update of the plain text \"content\"")]
    NotAnUpdate,
    /// It builds on changes the document does not have.
    #[error("the update builds on changes that are not part of the journal")]
    Incomplete,
    /// The text would hold what cannot be stored.
    #[error("the text would hold a NUL character")]
    NotStorable,
    /// The text or the update would be too long.
    #[error(
        "the journal or the change is too large: the text may have {MAX_TEXT_BYTES} bytes, an update {MAX_UPDATE_BYTES}"
    )]
    TooLarge,
}

/// The identity under which a change is made; never the same for two documents that grow apart.
pub fn client_of(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    // 53 bits: what JavaScript can count.
    (high.rotate_left(32) ^ low) >> 11
}

/// A new document with a first text.
///
/// # Errors
/// See [`Refusal`].
pub fn begin(content: &str, client: u64) -> Result<Edited, Refusal> {
    rewrite(&[], None, content, client).map(|edited| {
        edited.unwrap_or_else(|| {
            let doc = open(client);
            let state = encode(&doc);
            Edited {
                update: state.clone(),
                state,
                content: String::new(),
            }
        })
    })
}

/// Merges an update that a client made. `None` if the document has it already.
///
/// # Errors
/// See [`Refusal`].
pub fn merge(state: &[u8], update: &[u8]) -> Result<Option<Edited>, Refusal> {
    if update.len() > MAX_UPDATE_BYTES {
        return Err(Refusal::TooLarge);
    }
    check::is_text_update(update, TEXT).ok_or(Refusal::NotAnUpdate)?;
    guarded(|| {
        let present = load([state])?;
        apply(&present, update)?;
        finish(state, &present, update)
    })
}

/// Makes the text of `base` into `content` and merges what that changes. `base` is the document the editor
/// saw, as updates in their order; `None` for the present one. `None` if nothing changes.
///
/// # Errors
/// See [`Refusal`].
pub fn rewrite(
    state: &[u8],
    base: Option<&[Vec<u8>]>,
    content: &str,
    client: u64,
) -> Result<Option<Edited>, Refusal> {
    if content.len() > MAX_TEXT_BYTES {
        return Err(Refusal::TooLarge);
    }
    guarded(|| {
        let fork = match base {
            Some(updates) => load_as(client, updates.iter().map(Vec::as_slice))?,
            None => load_as(client, [state])?,
        };
        let text = text(&fork);
        let old = text.get_string(&fork.transact());
        let changes = diff::changes(&old, content);
        if changes.is_empty() {
            return Ok(None);
        }
        let update = {
            let mut txn = fork.transact_mut();
            // Backwards: what lies before a change keeps its place.
            for change in changes.iter().rev() {
                if change.removed > 0 {
                    text.remove_range(&mut txn, offset(change.at), offset(change.removed));
                }
                text.insert(&mut txn, offset(change.at), change.inserted);
            }
            txn.encode_update_v1()
        };
        let present = match base {
            Some(_) => {
                let present = load([state])?;
                apply(&present, &update)?;
                present
            }
            None => fork,
        };
        finish(state, &present, &update)
    })
}

/// The text of a document.
///
/// # Errors
/// The bytes are no document.
pub fn content_of(state: &[u8]) -> Result<String, Refusal> {
    guarded(|| {
        let doc = load([state])?;
        Ok(text(&doc).get_string(&doc.transact()))
    })
}

fn finish(before: &[u8], present: &Doc, update: &[u8]) -> Result<Option<Edited>, Refusal> {
    let state = encode(present);
    if state == before {
        return Ok(None);
    }
    let content = text(present).get_string(&present.transact());
    if content.contains('\0') {
        return Err(Refusal::NotStorable);
    }
    let fits =
        content.len() <= MAX_TEXT_BYTES && update.len() <= MAX_UPDATE_BYTES && state.len() <= MAX_STATE_BYTES;
    if !fits {
        return Err(Refusal::TooLarge);
    }
    Ok(Some(Edited {
        state,
        update: update.to_vec(),
        content,
    }))
}

/// The library panics on some documents that no client makes by itself; one such update must not stop the
/// work on everybody else's commands.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Refusal::NotAnUpdate))
}

fn open(client: u64) -> Doc {
    let doc = Doc::with_options(Options {
        offset_kind: OffsetKind::Bytes,
        ..Options::with_guid_and_client_id("journal".into(), ClientID::new(client))
    });
    text(&doc);
    doc
}

/// A document that is only read and merged into; nothing is ever written under its identity.
fn load<'a>(updates: impl IntoIterator<Item = &'a [u8]>) -> Result<Doc, Refusal> {
    load_as(0, updates)
}

fn load_as<'a>(client: u64, updates: impl IntoIterator<Item = &'a [u8]>) -> Result<Doc, Refusal> {
    let doc = open(client);
    for update in updates.into_iter().filter(|update| !update.is_empty()) {
        apply(&doc, update)?;
    }
    Ok(doc)
}

fn apply(doc: &Doc, update: &[u8]) -> Result<(), Refusal> {
    let update = Update::decode_v1(update).map_err(|_| Refusal::NotAnUpdate)?;
    let mut txn = doc.transact_mut();
    txn.apply_update(update).map_err(|_| Refusal::NotAnUpdate)?;
    if txn.has_missing_updates() {
        Err(Refusal::Incomplete)
    } else {
        Ok(())
    }
}

fn text(doc: &Doc) -> TextRef {
    doc.get_or_insert_text(TEXT)
}

fn encode(doc: &Doc) -> Vec<u8> {
    doc.transact().encode_state_as_update_v1(&StateVector::default())
}

/// Texts are far shorter than 4 GiB.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
