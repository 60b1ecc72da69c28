//! From verified claims to an identity. Pure: the time is passed in. It must not trust a claim's
//! form: the issuer signs what it likes.

use parlance_proto::UserId;
use parlance_proto::text::shown;
use serde_json::{Map, Value};

use super::{AuthError, Grant, Identity, JwtSettings};

/// The payload of a token whose signature is good.
pub(super) type Claims = Map<String, Value>;

/// Longest username, and longest token id and dialect name that are kept, in characters.
const MAX_NAME_CHARS: usize = 128;

/// The largest whole number that JSON carries exactly everywhere.
const MAX_SAFE_INTEGER: u64 = 9_007_199_254_740_991;

/// What claims must say.
#[derive(Debug)]
pub(super) struct Rules {
    /// Required issuer; empty for any.
    issuer: String,
    /// Audiences of which one is required; empty for any.
    audience: Vec<String>,
    /// Seconds that clocks may differ.
    leeway: i64,
    /// Seconds that the start of a token may lie ahead beyond the leeway to be waited for.
    wait: i64,
    /// Claims that may hold the user id, the first that is present does.
    subject_claims: Vec<String>,
    username_claims: Vec<String>,
    /// Marks services.
    service: Marker,
    /// Marks agents.
    agent: Marker,
}

/// A claim and the value by which it marks a token; without a claim no token is marked.
#[derive(Debug)]
struct Marker {
    claim: String,
    value: String,
}

impl Marker {
    fn new(claim: &str, value: &str) -> Self {
        Self {
            claim: claim.to_owned(),
            value: value.to_owned(),
        }
    }

    /// Whether the claim has the value: as text, as one word of it, as one of a list, or as `true`.
    fn is_on(&self, claims: &Claims) -> bool {
        let is_it = |value: &Value| match value {
            Value::Bool(value) => *value && self.value == "true",
            Value::String(text) => text.split(' ').any(|word| word == self.value),
            _ => false,
        };
        match claims.get(&self.claim) {
            _ if self.claim.is_empty() => false,
            Some(Value::Array(values)) => values.iter().any(is_it),
            Some(value) => is_it(value),
            None => false,
        }
    }
}

impl Rules {
    pub(super) fn from_settings(settings: &JwtSettings) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            leeway: i64::try_from(settings.leeway_seconds).unwrap_or(0),
            wait: i64::try_from(settings.not_before_wait_seconds).unwrap_or(0),
            subject_claims: settings.subject_claims.clone(),
            username_claims: settings.username_claims.clone(),
            service: Marker::new(&settings.service_claim, &settings.service_value),
            agent: Marker::new(&settings.agent_claim, &settings.agent_value),
        }
    }

    /// The identity that `claims` prove at `now`, in seconds since 1970 UTC.
    pub(super) fn identify(&self, claims: &Claims, now: i64) -> Result<Identity, AuthError> {
        let expires_at = seconds(claims, "exp")?.ok_or_else(|| missing("exp"))?;
        if now.saturating_sub(self.leeway) >= expires_at {
            return Err(AuthError::Expired);
        }
        let start = seconds(claims, "nbf")?.unwrap_or(i64::MIN);
        match start.saturating_sub(now.saturating_add(self.leeway)) {
            ..=0 => {}
            ahead if ahead <= self.wait => return Err(AuthError::Early(ahead.unsigned_abs())),
            _ => return Err(AuthError::NotYetValid),
        }
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        let is_service = self.service.is_on(claims);
        let user_id = self.subject(claims, is_service)?;
        Ok(Identity {
            username: self.username(claims),
            user_id,
            grant: Grant {
                expires_at,
                // Odd ones were accepted by whoever issued them; they only cannot be told from old ones.
                issued_at: seconds(claims, "iat").unwrap_or_default(),
                token_id: short_text(claims, "jti"),
            },
            is_service,
            is_agent: self.agent.is_on(claims),
            dialect: short_text(claims, "dialect"),
        })
    }

    fn check_issuer(&self, claims: &Claims) -> Result<(), AuthError> {
        let right = claims.get("iss").and_then(Value::as_str) == Some(&self.issuer);
        if self.issuer.is_empty() || right {
            Ok(())
        } else {
            Err(AuthError::WrongIssuer)
        }
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), AuthError> {
        let is_ours = |value: &Value| {
            value
                .as_str()
                .is_some_and(|name| self.audience.iter().any(|a| a == name))
        };
        let right = match claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(is_ours),
            Some(name) => is_ours(name),
            None => false,
        };
        if self.audience.is_empty() || right {
            Ok(())
        } else {
            Err(AuthError::WrongAudience)
        }
    }

    /// The user id, from the first claim of the list that is present; a further one never replaces an unusable
    /// one. Whole numbers are taken too: many applications number their users. Beyond what a double holds
    /// exactly, two users could have one number. The ids of services are for tokens of services.
    fn subject(&self, claims: &Claims, is_service: bool) -> Result<UserId, AuthError> {
        let present = self.subject_claims.iter().find_map(|claim| {
            let value = claims.get(claim).filter(|value| !value.is_null())?;
            Some((claim, value))
        });
        let Some((claim, value)) = present else {
            return Err(AuthError::NoSubject(self.subject_claims.join(", ")));
        };
        let invalid = || AuthError::InvalidClaim(claim.clone());
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => {
                let whole = number
                    .as_i64()
                    .filter(|whole| whole.unsigned_abs() <= MAX_SAFE_INTEGER);
                whole.ok_or_else(invalid)?.to_string()
            }
            _ => return Err(invalid()),
        };
        let user = UserId::parse(text).map_err(|_| invalid())?;
        if user.is_service() && !is_service {
            return Err(invalid());
        }
        Ok(user)
    }

    /// The first claim that holds a name that can be seen, as it is shown and cut to the longest length.
    fn username(&self, claims: &Claims) -> Option<String> {
        self.username_claims.iter().find_map(|claim| {
            let name = shown(claims.get(claim)?.as_str()?);
            let cut: String = name.chars().take(MAX_NAME_CHARS).collect();
            let cut = cut.trim_end();
            (!cut.is_empty()).then(|| cut.to_owned())
        })
    }
}

/// A time claim in whole seconds; `None` when absent. RFC 7519 allows fractions.
fn seconds(claims: &Claims, claim: &str) -> Result<Option<i64>, AuthError> {
    /// Above this a floating-point number no longer holds whole seconds.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    if let Some(whole) = value.as_i64() {
        return Ok(Some(whole));
    }
    match value.as_f64() {
        Some(number) if value.is_f64() && number.abs() < MAX_EXACT => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the range was checked; the fraction may go"
            )]
            let whole = number.floor() as i64;
            Ok(Some(whole))
        }
        _ => Err(AuthError::InvalidClaim(claim.to_owned())),
    }
}

/// An optional text claim; one that is no text, empty or overlong counts as absent.
fn short_text(claims: &Claims, claim: &str) -> Option<String> {
    let text = claims.get(claim)?.as_str()?;
    let usable = !text.is_empty() && text.chars().count() <= MAX_NAME_CHARS;
    usable.then(|| text.to_owned())
}

fn missing(claim: &str) -> AuthError {
    AuthError::MissingClaim(claim.to_owned())
}
