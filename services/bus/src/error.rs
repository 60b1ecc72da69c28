//! The one error of the crate: what went wrong in terms a caller can act on, with its cause.

use std::fmt;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The message was surely not accepted; trying later is safe.
    Refused,
    /// It is not known whether the message was accepted; only a repeat with the same id is safe.
    Unknown,
    /// The message is larger than the bus takes: it was not accepted and never will be.
    TooLarge,
    /// Nobody serves the request now.
    NoResponders,
    /// No answer in time.
    TimedOut,
    /// The connection is away.
    Disconnected,
    /// The consumer or stream is not ours any more or does not exist.
    Gone,
    /// A payload that is not what the subject carries.
    Malformed,
    /// Anything else; see the source.
    Other,
}

/// A failed bus operation.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: &'static str,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: &'static str) -> Self {
        Self {
            kind,
            what,
            source: None,
        }
    }

    pub(crate) fn with(
        kind: ErrorKind,
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what,
            source: Some(source.into()),
        }
    }

    pub(crate) fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
