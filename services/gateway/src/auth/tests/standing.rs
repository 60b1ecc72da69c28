//! Whose token it is, and whether it was taken back.

use parlance_runtime::config::Validate as _;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_token_is_a_service_s_only_by_the_configured_claim_and_value() {
    let settings = |claim: &str, value: &str| JwtSettings {
        service_claim: claim.to_owned(),
        service_value: value.to_owned(),
        ..with_secret()
    };
    let scoped = settings("scope", "parlance:internal");
    let flagged = settings("service", "true");
    let cases = [
        (&scoped, json!({ "scope": "parlance:internal" }), true),
        (&scoped, json!({ "scope": "chat parlance:internal" }), true),
        (&scoped, json!({ "scope": ["chat", "parlance:internal"] }), true),
        (&scoped, json!({ "scope": "parlance:internals" }), false),
        (&scoped, json!({ "scope": "" }), false),
        (&scoped, json!({ "scope": true }), false),
        (&scoped, json!({ "scope": { "parlance:internal": true } }), false),
        (&scoped, json!({ "scp": "parlance:internal" }), false),
        (&flagged, json!({ "service": true }), true),
        (&flagged, json!({ "service": "true" }), true),
        (&flagged, json!({ "service": false }), false),
        (&flagged, json!({ "service": 1 }), false),
        (&with_secret(), json!({ "service": true, "": "true" }), false),
    ];
    for (settings, changes, expected) in cases {
        let identity = check_claims(settings, changes.clone()).await.unwrap();
        assert_eq!(identity.is_service, expected, "{changes}");
    }
    let error = settings("scope", "").validate().unwrap_err().to_string();
    assert!(error.contains("jwt.service_value"), "{error}");
}

#[tokio::test]
async fn a_token_is_an_agent_s_only_by_the_configured_claim_and_value() {
    let settings = |claim: &str| JwtSettings {
        agent_claim: claim.to_owned(),
        ..with_secret()
    };
    let cases = [
        ("role", json!({ "role": "agent" }), true),
        ("role", json!({ "role": ["user", "agent"] }), true),
        ("role", json!({ "role": "user" }), false),
        ("role", json!({ "roles": "agent" }), false),
        ("roles", json!({ "roles": "agent" }), true),
        ("", json!({ "role": "agent", "": "agent" }), false),
    ];
    for (claim, changes, expected) in cases {
        let identity = check_claims(&settings(claim), changes.clone()).await.unwrap();
        assert_eq!(identity.is_agent, expected, "{claim}: {changes}");
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_the_list_is_waited_for() {
    let authenticator = Authenticator::from_settings(&with_secret()).unwrap();
    let sign = |changes| Issuer::hmac(SECRET).sign(&claims_with(changes));
    let revoked = sign(json!({ "jti": "t-1" }));
    let early = sign(json!({ "sub": "bob", "iat": NOW - 1 }));
    let odd = sign(json!({ "sub": "bob", "iat": "yesterday" }));
    let good = sign(json!({ "sub": "bob", "iat": NOW, "jti": "t-2" }));
    for token in [&revoked, &early, &odd, &good] {
        assert!(authenticator.authenticate_at(token, NOW).await.is_ok());
    }
    let revocations = authenticator.revocations();
    revocations.await_reading();
    let outcome = authenticator.authenticate_at(&good, NOW).await;
    assert_eq!(outcome, Err(AuthError::KeysUnavailable));
    revocations.revoke_token("t-1".to_owned(), None, NOW);
    revocations.revoke_user(UserId::parse("bob").unwrap(), NOW);
    revocations.set_read();
    for token in [&revoked, &early, &odd] {
        let outcome = authenticator.authenticate_at(token, NOW).await;
        assert_eq!(outcome, Err(AuthError::Revoked));
    }
    assert!(authenticator.authenticate_at(&good, NOW).await.is_ok());
}
