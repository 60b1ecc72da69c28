//! The side of the gateway that the client reached: hands the request to the session's owner and waits.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use parlance_bus::{Error, ErrorKind};
use parlance_proto::v1::{
    self, ErrorCode, RelayAbandon, RelayAnswer, RelayPart, RelayRequest, RelayWaiting, relay,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Gathered, RECEIPT, Relay, about, count, lock, parts, query_without_session};
use crate::error::ClientError;
use crate::socket::engineio::Refusal;
use crate::socket::polling::{self, NOOP};
use crate::socket::session_id::Named;

/// How often the owners of waiting requests are asked whether they still work on them.
const LOOK: Duration = Duration::from_secs(2);
/// After this many looks without any answer an owner counts as gone.
const STRIKES: u32 = 2;
/// How long a gateway that ends waits for the owner of a poll.
const HAND_BACK: Duration = Duration::from_secs(2);
/// How often, and after what pauses, an owner that nobody knows is looked for: after a loss of NATS it may be about to
/// come back.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// What ends a session: the packet `close`.
const CLOSE: &str = "1";

/// Who owns the session of a request, and how it calls it.
pub struct Foreign {
    pub(super) owner: String,
    session: String,
}

/// A request that waits for its answer.
pub(super) struct Asked {
    owner: String,
    /// The owner has all of it.
    handed_over: bool,
    head: Option<RelayAnswer>,
    body: Gathered,
    done: oneshot::Sender<Answered>,
}

/// An answer that has come whole.
struct Answered {
    head: RelayAnswer,
    body: Bytes,
}

/// Forgets the request and tells the owner when the client does not wait any more.
struct Waiting {
    relay: Relay,
    owner: String,
    id: u64,
    over: bool,
}

impl Foreign {
    /// What a request needs to find its session.
    pub fn new(named: &Named<'_>) -> Self {
        Self {
            owner: format!("gw-{}", named.owner),
            session: named.session.to_owned(),
        }
    }
}

impl Relay {
    /// Has the owner of the session answer a polling request.
    pub async fn forward(&self, foreign: Foreign, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.method != Method::GET && head.method != Method::POST {
            return Refusal::BadRequest.into_response();
        }
        let body = match polling::whole(body, self.inner.max_body).await {
            Ok(body) => body,
            Err(response) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                // As at the owner, it ends the session.
                let close = Request::from_parts(head, Body::from(CLOSE));
                Box::pin(self.forward(foreign, close)).await;
                return response;
            }
            Err(response) => return response,
        };
        let kind = head.headers.get(header::CONTENT_TYPE);
        let first = RelayRequest {
            session: foreign.session,
            method: head.method.to_string(),
            query: query_without_session(&head.uri),
            content_type: kind
                .and_then(|kind| kind.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            part: None,
        };
        let (mut waiting, answer) = self.wait(foreign.owner);
        if let Err(error) = self.hand_over(&waiting, first, &body).await {
            count(if error.is_some() { "unavailable" } else { "gone" });
            waiting.over = true;
            lock(&self.inner.asked).remove(&waiting.id);
            return match error {
                Some(error) => error.into_response(),
                None => Refusal::UnknownSession.into_response(),
            };
        }
        self.outcome(&mut waiting, answer, head.method == Method::GET)
            .await
    }

    async fn outcome(
        &self,
        waiting: &mut Waiting,
        mut answer: oneshot::Receiver<Answered>,
        may_end: bool,
    ) -> Response<Body> {
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            () = self.inner.closing.cancelled(), if may_end => {
                let handed_back = async {
                    if waiting.abandon().await { Err(()) } else { Ok(answer.await) }
                };
                match tokio::time::timeout(HAND_BACK, handed_back).await {
                    Ok(Err(())) => {
                        count("handed_back");
                        return NOOP.into_response();
                    }
                    Ok(Ok(outcome)) => outcome,
                    // Whatever it was on the way to us ends the session there.
                    Err(_) => {
                        count("gone");
                        return Refusal::UnknownSession.into_response();
                    }
                }
            }
        };
        waiting.over = true;
        let Ok(Answered { head, body }) = outcome else {
            count("gone");
            return Refusal::UnknownSession.into_response();
        };
        count("ok");
        let status = u16::try_from(head.status).ok();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
        if let Ok(kind) = HeaderValue::from_str(&head.content_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }

    fn wait(&self, owner: String) -> (Waiting, oneshot::Receiver<Answered>) {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        let asked = Asked {
            owner: owner.clone(),
            handed_over: false,
            head: None,
            body: Gathered::default(),
            done,
        };
        lock(&self.inner.asked).insert(id, asked);
        let waiting = Waiting {
            relay: self.clone(),
            owner,
            id,
            over: false,
        };
        (waiting, answer)
    }

