//! Public keys of the issuer, fetched from one configured URL and kept in memory.
//!
//! Owns when they are fetched: regularly, and when a token names a key that is not known, but then
//! at most once in a while and by one caller for all. A failed fetch keeps the keys that were had.
//! It must not fetch from any address a token names.

use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parlance_runtime::config::{Invalid, without_credentials};
use parlance_runtime::tasks;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::AuthError;

/// Longest time for one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to the next regular fetch when one has failed.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Largest JWK set in bytes.
const MAX_SET_BYTES: usize = 256 * 1024;

/// The keys behind one URL. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct RemoteKeys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    url: Url,
    client: Client,
    refresh_interval: Duration,
    /// Shortest time between two fetches that tokens cause.
    refetch_pause: Duration,
    keys: RwLock<Arc<KeySet>>,
    /// Held while fetching, so that there is one fetch at a time.
    last_attempt: Mutex<Option<Attempt>>,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    at: Instant,
    succeeded: bool,
}

/// The usable keys of one fetched set.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<RemoteKey>);

#[derive(Debug)]
struct RemoteKey {
    id: Option<String>,
    /// The only algorithm the key is for, where the set says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// A JWK set whose keys are read one by one: a key of an unknown kind must not spoil the others.
#[derive(Debug, Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl RemoteKeys {
    pub(super) fn new(
        url: Url,
        refresh_interval: Duration,
        refetch_pause: Duration,
    ) -> Result<Self, Invalid> {
        // A redirect could lead into the internal network.
        let client = Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(redirect::Policy::none())
            .build();
        let client = client.map_err(|error| {
            let allowed = format!("reachable, but no HTTP client can be made ({error})");
            Invalid::new("jwt.jwks_url", &url, allowed)
        })?;
        Ok(Self(Arc::new(Shared {
            url,
            client,
            refresh_interval,
            refetch_pause,
            keys: RwLock::default(),
            last_attempt: Mutex::new(None),
        })))
    }

    /// The keys as last fetched.
    pub(super) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.0.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fetches now and then regularly, for ever.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let mut last_attempt = self.0.last_attempt.lock().await;
            let succeeded = self.fetch(&mut last_attempt).await;
            drop(last_attempt);
            let pause = if succeeded {
                self.0.refresh_interval
            } else {
                RETRY_AFTER_FAILURE
            };
            tokio::time::sleep(pause.min(self.0.refresh_interval)).await;
        }
    }

    /// The keys that may have signed a token with this header, never none.
    pub(super) async fn keys_for(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<DecodingKey>, AuthError> {
        let known = self.current();
        let found = known.matching(id, algorithm);
        if !found.is_empty() {
            return Ok(found);
        }
        // In a task of its own: a client that goes away must not take the others' fetch with it.
        let this = self.clone();
        let fetched = tasks::spawn(
            "fetch keys",
            async move { this.fetch_unless_recent(&known).await },
        )
        .await;
        let found = fetched
            .map_err(|_| AuthError::KeysUnavailable)??
            .matching(id, algorithm);
        if found.is_empty() {
            Err(AuthError::BadSignature)
        } else {
            Ok(found)
        }
    }

    async fn fetch_unless_recent(&self, known: &Arc<KeySet>) -> Result<Arc<KeySet>, AuthError> {
        let mut last_attempt = self.0.last_attempt.lock().await;
        let current = self.current();
        // Somebody else has fetched while this waited.
        if !Arc::ptr_eq(&current, known) {
            return Ok(current);
        }
        let recent = last_attempt.filter(|attempt| attempt.at.elapsed() < self.0.refetch_pause);
        let succeeded = match recent {
            Some(attempt) => attempt.succeeded,
            None => self.fetch(&mut last_attempt).await,
        };
        if succeeded {
            Ok(self.current())
        } else {
            Err(AuthError::KeysUnavailable)
        }
    }

    /// Replaces the keys if the fetch succeeds; says so in the log if not.
    async fn fetch(&self, last_attempt: &mut Option<Attempt>) -> bool {
        let at = Instant::now();
        let outcome = self.download().await;
        let succeeded = outcome.is_ok();
        let result = if succeeded { "ok" } else { "error" };
        metrics::counter!("chat_gateway_jwks_fetches_total", "result" => result).increment(1);
        match outcome {
            Ok(keys) => {
                let mut current = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(keys);
            }
            Err(error) => {
                let url = without_credentials(self.0.url.as_str());
                tracing::warn!(
                    url,
                    error = format!("{error:#}"),
                    "cannot fetch the keys for tokens"
                );
            }
        }
        *last_attempt = Some(Attempt { at, succeeded });
        succeeded
    }

    async fn download(&self) -> anyhow::Result<KeySet> {
        let request = self.0.client.get(self.0.url.clone()).send().await;
        let mut response = request.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        ensure!(status.is_success(), "answered {status}");
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            body.extend_from_slice(&chunk);
            ensure!(
                body.len() <= MAX_SET_BYTES,
                "answered with more than {MAX_SET_BYTES} bytes"
            );
        }
        KeySet::read(&body)
    }
}

impl KeySet {
    fn read(body: &[u8]) -> anyhow::Result<Self> {
        let document: Document = serde_json::from_slice(body).context("answered with no JWK set")?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(RemoteKey::read).collect();
        // An empty set would lock everybody out; more likely than a wish is a fault over there.
        if keys.is_empty() {
            bail!("answered with no usable key");
        }
        Ok(Self(keys))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn matching(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        let fits = |key: &&RemoteKey| {
            let same_id = match (id, &key.id) {
                (Some(wanted), Some(own)) => wanted == own,
                _ => true,
            };
            let same_algorithm = key.algorithm.is_none_or(|own| own == algorithm);
            same_id && same_algorithm && key.key.family() == algorithm.family()
        };
        self.0.iter().filter(fits).map(|key| key.key.clone()).collect()
    }
}

impl RemoteKey {
    /// `None` for a key that is of no use: for encryption, of an unknown kind, or a shared secret,
    /// which has no place in a public document.
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let is_secret = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        let algorithm = match jwk.common.key_algorithm {
            Some(algorithm) => Some(Algorithm::from_str(&algorithm.to_string()).ok()?),
            None => None,
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let usable = for_signatures && !is_secret && key.family() != AlgorithmFamily::Hmac;
        usable.then_some(Self {
            id: jwk.common.key_id,
            algorithm,
            key,
        })
    }
}
