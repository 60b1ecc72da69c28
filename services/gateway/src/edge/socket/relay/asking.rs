//! The side of the gateway that the client reached: hands the request to the session's owner and waits.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use parlance_bus::relay::MAX_PART;
use parlance_bus::{Error, ErrorKind};
use parlance_proto::UserId;
use parlance_proto::v1::{
    self, ErrorCode, RelayAbandon, RelayAnswer, RelayPart, RelayRequest, RelayReturned, RelayWaiting, relay,
};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Gathered, RECEIPT, Relay, about, count, lock, query_without_session};
use crate::edge::socket::engineio::Refusal;
use crate::edge::socket::packets::MessageLimit;
use crate::edge::socket::polling::{self, NOOP};
use crate::edge::socket::session_id::{Named, full_name};
use crate::error::ClientError;
use crate::session::page::Page;

/// How often the owners of waiting requests are asked whether they still work on them.
const LOOK: Duration = Duration::from_secs(2);
/// After this many looks without any answer an owner counts as gone.
const STRIKES: u32 = 2;
/// How long a gateway that ends waits for the owner of a poll.
const HAND_BACK: Duration = Duration::from_secs(2);
/// How often, and after what pauses, an owner that nobody knows is looked for: after a loss of NATS it may be about to
/// come back.
const ATTEMPTS: u32 = 3;
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));
/// Bytes that are passed on for anybody: only the owner can tell whether the session exists. Most requests are smaller.
const FIRST_PIECE: usize = 16 * 1024;
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

/// Why the owner has not got a request, or not all of it.
enum NotHandedOver {
    /// The session is no more.
    Gone,
    /// The owner does not answer.
    Unavailable(ClientError),
    /// The body is too large, or its client has gone: the answer to it.
    Unusable(Response<Body>),
}

/// A body that is read in pieces.
struct Pieces {
    body: Body,
    read: BytesMut,
    /// Bytes that may still come.
    left: usize,
    /// Largest size of the next piece in bytes.
    piece: usize,
    until: Instant,
}

/// An answer that has come whole.
struct Answered {
    head: RelayAnswer,
    body: Bytes,
}

/// Forgets the request and tells the owner when the client does not wait any more.
struct HeldRequest {
    relay: Relay,
    owner: String,
    id: u64,
    over: bool,
}

impl Foreign {
    /// What a request needs to find its session.
    pub fn new(named: &Named<'_>) -> Self {
        Self {
            owner: full_name(named.owner),
            session: named.session.to_owned(),
        }
    }
}

impl Pieces {
    /// Until the owner has said that the session exists, no more than the first piece is read.
    fn new(body: Body, limit: MessageLimit) -> Self {
        Self {
            body,
            read: BytesMut::new(),
            left: limit.connected,
            piece: FIRST_PIECE,
            until: Instant::now() + polling::BODY,
        }
    }

    /// The next piece, as large as it may be or the last.
    ///
    /// # Errors
    /// What the client is answered.
    async fn next(&mut self) -> Result<RelayPart, Response<Body>> {
        let piece = std::mem::replace(&mut self.piece, MAX_PART);
        while self.read.len() <= piece {
            let frame = timeout_at(self.until, self.body.frame()).await;
            match frame.map_err(|_| Refusal::BadRequest.into_response())? {
                None => {
                    return Ok(RelayPart {
                        data: self.read.split().to_vec(),
                        more: false,
                    });
                }
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let Some(left) = self.left.checked_sub(data.len()) else {
                        return Err(polling::too_large(&mut self.body).await);
                    };
                    self.left = left;
                    self.read.extend_from_slice(&data);
                }
                Some(Err(_)) => return Err(Refusal::BadRequest.into_response()),
            }
        }
        Ok(RelayPart {
            data: self.read.split_to(piece).to_vec(),
            more: true,
        })
    }
}

impl Relay {
    /// Asks the gateway that a page was connected to before to end what it has of the page; whether what the page got is
    /// stored then.
    ///
    /// # Errors
    /// See [`parlance_bus::Bus::relay`].
    pub async fn ask_to_end(
        &self,
        gateway: &str,
        user: &UserId,
        page: Page,
        patience: Duration,
    ) -> Result<bool, Error> {
        let returned = RelayReturned {
            user_id: user.to_string(),
            page: page.to_string(),
        };
        let told = about(self.inner.bus.name(), 0, relay::Body::Returned(returned));
        let owner = full_name(gateway);
        let receipt = self.inner.bus.relay(&owner, &told, patience).await?;
        Ok(receipt.taken)
    }

    /// Has the owner of the session answer a polling request.
    pub async fn forward(&self, foreign: Foreign, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.method != Method::GET && head.method != Method::POST {
            return Refusal::BadRequest.into_response();
        }
        let kind = head.headers.get(header::CONTENT_TYPE);
        let first = RelayRequest {
            session: foreign.session.clone(),
            method: head.method.to_string(),
            query: query_without_session(&head.uri),
            content_type: kind
                .and_then(|kind| kind.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            part: None,
        };
        let (mut waiting, answer) = self.wait(foreign.owner.clone());
        let pieces = Pieces::new(body, self.inner.limit);
        match self.hand_over(&waiting, first, pieces).await {
            Ok(()) => {}
            Err(NotHandedOver::Unusable(response)) => {
                // The owner is told that the rest does not come.
                drop(waiting);
                if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    // As at the owner, it ends the session.
                    let close = Request::from_parts(head, Body::from(CLOSE));
                    Box::pin(self.forward(foreign, close)).await;
                }
                return response;
            }
            Err(error) => {
                waiting.over = true;
                lock(&self.inner.asked).remove(&waiting.id);
                let NotHandedOver::Unavailable(error) = error else {
                    count("gone");
                    return Refusal::UnknownSession.into_response();
                };
                count("unavailable");
                return error.into_response();
            }
        }
        self.outcome(&mut waiting, answer, head.method == Method::GET)
            .await
    }

