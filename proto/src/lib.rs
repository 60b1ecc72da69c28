//! The domain of Parlance as it travels: messages, identifiers and error codes.
//!
//! Owns the wire types generated from `chat/v1/*.proto` and the newtypes that keep identifiers valid.
//! Pure data: no I/O, no runtime, no JSON, no subject names.

pub mod error;
mod hidden;
pub mod ids;
mod participants;
pub mod text;

/// The generated wire types; their documentation stands in the `.proto` files.
#[expect(missing_docs, reason = "generated from the documented .proto files")]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived; boxing would cost every reader a line"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/chat.v1.rs"));
}

pub use error::ErrorCodeExt;
pub use ids::{CommandId, ConversationId, InvalidId, MessageId, UserId};
