//! What a client may learn of a failure: a code, a sentence and whether repeating can help.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use parlance_bus::ErrorKind;
use parlance_journal::InvalidAwareness;
use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::{Error, ErrorCode, KeptAnswer};
use prost::Message as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// Seconds over which clients that are refused together are asked to come again, and most seconds before the first of them.
const LONGEST_PAUSE: u32 = 5;

/// A failure as a client sees it. Never holds anything of our insides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ClientError)]
pub struct ClientError {
    /// A name of `proto/chat/v1/error.proto` in snake_case.
    #[schema(schema_with = code_schema)]
    pub code: &'static str,
    /// For the developer of the client.
    pub message: String,
    /// Whether the same request with the same id may succeed later.
    pub retry: bool,
    #[serde(skip)]
    status: u16,
    /// How many seconds later it is worth asking again, where that is known.
    #[serde(skip)]
    retry_after: u32,
    /// What a conflict is with, under its name.
    #[serde(skip)]
    #[schema(required)]
    existing: Option<(&'static str, serde_json::Value)>,
}

/// A failure over HTTP: RFC 9457 with our code.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem<'a> {
    /// `urn:parlance:error:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// For the developer of the client.
    detail: &'a str,
    /// What kind of failure.
    #[schema(schema_with = code_schema)]
    code: &'static str,
    /// Whether the same request may succeed later.
    retry: bool,
    /// The same as `detail`.
    message: &'a str,
    /// The class some front ends tell failures apart by.
    error: &'static str,
    /// The same as `error`.
    name: &'static str,
    /// What a conflict is with, under its name.
    #[serde(flatten)]
    #[schema(ignore)]
    existing: BTreeMap<&'static str, serde_json::Value>,
}

impl ClientError {
    /// A message with a plain text and a ciphertext.
    pub fn both_contents() -> Self {
        Self::invalid("content and content_encrypted are both given; give one of them")
    }

    /// A failure with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.name(),
            message: message.into(),
            retry: code.retry(),
            status: code.http_status(),
            retry_after: 0,
            existing: None,
        }
    }

    /// Adds what a conflict is with, for the body of the answer.
    #[must_use]
    pub fn with_existing(mut self, name: &'static str, existing: &impl Serialize) -> Self {
        self.existing = serde_json::to_value(existing).ok().map(|value| (name, value));
        self
    }

    /// The class some front ends tell failures apart by.
    pub fn class(&self) -> &'static str {
        match self.code {
            "invalid" | "too_large" | "too_costly" | "unprocessable" | "unknown_event" => "ValidationError",
            "unauthenticated" => "UnauthorizedError",
            "forbidden" => "ForbiddenError",
            "not_found" => "NotFoundError",
            "conflict" => "ConflictError",
            "rate_limited" => "RateLimitError",
            "unavailable" | "unknown" => "ServiceUnavailableError",
            _ => "InternalError",
        }
    }

    /// The failure as it must look to the front end of ciphertext: what is not a caller's own conversation is
    /// forbidden, whether there is one or not.
    #[must_use]
    pub fn forbidding(self) -> Self {
        if self == Self::no_conversation() {
            let message = "there is no such conversation, or you are not a participant of it";
            Self::new(ErrorCode::Forbidden, message)
        } else {
            self
        }
    }

    /// A payload that is not as documented.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// There is no such conversation, or the caller may not know that there is: one answer for both.
    pub fn no_conversation() -> Self {
        Self::new(ErrorCode::NotFound, "no such conversation")
    }

    /// A participant shows others in a journal something without following it.
    pub fn not_joined() -> Self {
        Self::new(
            ErrorCode::Forbidden,
            "the journal is not joined: journal:join it first",
        )
    }

    /// One answer for a message that does not exist and one that is none of the caller's business.
    pub fn no_message() -> Self {
        Self::new(ErrorCode::NotFound, "no such message")
    }

    /// The failure as it must look to who named a message alone: that there is a conversation around it is
    /// for its participants only.
    #[must_use]
    pub fn of_message_alone(self) -> Self {
        if self == Self::no_conversation() {
            Self::no_message()
        } else {
            self
        }
    }

    /// The route exists, but not with this HTTP method.
    pub fn no_method() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
            ..Self::invalid("no such method on this route")
        }
    }

    /// A defect on our side; the cause belongs in the log where it is noticed.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "internal error")
    }

    /// A query that got no answer. Reading changes nothing, so repeating is always safe.
    pub fn from_query(error: &parlance_bus::Error) -> Self {
        match error.kind() {
            ErrorKind::Malformed => {
                tracing::error!(%error, "a reply of persistence cannot be read; are versions mixed?");
                Self::internal()
            }
            _ => Self::new(
                ErrorCode::Unavailable,
                "the service is not available at the moment",
            ),
        }
    }

    /// A command that was not accepted, or perhaps was.
    pub fn from_send(error: &parlance_bus::Error) -> Self {
        match error.kind() {
            ErrorKind::Refused => Self::new(
                ErrorCode::Unavailable,
                "the service is not available at the moment; nothing was stored",
            ),
            ErrorKind::TooLarge => Self::new(
                ErrorCode::TooLarge,
                "the command is larger than the bus takes; nothing was stored",
            ),
            _ => Self::unknown(),
        }
    }

    /// Another attempt at the same change goes on.
    pub fn in_progress() -> Self {
        Self {
            retry: true,
            ..Self::new(
                ErrorCode::Conflict,
                "a request with this idempotency key is under way; repeat it with the same key",
            )
        }
    }

    /// The three-valued logic's third value.
    pub fn unknown() -> Self {
        Self::new(
            ErrorCode::Unknown,
            "the outcome is not known; repeat with the same id or idempotency key",
        )
    }
}

