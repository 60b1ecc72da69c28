//! Keys behind a URL: rotation, outage, and how often a crowd of strange tokens makes us ask.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::future::join_all;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// An identity provider on a free port; gone when dropped.
struct Provider {
    url: String,
    state: Arc<ProviderState>,
    stop: CancellationToken,
}

#[derive(Default)]
struct ProviderState {
    /// What is answered; `None` is a failure.
    keys: Mutex<Option<String>>,
    fetches: AtomicUsize,
    wrong_doors: AtomicUsize,
}

impl Provider {
    async fn start() -> Self {
        let state = Arc::new(ProviderState::default());
        let app = Router::new()
            .route("/keys", get(answer))
            .route("/moved", get(async || Redirect::temporary("/elsewhere")))
            .route("/elsewhere", get(count_wrong_door))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(stopped).await });
        Self { url, state, stop }
    }

    fn publish(&self, keys: &[Value]) {
        self.answer_with(Some(json!({ "keys": keys }).to_string()));
    }

    fn answer_with(&self, body: Option<String>) {
        *self.state.keys.lock().unwrap() = body;
    }

    fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    fn settings(&self) -> JwtSettings {
        JwtSettings {
            jwks_url: self.url.clone(),
            ..settings()
        }
    }

    /// An authenticator that a token with an unknown key makes fetch every time.
    fn eager(&self) -> Authenticator {
        Authenticator::with_refetch_pause(&self.settings(), Duration::ZERO).unwrap()
    }

    /// An authenticator as it is in service.
    fn patient(&self) -> Authenticator {
        Authenticator::from_settings(&self.settings()).unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(State(state): State<Arc<ProviderState>>) -> Response {
    state.fetches.fetch_add(1, Ordering::SeqCst);
    let keys = state.keys.lock().unwrap().clone();
    keys.map_or_else(
        || StatusCode::BAD_GATEWAY.into_response(),
        IntoResponse::into_response,
    )
}

async fn count_wrong_door(State(state): State<Arc<ProviderState>>) -> StatusCode {
    state.wrong_doors.fetch_add(1, Ordering::SeqCst);
    StatusCode::OK
}

fn token(issuer: &Issuer, id: &str) -> String {
    issuer.sign_with_header(&json!({ "kid": id }), &good_claims())
}

async fn outcome(authenticator: &Authenticator, token: &str) -> Result<(), AuthError> {
    authenticator.authenticate_at(token, NOW).await.map(|_| ())
}

#[tokio::test]
async fn every_public_key_kind_of_a_set_is_accepted() {
    let provider = Provider::start().await;
    let issuers = [("r", Issuer::rsa()), ("e", Issuer::ec()), ("d", Issuer::ed())];
    let keys: Vec<_> = issuers.iter().map(|(id, issuer)| issuer.jwk(id)).collect();
    provider.publish(&keys);
    let authenticator = provider.patient();
    assert!(!authenticator.has_keys());
    for (id, issuer) in &issuers {
        assert_eq!(outcome(&authenticator, &token(issuer, id)).await, Ok(()), "{id}");
        assert_eq!(
            outcome(&authenticator, &issuer.sign(&good_claims())).await,
            Ok(()),
            "{id} without its id"
        );
    }
    assert!(authenticator.has_keys());
    assert_eq!(provider.fetches(), 1);
    let swapped = token(&issuers[0].1, "e");
    assert!(outcome(&authenticator, &swapped).await.is_err());
}

#[tokio::test]
async fn a_new_key_is_learnt_and_an_old_one_forgotten() {
    let provider = Provider::start().await;
    let (old, new) = (Issuer::ec(), Issuer::ec());
    let authenticator = provider.eager();
    provider.publish(&[old.jwk("old")]);
    assert_eq!(outcome(&authenticator, &token(&old, "old")).await, Ok(()));
    provider.publish(&[old.jwk("old"), new.jwk("new")]);
    assert_eq!(outcome(&authenticator, &token(&new, "new")).await, Ok(()));
    assert_eq!(outcome(&authenticator, &token(&old, "old")).await, Ok(()));
    provider.publish(&[new.jwk("new")]);
    let stranger = outcome(&authenticator, &token(&old, "third")).await;
    assert_eq!(stranger, Err(AuthError::BadSignature));
    assert_eq!(
        outcome(&authenticator, &token(&old, "old")).await,
        Err(AuthError::BadSignature)
    );
    assert_eq!(outcome(&authenticator, &token(&new, "new")).await, Ok(()));
}

#[tokio::test]
async fn known_keys_outlive_an_outage() {
    let provider = Provider::start().await;
    let issuer = Issuer::ec();
    let authenticator = provider.eager();
    provider.publish(&[issuer.jwk("k")]);
    assert_eq!(outcome(&authenticator, &token(&issuer, "k")).await, Ok(()));
    let faults = [
        None,
        Some("<html>".to_owned()),
        Some(json!({ "keys": [] }).to_string()),
        Some(json!({ "keys": [issuer.jwk("k")], "pad": "x".repeat(300 * 1024) }).to_string()),
    ];
    for fault in faults {
        provider.answer_with(fault);
        let stranger = outcome(&authenticator, &token(&issuer, "other")).await;
        assert_eq!(stranger, Err(AuthError::KeysUnavailable));
        assert!(AuthError::KeysUnavailable.is_retryable());
        assert_eq!(outcome(&authenticator, &token(&issuer, "k")).await, Ok(()));
    }
}

#[tokio::test]
async fn an_unreachable_provider_is_a_reason_to_retry() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", nobody.local_addr().unwrap());
    drop(nobody);
    let unreachable = JwtSettings {
        jwks_url: url,
        ..settings()
    };
    let outcome = check(&unreachable, &token(&Issuer::ec(), "k")).await;
    assert_eq!(outcome, Err(AuthError::KeysUnavailable));
}

