//! Changes that a client names by an idempotency key, so that it may repeat them after any outcome: on any replica, and
//! also where the gateway that began one has died.
//!
//! A change is claimed in persistence before anything of it is carried out. All its ids are derived from the id it gets
//! there, so that carrying it out once more changes nothing. Once its outcome is final the answer is kept as long as its
//! key, refusals too, and repeats are answered with it. Where the outcome is not known nothing is kept, and the next
//! attempt resumes the change. A resumed change is refused for good by a confirmation only: what this gateway refuses may
//! be stored.
//!
//! Keys come in hashed, see [`crate::dialect::key`].

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parlance_bus::faults;
use parlance_proto::v1::{
    Actor, ChangeInProgress, ClaimChange, ErrorCode, KeptAnswer, SettleChange, change_claim, command,
};
use parlance_proto::{ConversationId, UserId};
use parlance_runtime::tasks;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::{Builder, Uuid};

use crate::backend::Backend;
use crate::dialect::key::{Key, KeyedRequest};
use crate::dialect::{Answer, Dialect, Place};
use crate::error::ClientError;
use crate::ids::new_id;
use crate::slots::{Slot, Slots};

/// Bytes of an answer that is kept as it is. Of a larger one only ids and numbers are.
const ANSWER_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a text that is kept of a larger answer: as long as an id.
const ID_MAX_BYTES: usize = 64;
/// Requests of one user that may be under way here.
const PER_USER: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// How long another attempt is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before its answer is looked for again.
const PAUSE: Duration = Duration::from_millis(150);

/// The ids of what one request makes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Change {
    claimed: Option<Arc<Claimed>>,
}

#[derive(Debug)]
struct Claimed {
    id: Uuid,
    resumed: bool,
    /// A confirmation refused a command of this attempt.
    refused: AtomicBool,
}

/// What a request with a key comes to.
pub enum Claim {
    /// It is to be carried out.
    Claimed(Box<Attempt>),
    /// It was answered before.
    Answered(KeptAnswer),
}

/// The right to carry a change out. Dropped without being settled, the change can be resumed.
pub struct Attempt {
    /// The ids of the change.
    pub change: Change,
    ending: Option<Ending>,
}