    async fn outcome(
        &self,
        waiting: &mut HeldRequest,
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

    fn wait(&self, owner: String) -> (HeldRequest, oneshot::Receiver<Answered>) {
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
        let waiting = HeldRequest {
            relay: self.clone(),
            owner,
            id,
            over: false,
        };
        (waiting, answer)
    }

    /// Passes the body on piece by piece: only the owner knows whether the session may send much, and until it has
    /// said so no more than a piece is kept here.
    async fn hand_over(
        &self,
        waiting: &HeldRequest,
        first: RelayRequest,
        mut body: Pieces,
    ) -> Result<(), NotHandedOver> {
        let bus = &self.inner.bus;
        let mut first = Some(first);
        let mut more = true;
        while more {
            let part = body.next().await.map_err(NotHandedOver::Unusable)?;
            more = part.more;
            let size = part.data.len();
            let said = match first.take() {
                Some(first) => relay::Body::Request(RelayRequest {
                    part: Some(part),
                    ..first
                }),
                None => relay::Body::Part(part),
            };
            let told = about(bus.name(), waiting.id, said);
            match self.tell(&waiting.owner, &told, size).await {
                Ok(receipt) if receipt.taken => {}
                Ok(_) => {
                    polling::discard(&mut body.body).await;
                    return Err(NotHandedOver::Gone);
                }
                Err(error) if error.kind() == ErrorKind::NoResponders => {
                    polling::discard(&mut body.body).await;
                    return Err(NotHandedOver::Gone);
                }
                Err(error) => {
                    tracing::warn!(%error, owner = waiting.owner, "a polling request did not reach its owner");
                    let error = ClientError::new(ErrorCode::Unavailable, "the session cannot be reached");
                    return Err(NotHandedOver::Unavailable(error));
                }
            }
        }
        if let Some(asked) = lock(&self.inner.asked).get_mut(&waiting.id) {
            asked.handed_over = true;
        }
        Ok(())
    }

    /// Sends a message with `size` bytes of a body, and again where nobody received it. It takes its part of the bytes
    /// that may be on their way only while it is, not in the pauses.
    async fn tell(&self, owner: &str, told: &v1::Relay, size: usize) -> Result<v1::RelayReceipt, Error> {
        let kibibytes = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX);
        let mut attempt = 1;
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let room = self.inner.bytes.acquire_many(kibibytes).await;
            let outcome = self.inner.bus.relay(owner, told, RECEIPT).await;
            drop(room);
            match outcome {
                Err(error) if error.kind() == ErrorKind::NoResponders && attempt < ATTEMPTS => {
                    attempt += 1;
                    backoff.pause().await;
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

impl HeldRequest {
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

impl Drop for HeldRequest {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        lock(&self.relay.inner.asked).remove(&self.id);
        count("abandoned");
        let (relay, owner, id) = (self.relay.clone(), std::mem::take(&mut self.owner), self.id);
        tasks::spawn("abandon a relayed request", async move {
            abandon(&relay, &owner, id).await
        });
    }
}

async fn abandon(relay: &Relay, owner: &str, id: u64) -> bool {
    let bus = &relay.inner.bus;
    let word = about(bus.name(), id, relay::Body::Abandon(RelayAbandon {}));
    let receipt = bus.relay(owner, &word, RECEIPT).await;
    receipt.is_ok_and(|receipt| receipt.taken)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream::{self, StreamExt as _};

    use super::*;

    const LIMIT: MessageLimit = MessageLimit {
        connected: 4 * MAX_PART,
        connecting: 2 * FIRST_PIECE,
    };

    #[tokio::test]
    async fn only_a_small_first_piece_is_read_before_the_owner_answers() {
        for length in [
            0,
            1,
            FIRST_PIECE,
            FIRST_PIECE + 1,
            FIRST_PIECE + MAX_PART,
            3 * MAX_PART,
        ] {
            let mut pieces = Pieces::new(Body::from(vec![1; length]), LIMIT);
            let mut sizes = Vec::new();
            loop {
                let part = pieces.next().await.unwrap();
                sizes.push(part.data.len());
                if !part.more {
                    break;
                }
            }
            assert!(sizes[0] <= FIRST_PIECE, "{sizes:?}");
            assert!(sizes.iter().all(|size| *size <= MAX_PART), "{sizes:?}");
            assert_eq!(sizes.iter().sum::<usize>(), length);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let bytes = stream::iter(0..).then(async |_: u32| {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        });
        let begun = Instant::now();
        let mut pieces = Pieces::new(Body::from_stream(bytes), LIMIT);
        assert_eq!(pieces.next().await.unwrap_err().status(), StatusCode::BAD_REQUEST);
        assert!(begun.elapsed() <= polling::BODY + Duration::from_secs(1));
    }
}
