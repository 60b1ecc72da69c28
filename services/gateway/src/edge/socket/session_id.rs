//! Session ids of polling clients: `<engine id><proof>.<owner>`.
//!
//! The engine's own id is also `socket.id`, which front ends publish. So the id of a session, which is all that a
//! request needs to act as its client, also holds a proof that only the owner can make: a MAC of the engine's id
//! under a key of this process. The owner's name lets any gateway find the session's owner.
//!
//! Must not keep anything per session.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;

use crate::query::query_value;

/// The length of the engine's own ids.
const ENGINE_ID: usize = 16;
/// Bytes of the MAC in an id: beyond guessing.
const PROOF_BYTES: usize = 16;
/// The length of the proof in base64.
const PROOF: usize = 22;
/// The length of a gateway's name in session ids: a UUID without hyphens.
const OWNER: usize = 32;

/// What gateways' names on the bus begin with.
const PREFIX: &str = "gw-";

/// Issues and verifies the session ids of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct SessionIds {
    key: Arc<hmac::Key>,
    owner: Arc<str>,
}

/// The session that a request names.
#[derive(Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The engine's id and the proof, which only the owner can verify.
    pub session: &'a str,
    /// The gateway that owns it.
    pub owner: &'a str,
}

impl SessionIds {
    /// Session ids of the gateway with this name on the bus, under a new key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new(gateway: &str) -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| anyhow::anyhow!("the system has no random bytes for a key"))?;
        Ok(Self {
            key: Arc::new(key),
            owner: gateway.strip_prefix(PREFIX).unwrap_or(gateway).into(),
        })
    }

    /// The session id a client gets for this session of the engine.
    pub fn issue(&self, engine_id: &str) -> String {
        let proof = URL_SAFE_NO_PAD.encode(self.proof(engine_id));
        format!("{engine_id}{proof}.{}", self.owner)
    }

    /// This gateway's name in what clients present.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether the session belongs to this gateway.
    pub fn owns(&self, named: &Named<'_>) -> bool {
        *named.owner == *self.owner
    }

    /// The engine's id of a session of this gateway; `None` if the proof is wrong.
    pub fn verify<'a>(&self, session: &'a str) -> Option<&'a str> {
        let (engine_id, proof) = session.split_at_checked(ENGINE_ID)?;
        let proof = URL_SAFE_NO_PAD.decode(proof).ok()?;
        verify_slices_are_equal(&proof, &self.proof(engine_id)).ok()?;
        Some(engine_id)
    }

    fn proof(&self, engine_id: &str) -> [u8; PROOF_BYTES] {
        let tag = hmac::sign(&self.key, engine_id.as_bytes());
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(&tag.as_ref()[..PROOF_BYTES]);
        proof
    }
}

impl<'a> Named<'a> {
    /// The session of a request; `None` where it names none, or nothing a gateway can have issued.
    pub fn of(uri: &'a Uri) -> Option<Self> {
        let (session, owner) = query_value(uri, "sid=")?.split_once('.')?;
        let is_base64 = session
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        let fits = session.len() == ENGINE_ID + PROOF && names_gateway(owner);
        (fits && is_base64).then_some(Self { session, owner })
    }
}

/// The name on the bus of a gateway that a client names.
pub fn full_name(gateway: &str) -> String {
    format!("{PREFIX}{gateway}")
}

/// Whether a gateway can be called so in what a client presents.
pub fn names_gateway(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() == OWNER && bytes.all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER_NAME: &str = "0190a6e0000070008000000000000001";
    const ENGINE: &str = "abcdefghijklm-_1";

    fn uri(sid: &str) -> Uri {
        format!("/socket.io/?EIO=4&sid={sid}&transport=polling&t=abc")
            .parse()
            .unwrap()
    }

    #[test]
    fn a_session_id_is_verified_by_its_owner_alone() {
        let ids = SessionIds::new(&format!("gw-{OWNER_NAME}")).unwrap();
        let issued = ids.issue(ENGINE);
        assert!(issued.starts_with(ENGINE) && issued.ends_with(OWNER_NAME));
        let request = uri(&issued);
        let named = Named::of(&request).unwrap();
        assert!(ids.owns(&named));
        assert_eq!(ids.verify(named.session), Some(ENGINE));
        let restarted = SessionIds::new(&format!("gw-{OWNER_NAME}")).unwrap();
        assert_eq!(restarted.verify(named.session), None);
        let other = SessionIds::new("gw-0190a6e0000070008000000000000002").unwrap();
        assert!(!other.owns(&named));
    }

    #[test]
    fn the_engines_id_alone_is_no_key() {
        let ids = SessionIds::new(&format!("gw-{OWNER_NAME}")).unwrap();
        let proof_of_another = ids.issue("ABCDEFGHIJKLM-_1")[ENGINE_ID..ENGINE_ID + PROOF].to_owned();
        for proof in [
            String::new(),
            "A".repeat(PROOF),
            "A".repeat(PROOF - 1),
            proof_of_another,
        ] {
            assert_eq!(ids.verify(&format!("{ENGINE}{proof}")), None, "{proof}");
        }
        assert_eq!(ids.verify("é"), None);
    }

    #[test]
    fn a_session_id_names_its_owner_or_nobody() {
        let session = format!("{ENGINE}{}", "A".repeat(PROOF));
        let good = uri(&format!("{session}.{OWNER_NAME}"));
        let named = Named::of(&good).unwrap();
        assert_eq!((named.session, named.owner), (session.as_str(), OWNER_NAME));
        for bad in [
            session.clone(),
            format!("{session}."),
            format!("{session}.*"),
            format!("{session}.0190a6e00000700080000000000000.*"),
            format!("{session}.{}", OWNER_NAME.to_uppercase().replace("0190", "019A")),
            format!("{ENGINE}.{OWNER_NAME}"),
            format!("{}.*.{OWNER_NAME}", &session[..36]),
        ] {
            assert_eq!(Named::of(&uri(&bad)), None, "{bad}");
        }
    }
}
