//! Shared journals: a Yjs document with one text, edited at once by clients that speak Yjs and by clients that know
//! only whole texts. Pure: bytes and texts in, bytes and texts out. Must not do I/O, read clocks or make ids, and is the
//! only crate that names `yrs`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`Document`] | the document: encoded updates in, text out, state vector, difference, checkpoint |
//! | [`diff`](fn@diff) | the one text diff, grapheme-safe, within a [`Budget`] of counted steps |
//! | [`Versions`] | the latest versions of a journal that a gateway has open |
//! | [`WholeTextSession`] | the edits of one client that sends its whole text; the rule of merging stands there |
//! | [`Blame`] | who wrote which part of a text |
//! | [`AwarenessStates`] | names and cursors of the pages that have a journal open: y-protocols awareness, ephemeral |
//!
//! # Persistence
//! Stores updates and checkpoints, and one text of each journal, for REST and search: the present one of a small journal, that
//! of the last checkpoint of a large one.
//!
//! 1. Load a journal once per batch: `Document::load([checkpoint, updates since…], Writer::NONE)`; or keep it from the batch
//!    before, if no other version was written since.
//! 2. For each command [`apply_new`](Document::apply_new) the update with the limit of work from the settings; `None`: the
//!    command changed nothing. [`Error`] is the refusal; after [`Error::Broken`], or where the text or the document
//!    outgrew the settings, load again.
//! 3. Write the updates as versions, now and then the [`checkpoint`](Document::checkpoint), and the text with it or each time.
//!
//! # Gateway
//! Keeps one [`Versions`] per open journal and one [`WholeTextSession`] per session that edits by whole texts.
//!
//! 1. [`Versions::new`] from the state of the journal; [`Versions::push`] for each event. An error: load again.
//! 2. Yjs clients: [`Document::state_vector`] and [`Document::diff_since`] of [`Versions::document`]; their updates go into
//!    commands as they are.
//! 3. A whole-text client joins: emit the newest version, [`WholeTextSession::joined`]. It joins again, or its basis is not
//!    known for any other reason: first publish an [`EMPTY_UPDATE`] command through the partition of the journal and push
//!    the versions before its confirmation (what the lost connection had published comes before it); then
//!    [`WholeTextSession::resumed`], and call [`emits`](WholeTextSession::emits) for the version emitted. A client that edits without
//!    joining: `resumed` with the newest version.
//! 4. For each version and session: emit it if [`WholeTextSession::emits`]. All sessions share one rendered text. Versions
//!    that come close together may be left out for the last of them; do not ask `emits` for those.
//! 5. For each text sent: [`WholeTextSession::edit`] on a blocking pool; publish its update as one command. A refused
//!    command: [`WholeTextSession::refused`], then emit the newest version. An unknown outcome, also when the connection is gone: publish
//!    [`WholeTextSession::unstored`] until a version holds it.
//! 6. A whole text over REST names the version it edited: load the document of that version with a fresh [`Writer`],
//!    [`rewrite`](Document::rewrite) it, and publish the update of the [`Edit`]. Restoring a version is a rewrite of the
//!    present document to the text of that version; [`Blame`] applies updates with the authors of their versions, one
//!    author's versions in a row at once.
//!
//! Limits: settings hold the work of an update and the bytes of text, update and document; [`Budget::EDIT`] bounds an
//! edit. A session that edits holds a copy of the document.

mod awareness;
mod change;
mod diff;
mod document;
mod error;
mod history;
mod update;
mod versions;
mod whole_text;

pub use awareness::{
    Applied, AwarenessStates, ClientState, InvalidAwareness, MAX_AWARENESS_UPDATE, MAX_STATE, MAX_STATES,
    STATE_LIVES, decode_awareness, encode_awareness,
};
pub use change::Change;
pub use diff::{Budget, diff};
pub use document::{Document, EMPTY_UPDATE, Edit, Writer};
pub use error::Error;
pub use history::{Blame, Span};
pub use update::TEXT;
pub use versions::Versions;
pub use whole_text::{WholeTextEdit, WholeTextSession};
