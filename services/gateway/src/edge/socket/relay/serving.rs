//! The owner's side: has the engine answer requests that reached another gateway.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use parlance_bus::IncomingRelay;
use parlance_proto::UserId;
use parlance_proto::v1::{RelayAnswer, RelayPart, RelayReceipt, RelayRequest, RelayReturned, relay};
use parlance_runtime::tasks;
use tokio_util::sync::CancellationToken;

use super::{Gathered, RECEIPT, Relay, about, count, lock, parts};
use crate::edge::socket::engineio::Refusal;
use crate::edge::socket::polling::Polling;
use crate::edge::socket::returning;
use crate::edge::socket::state::SocketState;
use crate::session::page::Page;

/// How long the next part of a request may take to come.
const GATHERING: Duration = Duration::from_secs(30);

/// A request that is not answered yet.
pub(super) enum Served {
    /// The engine has it.
    Running(CancellationToken),
    /// The answer is on its way.
    Answering,
}

/// A request whose body comes in parts.
struct Coming {
    head: RelayRequest,
    engine_id: String,
    body: Gathered,
    size: usize,
    since: Instant,
}

/// Forgets a request at its end, whatever the end is.
struct Settled {
    relay: Relay,
    key: (String, u64),
}

/// Requests that have not come whole, by their gateway and its number.
type Gathering = HashMap<(String, u64), Coming>;