    /// The error is for the client; `None` where the session is no more.
    async fn hand_over(
        &self,
        waiting: &Waiting,
        first: RelayRequest,
        body: &Bytes,
    ) -> Result<(), Option<ClientError>> {
        let bus = &self.inner.bus;
        let kibibytes = u32::try_from(body.len() / 1024 + 1).unwrap_or(u32::MAX);
        let _room = self.inner.bytes.acquire_many(kibibytes).await;
        let mut first = Some(first);
        for part in parts(body) {
            let said = match first.take() {
                Some(first) => relay::Body::Request(RelayRequest {
                    part: Some(part),
                    ..first
                }),
                None => relay::Body::Part(part),
            };
            let told = about(bus.name(), waiting.id, said);
            match self.tell(&waiting.owner, &told).await {
                Ok(receipt) if receipt.taken => {}
                Ok(_) => return Err(None),
                Err(error) if error.kind() == ErrorKind::NoResponders => return Err(None),
                Err(error) => {
                    tracing::warn!(%error, owner = waiting.owner, "a polling request did not reach its owner");
                    return Err(Some(ClientError::new(
                        ErrorCode::Unavailable,
                        "the session cannot be reached",
                    )));
                }
            }
        }
        if let Some(asked) = lock(&self.inner.asked).get_mut(&waiting.id) {
            asked.handed_over = true;
        }
        Ok(())
    }

    /// What nobody heard is told again.
    async fn tell(&self, owner: &str, told: &v1::Relay) -> Result<v1::RelayReceipt, Error> {
        let mut attempt = 1;
        loop {
            match self.inner.bus.relay(owner, told, RECEIPT).await {
                Err(error) if error.kind() == ErrorKind::NoResponders && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes the beginning of an answer. False when nobody waits for it.
    pub(super) fn take_answer(&self, id: u64, mut answer: RelayAnswer) -> bool {
        let part = answer.part.take().unwrap_or_default();
        {
            let mut asked = lock(&self.inner.asked);
            let Some(asked) = asked.get_mut(&id) else {
                return false;
            };
            asked.head = Some(answer);
        }
        self.take_part(id, part)
    }

    /// Takes more of an answer. False when nobody waits for it.
    pub(super) fn take_part(&self, id: u64, part: RelayPart) -> bool {
        let mut all = lock(&self.inner.asked);
        let Some(asked) = all.get_mut(&id) else {
            return false;
        };
        let Some(body) = asked.body.add(part) else {
            return true;
        };
        let Some(asked) = all.remove(&id) else {
            return false;
        };
        let Some(head) = asked.head else {
            return false;
        };
        asked.done.send(Answered { head, body }).is_ok()
    }

    /// Notices owners that are gone, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut strikes = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            // Nobody can be asked.
            if !self.inner.bus.link().borrow().connected {
                strikes.clear();
                continue;
            }
            let mut waiting: HashMap<String, Vec<u64>> = HashMap::new();
            for (id, asked) in lock(&self.inner.asked).iter() {
                if asked.handed_over {
                    waiting.entry(asked.owner.clone()).or_default().push(*id);
                }
            }
            strikes.retain(|owner, _| waiting.contains_key(owner));
            let looks = waiting.into_iter().map(|(owner, ids)| self.look(owner, ids));
            for (owner, given_up) in futures::future::join_all(looks).await {
                let ids = match given_up {
                    Ok(ids) => {
                        strikes.remove(&owner);
                        ids
                    }
                    Err(ids) => {
                        let strikes = strikes.entry(owner).or_insert(0);
                        *strikes += 1;
                        if *strikes < STRIKES {
                            continue;
                        }
                        ids
                    }
                };
                let mut asked = lock(&self.inner.asked);
                for id in ids {
                    // Its receiver takes that for the end of the session.
                    asked.remove(&id);
                }
            }
        }
    }

    /// The requests that will not be answered; `Err` with all of them where the owner is silent or unknown: it may
    /// have lost NATS for a moment.
    async fn look(&self, owner: String, ids: Vec<u64>) -> (String, Result<Vec<u64>, Vec<u64>>) {
        let bus = &self.inner.bus;
        let question = relay::Body::Waiting(RelayWaiting {
            request_ids: ids.clone(),
        });
        let outcome = match bus.relay(&owner, &about(bus.name(), 0, question), RECEIPT).await {
            Ok(receipt) => Ok(receipt.unknown_ids),
            Err(_) => Err(ids),
        };
        (owner, outcome)
    }
}

impl Waiting {
    /// True when the owner had not answered yet, and will not.
    async fn abandon(&mut self) -> bool {
        let taken = abandon(&self.relay, &self.owner, self.id).await;
        if taken {
            self.over = true;
            lock(&self.relay.inner.asked).remove(&self.id);
        }
        taken
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        lock(&self.relay.inner.asked).remove(&self.id);
        count("abandoned");
        let (relay, owner, id) = (self.relay.clone(), std::mem::take(&mut self.owner), self.id);
        tokio::spawn(async move { abandon(&relay, &owner, id).await });
    }
}

async fn abandon(relay: &Relay, owner: &str, id: u64) -> bool {
    let bus = &relay.inner.bus;
    let word = about(bus.name(), id, relay::Body::Abandon(RelayAbandon {}));
    let receipt = bus.relay(owner, &word, RECEIPT).await;
    receipt.is_ok_and(|receipt| receipt.taken)
}
