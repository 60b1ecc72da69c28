//! What happens to a Socket.IO request before the engine sees it: admission, per address and as a whole, and memory.
//!
//! Everything temporary is refused here with an HTTP status, because stock clients retry after that;
//! after a `connect_error` they do not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Context};

use axum::body::Body;
use axum::extract::{ConnectInfo, OriginalUri};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use parlance_proto::v1::ErrorCode;
use parlance_runtime::tasks;
use tower::Service;

use super::admission::{Admission, Ticket};
use super::connection::Connection;
use super::engine::Engine;
use super::engineio::{self, Refusal, Transport};
use super::packets::MessageLimit;
use super::polling::{self, Polling};
use super::relay::Foreign;
use super::session_id::Named;
use super::settings::SocketSettings;
use super::upgrade::Upgrade;
use super::websocket::{self, Screened};
use crate::edge::addresses::{AddressSlot, ClientAddress};
use crate::edge::refusals::Refused;
use crate::edge::socket::state::SocketState;
use crate::error::ClientError;
use crate::query::query_value;
use crate::session::wire::Peer;

/// The engine behind its admission.
#[derive(Clone)]
pub struct Handshake {
    engine: Engine,
    polling: Polling,
    state: SocketState,
    rate: Arc<DefaultDirectRateLimiter>,
    admission: Admission,
    limit: MessageLimit,
}

/// What a new client holds: nothing but the beginning of a session.
struct Admitted {
    ticket: Ticket,
    /// For the life of its connection; none where its address is not known.
    slot: Option<AddressSlot>,
}

/// What comes of a request.
type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl Handshake {
    /// Puts admission in front of an engine and its polling sessions.
    pub fn new(engine: Engine, polling: Polling, state: SocketState, settings: &SocketSettings) -> Self {
        Self {
            engine,
            polling,
            state,
            rate: Arc::new(RateLimiter::direct(Quota::per_second(
                settings.handshakes_per_second,
            ))),
            admission: Admission::new(settings.handshakes_under_way),
            limit: settings.message_limit(),
        }
    }

    /// Lets a new client in, of this address where that is known.
    async fn admit(&self, address: Option<ClientAddress>) -> Result<Admitted, ClientError> {
        self.takes_clients()?;
        // First, so that what one address makes too many of is not taken from what all share.
        let slot = address.map(|address| self.slot(address)).transpose()?;
        let crowded = || ClientError::new(ErrorCode::Unavailable, "too many clients come at once");
        if self.rate.check().is_err() {
            return Err(crowded());
        }
        let ticket = self.admission.enter(address).await.ok_or_else(crowded)?;
        // It may have waited for a moment.
        self.takes_clients()?;
        Ok(Admitted { ticket, slot })
    }

    /// Whether there is anything for a client here now.
    fn takes_clients(&self) -> Result<(), ClientError> {
        if self.state.refusing.is_cancelled() {
            return Err(ClientError::new(
                ErrorCode::Unavailable,
                "this replica is draining",
            ));
        }
        if !self.state.core.is_ready() {
            return Err(ClientError::new(ErrorCode::Unavailable, "a dependency is away"));
        }
        if self.state.connections.load(Ordering::Relaxed) > self.state.max_connections {
            return Err(ClientError::new(ErrorCode::Unavailable, "this replica is full"));
        }
        Ok(())
    }

    /// One of the sessions that the address may have. Operators read of refusals: it may be their load balancer.
    fn slot(&self, address: ClientAddress) -> Result<AddressSlot, ClientError> {
        self.state.gate.addresses.admit(address).inspect_err(|error| {
            self.state.gate.refusals.note(&Refused {
                kind: "address",
                value: Some(&address.to_string()),
                reason: &error.message,
                setting: Some("http.trusted_proxies"),
            });
        })
    }

    /// Whom a request is from, where that can be told.
    fn address(&self, request: &Request<Body>) -> Option<ClientAddress> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<Peer>>()?;
        self.state
            .gate
            .addresses
            .client(peer.addr.ip(), request.headers())
    }

    /// A request without a session makes one.
    fn open(&self, request: Request<Body>, transport: Transport, admitted: Admitted) -> Answer {
        let mut request = slim(request);
        let Admitted { ticket, slot } = admitted;
        if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
            ticket.hold(connection, |connection| &connection.ticket);
        }
        // The engine keeps the request for the life of the session.
        if let Some(slot) = slot {
            request.extensions_mut().insert(Arc::new(slot));
        }
        if transport == Transport::Polling {
            let polling = self.polling.clone();
            return Box::pin(async move { Ok(polling.open(request).await) });
        }
        let response = websocket::accept(request.headers());
        let upgraded = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let connection: Arc<Connection> = parts.extensions.get().map(Arc::clone).unwrap_or_default();
        let (mut engine, state, max) = (self.engine.clone(), self.state.clone(), self.limit);
        tasks::spawn("open a websocket", async move {
            let Ok(io) = upgraded.await else {
                return;
            };
            let note = move || polling::note_other_parser(&state);
            let screened = Screened::new(TokioIo::new(io), connection, max).on_other_parser(note);
            // Ready at once.
            drop(engine.call((screened, Request::from_parts(parts, ()))));
        });
        Box::pin(async { Ok(response) })
    }

    /// A WebSocket for a polling session of this gateway.
    fn upgrade(&self, mut request: Request<Body>, engine_id: String) -> Answer {
        let (engine, polling, state) = (self.engine.clone(), self.polling.clone(), self.state.clone());
        let limit = self.limit;
        Box::pin(async move {
            let upgrading = match polling.begin_upgrade(&engine_id).await {
                Ok(upgrading) => upgrading,
                Err(refusal) => return Ok(refusal.into_response()),
            };
            let peer = request.extensions().get::<ConnectInfo<Peer>>();
            let upgrade = Upgrade {
                upgrading,
                engine_id,
                engine,
                wire: peer.map(|ConnectInfo(peer)| Arc::clone(&peer.wire)),
                state,
                limit,
            };
            let response = websocket::accept(request.headers());
            let upgraded = hyper::upgrade::on(&mut request);
            tasks::spawn("upgrade to a websocket", async move {
                if let Ok(io) = upgraded.await {
                    upgrade.run(TokioIo::new(io)).await;
                }
            });
            Ok(response)
        })
    }

    /// A request of a session of another gateway.
    fn forward(&self, request: Request<Body>, session: Foreign, transport: Transport) -> Answer {
        let relay = self.state.relay.clone();
        if transport == Transport::Polling {
            return Box::pin(async move { Ok(relay.forward(session, request).await) });
        }
        // It would be closed again in a moment.
        if self.state.draining.is_cancelled() {
            return refuse(Refusal::BadRequest);
        }
        Box::pin(async move { Ok(relay.carry(session, request).await) })
    }

    fn route(&self, request: Request<Body>, transport: Transport) -> Answer {
        if query_value(request.uri(), "sid=").is_none() {
            let (handshake, address) = (self.clone(), self.address(&request));
            return Box::pin(async move {
                match handshake.admit(address).await {
                    Ok(admitted) => handshake.open(request, transport, admitted).await,
                    Err(error) => {
                        metrics::counter!("chat_gateway_connects_total", "result" => error.code).increment(1);
                        Ok(last(error.into_response()))
                    }
                }
            });
        }
        let Some(named) = Named::of(request.uri()) else {
            return refuse(Refusal::UnknownSession);
        };
        if !self.state.relay.ids().owns(&named) {
            let session = Foreign::new(&named);
            return self.forward(request, session, transport);
        }
        let Some(engine_id) = self.polling.verify(named.session).map(str::to_owned) else {
            return refuse(Refusal::UnknownSession);
        };
        if transport == Transport::Websocket {
            return self.upgrade(request, engine_id);
        }
        let Some(request) = polling::for_engine(request, &engine_id) else {
            return refuse(Refusal::UnknownSession);
        };
        let polling = self.polling.clone();
        Box::pin(async move { Ok(polling.answer(&engine_id, request).await) })
    }
}

