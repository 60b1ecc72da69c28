//! WebSockets of sessions that another gateway owns: carried there over a connection of their own, so that a
//! polling client's upgrade works wherever it arrives. Where the owner cannot be reached, or the upgrade fails there,
//! the client goes on polling.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parlance_proto::v1::{RelayReceipt, RelayUpgrade, relay};
use parlance_runtime::tasks;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::either::Either;

use super::asking::Foreign;
use super::{RECEIPT, Relay, about, count, lock};
use crate::edge::socket::engineio::Refusal;
use crate::session::wire::{Peer, Wire};

/// How long the owner may take to be reached.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to agree.
const UPGRADE: Duration = Duration::from_secs(10);
/// Marks an upgrade that is carried, so that no gateway carries it on: the owner may have told a wrong address.
const CARRIED: HeaderName = HeaderName::from_static("parlance-carried");
/// The port of NATS where its address names none.
const NATS_PORT: u16 = 4222;

/// The clients' connections that are carried, by a number of their own.
pub(super) type Carried = Mutex<HashMap<u64, Arc<Wire>>>;

/// Forgets a carried connection at its end.
struct Forget {
    relay: Relay,
    number: u64,
    wire: Arc<Wire>,
}

/// Where other gateways reach the public port of this one: the address by which it reaches NATS itself.
///
/// # Errors
/// NATS' name cannot be resolved, or there is no way to it.
pub async fn own_address(nats_url: &str, port: u16) -> std::io::Result<SocketAddr> {
    let first = nats_url.split(',').next().unwrap_or_default().trim();
    let host = first.split_once("://").map_or(first, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, rest)| rest);
    let named = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if named {
        host.to_owned()
    } else {
        format!("{host}:{NATS_PORT}")
    };
    let target = tokio::net::lookup_host(host)
        .await?
        .next()
        .ok_or(std::io::ErrorKind::NotFound)?;
    let any: SocketAddr = if target.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0; 8], 0).into()
    };
    // Sends nothing: asks the routing table.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok((socket.local_addr()?.ip(), port).into())
}

impl Relay {
    /// Carries a WebSocket to the owner of its session, for as long as it lasts.
    pub async fn carry(&self, foreign: Foreign, request: Request<Body>) -> Response<Body> {
        let Ok(_turn) = self.inner.upgrades.try_acquire() else {
            count("not_carried");
            return Refusal::BadRequest.into_response();
        };
        match self.connect(&foreign, request).await {
            Ok(response) => {
                count("carried");
                response
            }
            Err(error) => {
                tracing::debug!(%error, owner = foreign.owner, "an upgrade did not reach its owner");
                count("not_carried");
                Refusal::BadRequest.into_response()
            }
        }
    }

    /// The clients' connections that are carried now.
    pub fn carried(&self) -> Vec<(u64, Arc<Wire>)> {
        let carried = lock(&self.inner.carried);
        carried
            .iter()
            .map(|(number, wire)| (*number, Arc::clone(wire)))
            .collect()
    }

    /// Where this gateway is reached.
    pub(super) fn told_address(&self) -> RelayReceipt {
        RelayReceipt {
            taken: !self.inner.address.is_empty(),
            address: self.inner.address.clone(),
            ..RelayReceipt::default()
        }
    }

    async fn connect(&self, foreign: &Foreign, mut request: Request<Body>) -> anyhow::Result<Response<Body>> {
        anyhow::ensure!(
            !request.headers().contains_key(CARRIED),
            "it was carried here already"
        );
        let stream = tokio::time::timeout(PATIENCE, self.reach(&foreign.owner)).await??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tasks::spawn("carry a connection", connection.with_upgrades());

        let mut asked = Request::new(Body::empty());
        *asked.uri_mut() = request.uri().clone();
        *asked.headers_mut() = request.headers().clone();
        asked.headers_mut().insert(CARRIED, HeaderValue::from_static("1"));
        let peer = request.extensions().get::<ConnectInfo<Peer>>().cloned();
        let client = hyper::upgrade::on(&mut request);
        let mut answer = tokio::time::timeout(UPGRADE, sender.send_request(asked)).await??;
        anyhow::ensure!(
            answer.status() == StatusCode::SWITCHING_PROTOCOLS,
            "the owner answered {}",
            answer.status()
        );
        let owner = hyper::upgrade::on(&mut answer);
        let relay = self.clone();
        tasks::spawn("splice a connection", async move {
            let _forget = peer.map(|ConnectInfo(peer)| relay.remember(peer.wire));
            let (Ok(client), Ok(owner)) = tokio::join!(client, owner) else {
                return;
            };
            // However it ends, both sides learn of it by the end of their connections.
            drop(copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(owner)).await);
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }

    /// A connection to the owner of a session.
    async fn reach(
        &self,
        owner: &str,
    ) -> anyhow::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        let bus = &self.inner.bus;
        let question = about(bus.name(), 0, relay::Body::Upgrade(RelayUpgrade {}));
        let receipt = bus.relay(owner, &question, RECEIPT).await?;
        anyhow::ensure!(receipt.taken, "the owner takes no connections of gateways");
        let stream = TcpStream::connect(&receipt.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.inner.certificate {
            Some(certificate) => Either::Left(certificate.connect(stream).await?),
            None => Either::Right(stream),
        })
    }

    fn remember(&self, wire: Arc<Wire>) -> Forget {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.inner.carried).insert(number, Arc::clone(&wire));
        // The connection to the owner is one more.
        wire.opened();
        Forget {
            relay: self.clone(),
            number,
            wire,
        }
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        lock(&self.relay.inner.carried).remove(&self.number);
        self.wire.closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_own_address_is_the_one_towards_nats() {
        for url in [
            "nats://127.0.0.1:4222",
            "tls://user:secret@127.0.0.1, nats://other:4222",
        ] {
            let address = own_address(url, 4004).await.unwrap();
            assert_eq!(address, ([127, 0, 0, 1], 4004).into(), "{url}");
        }
        assert!(own_address("nats://no such host", 1).await.is_err());
    }
}
