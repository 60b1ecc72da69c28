//! Changes that a client names by an idempotency key, so that it may repeat them after any outcome: on any replica, and
//! also where the gateway that began one has died.
//!
//! A change is claimed in persistence before anything of it is carried out. All its ids are derived from the id it gets
//! there, so that carrying it out once more changes nothing. Once its outcome is final the answer is kept, refusals too,
//! and repeats are answered with it. Where the outcome is not known nothing is kept, and the next attempt resumes the
//! change.
//!
//! Keys are hashed where they come in: their text must not reach a log, the bus or the database.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use parlance_bus::faults;
use parlance_proto::v1::{
    self, Actor, ChangeInProgress, ClaimChange, ErrorCode, KeptAnswer, SettleChange, change_claim, command,
};
use parlance_proto::{ConversationId, ErrorCodeExt as _, UserId};
use prost::Message as _;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;
use utoipa::ToSchema;
use uuid::{Builder, Uuid};

use crate::backend::Backend;
use crate::commands::new_id;
use crate::dialect::{Answer, Dialect, Place};
use crate::error::ClientError;

/// Longest key.
const KEY_MAX_BYTES: usize = 128;
/// Bytes of an answer that is kept. A larger one is made once more by carrying the change out again.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Requests of one user that may be under way here.
const PER_USER: usize = 8;
/// How long another attempt is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before its answer is looked for again.
const PAUSE: Duration = Duration::from_millis(150);

/// The ids of what one request makes.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    claimed: Option<Claimed>,
}

#[derive(Debug, Clone, Copy)]
struct Claimed {
    id: Uuid,
    resumed: bool,
    done: bool,
}

/// A client's key, as its hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// The field of an event that holds its key.
#[derive(Deserialize, ToSchema)]
#[schema(as = KeyedPayload)]
pub struct KeyedPayload {
    /// Makes a repeat harmless: the same event with the same key is carried out once, for 24 hours.
    #[schema(pattern = "^[!-~]+$", min_length = 1, max_length = 128)]
    pub idempotency_key: Option<String>,
}

/// A request with its key.
#[derive(Clone, Copy)]
pub struct KeyedRequest {
    key: Key,
    fingerprint: [u8; 32],
}

/// What a request with a key comes to.
pub enum Claim {
    /// It is to be carried out.
    Claimed(Box<Attempt>),
    /// It was answered before.
    Answered(KeptAnswer),
}

/// The right to carry a change out. Dropped without being settled, the change can be resumed after a while.
pub struct Attempt {
    /// The ids of the change.
    pub change: Change,
    id: Uuid,
    change_id: String,
    key: Key,
    actor: Actor,
    backend: Backend,
    _slot: Slot,
}

/// All changes with a key that are under way here.
pub struct Idempotency {
    backend: Backend,
    slots: Slots,
}

/// How many changes of each user are under way.
#[derive(Clone, Default)]
struct Slots(Arc<Mutex<HashMap<UserId, usize>>>);

/// One of them, until it is dropped.
struct Slot {
    user: UserId,
    slots: Slots,
}

impl Change {
    /// Of a request without a key: every id is new.
    pub fn fresh() -> Self {
        Self { claimed: None }
    }

    /// Whether the ids are derived from a key's change.
    pub fn is_keyed(&self) -> bool {
        self.claimed.is_some()
    }

    /// Whether all or parts of the change may be stored already.
    pub fn is_resumed(&self) -> bool {
        self.claimed.is_some_and(|claimed| claimed.resumed)
    }

    /// Whether the change was carried out for good and only its answer is missing.
    pub fn is_done(&self) -> bool {
        self.claimed.is_some_and(|claimed| claimed.done)
    }

    /// The id of the one thing of this kind that the change makes.
    pub fn id_of(&self, what: &str) -> Uuid {
        match self.claimed {
            // In the form of a random one: UUIDv5 are the ids of direct conversations.
            Some(Claimed { id, .. }) => {
                let derived = Uuid::new_v5(&id, what.as_bytes());
                Builder::from_random_bytes(derived.into_bytes()).into_uuid()
            }
            None => new_id(),
        }
    }

    /// The id of a command of the change. A change has at most one command of each kind for a conversation, and where it
    /// removes members one for each: what the command says may depend on when it is made, its id must not.
    pub fn command(&self, conversation: ConversationId, body: &command::Body) -> Uuid {
        if !self.is_keyed() {
            return new_id();
        }
        let (kind, object) = match body {
            command::Body::CreateConversation(_) => ("create_conversation", ""),
            command::Body::SendMessage(_) => ("send_message", ""),
            command::Body::EditMessage(_) => ("edit_message", ""),
            command::Body::DeleteMessage(_) => ("delete_message", ""),
            command::Body::MarkRead(_) => ("mark_read", ""),
            command::Body::React(_) => ("react", ""),
            command::Body::CreateThread(_) => ("create_thread", ""),
            command::Body::UpdateConversation(_) => ("update_conversation", ""),
            command::Body::AddMembers(_) => ("add_members", ""),
            command::Body::RemoveMember(remove) => ("remove_member", remove.user_id.as_str()),
            command::Body::ChangeRole(change) => ("change_role", change.user_id.as_str()),
            command::Body::DeleteConversation(_) => ("delete_conversation", ""),
            command::Body::HideMessage(_) => ("hide_message", ""),
            command::Body::EditJournal(_) => ("edit_journal", ""),
        };
        self.id_of(&format!("command:{conversation}:{kind}:{object}"))
    }
}