impl Service<Request<Body>> for Handshake {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.engine, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let transport = match engineio::transport(&request) {
            Ok(transport) => transport,
            Err(refusal) => {
                note(&self.state, refusal);
                return refuse(refusal);
            }
        };
        let answer = self.route(request, transport);
        if !self.state.draining.is_cancelled() {
            return answer;
        }
        Box::pin(async move { Ok(last(answer.await?)) })
    }
}

fn refuse(refusal: Refusal) -> Answer {
    Box::pin(async move { Ok(refusal.into_response()) })
}

/// Writes down what an operator can have changed: an old client, a proxy that cannot pass WebSockets on.
fn note(state: &SocketState, refusal: Refusal) {
    let (kind, reason) = match refusal {
        Refusal::UnsupportedProtocol => (
            "protocol",
            "the client speaks an older Engine.IO than version 4: upgrade socket.io-client to version 4",
        ),
        Refusal::NoUpgrade => (
            "upgrade",
            "a WebSocket handshake came without its Upgrade headers: the proxy in front must pass them on",
        ),
        _ => return,
    };
    state.gate.refusals.note(&Refused {
        kind,
        value: None,
        reason,
        setting: None,
    });
}

/// The last answer on its connection: what balances connections, not requests, takes the next one elsewhere.
fn last(mut answer: Response<Body>) -> Response<Body> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

/// The engine keeps the request for the life of the session, and with it hyper's whole read buffer,
/// of which header values and URI are slices: 16 KiB a connection. So it gets copies of what it needs.
fn slim(mut request: Request<Body>) -> Request<Body> {
    const KEPT: [header::HeaderName; 9] = [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::HOST,
        header::ORIGIN,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::UPGRADE,
    ];
    let mut headers = HeaderMap::with_capacity(KEPT.len());
    for name in KEPT {
        let copy = request
            .headers()
            .get(&name)
            .and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        if let Some(mut value) = copy {
            value.set_sensitive(name == header::AUTHORIZATION);
            headers.insert(name, value);
        }
    }
    *request.headers_mut() = headers;
    // The engine knows one path, whichever led here.
    let query = request.uri().query().unwrap_or_default();
    if let Ok(uri) = Uri::try_from(format!("/socket.io/?{query}")) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().remove::<OriginalUri>();
    request.extensions_mut().insert(Arc::<Connection>::default());
    request
}
