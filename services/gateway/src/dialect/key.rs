//! Idempotency keys: the name that a client gives one change, so that it may repeat it.
//!
//! A key is hashed where it comes in: its text must not reach a log, the bus or the database. Pure.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ClientError;

/// Longest key.
const KEY_MAX_BYTES: usize = 128;

/// A client's key, as its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// The field of an event that holds its key.
#[derive(Deserialize, ToSchema)]
#[schema(as = KeyedPayload)]
pub struct KeyedPayload {
    /// Makes a repeat harmless: the same event with the same key is carried out once, for an hour.
    #[schema(pattern = "^[!-~]+$", min_length = 1, max_length = 128)]
    pub idempotency_key: Option<String>,
}

/// A request with its key.
#[derive(Clone, Copy)]
pub struct KeyedRequest {
    /// The key.
    pub key: Key,
    /// The hash of the request.
    pub fingerprint: [u8; 32],
}

impl Key {
    /// Reads a key from the field or header of that name.
    ///
    /// # Errors
    /// It is empty, too long, or has other than visible ASCII characters.
    pub fn parse(field: &str, text: &[u8]) -> Result<Self, ClientError> {
        if text.is_empty() || text.len() > KEY_MAX_BYTES || !text.iter().all(u8::is_ascii_graphic) {
            let message = format!("{field} is not 1 to {KEY_MAX_BYTES} visible ASCII characters");
            return Err(ClientError::invalid(message));
        }
        Ok(Self(hash(&[text])))
    }

    /// The hash.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl KeyedRequest {
    /// A request by its parts, the last of which is JSON: the same in another order of its fields is the same request.
    pub fn new(key: Key, parts: &[&[u8]], json: &[u8]) -> Self {
        let canonical = serde_json::from_slice::<Value>(json).map(|mut value| {
            value.sort_all_objects();
            value.to_string().into_bytes()
        });
        let body = canonical.as_deref().unwrap_or(json);
        let parts: Vec<&[u8]> = parts.iter().copied().chain([body]).collect();
        Self {
            key,
            fingerprint: hash(&parts),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Length-prefixed parts: no choice of parts can collide with another.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &all).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_128_visible_characters_and_an_error_names_its_field() {
        for good in [
            "k",
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            "!~",
            &"x".repeat(128),
        ] {
            assert!(Key::parse("idempotency_key", good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "ü", &"x".repeat(129)] {
            let error = Key::parse("idempotency_key", bad.as_bytes()).unwrap_err();
            assert_eq!(error.code, "invalid");
            let expected = "idempotency_key is not 1 to 128 visible ASCII characters";
            assert_eq!(error.message, expected, "{bad:?}");
        }
    }

    #[test]
    fn a_request_is_the_same_in_any_order_of_its_fields_and_in_no_other_way() {
        let key = Key::parse("k", b"k").unwrap();
        let of = |parts: &[&[u8]], json: &str| KeyedRequest::new(key, parts, json.as_bytes()).fingerprint;
        let one = of(&[b"POST", b"/a"], r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#);
        assert_eq!(one, of(&[b"POST", b"/a"], r#"{"b":{"d":null,"c":[1,2]},"a":1}"#));
        for (parts, json) in [
            ([&b"PUT"[..], b"/a"], r#"{"a":1,"b":{"c":[1,2],"d":null}}"#),
            ([b"POST", b"/b"], r#"{"a":1,"b":{"c":[1,2],"d":null}}"#),
            ([b"POST", b"/a"], r#"{"a":1,"b":{"c":[2,1],"d":null}}"#),
            ([b"POST", b"/a"], r#"{"a":1}"#),
            ([b"POST", b"/a"], "not JSON"),
            ([b"POST", b"/a"], ""),
        ] {
            assert_ne!(one, of(&parts, json), "{json}");
        }
        assert_ne!(of(&[b"ab", b"c"], ""), of(&[b"a", b"bc"], ""));
    }
}
