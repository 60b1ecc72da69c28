//! Who a client is: from the token it brings to an [`Identity`].
//!
//! Owns every rule about tokens: accepted keys, pinned algorithms, required claims, times. Pure but
//! for the fetch of remote keys. It must not know sockets, routes or users beyond their token, and
//! neither tokens nor claims may reach a log.

mod claims;
mod jwks;
mod revoked;
mod settings;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use parlance_proto::UserId;
use parlance_runtime::config::Invalid;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio_util::sync::CancellationToken;

use claims::{Claims, Rules};
use jwks::RemoteKeys;
pub use revoked::Revocations;
pub use settings::JwtSettings;
use settings::KeySource;

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Shortest time between two fetches that tokens with unknown keys may cause.
const REFETCH_PAUSE: Duration = Duration::from_secs(10);

/// Who a verified token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The subject.
    pub user_id: UserId,
    /// Name to show, 1 to 128 characters, where the token says one.
    pub username: Option<String>,
    /// What the token says of itself.
    pub grant: Grant,
    /// The dialect the token asks for, unchecked.
    pub dialect: Option<String>,
    /// It is a service, not a person.
    pub is_service: bool,
    /// It is an agent: a program that answers people.
    pub is_agent: bool,
}

/// What a token says of itself: whether it still holds depends on nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// When it ends, in seconds since 1970 UTC, leeway not included.
    pub expires_at: i64,
    /// When it was issued, in seconds since 1970 UTC.
    pub issued_at: Option<i64>,
    /// Its own id.
    pub token_id: Option<String>,
}

/// Why a token is refused. Displays as a message that is safe to show to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token was brought.
    #[error(
        "authentication is required: no token was given; send it as auth.token on sockets, or in the header \
         Authorization: Bearer <token>"
    )]
    Missing,
    /// Not a token at all, too long a one, or one with critical headers.
    #[error("the token is malformed")]
    Malformed,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies further ahead than is waited for.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `nbf` lies so many seconds ahead, which is waited for.
    #[error("the token is not valid yet, try again in {0} s")]
    Early(u64),
    /// Signed by no accepted key.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// `iss` is missing or another one.
    #[error("the token's issuer is not accepted")]
    WrongIssuer,
    /// `aud` is missing or names only others.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// A required claim is absent.
    #[error("the token lacks the claim {0}")]
    MissingClaim(String),
    /// It has none of the claims that may name the user.
    #[error("the token names no user: it has none of the claims {0}")]
    NoSubject(String),
    /// A claim has a value of the wrong form.
    #[error("the token's claim {0} is not valid")]
    InvalidClaim(String),
    /// Signed with an algorithm that is not accepted, `none` among them.
    #[error("the token's algorithm is not accepted")]
    UnsupportedAlgorithm,
    /// It was taken back before its end.
    #[error("the token has been revoked")]
    Revoked,
    /// The keys to check the token with, or the list of what was revoked, cannot be had now.
    #[error("tokens cannot be checked at the moment, try again")]
    KeysUnavailable,
}

/// Turns tokens into identities. Clones share their keys.
#[derive(Debug, Clone)]
pub struct Authenticator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Rules,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    revocations: Revocations,
}

#[derive(Debug)]
enum Keys {
    Fixed(DecodingKey),
    Remote(RemoteKeys),
}

/// What the unverified header of a token is asked for. Whatever else stands there (`jku`, `x5u`,
/// `jwk`) is never looked at.
#[derive(Debug, Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl AuthError {
    /// Whether the same token may be accepted later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::Early(_))
    }

    /// The setting that decides whether such a token is accepted; none where no setting would.
    #[must_use]
    pub fn setting(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing | Self::Malformed | Self::MissingClaim(_) | Self::Revoked => return None,
            Self::Expired => "jwt.leeway_seconds",
            Self::NotYetValid | Self::Early(_) => "jwt.not_before_wait_seconds",
            Self::BadSignature => "jwt.secret, jwt.public_key or jwt.jwks_url",
            Self::WrongIssuer => "jwt.issuer",
            Self::WrongAudience => "jwt.audience",
            Self::InvalidClaim(claim) if claim == "exp" || claim == "nbf" => return None,
            Self::NoSubject(_) | Self::InvalidClaim(_) => "jwt.subject_claims",
            Self::UnsupportedAlgorithm => "jwt.algorithms",
            Self::KeysUnavailable => "jwt.jwks_url",
        })
    }

    /// A short name for metrics and logs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Early(_) => "early",
            Self::BadSignature => "bad_signature",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::MissingClaim(_) => "missing_claim",
            Self::NoSubject(_) => "no_subject",
            Self::InvalidClaim(_) => "invalid_claim",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::Revoked => "revoked",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

