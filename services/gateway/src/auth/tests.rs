//! Forged, stale and honest tokens against an authenticator with one fixed key.

mod issuer;
mod rotation;
mod standing;
mod start;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use issuer::Issuer;

/// The time all tokens here are checked at.
const NOW: i64 = 1_700_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn settings() -> JwtSettings {
    JwtSettings {
        secret: SecretString::from(""),
        public_key: String::new(),
        public_key_file: String::new(),
        jwks_url: String::new(),
        algorithms: Vec::new(),
        issuer: String::new(),
        audience: Vec::new(),
        leeway_seconds: 2,
        not_before_wait_seconds: 30,
        subject_claims: vec!["sub".to_owned()],
        username_claims: vec!["name".to_owned(), "username".to_owned()],
        jwks_refresh_seconds: 300,
        service_claim: String::new(),
        service_value: "true".to_owned(),
        agent_claim: "role".to_owned(),
        agent_value: "agent".to_owned(),
    }
}

fn with_secret() -> JwtSettings {
    JwtSettings {
        secret: SecretString::from(SECRET),
        ..settings()
    }
}

fn with_key(issuer: &Issuer) -> JwtSettings {
    JwtSettings {
        public_key: issuer.public_pem.clone(),
        ..settings()
    }
}

fn good_claims() -> Value {
    json!({ "sub": "alice", "name": "Alice", "exp": NOW + 60 })
}

