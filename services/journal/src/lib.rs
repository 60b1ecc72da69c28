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
//!
//! # Persistence
//! Stores updates and checkpoints, and the present text once, for REST and search.
//!
//! 1. Load a journal once per batch: `Document::load([checkpoint, updates since…], Writer::NONE)`.
//! 2. For each command [`Document::apply`] the update with the limit of work from the settings. No change and the same
//!    [`checkpoint`](Document::checkpoint): the command changed nothing. [`Error`] is the refusal; after
//!    [`Error::Broken`] load again. Check the lengths of text and checkpoint against the settings before the commit.
//! 3. A client that sends a whole text by REST names the version it edited: load that version with a fresh [`Writer`],
//!    [`rewrite`](Document::rewrite) it, and apply the update of the [`Edit`] to the present document. Restoring a version is a
//!    rewrite of the present document to the text of that version.
//! 4. History: the text of a version is that of the checkpoint before it and the updates since; [`Blame`] applies the
//!    same updates with the authors of their versions.
//!
//! # Gateway
//! Keeps one [`Versions`] per open journal and one [`WholeTextSession`] per session that edits by whole texts.
//!
//! 1. [`Versions::new`] from the state of the journal; [`Versions::push`] for each event. An error: load again.
//! 2. Yjs clients: [`Document::state_vector`] and [`Document::diff_since`] of [`Versions::document`]; their updates go into
//!    commands as they are, after [`Document::price`].
//! 3. A whole-text client joins: emit the newest version, [`WholeTextSession::joined`]. It joins again, or its basis is not
//!    known for any other reason: first publish an [`EMPTY_UPDATE`] command through the partition of the journal and push
//!    the versions before its confirmation (what the lost connection had published comes before it); then
//!    [`WholeTextSession::resumed`], and call [`emits`](WholeTextSession::emits) for the version emitted. A client that edits without
//!    joining: `resumed` with the newest version.
//! 4. For each version and session: emit it if [`WholeTextSession::emits`]. All sessions share one rendered text.
//! 5. For each text sent: [`WholeTextSession::edit`] on a blocking pool; publish its update as one command. A refused
//!    command: [`WholeTextSession::refused`], then emit the newest version. An unknown outcome, also when the connection is gone: publish
//!    [`WholeTextSession::unstored`] until a version holds it.
//!
//! Limits: settings hold the work of an update and the bytes of text, update and document; [`Budget::EDIT`] bounds an
//! edit. A session that edits holds a copy of the document.

mod change;
mod diff;
mod document;
mod error;
mod history;
mod update;
mod versions;
mod whole_text;

pub use change::Change;
pub use diff::{Budget, diff};
pub use document::{Document, EMPTY_UPDATE, Edit, TEXT, Writer};
pub use error::Error;
pub use history::{Blame, Span};
pub use versions::Versions;
pub use whole_text::{WholeTextEdit, WholeTextSession};