impl Key {
    /// Reads a key from the field or header of that name.
    ///
    /// # Errors
    /// It is empty, too long, or has other than visible ASCII characters.
    pub fn parse(field: &str, text: &[u8]) -> Result<Self, ClientError> {
        if text.is_empty() || text.len() > KEY_MAX_BYTES || !text.iter().all(u8::is_ascii_graphic) {
            let message = format!("{field} is not 1 to {KEY_MAX_BYTES} visible ASCII characters");
            return Err(ClientError::invalid(message));
        }
        Ok(Self(hash(&[text])))
    }
}

impl KeyedRequest {
    /// A request by its parts, the last of which is JSON: the same in another order of its fields is the same request.
    pub fn new(key: Key, parts: &[&[u8]], json: &[u8]) -> Self {
        let canonical = serde_json::from_slice::<serde_json::Value>(json).map(|mut value| {
            value.sort_all_objects();
            value.to_string().into_bytes()
        });
        let body = canonical.as_deref().unwrap_or(json);
        let parts: Vec<&[u8]> = parts.iter().copied().chain([body]).collect();
        Self {
            key,
            fingerprint: hash(&parts),
        }
    }
}

impl Idempotency {
    /// No change is under way.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            slots: Slots::default(),
        }
    }

    /// Claims a change of a user who is known, and waits a while where another attempt is under way.
    ///
    /// # Errors
    /// The key belongs to another request, the user has too many, another attempt goes on, or persistence is away.
    pub async fn claim(&self, actor: Actor, request: KeyedRequest) -> Result<Claim, ClientError> {
        let slot = self.slots.take(UserId::parse(actor.user_id.as_str())?)?;
        let id = new_id();
        let claim = ClaimChange {
            key_hash: request.key.0.to_vec(),
            fingerprint: request.fingerprint.to_vec(),
            attempt: id.to_string(),
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self
                .backend
                .claim_change(Some(actor.clone()), claim.clone())
                .await?;
            match answer.state.ok_or_else(ClientError::internal)? {
                change_claim::State::Answered(kept) => return Ok(Claim::Answered(kept)),
                change_claim::State::Claimed(claimed) => {
                    let change = Claimed {
                        id: Uuid::try_parse(&claimed.change_id).map_err(|_| ClientError::internal())?,
                        resumed: claimed.resumed,
                        done: claimed.done,
                    };
                    return Ok(Claim::Claimed(Box::new(Attempt {
                        change: Change {
                            claimed: Some(change),
                        },
                        id,
                        change_id: claimed.change_id,
                        key: request.key,
                        actor,
                        backend: self.backend.clone(),
                        _slot: slot,
                    })));
                }
                change_claim::State::InProgress(ChangeInProgress {}) if Instant::now() >= until => {
                    return Err(ClientError::in_progress());
                }
                change_claim::State::InProgress(ChangeInProgress {}) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl Slots {
    fn take(&self, user: UserId) -> Result<Slot, ClientError> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(user.clone()).or_default();
        if *count >= PER_USER {
            let message = format!("more than {PER_USER} requests with idempotency keys are under way");
            return Err(ClientError::new(ErrorCode::RateLimited, message));
        }
        *count += 1;
        drop(under_way);
        let slots = self.clone();
        Ok(Slot { user, slots })
    }
}

impl Attempt {
    /// Ends the attempt with the answer to a request, or without one where another attempt may lead to another.
    pub fn settle(self, answer: Option<KeptAnswer>) -> JoinHandle<()> {
        faults::crash_at("before_settle");
        let answer = answer.filter(|answer| answer.body.len() <= ANSWER_MAX_BYTES);
        let settling = async move {
            let settle = SettleChange {
                key_hash: self.key.0.to_vec(),
                change_id: self.change_id.clone(),
                attempt: self.id.to_string(),
                answer,
            };
            let settled = self.backend.settle_change(Some(self.actor.clone()), settle).await;
            if let Err(error) = settled {
                tracing::warn!(
                    code = error.code,
                    "an answer is not kept; a repeat resumes the change"
                );
            }
        };
        tokio::spawn(settling.in_current_span())
    }

    /// Ends the attempt with the outcome of an event, as its ack has it.
    pub fn settle_event(
        self,
        dialect: &dyn Dialect,
        outcome: Result<&Answer, &ClientError>,
        place: Option<&Place>,
    ) {
        let answer = match outcome {
            Err(error) if error.retry => None,
            Err(error) => Some(error.kept()),
            Ok(_) => Some(KeptAnswer {
                status: 200,
                body: dialect.answer(outcome, place).get().as_bytes().to_vec(),
            }),
        };
        drop(self.settle(answer));
    }
}

impl ClientError {
    /// The failure of an event, to be answered again by [`ClientError::of_kept`].
    fn kept(&self) -> KeptAnswer {
        let code = ErrorCode::by_name(self.code);
        KeptAnswer {
            status: u32::from(code.http_status()),
            body: v1::Error::with(code, self.message.clone()).encode_to_vec(),
        }
    }

    /// The failure that was kept; `None` where there was none.
    pub fn of_kept(kept: &KeptAnswer) -> Option<Self> {
        let is_failure = kept.status >= 300;
        is_failure.then(|| match v1::Error::decode(kept.body.as_slice()) {
            Ok(error) => error.into(),
            Err(_) => Self::internal(),
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut under_way = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = under_way.entry(self.user.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Length-prefixed parts: no choice of parts can collide with another.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &all).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::{EditJournal, RemoveMember};

    use super::*;

    fn keyed(id: u128) -> Change {
        Change {
            claimed: Some(Claimed {
                id: Uuid::from_u128(id),
                resumed: false,
                done: false,
            }),
        }
    }

    #[test]
    fn a_key_is_1_to_128_visible_characters_and_an_error_names_its_field() {
        for good in [
            "k",
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            "!~",
            &"x".repeat(128),
        ] {
            assert!(Key::parse("idempotency_key", good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "ü", &"x".repeat(129)] {
            let error = Key::parse("idempotency_key", bad.as_bytes()).unwrap_err();
            assert_eq!(error.code, "invalid");
            let expected = "idempotency_key is not 1 to 128 visible ASCII characters";
            assert_eq!(error.message, expected, "{bad:?}");
        }
    }

    #[test]
    fn a_request_is_the_same_in_any_order_of_its_fields_and_in_no_other_way() {
        let key = Key::parse("k", b"k").unwrap();
        let of = |parts: &[&[u8]], json: &str| KeyedRequest::new(key, parts, json.as_bytes()).fingerprint;
        let one = of(&[b"POST", b"/a"], r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#);
        assert_eq!(one, of(&[b"POST", b"/a"], r#"{"b":{"d":null,"c":[1,2]},"a":1}"#));
        for (parts, json) in [
            ([&b"PUT"[..], b"/a"], r#"{"a":1,"b":{"c":[1,2],"d":null}}"#),
            ([b"POST", b"/b"], r#"{"a":1,"b":{"c":[1,2],"d":null}}"#),
            ([b"POST", b"/a"], r#"{"a":1,"b":{"c":[2,1],"d":null}}"#),
            ([b"POST", b"/a"], r#"{"a":1}"#),
            ([b"POST", b"/a"], "not JSON"),
            ([b"POST", b"/a"], ""),
        ] {
            assert_ne!(one, of(&parts, json), "{json}");
        }
        assert_ne!(of(&[b"ab", b"c"], ""), of(&[b"a", b"bc"], ""));
    }

    #[test]
    fn the_ids_of_a_change_are_the_same_in_every_attempt_and_other_ones_in_every_other_change() {
        let conversation = ConversationId::from_uuid(Uuid::from_u128(7));
        let edit = |update: &[u8]| {
            command::Body::EditJournal(EditJournal {
                update: update.into(),
            })
        };
        let remove = |user: &str| command::Body::RemoveMember(RemoveMember { user_id: user.into() });
        let (one, other) = (keyed(1), keyed(2));
        assert_eq!(one.id_of("message"), keyed(1).id_of("message"));
        assert_eq!(one.id_of("conversation").get_version_num(), 4);
        assert_ne!(one.id_of("message"), one.id_of("thread"));
        assert_ne!(one.id_of("message"), other.id_of("message"));
        // The update is made of what the journal says at the time.
        assert_eq!(
            one.command(conversation, &edit(b"a")),
            one.command(conversation, &edit(b"b"))
        );
        assert_ne!(
            one.command(conversation, &edit(b"a")),
            other.command(conversation, &edit(b"a"))
        );
        assert_ne!(
            one.command(conversation, &remove("bob")),
            one.command(conversation, &remove("eve"))
        );
        assert_ne!(Change::fresh().id_of("message"), Change::fresh().id_of("message"));
    }

    #[test]
    fn a_user_has_eight_requests_under_way_and_no_trace_once_they_ended() {
        let slots = Slots::default();
        let user = |id: &str| UserId::parse(id).unwrap();
        let mut taken: Vec<_> = (0..8).map(|_| slots.take(user("alice")).ok().unwrap()).collect();
        let refused = slots.take(user("alice")).err().unwrap();
        assert_eq!((refused.code, refused.retry), ("rate_limited", true));
        assert!(slots.take(user("bob")).is_ok());
        taken.pop();
        assert!(slots.take(user("alice")).is_ok());
        taken.clear();
        assert!(slots.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_refusal_is_answered_again_as_it_was() {
        for code in [ErrorCode::Forbidden, ErrorCode::NotFound, ErrorCode::TooCostly] {
            let error = ClientError::new(code, "because");
            assert_eq!(ClientError::of_kept(&error.kept()), Some(error));
        }
        let kept = KeptAnswer {
            status: 200,
            body: b"{}".to_vec(),
        };
        assert_eq!(ClientError::of_kept(&kept), None);
    }
}