/// How an attempt ends in persistence.
struct Ending {
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
    lapse_ms: u32,
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
        self.claimed.as_ref().is_some_and(|claimed| claimed.resumed)
    }

    /// Notes that a confirmation refused a command of this attempt.
    pub fn note_refusal(&self) {
        if let Some(claimed) = &self.claimed {
            claimed.refused.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a refusal says nothing of the change: the gateway's own of a resumed one, which may be stored already.
    pub fn may_be_stored(&self) -> bool {
        self.claimed
            .as_ref()
            .is_some_and(|claimed| claimed.resumed && !claimed.refused.load(Ordering::Relaxed))
    }

    /// The failure as the client may see it: unknown where [`Self::may_be_stored`].
    pub fn failure(&self, error: ClientError) -> ClientError {
        if self.may_be_stored() && !error.retry {
            return ClientError::unknown();
        }
        error
    }

    /// The id of the one thing of this kind that the change makes.
    pub fn id_of(&self, what: &str) -> Uuid {
        match &self.claimed {
            // In the form of a random one: UUIDv5 are the ids of direct conversations.
            Some(claimed) => {
                let derived = Uuid::new_v5(&claimed.id, what.as_bytes());
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
            command::Body::BanMember(ban) => ("ban_member", ban.user_id.as_str()),
            command::Body::UnbanMember(ban) => ("unban_member", ban.user_id.as_str()),
            command::Body::ChangeRole(change) => ("change_role", change.user_id.as_str()),
            command::Body::DeleteConversation(_) => ("delete_conversation", ""),
            command::Body::HideMessage(_) => ("hide_message", ""),
            command::Body::MuteConversation(_) => ("mute_conversation", ""),
            command::Body::ReportMessage(_) => ("report_message", ""),
            command::Body::EditJournal(_) => ("edit_journal", ""),
            // Only persistence makes them.
            command::Body::AppendText(_) => ("append_text", ""),
            command::Body::EndStream(_) => ("end_stream", ""),
        };
        self.id_of(&format!("command:{conversation}:{kind}:{object}"))
    }
}

impl Idempotency {
    /// No change is under way. `timeout` is how long one command may take.
    pub fn new(backend: Backend, timeout: Duration) -> Self {
        Self {
            backend,
            lapse_ms: u32::try_from(2 * timeout.as_millis()).unwrap_or(u32::MAX),
            slots: Slots::new(PER_USER),
        }
    }

    /// Claims a change of a user who is known, as [`Self::claim`] does, once the user has room for it.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub async fn claim_in_turn(&self, actor: Actor, request: KeyedRequest) -> Result<Claim, ClientError> {
        let slot = self.slots.wait(UserId::parse(actor.user_id.as_str())?).await?;
        self.claim_with(slot, actor, request).await
    }

    /// Claims a change of a user who is known, and waits a while where another attempt is under way.
    ///
    /// # Errors
    /// The key belongs to another request, the user has too many, another attempt goes on, or persistence is away.
    pub async fn claim(&self, actor: Actor, request: KeyedRequest) -> Result<Claim, ClientError> {
        let slot = self.slots.take(UserId::parse(actor.user_id.as_str())?);
        let slot = slot.ok_or_else(|| {
            let message = format!("more than {PER_USER} requests with idempotency keys are under way");
            ClientError::new(ErrorCode::RateLimited, message)
        })?;
        self.claim_with(slot, actor, request).await
    }

    async fn claim_with(
        &self,
        slot: Slot,
        actor: Actor,
        request: KeyedRequest,
    ) -> Result<Claim, ClientError> {
        let id = new_id();
        let claim = ClaimChange {
            key_hash: request.key.to_vec(),
            fingerprint: request.fingerprint.to_vec(),
            attempt: id.to_string(),
            lapse_ms: self.lapse_ms,
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
                        refused: AtomicBool::new(false),
                    };
                    let ending = Ending {
                        id,
                        change_id: claimed.change_id,
                        key: request.key,
                        actor,
                        backend: self.backend.clone(),
                        _slot: slot,
                    };
                    return Ok(Claim::Claimed(Box::new(Attempt {
                        change: Change {
                            claimed: Some(Arc::new(change)),
                        },
                        ending: Some(ending),
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

impl Attempt {
    /// Ends the attempt with the answer to a request, or without one where another attempt may lead to another.
    pub async fn settle(mut self, answer: Option<KeptAnswer>) {
        if let Some(settling) = self.end(answer) {
            settling.await.ok();
        }
    }

    /// The same, while the caller goes on.
    fn end(&mut self, answer: Option<KeptAnswer>) -> Option<JoinHandle<()>> {
        let ending = self.ending.take()?;
        faults::crash_at("before_settle");
        // Without a runtime the process ends, and the attempt lapses.
        let runtime = Handle::try_current().ok()?;
        let settling = ending.settle(answer.map(bounded)).in_current_span();
        Some(tasks::spawn_at(&runtime, "end of a keyed change", settling))
    }

    /// Ends the attempt with the outcome of an event, as its ack has it.
    pub fn settle_event(
        mut self,
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
        drop(self.end(answer));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        drop(self.end(None));
    }
}

impl Ending {
    async fn settle(self, answer: Option<KeptAnswer>) {
        let settle = SettleChange {
            key_hash: self.key.to_vec(),
            change_id: self.change_id,
            attempt: self.id.to_string(),
            answer,
        };
        if let Err(error) = self.backend.settle_change(Some(self.actor), settle).await {
            tracing::warn!(
                code = error.code,
                "an answer is not kept; a repeat resumes the change"
            );
        }
    }
}

/// An answer small enough to be kept. Of a larger one what names the things in it, in the same shape, with `repeated`.
fn bounded(answer: KeptAnswer) -> KeptAnswer {
    if answer.body.len() <= ANSWER_MAX_BYTES {
        return answer;
    }
    let status = answer.status;
    let mut body = serde_json::from_slice(&answer.body).unwrap_or_default();
    shorten(&mut body);
    let repeated = || json!({ "repeated": true });
    if !body.is_object() || body.to_string().len() > ANSWER_MAX_BYTES / 2 {
        body = repeated();
    }
    body["repeated"] = true.into();
    KeptAnswer {
        status,
        body: body.to_string().into_bytes(),
    }
}

/// Drops lists and long texts.
fn shorten(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| match value {
            Value::Array(_) => false,
            Value::String(text) => text.len() <= ID_MAX_BYTES,
            _ => true,
        });
        fields.values_mut().for_each(shorten);
    }
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::{EditJournal, RemoveMember};

    use super::*;

    fn keyed(id: u128) -> Change {
        claimed(id, false)
    }

    fn claimed(id: u128, resumed: bool) -> Change {
        Change {
            claimed: Some(Arc::new(Claimed {
                id: Uuid::from_u128(id),
                resumed,
                refused: AtomicBool::new(false),
            })),
        }
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
    fn a_resumed_change_is_refused_for_good_by_a_confirmation_only() {
        let refusal = || ClientError::new(ErrorCode::Forbidden, "because");
        for (change, expected) in [
            (Change::fresh(), refusal()),
            (keyed(1), refusal()),
            (claimed(1, true), ClientError::unknown()),
        ] {
            assert_eq!(change.failure(refusal()), expected);
        }
        let resumed = claimed(1, true);
        resumed.clone().note_refusal();
        assert_eq!(resumed.failure(refusal()), refusal());
    }

    #[test]
    fn of_a_large_answer_ids_and_numbers_are_kept() {
        let answer = |body: &Value| KeptAnswer {
            status: 201,
            body: body.to_string().into_bytes(),
        };
        let small = answer(&json!({ "id": "a", "list": [1] }));
        assert_eq!(bounded(small.clone()), small);
        let large = json!({
            "ok": true, "message": { "id": "a", "seq": 7, "content": "x".repeat(20_000) }, "list": [1],
        });
        let kept = json!({ "ok": true, "message": { "id": "a", "seq": 7 }, "repeated": true });
        assert_eq!(bounded(answer(&large)), answer(&kept));
        let many: Value = (0..5_000).map(|n| (n.to_string(), Value::from(n))).collect();
        assert_eq!(bounded(answer(&many)), answer(&json!({ "repeated": true })));
    }
}
