//! Refusals that more than one place gives, in the same words: a non-member must not be able to distinguish a foreign
//! conversation from a missing one. Pure.

use parlance_proto::v1::{self, ErrorCode};

use super::permissions::Verdict;

/// The refusal of what is malformed, a command or a query.
pub fn refuse(message: impl Into<String>) -> v1::Error {
    v1::Error::with(ErrorCode::Invalid, message)
}

/// The answer to everyone who may not know whether the conversation exists.
pub fn no_conversation() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such conversation")
}

/// The refusal in a direct conversation of which one has blocked the other; the same to both.
pub fn blocked() -> v1::Error {
    v1::Error::with(
        ErrorCode::Forbidden,
        "one of the two users has blocked the other: neither writes to the other",
    )
}

/// The refusal to write in a read-only group.
pub fn read_only() -> v1::Error {
    v1::Error::with(
        ErrorCode::Forbidden,
        "the group is read-only: only admins send and edit messages and begin threads",
    )
}

/// Refuses what the table of rights does not grant.
///
/// # Errors
/// [`ErrorCode::Forbidden`] where other roles may, [`ErrorCode::Invalid`] where none can.
pub fn granted(verdict: Verdict) -> Result<(), v1::Error> {
    match verdict {
        Verdict::Granted => Ok(()),
        Verdict::Forbidden => Err(v1::Error::with(
            ErrorCode::Forbidden,
            "your role does not allow this here",
        )),
        Verdict::NotApplicable => Err(v1::Error::with(
            ErrorCode::Invalid,
            "a conversation of this kind does not know this",
        )),
    }
}

/// The answer where there is no such message for the asker.
pub fn no_message() -> v1::Error {
    v1::Error::with(ErrorCode::NotFound, "no such message")
}