#[tokio::test]
async fn a_crowd_of_strange_tokens_causes_one_fetch() {
    let provider = Provider::start().await;
    let issuer = Issuer::ec();
    provider.publish(&[issuer.jwk("k")]);
    let authenticator = provider.patient();
    let tokens: Vec<_> = (0..50)
        .map(|n| token(&issuer, &format!("../../etc/passwd{n}")))
        .collect();
    let outcomes = join_all(tokens.iter().map(|token| outcome(&authenticator, token))).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == Err(AuthError::BadSignature))
    );
    assert_eq!(provider.fetches(), 1);
    for token in &tokens {
        assert_eq!(outcome(&authenticator, token).await, Err(AuthError::BadSignature));
    }
    assert_eq!(provider.fetches(), 1);
    assert_eq!(outcome(&authenticator, &token(&issuer, "k")).await, Ok(()));
}

#[tokio::test]
async fn a_failed_fetch_is_not_repeated_at_once() {
    let provider = Provider::start().await;
    let authenticator = provider.patient();
    let token = token(&Issuer::ec(), "k");
    for _ in 0..5 {
        assert_eq!(
            outcome(&authenticator, &token).await,
            Err(AuthError::KeysUnavailable)
        );
    }
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test]
async fn keys_are_fetched_before_the_first_token() {
    let provider = Provider::start().await;
    provider.publish(&[Issuer::ec().jwk("k")]);
    let authenticator = provider.patient();
    let stop = CancellationToken::new();
    let refresher = tokio::spawn({
        let (authenticator, stop) = (authenticator.clone(), stop.clone());
        async move { authenticator.keep_keys_fresh(stop).await }
    });
    let deadline = Instant::now() + SOON;
    while !authenticator.has_keys() {
        assert!(Instant::now() < deadline, "no keys in time");
        tokio::task::yield_now().await;
    }
    stop.cancel();
    timeout(SOON, refresher).await.unwrap().unwrap();
}

#[tokio::test]
async fn only_public_signature_keys_of_a_set_are_used() {
    let provider = Provider::start().await;
    let (issuer, encryption) = (Issuer::ec(), Issuer::ec());
    let mut for_encryption = encryption.jwk("enc");
    for_encryption["use"] = json!("enc");
    let shared = json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) });
    let unknown = json!({ "kty": "XYZ", "kid": "xyz", "crv": "secp256k1", "x": "AA" });
    let mut without_id = issuer.jwk("k");
    without_id.as_object_mut().unwrap().remove("kid");
    provider.publish(&[json!(7), unknown, shared, for_encryption, without_id]);
    let authenticator = provider.eager();
    assert_eq!(
        outcome(&authenticator, &issuer.sign(&good_claims())).await,
        Ok(())
    );
    assert_eq!(
        outcome(&authenticator, &token(&encryption, "enc")).await,
        Err(AuthError::BadSignature)
    );
    let symmetric = token(&Issuer::hmac(SECRET), "oct");
    assert_eq!(
        outcome(&authenticator, &symmetric).await,
        Err(AuthError::UnsupportedAlgorithm)
    );
}

#[tokio::test]
async fn redirects_and_addresses_in_tokens_are_not_followed() {
    let provider = Provider::start().await;
    let moved = JwtSettings {
        jwks_url: provider.url.replace("/keys", "/moved"),
        ..settings()
    };
    let elsewhere = provider.url.replace("/keys", "/elsewhere");
    let header = json!({ "kid": "k", "jku": elsewhere, "x5u": elsewhere });
    let token = Issuer::ec().sign_with_header(&header, &good_claims());
    assert_eq!(check(&moved, &token).await, Err(AuthError::KeysUnavailable));
    assert_eq!(provider.state.wrong_doors.load(Ordering::SeqCst), 0);
}
