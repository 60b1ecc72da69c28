//! What an error code means to a client: its public name and whether repeating the request can help.

use crate::v1::{Error, ErrorCode};

/// The public face of an [`ErrorCode`].
pub trait ErrorCodeExt {
    /// The name clients see, in snake_case.
    fn name(self) -> &'static str;
    /// The code of that name; `Internal` where there is none.
    fn by_name(name: &str) -> Self;
    /// Whether the same request, repeated later with the same id, may succeed.
    fn retry(self) -> bool;
    /// The HTTP status of the code.
    fn http_status(self) -> u16;
}

impl ErrorCodeExt for ErrorCode {
    fn name(self) -> &'static str {
        match self {
            Self::Unspecified | Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::UnknownEvent => "unknown_event",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Unprocessable => "unprocessable",
            Self::TooCostly => "too_costly",
        }
    }

    fn by_name(name: &str) -> Self {
        (1..)
            .map_while(|number| Self::try_from(number).ok())
            .find(|code| code.name() == name)
            .unwrap_or(Self::Internal)
    }

    fn retry(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Unavailable | Self::Unknown | Self::Internal
        )
    }

    fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::UnknownEvent => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Unprocessable | Self::TooCostly => 422,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
            Self::Unknown => 504,
            Self::Unspecified | Self::Internal => 500,
        }
    }
}

impl Error {
    /// An error with a sentence for the developer of the client.
    pub fn with(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retry_after_ms: 0,
        }
    }
}
