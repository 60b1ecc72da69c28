//! Why an update is refused.

/// Why an update is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not an update of the text of a journal.
    #[error("not a Yjs (v1) update of the plain text \"content\"")]
    Malformed,
    /// The update builds on changes that the document does not have.
    #[error("the update builds on changes that are not part of the journal")]
    Incomplete,
    /// Applying the update may take more work than allowed.
    #[error("the update may take {work} units of work; {limit} are allowed")]
    TooCostly {
        /// What it may take.
        work: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The text would hold what Postgres cannot store.
    #[error("the text would hold a NUL character")]
    NotStorable,
    /// `yrs` failed while it applied the update; the document is unusable and must be loaded again.
    #[error("the update broke the document, which must be loaded again")]
    Broken,
}