impl Authenticator {
    /// Reads the keys that the settings name. Remote keys are not fetched yet: see
    /// [`Self::keep_keys_fresh`].
    ///
    /// # Errors
    /// The first setting that cannot work, e.g. a key that is none.
    pub fn from_settings(settings: &JwtSettings) -> Result<Self, Invalid> {
        Self::with_refetch_pause(settings, REFETCH_PAUSE)
    }

    fn with_refetch_pause(settings: &JwtSettings, pause: Duration) -> Result<Self, Invalid> {
        let (source, algorithms) = settings.keys()?;
        let keys = match source {
            KeySource::Key(key) => Keys::Fixed(key),
            KeySource::Url(url) => Keys::Remote(RemoteKeys::new(url, settings.refresh_interval(), pause)?),
        };
        let rules = Rules::from_settings(settings);
        Ok(Self(Arc::new(Inner {
            rules,
            algorithms,
            keys,
            revocations: Revocations::default(),
        })))
    }

    /// Keeps remote keys fresh until `stop`; the first fetch is at once. Returns at `stop` too when
    /// there is nothing to fetch.
    pub async fn keep_keys_fresh(&self, stop: CancellationToken) {
        match &self.0.keys {
            Keys::Fixed(_) => stop.cancelled().await,
            Keys::Remote(remote) => {
                stop.run_until_cancelled(remote.keep_fresh()).await;
            }
        }
    }

    /// The tokens that are void before their time.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    /// Whether there are keys to check tokens with.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        match &self.0.keys {
            Keys::Fixed(_) => true,
            Keys::Remote(remote) => !remote.current().is_empty(),
        }
    }

    /// The identity that `token` proves now. `Bearer ` before the token is accepted.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        self.authenticate_at(token, unix_now()).await
    }

    /// As [`Self::authenticate`] at another time, in seconds since 1970 UTC.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn authenticate_at(&self, token: &str, now: i64) -> Result<Identity, AuthError> {
        let inner = &*self.0;
        let token = bearer(token).unwrap_or_else(|| token.trim());
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Malformed);
        }
        let header = TokenHeader::of(token)?;
        let algorithm = header.algorithm()?;
        if !inner.algorithms.contains(&algorithm) {
            return Err(AuthError::UnsupportedAlgorithm);
        }
        let claims = match &inner.keys {
            Keys::Fixed(key) => verify(token, key, algorithm)?,
            Keys::Remote(remote) => {
                let keys = remote.keys_for(header.kid.as_deref(), algorithm).await?;
                verify_with_any(token, &keys, algorithm)?
            }
        };
        let identity = inner.rules.identify(&claims, now)?;
        if !inner.revocations.is_read() {
            return Err(AuthError::KeysUnavailable);
        }
        if inner.revocations.includes(&identity.user_id, &identity.grant) {
            return Err(AuthError::Revoked);
        }
        Ok(identity)
    }
}

/// The token in the value of an `Authorization` header; the scheme `Bearer` may have any case and spacing.
#[must_use]
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(|c: char| c.is_ascii_whitespace())?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

impl TokenHeader {
    fn of(token: &str) -> Result<Self, AuthError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AuthError::Malformed);
        };
        let header: Self = decode_part(header)?;
        // Critical extensions must be understood or the token refused (RFC 7515 §4.1.11); none is.
        if header.crit.is_some() {
            Err(AuthError::Malformed)
        } else {
            Ok(header)
        }
    }

    fn algorithm(&self) -> Result<Algorithm, AuthError> {
        Algorithm::from_str(&self.alg).map_err(|_| AuthError::UnsupportedAlgorithm)
    }
}

/// The claims of a token whose signature is good. The library's own decoding is not used: it accepts
/// absent claims and refuses odd ones without saying which.
fn verify(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, AuthError> {
    let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
    let (_, payload) = message.split_once('.').ok_or(AuthError::Malformed)?;
    match crypto::verify(signature, message.as_bytes(), key, algorithm) {
        Ok(true) => decode_part(payload),
        Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => Err(AuthError::Malformed),
        Ok(false) | Err(_) => Err(AuthError::BadSignature),
    }
}

/// Reads one of the two JSON parts of a token.
fn decode_part<T: DeserializeOwned>(part: &str) -> Result<T, AuthError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| AuthError::Malformed)
}

fn verify_with_any(token: &str, keys: &[DecodingKey], algorithm: Algorithm) -> Result<Claims, AuthError> {
    for key in keys {
        match verify(token, key, algorithm) {
            Err(AuthError::BadSignature) => {}
            decided => return decided,
        }
    }
    Err(AuthError::BadSignature)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks for the time a token is checked at"
)]
fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
