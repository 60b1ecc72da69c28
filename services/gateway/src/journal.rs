//! Journals on this replica: the text as a CRDT, and what each client may have on its screen. Pure: bytes and
//! times in, bytes out. Must not know rooms, sockets or the bus.
//!
//! A journal is a Yjs document with one text named `content`. Some clients know nothing of that: they send
//! their *whole* text and are sent whole texts, also after edits of their own. To merge such a text, its
//! difference from the text it was typed on is needed, and the client does not say which that was. While
//! texts are on their way it may be
//!
//! - what the client sent last (it types on before our answer comes), or
//! - any version sent to it lately (which takes the place of whatever was on the screen).
//!
//! A [`Shadow`] holds the client's own last text, a [`History`], shared by all sessions of the room, the
//! versions younger than [`WINDOW`], above any usual round trip, and the one before them, which has surely
//! come. The base of an edit is the one of these that the client has most likely changed into its text: from
//! which it deletes least that it may not have seen, then keeps most that came from others, then breaks
//! least of what it put in itself, then changes least, then the newest. Plain likeness would not do: of two
//! similar paragraphs put in at one place, each would pass for a correction of the other. The difference is
//! applied to the document *of the base*; the update it makes merges with everything else that happened. So
//! clients that insert never lose or double a text. Where an edit has to wait for its turn, all this is judged as
//! of its arrival: [`Arrivals`] keep the versions it may have been typed on.
//!
//! What no comparison can tell apart errs on the side of keeping text:
//!
//! - A client deletes, within the window, exactly what just came from another. Its text is then that of an
//!   older version, as if it had done nothing, and what came stays. But a version that lacks the client's own
//!   latest edit is never taken for "did nothing": whoever types and goes back a character means it.
//! - A client corrects, within the window, what just came: it may as well have put in something like it.
//!   Both stay.
//!
//! Only where two clients put in the same text at the same place at once it may stand there once.

mod cost;
mod diff;
mod document;
mod history;
mod shadow;

pub use document::{Document, Unreadable};
pub use history::{Arrivals, Current, History, WINDOW};
pub use shadow::Shadow;

#[cfg(test)]
mod tests;