/// The usual claims with some replaced; `null` removes one.
fn claims_with(changes: Value) -> Value {
    let mut claims = good_claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            _ => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

async fn check(settings: &JwtSettings, token: &str) -> Result<Identity, AuthError> {
    Authenticator::from_settings(settings)
        .unwrap()
        .authenticate_at(token, NOW)
        .await
}

async fn check_claims(settings: &JwtSettings, changes: Value) -> Result<Identity, AuthError> {
    check(settings, &Issuer::hmac(SECRET).sign(&claims_with(changes))).await
}

/// A token made by hand: any header, any signature.
fn forge(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (header, claims) = (header.to_string(), claims.to_string());
    format!(
        "{}.{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes()),
        encode(signature)
    )
}

#[tokio::test]
async fn an_honest_token_of_each_key_kind_is_accepted() {
    let cases = [
        (with_secret(), Issuer::hmac(SECRET)),
        Issuer::rsa_with(with_key),
        Issuer::ec_with(with_key),
        Issuer::ed_with(with_key),
    ];
    for (settings, issuer) in cases {
        let identity = check(&settings, &issuer.sign(&good_claims())).await.unwrap();
        assert_eq!(identity.user_id.as_str(), "alice");
        assert_eq!(identity.username.as_deref(), Some("Alice"));
        assert_eq!(identity.grant.expires_at, NOW + 60);
        assert_eq!((identity.grant.token_id, identity.dialect), (None, None));
    }
}

#[tokio::test]
async fn no_token_junk_and_overlong_tokens_are_refused() {
    assert_eq!(check(&with_secret(), "").await, Err(AuthError::Missing));
    let good = Issuer::hmac(SECRET).sign(&good_claims());
    let with_five_parts = format!("{good}.x.y");
    let without_signature = good.rsplit_once('.').unwrap().0;
    let mut cases = vec![
        "x",
        "..",
        "a.b.c",
        "e30.e30.",
        &with_five_parts,
        without_signature,
        "é.é.é",
    ];
    let overlong = Issuer::hmac(SECRET).sign(&claims_with(json!({ "pad": "x".repeat(8 * 1024) })));
    cases.push(&overlong);
    for token in cases {
        assert_eq!(
            check(&with_secret(), token).await,
            Err(AuthError::Malformed),
            "{token:.40}"
        );
    }
}

#[tokio::test]
async fn alg_none_is_refused_with_and_without_a_signature() {
    for name in ["none", "None", "NONE", "nOnE", ""] {
        for signature in [&b""[..], b"x"] {
            let token = forge(&json!({ "alg": name, "typ": "JWT" }), &good_claims(), signature);
            let outcome = check(&with_secret(), &token).await;
            assert_eq!(outcome, Err(AuthError::UnsupportedAlgorithm), "{name}");
        }
    }
}

#[tokio::test]
async fn the_public_key_is_no_shared_secret() {
    for (settings, issuer) in [Issuer::rsa_with(with_key), Issuer::ec_with(with_key)] {
        let forged = Issuer::hmac(&issuer.public_pem).sign(&good_claims());
        assert_eq!(
            check(&settings, &forged).await,
            Err(AuthError::UnsupportedAlgorithm)
        );
    }
}

#[tokio::test]
async fn another_algorithm_of_the_same_family_is_refused() {
    let mut issuer = Issuer::hmac(SECRET);
    issuer.algorithm = Algorithm::HS512;
    let token = issuer.sign(&good_claims());
    assert_eq!(
        check(&with_secret(), &token).await,
        Err(AuthError::UnsupportedAlgorithm)
    );
    let pinned = JwtSettings {
        algorithms: vec!["HS512".to_owned()],
        ..with_secret()
    };
    assert!(check(&pinned, &token).await.is_ok());
}

#[tokio::test]
async fn a_wrong_key_or_a_changed_payload_is_refused() {
    let wrong = Issuer::hmac("another secret of some length").sign(&good_claims());
    assert_eq!(check(&with_secret(), &wrong).await, Err(AuthError::BadSignature));
    for ((settings, _), (_, other)) in [
        (Issuer::rsa_with(with_key), Issuer::rsa_with(with_key)),
        (Issuer::ec_with(with_key), Issuer::ec_with(with_key)),
        (Issuer::ed_with(with_key), Issuer::ed_with(with_key)),
    ] {
        let token = other.sign(&good_claims());
        assert_eq!(check(&settings, &token).await, Err(AuthError::BadSignature));
    }
    let good = Issuer::hmac(SECRET).sign(&good_claims());
    let (_, signature) = good.rsplit_once('.').unwrap();
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    let changed = forge(&header, &claims_with(json!({ "sub": "bob" })), b"");
    let changed = format!("{changed}{signature}");
    assert_eq!(
        check(&with_secret(), &changed).await,
        Err(AuthError::BadSignature)
    );
    assert_eq!(
        check(&with_secret(), &forge(&header, &good_claims(), b"")).await,
        Err(AuthError::BadSignature)
    );
}

#[tokio::test]
async fn headers_that_point_elsewhere_are_ignored_and_critical_ones_refused() {
    let issuer = Issuer::hmac(SECRET);
    let attacker = Issuer::ec();
    for pointer in [
        json!({ "kid": "../../etc/passwd" }),
        json!({ "kid": "' OR 1=1 --" }),
        json!({ "jku": "http://127.0.0.1:9/keys" }),
        json!({ "x5u": "http://127.0.0.1:9/cert" }),
        json!({ "jwk": attacker.jwk("k") }),
    ] {
        let honest = issuer.sign_with_header(&pointer, &good_claims());
        assert!(check(&with_secret(), &honest).await.is_ok(), "{pointer}");
        let (settings, _) = Issuer::ec_with(with_key);
        let forged = attacker.sign_with_header(&pointer, &good_claims());
        assert_eq!(
            check(&settings, &forged).await,
            Err(AuthError::BadSignature),
            "{pointer}"
        );
    }
    let critical = issuer.sign_with_header(&json!({ "crit": ["b64"] }), &good_claims());
    assert_eq!(check(&with_secret(), &critical).await, Err(AuthError::Malformed));
}

#[tokio::test]
async fn expiry_is_required_exact_and_a_number() {
    let invalid = || Err(AuthError::InvalidClaim("exp".to_owned()));
    let cases = [
        (
            json!({ "exp": null }),
            Err(AuthError::MissingClaim("exp".to_owned())),
        ),
        (json!({ "exp": "1700000060" }), invalid()),
        (json!({ "exp": 1e300 }), invalid()),
        (json!({ "exp": u64::MAX }), invalid()),
        (json!({ "exp": true }), invalid()),
        (json!({ "exp": [NOW + 60] }), invalid()),
        (json!({ "exp": -1 }), Err(AuthError::Expired)),
        (json!({ "exp": i64::MIN }), Err(AuthError::Expired)),
        (json!({ "exp": NOW - 30 }), Err(AuthError::Expired)),
        (json!({ "exp": NOW - 2 }), Err(AuthError::Expired)),
        (json!({ "exp": NOW - 1 }), Ok(NOW - 1)),
        (json!({ "exp": NOW + 10 }), Ok(NOW + 10)),
        (json!({ "exp": 1_700_000_010.7 }), Ok(NOW + 10)),
        (json!({ "exp": i64::MAX }), Ok(i64::MAX)),
    ];
    for (changes, expected) in cases {
        let outcome = check_claims(&with_secret(), changes.clone()).await;
        assert_eq!(
            outcome.map(|identity| identity.grant.expires_at),
            expected,
            "{changes}"
        );
    }
    let strict = JwtSettings {
        leeway_seconds: 0,
        ..with_secret()
    };
    let at_expiry = check_claims(&strict, json!({ "exp": NOW })).await;
    assert_eq!(at_expiry, Err(AuthError::Expired));
}

#[tokio::test]
async fn a_token_is_not_valid_before_its_time() {
    for (start, expected) in [
        (json!(NOW + 3600), Some(AuthError::NotYetValid)),
        (json!(NOW + 33), Some(AuthError::NotYetValid)),
        (json!(NOW + 32), Some(AuthError::Early(30))),
        (json!(NOW + 3), Some(AuthError::Early(1))),
        (json!(i64::MAX), Some(AuthError::NotYetValid)),
        (json!("soon"), Some(AuthError::InvalidClaim("nbf".to_owned()))),
        (json!(NOW + 2), None),
        (json!(0), None),
    ] {
        let outcome = check_claims(&with_secret(), json!({ "nbf": start })).await;
        assert_eq!(outcome.err(), expected, "{start}");
    }
    let impatient = JwtSettings {
        not_before_wait_seconds: 0,
        ..with_secret()
    };
    let outcome = check_claims(&impatient, json!({ "nbf": NOW + 3 })).await;
    assert_eq!(outcome.err(), Some(AuthError::NotYetValid));
}

#[tokio::test]
async fn a_token_is_found_behind_its_scheme_in_any_spelling() {
    let token = Issuer::hmac(SECRET).sign(&good_claims());
    for before in ["", " ", "Bearer ", "bearer ", "BEARER\t", "  Bearer   "] {
        let presented = format!("{before}{token} ");
        assert!(check(&with_secret(), &presented).await.is_ok(), "{before:?}");
        let is_scheme = !before.trim().is_empty();
        assert_eq!(
            bearer(&presented),
            is_scheme.then_some(token.as_str()),
            "{before:?}"
        );
    }
    for none in ["", "Bearer", "Bearer ", "Basic abc", "Bearerabc"] {
        assert_eq!(bearer(none), None, "{none}");
    }
}

#[tokio::test]
async fn the_subject_is_required_and_visible() {
    let missing = check_claims(&with_secret(), json!({ "sub": null })).await;
    assert_eq!(missing, Err(AuthError::NoSubject("sub".to_owned())));
    for subject in [
        json!(""),
        json!("  "),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!("x".repeat(129)),
        json!(1.5),
        json!(true),
        json!({ "id": "alice" }),
        json!(["alice"]),
    ] {
        let outcome = check_claims(&with_secret(), json!({ "sub": subject })).await;
        assert_eq!(
            outcome,
            Err(AuthError::InvalidClaim("sub".to_owned())),
            "{subject}"
        );
    }
}

#[tokio::test]
async fn the_user_id_is_in_the_first_claim_of_the_list_that_is_present() {
    let listed = JwtSettings {
        subject_claims: ["sub", "userId", "user_id", "id", "uid", "_id"]
            .map(str::to_owned)
            .to_vec(),
        ..with_secret()
    };
    let cases = [
        (json!({}), Ok("alice")),
        (json!({ "userId": "bob" }), Ok("alice")),
        (json!({ "sub": null, "userId": "bob", "id": 7 }), Ok("bob")),
        (json!({ "sub": null, "user_id": 42 }), Ok("42")),
        (json!({ "sub": null, "id": 0 }), Ok("0")),
        (
            json!({ "sub": null, "uid": 9_007_199_254_740_991_i64 }),
            Ok("9007199254740991"),
        ),
        (
            json!({ "sub": null, "_id": "65f0c0ffee65f0c0ffee65f0" }),
            Ok("65f0c0ffee65f0c0ffee65f0"),
        ),
        // What is present decides, usable or not: else a token could name two users.
        (
            json!({ "sub": "", "id": 7 }),
            Err(AuthError::InvalidClaim("sub".to_owned())),
        ),
        (
            json!({ "sub": null, "id": 9_007_199_254_740_992_i64 }),
            Err(AuthError::InvalidClaim("id".to_owned())),
        ),
        (
            json!({ "sub": null, "id": u64::MAX }),
            Err(AuthError::InvalidClaim("id".to_owned())),
        ),
        (
            json!({ "sub": null, "user": "bob" }),
            Err(AuthError::NoSubject(
                "sub, userId, user_id, id, uid, _id".to_owned(),
            )),
        ),
    ];
    for (changes, expected) in cases {
        let outcome = check_claims(&listed, changes.clone()).await;
        let user = outcome.map(|identity| identity.user_id.to_string());
        assert_eq!(user, expected.map(str::to_owned), "{changes}");
    }
}

#[tokio::test]
async fn issuer_and_audience_are_required_when_configured() {
    let strict = JwtSettings {
        issuer: "https://id.example.org".to_owned(),
        audience: vec!["chat".to_owned(), "chat-beta".to_owned()],
        ..with_secret()
    };
    let (right, wrong) = ("https://id.example.org", "https://id.example.com");
    let cases = [
        (json!({}), Some(AuthError::WrongIssuer)),
        (
            json!({ "iss": wrong, "aud": "chat" }),
            Some(AuthError::WrongIssuer),
        ),
        (
            json!({ "iss": [right], "aud": "chat" }),
            Some(AuthError::WrongIssuer),
        ),
        (json!({ "iss": right }), Some(AuthError::WrongAudience)),
        (
            json!({ "iss": right, "aud": "shop" }),
            Some(AuthError::WrongAudience),
        ),
        (json!({ "iss": right, "aud": [] }), Some(AuthError::WrongAudience)),
        (
            json!({ "iss": right, "aud": { "chat": true } }),
            Some(AuthError::WrongAudience),
        ),
        (json!({ "iss": right, "aud": "chat" }), None),
        (json!({ "iss": right, "aud": ["shop", "chat-beta"] }), None),
    ];
    for (changes, expected) in cases {
        let outcome = check_claims(&strict, changes.clone()).await;
        assert_eq!(outcome.err(), expected, "{changes}");
    }
    let lax = check_claims(&with_secret(), json!({ "iss": wrong, "aud": "shop" })).await;
    assert!(lax.is_ok());
}

#[tokio::test]
async fn optional_claims_never_refuse_a_token() {
    for (changes, username) in [
        (json!({ "name": null }), None),
        (json!({ "name": null, "username": "al" }), Some("al")),
        (json!({ "name": " \u{0}\t", "username": "al" }), Some("al")),
        (
            json!({ "name": "\u{202E}\u{200B}", "username": "al" }),
            Some("al"),
        ),
        (json!({ "name": 7 }), None),
        (json!({ "name": "A\u{0}l\nice " }), Some("Alice")),
        (json!({ "name": "\u{202E}Alice\u{202C}" }), Some("Alice")),
        (json!({ "name": "Ålïce 🦊" }), Some("Ålïce 🦊")),
    ] {
        let identity = check_claims(&with_secret(), changes.clone()).await.unwrap();
        assert_eq!(identity.username.as_deref(), username, "{changes}");
    }
    let long = check_claims(&with_secret(), json!({ "name": "é".repeat(500) }))
        .await
        .unwrap();
    assert_eq!(long.username.unwrap().chars().count(), 128);
    let extras = json!({ "jti": "t-1", "dialect": "inbox" });
    let identity = check_claims(&with_secret(), extras).await.unwrap();
    assert_eq!(identity.grant.token_id.as_deref(), Some("t-1"));
    assert_eq!(identity.dialect.as_deref(), Some("inbox"));
    let odd = json!({ "jti": 5, "dialect": ["inbox"] });
    let identity = check_claims(&with_secret(), odd).await.unwrap();
    assert_eq!((identity.grant.token_id, identity.dialect), (None, None));
}

#[tokio::test]
async fn the_system_clock_is_used_by_default() {
    let authenticator = Authenticator::from_settings(&with_secret()).unwrap();
    let issuer = Issuer::hmac(SECRET);
    let fresh = issuer.sign(&claims_with(json!({ "exp": unix_now() + 60 })));
    assert!(authenticator.authenticate(&fresh).await.is_ok());
    let stale = issuer.sign(&claims_with(json!({ "exp": unix_now() - 60 })));
    assert_eq!(authenticator.authenticate(&stale).await, Err(AuthError::Expired));
}