impl ClientError {
    /// The failure of an event, to be answered again by [`ClientError::of_kept`].
    pub fn kept(&self) -> KeptAnswer {
        let code = ErrorCode::by_name(self.code);
        KeptAnswer {
            status: u32::from(code.http_status()),
            body: Error::with(code, self.message.clone()).encode_to_vec(),
        }
    }

    /// Whether persistence has too much to do, and said when it is worth asking again.
    pub fn is_of_load(&self) -> bool {
        self.code == ErrorCode::Unavailable.name() && self.retry_after > 0
    }

    /// The failure that was kept; `None` where there was none.
    pub fn of_kept(kept: &KeptAnswer) -> Option<Self> {
        let is_failure = kept.status >= 300;
        is_failure.then(|| match Error::decode(kept.body.as_slice()) {
            Ok(error) => error.into(),
            Err(_) => Self::internal(),
        })
    }
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        Self {
            retry_after: error.retry_after_ms.div_ceil(1_000),
            ..Self::new(error.code(), error.message)
        }
    }
}

impl From<InvalidAwareness> for ClientError {
    fn from(error: InvalidAwareness) -> Self {
        let code = match error {
            InvalidAwareness::Malformed => ErrorCode::Invalid,
            InvalidAwareness::TooMany | InvalidAwareness::TooLarge | InvalidAwareness::StateTooLarge => {
                ErrorCode::TooLarge
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<parlance_proto::InvalidId> for ClientError {
    fn from(error: parlance_proto::InvalidId) -> Self {
        Self::invalid(error.to_string())
    }
}

impl IntoResponse for ClientError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Problem {
            kind: format!("urn:parlance:error:{}", self.code),
            title: status.canonical_reason().unwrap_or("Error"),
            status: self.status,
            detail: &self.message,
            code: self.code,
            retry: self.retry,
            message: &self.message,
            error: self.class(),
            name: self.class(),
            existing: self.existing.iter().cloned().collect(),
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let pause = match status {
            // Different for each, so that those who were refused together do not come again together.
            StatusCode::SERVICE_UNAVAILABLE => {
                let first = self.retry_after.clamp(1, LONGEST_PAUSE);
                Some(first + fastrand::u32(0..LONGEST_PAUSE))
            }
            StatusCode::TOO_MANY_REQUESTS => Some(1),
            StatusCode::CONFLICT if self.retry => Some(1),
            _ => None,
        };
        if let Some(seconds) = pause {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For routes that write failures their own way.
        response.extensions_mut().insert(self);
        response
    }
}

/// The names of all error codes, for schemas.
pub fn code_schema() -> Object {
    let codes = (1..).map_while(|number| ErrorCode::try_from(number).ok());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes.map(|code| code.name())))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_answered_again_as_it_was() {
        for code in [ErrorCode::Forbidden, ErrorCode::NotFound, ErrorCode::TooCostly] {
            let error = ClientError::new(code, "because");
            assert_eq!(ClientError::of_kept(&error.kept()), Some(error));
        }
        let kept = KeptAnswer {
            status: 200,
            body: b"{}".to_vec(),
        };
        assert_eq!(ClientError::of_kept(&kept), None);
    }
}
