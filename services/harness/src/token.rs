//! Mints the HS256 tokens that the gateways of a local stack accept.
//!
//! Must not verify tokens: that is the gateway's work and only its own.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::environment;

/// Lifetime of a token when nothing else is asked, in seconds.
const LIFETIME_SECONDS: i64 = 24 * 60 * 60;

/// A token to be signed: `sub`, `name`, `iat` and `exp`, and whatever a test changes about them.
#[derive(Clone, Debug)]
pub struct Token {
    claims: Map<String, Value>,
    header: Header,
}

impl Token {
    /// A valid token for the user `subject`, named as its subject, for one day.
    #[must_use]
    pub fn new(subject: &str) -> Self {
        let now = environment::unix_seconds();
        let mut claims = Map::new();
        claims.insert("sub".into(), json!(subject));
        claims.insert("name".into(), json!(subject));
        claims.insert("iat".into(), json!(now));
        claims.insert("exp".into(), json!(now + LIFETIME_SECONDS));
        Self {
            claims,
            header: Header::new(Algorithm::HS256),
        }
    }

    /// Sets the display name.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.claim("name", name)
    }

    /// Lets the token end `seconds` from now; negative: it already has.
    #[must_use]
    pub fn expires_in(self, seconds: i64) -> Self {
        self.claim("exp", environment::unix_seconds() + seconds)
    }

    /// Makes the token valid only `seconds` from now.
    #[must_use]
    pub fn not_before_in(self, seconds: i64) -> Self {
        self.claim("nbf", environment::unix_seconds() + seconds)
    }

    /// Sets any claim to any value.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets the header's key id.
    #[must_use]
    pub fn key_id(mut self, kid: &str) -> Self {
        self.header.kid = Some(kid.into());
        self
    }

    /// Signs with `secret` by HS256.
    ///
    /// # Errors
    /// The claims cannot be encoded.
    pub fn sign(&self, secret: &str) -> anyhow::Result<String> {
        jsonwebtoken::encode(
            &self.header,
            &self.claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .context("cannot sign the token")
    }

    /// The same claims with `alg: none` and an empty signature, which no server may accept.
    #[must_use]
    pub fn unsigned(&self) -> String {
        let header = json!({"alg": "none", "typ": "JWT"}).to_string();
        let claims = Value::Object(self.claims.clone()).to_string();
        format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(token: &str) -> Value {
        let body = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
    }

    #[test]
    fn a_token_carries_subject_name_and_a_day_of_life() {
        let claims = claims(&Token::new("alice").name("Alice").sign("secret").unwrap());
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["name"], "Alice");
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            LIFETIME_SECONDS
        );
    }

    #[test]
    fn claims_can_be_changed_and_left_out() {
        let claims = claims(&Token::new("alice").without("sub").claim("exp", "soon").unsigned());
        assert!(claims.get("sub").is_none());
        assert_eq!(claims["exp"], "soon");
    }
}
