//! The section `jwt` of the settings and the keys it names. Owns the start-up checks; it must not
//! fetch anything, and a secret must not reach an error.

use std::str::FromStr;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parlance_runtime::config::{Invalid, Validate, in_range, not_empty};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Shortest HMAC secret in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// Algorithms accepted from remote keys unless the settings say otherwise.
const REMOTE_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// How tokens are checked. Exactly one of `secret`, `public_key`, `public_key_file` and `jwks_url`
/// is set, the others are empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// Shared secret for HS256, at least 16 bytes.
    pub secret: SecretString,
    /// Public key in PEM; `\n` may stand for line breaks.
    pub public_key: String,
    /// File with a public key in PEM.
    pub public_key_file: String,
    /// URL of a JWK set.
    pub jwks_url: String,
    /// Accepted algorithms; empty for the usual ones of the key: HS256, RS256, ES256 or ES384,
    /// EdDSA; for a JWK set RS256, ES256 and EdDSA.
    pub algorithms: Vec<String>,
    /// Required `iss`; empty for any.
    pub issuer: String,
    /// Accepted `aud`, one of which is required; empty for any.
    pub audience: Vec<String>,
    /// Seconds that clocks may differ, 0 to 60.
    pub leeway_seconds: u64,
    /// Seconds by which `nbf` may lie ahead, beyond the leeway, to be waited for; 0 to 60.
    pub not_before_wait_seconds: u64,
    /// Claims that may hold the user id, the first that is present does.
    pub subject_claims: Vec<String>,
    /// Claims that may hold the name to show, the first that does wins.
    pub username_claims: Vec<String>,
    /// Seconds between two fetches of the JWK set, 10 to 86400.
    pub jwks_refresh_seconds: u64,
    /// Claim that tells services from people; empty for none.
    pub service_claim: String,
    /// The value it has then.
    pub service_value: String,
    /// Claim that marks agents; empty for none.
    pub agent_claim: String,
    /// The value it has then.
    pub agent_value: String,
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum KeySource {
    Key(DecodingKey),
    Url(Url),
}

impl Validate for JwtSettings {
    fn validate(&self) -> Result<(), Invalid> {
        in_range("jwt.leeway_seconds", self.leeway_seconds, 0..=60)?;
        in_range(
            "jwt.not_before_wait_seconds",
            self.not_before_wait_seconds,
            0..=60,
        )?;
        in_range("jwt.jwks_refresh_seconds", self.jwks_refresh_seconds, 10..=86_400)?;
        const NAMES: &str = "the names of one or more claims, none of them empty";
        if self.subject_claims.is_empty() {
            return Err(Invalid::hidden("jwt.subject_claims", NAMES));
        }
        for claim in &self.subject_claims {
            not_empty("jwt.subject_claims", claim, NAMES)?;
        }
        for (claim, setting, value, allowed) in [
            (
                &self.service_claim,
                "jwt.service_value",
                &self.service_value,
                "the value of a service's claim",
            ),
            (
                &self.agent_claim,
                "jwt.agent_value",
                &self.agent_value,
                "the value of an agent's claim",
            ),
        ] {
            if !claim.is_empty() {
                not_empty(setting, value, allowed)?;
            }
        }
        for name in &self.audience {
            not_empty("jwt.audience", name, "a list of audiences, none of them empty")?;
        }
        self.keys().map(|_| ())
    }
}

impl JwtSettings {
    /// Says which checks of tokens are switched off. For the start, once there is a log.
    pub fn warn_of_gaps(&self) {
        let gaps = [
            ("jwt.issuer", self.issuer.is_empty()),
            ("jwt.audience", self.audience.is_empty()),
        ];
        let missing: Vec<_> = gaps
            .iter()
            .filter(|(_, missing)| *missing)
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() {
            tracing::warn!(
                "not set: {}. Tokens that the same key signed for other services are accepted; set what your tokens \
                 have in iss and aud",
                missing.join(", ")
            );
        }
    }

    /// Whether some tokens are services'.
    #[must_use]
    pub fn has_services(&self) -> bool {
        !self.service_claim.is_empty()
    }

    pub(super) fn refresh_interval(&self) -> Duration {
        Duration::from_secs(self.jwks_refresh_seconds)
    }

