//! Request headers that web pages may send besides those every page may.

use http::{HeaderName, HeaderValue};
use parlance_runtime::config::Invalid;

/// Headers that routes read, and what common clients add.
const HEADERS: [&str; 5] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "x-parlance-dialect",
    "x-requested-with",
];

/// Request headers that pages may send.
#[derive(Debug, Clone)]
pub enum AllowedHeaders {
    /// Whatever a page asks for.
    Any,
    /// These, joined by commas.
    Listed(HeaderValue),
}

impl AllowedHeaders {
    /// Adds those of `cors.headers` to the ones that routes read; `*` allows any.
    ///
    /// # Errors
    /// The first that is no name of a header.
    pub fn new(more: &[String]) -> Result<Self, Invalid> {
        let mut names = HEADERS.map(str::to_owned).to_vec();
        for text in more.iter().map(|text| text.trim()) {
            if text == "*" {
                return Ok(Self::Any);
            }
            let name = HeaderName::try_from(text).map_err(|_| {
                Invalid::new(
                    "cors.headers",
                    text,
                    "the name of a header, such as x-request-id; or * for any",
                )
            })?;
            names.push(name.as_str().to_owned());
        }
        let joined = HeaderValue::try_from(names.join(", "));
        Ok(Self::Listed(joined.unwrap_or_else(|_| {
            HeaderValue::from_static("authorization, content-type")
        })))
    }
}
