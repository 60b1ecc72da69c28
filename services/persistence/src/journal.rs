//! What commands do to journals, and how far they may go. The documents themselves are `parlance-journal`'s. Pure: bytes
//! in, bytes out.

use parlance_journal::{Budget, Document, Error, Writer};
use uuid::Uuid;

/// Longest text in bytes. Text and update must fit one message on the bus together.
pub const MAX_TEXT_BYTES: usize = 384 * 1024;
/// Longest update in bytes.
pub const MAX_UPDATE_BYTES: usize = 448 * 1024;
/// Longest document in bytes, with all that was ever deleted.
pub const MAX_STATE_BYTES: usize = 4 * 1024 * 1024;
/// Most work that merging one update may take, in the units of [`Document::price`]: at worst some tenths of a second.
pub const MAX_WORK: u64 = 2_000_000;

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
    /// The document does not take it.
    #[error(transparent)]
    Document(#[from] Error),
    /// The text or the update would be too long.
    #[error(
        "the journal or the change is too large: the text may have {MAX_TEXT_BYTES} bytes, an update {MAX_UPDATE_BYTES}"
    )]
    TooLarge,
}

/// The identity under which a change is made; never the same for two documents that change independently.
pub fn writer_of(id: Uuid) -> Writer {
    let (high, low) = id.as_u64_pair();
    Writer::new(high.rotate_left(32) ^ low)
}

/// A new document with a first text.
///
/// # Errors
/// See [`Refusal`].
pub fn begin(content: &str, writer: Writer) -> Result<Edited, Refusal> {
    let edited = rewrite(&[], None, content, writer)?;
    Ok(edited.unwrap_or_else(|| {
        let state = Document::new(writer).checkpoint();
        Edited {
            update: state.clone(),
            state,
            content: String::new(),
        }
    }))
}

/// Merges an update that a client made. `None` if the document has it already.
///
/// # Errors
/// See [`Refusal`].
pub fn merge(state: &[u8], update: &[u8]) -> Result<Option<Edited>, Refusal> {
    if update.len() > MAX_UPDATE_BYTES {
        return Err(Refusal::TooLarge);
    }
    let mut present = Document::load([state], Writer::NONE)?;
    present.apply(update, MAX_WORK)?;
    finish(state, &present, update)
}

/// Makes the text of `base` into `content` and merges what that changes. `base` is the document that the editor saw, as
/// updates in their order; `None` for the present one. `None` if nothing changes.
///
/// # Errors
/// See [`Refusal`].
pub fn rewrite(
    state: &[u8],
    base: Option<&[Vec<u8>]>,
    content: &str,
    writer: Writer,
) -> Result<Option<Edited>, Refusal> {
    if content.len() > MAX_TEXT_BYTES {
        return Err(Refusal::TooLarge);
    }
    let mut fork = match base {
        Some(updates) => Document::load(updates, writer)?,
        None => Document::load([state], writer)?,
    };
    let Some(edit) = fork.rewrite(content, &mut { Budget::EDIT })? else {
        return Ok(None);
    };
    let present = match base {
        Some(_) => {
            let mut present = Document::load([state], Writer::NONE)?;
            present.apply(&edit.update, MAX_WORK)?;
            present
        }
        None => fork,
    };
    finish(state, &present, &edit.update)
}

/// The text of a document.
///
/// # Errors
/// The bytes are no document.
pub fn content_of(state: &[u8]) -> Result<String, Refusal> {
    Ok(Document::load([state], Writer::NONE)?.text())
}

fn finish(before: &[u8], present: &Document, update: &[u8]) -> Result<Option<Edited>, Refusal> {
    let state = present.checkpoint();
    if state == before {
        return Ok(None);
    }
    let content = present.text();
    if content.contains('\0') {
        return Err(Error::NotStorable.into());
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

#[cfg(test)]
mod tests;