    /// The keys and the algorithms that are accepted with them.
    pub(super) fn keys(&self) -> Result<(KeySource, Vec<Algorithm>), Invalid> {
        let secret = self.secret.expose_secret();
        let given: Vec<_> = [
            ("jwt.secret", secret),
            ("jwt.public_key", self.public_key.as_str()),
            ("jwt.public_key_file", self.public_key_file.as_str()),
            ("jwt.jwks_url", self.jwks_url.as_str()),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
        match given[..] {
            [("jwt.secret", secret)] => self.with_secret(secret),
            [("jwt.public_key", pem)] => self.with_public_key("jwt.public_key", &pem.replace("\\n", "\n")),
            [("jwt.public_key_file", path)] => {
                let pem = std::fs::read_to_string(path).map_err(|error| {
                    let allowed = format!("a readable file with a public key in PEM ({error})");
                    Invalid::new("jwt.public_key_file", path, allowed)
                })?;
                self.with_public_key("jwt.public_key_file", &pem)
            }
            [(_, url)] => self.with_url(url),
            [] => Err(Invalid::hidden(
                "jwt.secret",
                "set, or one of jwt.public_key, jwt.public_key_file, jwt.jwks_url instead",
            )),
            [(first, _), (second, _), ..] => {
                let allowed = format!("the only source of keys: unset it or {second}");
                Err(Invalid::hidden(first, allowed))
            }
        }
    }

    fn with_secret(&self, secret: &str) -> Result<(KeySource, Vec<Algorithm>), Invalid> {
        if secret.len() < MIN_SECRET_BYTES {
            let allowed = format!("at least {MIN_SECRET_BYTES} bytes long");
            return Err(Invalid::hidden("jwt.secret", allowed));
        }
        // Whoever has the public key could sign tokens if it were taken for a shared secret.
        if secret.contains("-----BEGIN") {
            let allowed = "a shared secret; put a public key into jwt.public_key";
            return Err(Invalid::hidden("jwt.secret", allowed));
        }
        let key = DecodingKey::from_secret(secret.as_bytes());
        let algorithms = self.algorithms_or(&[Algorithm::HS256], &[AlgorithmFamily::Hmac])?;
        Ok((KeySource::Key(key), algorithms))
    }

    fn with_public_key(&self, setting: &str, pem: &str) -> Result<(KeySource, Vec<Algorithm>), Invalid> {
        let (key, usual) = read_public_key(pem).map_err(|allowed| Invalid::hidden(setting, allowed))?;
        let algorithms = self.algorithms_or(&[usual], &[usual.family()])?;
        Ok((KeySource::Key(key), algorithms))
    }

    fn with_url(&self, url: &str) -> Result<(KeySource, Vec<Algorithm>), Invalid> {
        let parsed = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(parsed) = parsed else {
            return Err(Invalid::new("jwt.jwks_url", url, "an http:// or https:// URL"));
        };
        let families = [AlgorithmFamily::Rsa, AlgorithmFamily::Ec, AlgorithmFamily::Ed];
        let algorithms = self.algorithms_or(&REMOTE_ALGORITHMS, &families)?;
        Ok((KeySource::Url(parsed), algorithms))
    }

    fn algorithms_or(
        &self,
        usual: &[Algorithm],
        families: &[AlgorithmFamily],
    ) -> Result<Vec<Algorithm>, Invalid> {
        if self.algorithms.is_empty() {
            return Ok(usual.to_vec());
        }
        let fits = |algorithm: &Algorithm| families.contains(&algorithm.family());
        let parsed = self
            .algorithms
            .iter()
            .map(|name| Algorithm::from_str(name).ok().filter(fits));
        parsed.collect::<Option<Vec<_>>>().ok_or_else(|| {
            let names = families
                .iter()
                .flat_map(AlgorithmFamily::algorithms)
                .map(|a| format!("{a:?}"));
            let allowed = format!(
                "a list of {}, to fit the key",
                names.collect::<Vec<_>>().join(", ")
            );
            Invalid::new("jwt.algorithms", self.algorithms.join(","), allowed)
        })
    }
}

/// The key and its usual algorithm, or what would be allowed instead.
fn read_public_key(pem: &str) -> Result<(DecodingKey, Algorithm), &'static str> {
    const ALLOWED: &str = "a public key in PEM: RSA of at least 2048 bits, P-256, P-384 or Ed25519";
    /// Shortest encoding of a 2048-bit RSA public key: the modulus alone has that many bytes.
    const MIN_RSA_BYTES: usize = 256;
    if pem.contains("PRIVATE KEY-----") {
        return Err("a public key in PEM, not a private one");
    }
    // The library would take the first bit string of a certificate for its key.
    if !pem.contains("PUBLIC KEY-----") {
        return Err(ALLOWED);
    }
    let pem = pem.as_bytes();
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return if length(&key) < MIN_RSA_BYTES {
            Err(ALLOWED)
        } else {
            Ok((key, Algorithm::RS256))
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        // The length of an uncompressed point tells the curve.
        return match length(&key) {
            65 => Ok((key, Algorithm::ES256)),
            97 => Ok((key, Algorithm::ES384)),
            _ => Err(ALLOWED),
        };
    }
    DecodingKey::from_ed_pem(pem)
        .map(|key| (key, Algorithm::EdDSA))
        .map_err(|_| ALLOWED)
}