impl Relay {
    /// Answers other gateways until `stop`.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn serve(&self, polling: Polling, stop: CancellationToken) -> anyhow::Result<()> {
        let mut relays = self.inner.bus.subscribe_relays(self.inner.bus.name()).await?;
        let mut gathering = Gathering::new();
        let mut tidy = tokio::time::interval(GATHERING / 3);
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                incoming = relays.next() => incoming,
                _ = tidy.tick() => {
                    gathering.retain(|_, coming| coming.since.elapsed() < GATHERING);
                    continue;
                }
            };
            let Some(mut incoming) = incoming else {
                anyhow::bail!("the connection to NATS is closed for good");
            };
            if let Some(relay::Body::Returned(returned)) = &incoming.relay.body {
                let ended = end_before(polling.state(), returned);
                tasks::spawn("end a returned session", async move {
                    let receipt = RelayReceipt {
                        taken: ended.await,
                        ..RelayReceipt::default()
                    };
                    incoming.receipt(&receipt).await;
                });
                continue;
            }
            let receipt = self.hear(&mut incoming, &mut gathering, &polling);
            incoming.receipt(&receipt).await;
        }
    }

    fn hear(
        &self,
        incoming: &mut IncomingRelay,
        gathering: &mut Gathering,
        polling: &Polling,
    ) -> RelayReceipt {
        let is_mine = incoming.relay.gateway == self.inner.bus.name();
        let key = (
            std::mem::take(&mut incoming.relay.gateway),
            incoming.relay.request_id,
        );
        let taken = match incoming.relay.body.take() {
            Some(relay::Body::Answer(answer)) => self.take_answer(key.1, answer),
            Some(relay::Body::Part(part)) if is_mine => self.take_part(key.1, part),
            Some(relay::Body::Request(mut head)) => {
                let part = head.part.take().unwrap_or_default();
                let engine_id = polling.verify(&head.session).map(str::to_owned);
                // Much is taken only for sessions that are here.
                let Some(engine_id) = engine_id.filter(|id| !part.more || polling.knows(id)) else {
                    return RelayReceipt::default();
                };
                let coming = Coming {
                    head,
                    engine_id,
                    body: Gathered::default(),
                    size: 0,
                    since: Instant::now(),
                };
                gathering.insert(key.clone(), coming);
                self.gather(key, part, gathering, polling)
            }
            Some(relay::Body::Part(part)) => self.gather(key, part, gathering, polling),
            Some(relay::Body::Abandon(_)) => gathering.remove(&key).is_some() || self.give_up(&key),
            Some(relay::Body::Waiting(waiting)) => {
                let served = lock(&self.inner.served);
                let (gateway, _) = key;
                let unknown = waiting.request_ids.into_iter();
                let unknown = unknown.filter(|id| !served.contains_key(&(gateway.clone(), *id)));
                return RelayReceipt {
                    taken: true,
                    unknown_ids: unknown.collect(),
                    ..RelayReceipt::default()
                };
            }
            Some(relay::Body::Upgrade(_)) => return self.told_address(),
            Some(relay::Body::Returned(_)) | None => false,
        };
        RelayReceipt {
            taken,
            ..RelayReceipt::default()
        }
    }

    /// Takes a part of a request; with the last one the engine begins.
    fn gather(
        &self,
        key: (String, u64),
        part: RelayPart,
        gathering: &mut Gathering,
        polling: &Polling,
    ) -> bool {
        let Some(coming) = gathering.get_mut(&key) else {
            return false;
        };
        coming.size += part.data.len();
        coming.since = Instant::now();
        if coming.size > polling.allowance(&coming.engine_id) {
            gathering.remove(&key);
            return false;
        }
        let Some(body) = coming.body.add(part) else {
            return true;
        };
        let Some(coming) = gathering.remove(&key) else {
            return false;
        };
        let cancelled = CancellationToken::new();
        lock(&self.inner.served).insert(key.clone(), Served::Running(cancelled.clone()));
        let (relay, polling) = (self.clone(), polling.clone());
        let settled = Settled {
            relay: self.clone(),
            key,
        };
        tasks::spawn("answer a relayed request", async move {
            let is_poll = coming.head.method == Method::GET.as_str();
            let response = tokio::select! {
                biased;
                response = run(&coming, body, &polling) => response,
                () = cancelled.cancelled() => return,
            };
            let delivered = relay.answer(&settled.key, response).await;
            drop(settled);
            if !delivered && is_poll {
                count("lost");
                polling.close(&coming.engine_id);
            }
        });
        true
    }

    /// False when the answer cannot have reached the client.
    async fn answer(&self, key: &(String, u64), response: Response<Body>) -> bool {
        match lock(&self.inner.served).get_mut(key) {
            Some(served) => *served = Served::Answering,
            // Abandoned at the very moment.
            None => return false,
        }
        let (head, body) = response.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            return false;
        };
        let kind = head.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (gateway, id) = key;
        for (index, part) in parts(&body).enumerate() {
            let said = if index == 0 {
                relay::Body::Answer(RelayAnswer {
                    status: u32::from(head.status.as_u16()),
                    content_type: kind.to_owned(),
                    part: Some(part),
                })
            } else {
                relay::Body::Part(part)
            };
            let told = about(gateway, *id, said);
            let receipt = self.inner.bus.relay(gateway, &told, RECEIPT).await;
            if !receipt.is_ok_and(|receipt| receipt.taken) {
                // An error has nothing in it that could be lost.
                return head.status != StatusCode::OK;
            }
        }
        true
    }

    /// True when the request will not be answered any more.
    fn give_up(&self, key: &(String, u64)) -> bool {
        let mut served = lock(&self.inner.served);
        match served.get(key) {
            Some(Served::Running(cancelled)) => {
                cancelled.cancel();
                served.remove(key);
                true
            }
            Some(Served::Answering) | None => false,
        }
    }
}

/// Whether what the page got here is stored.
fn end_before(state: &SocketState, returned: &RelayReturned) -> impl Future<Output = bool> + use<> {
    let state = state.clone();
    let page = Page::parse(&returned.page);
    let user = UserId::parse(returned.user_id.clone()).ok();
    async move {
        let (Some(user), Some(page)) = (user, page) else {
            return false;
        };
        returning::end_here(&state, &user, page, None).await
    }
}

async fn run(coming: &Coming, body: Bytes, polling: &Polling) -> Response<Body> {
    let (head, engine_id) = (&coming.head, &coming.engine_id);
    let request = Request::builder()
        .method(head.method.as_str())
        .uri(format!("/socket.io/?{}&sid={engine_id}", head.query))
        .header(header::CONTENT_TYPE, &head.content_type)
        .body(Body::from(body));
    match request {
        Ok(request) => polling.answer(engine_id, request).await,
        Err(_) => Refusal::UnknownSession.into_response(),
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        lock(&self.relay.inner.served).remove(&self.key);
    }
}
