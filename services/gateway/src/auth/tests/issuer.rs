//! Makes keys and signs tokens, as an identity provider does.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;

use super::*;

/// A private key with all that is public about it.
pub(super) struct Issuer {
    pub(super) algorithm: Algorithm,
    pub(super) public_pem: String,
    pub(super) private_pem: String,
    key: EncodingKey,
}

impl Issuer {
    pub(super) fn hmac(secret: &str) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            public_pem: String::new(),
            private_pem: String::new(),
            key: EncodingKey::from_secret(secret.as_bytes()),
        }
    }

    pub(super) fn rsa() -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der = pair.as_der().unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let private_pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            algorithm: Algorithm::RS256,
            public_pem: pem("PUBLIC KEY", public.as_ref()),
            key: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
            private_pem,
        }
    }

    pub(super) fn ec() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let private_pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            algorithm: Algorithm::ES256,
            public_pem: pem("PUBLIC KEY", public.as_ref()),
            key: EncodingKey::from_ec_pem(private_pem.as_bytes()).unwrap(),
            private_pem,
        }
    }

    pub(super) fn ed() -> Self {
        let private = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private.as_ref()).unwrap();
        let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
        let private_pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            algorithm: Algorithm::EdDSA,
            public_pem: pem("PUBLIC KEY", public.as_ref()),
            key: EncodingKey::from_ed_pem(private_pem.as_bytes()).unwrap(),
            private_pem,
        }
    }

    pub(super) fn rsa_with(settings: fn(&Self) -> JwtSettings) -> (JwtSettings, Self) {
        let issuer = Self::rsa();
        (settings(&issuer), issuer)
    }

    pub(super) fn ec_with(settings: fn(&Self) -> JwtSettings) -> (JwtSettings, Self) {
        let issuer = Self::ec();
        (settings(&issuer), issuer)
    }

    pub(super) fn ed_with(settings: fn(&Self) -> JwtSettings) -> (JwtSettings, Self) {
        let issuer = Self::ed();
        (settings(&issuer), issuer)
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_with_header(&json!({}), claims)
    }

    /// `extra` is added to the usual header.
    pub(super) fn sign_with_header(&self, extra: &Value, claims: &Value) -> String {
        let mut header = json!({ "typ": "JWT", "alg": format!("{:?}", self.algorithm) });
        for (name, value) in extra.as_object().unwrap() {
            header[name] = value.clone();
        }
        let unsigned = forge(&header, claims, b"");
        let message = unsigned.trim_end_matches('.');
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// The public key as a member of a JWK set.
    pub(super) fn jwk(&self, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}
