//! WebSockets of sessions that another gateway owns: carried there over a connection of their own, so that a
//! polling client's upgrade works wherever it arrives. Where that is not possible the client goes on polling.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parlance_bus::Bus;
use parlance_proto::v1::{RelayReceipt, RelayUpgrade, relay};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::either::Either;

use super::asking::Foreign;
use super::{RECEIPT, Relay, about, count, lock, no_upgrade};
use crate::socket::listener::{Peer, Wire};

/// How long the owner may take to be reached and to agree; the client goes on polling meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// The clients' connections that are carried, by a number of their own.
pub(super) type Carried = Mutex<HashMap<u64, Arc<Wire>>>;

/// Forgets a carried connection at its end.
struct Forget {
    relay: Relay,
    number: u64,
}

/// Where other gateways reach the public port of this one: the address by which it reaches NATS itself.
///
/// # Errors
/// NATS' name cannot be resolved, or there is no way to it.
pub async fn own_address(nats_url: &str, port: u16) -> std::io::Result<SocketAddr> {
    let first = nats_url.split(',').next().unwrap_or_default().trim();
    let host = first.split_once("://").map_or(first, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, rest)| rest);
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
        match tokio::time::timeout(PATIENCE, self.connect(&foreign, request)).await {
            Ok(Ok(response)) => {
                count("carried");
                response
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, owner = foreign.owner, "an upgrade did not reach its owner");
                count("not_carried");
                no_upgrade()
            }
            Err(_) => {
                tracing::debug!(
                    owner = foreign.owner,
                    "an upgrade did not reach its owner in time"
                );
                count("not_carried");
                no_upgrade()
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
        let bus: &Bus = &self.inner.bus;
        let question = about(bus.name(), 0, relay::Body::Upgrade(RelayUpgrade {}));
        let receipt = bus.relay(&foreign.owner, &question, RECEIPT).await?;
        anyhow::ensure!(receipt.taken, "the owner takes no connections of gateways");
        let stream = TcpStream::connect(&receipt.address).await?;
        stream.set_nodelay(true)?;
        let stream = match &self.inner.certificate {
            Some(certificate) => Either::Left(certificate.connect(stream).await?),
            None => Either::Right(stream),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());

        let mut asked = Request::new(Body::empty());
        *asked.uri_mut() = request.uri().clone();
        *asked.headers_mut() = request.headers().clone();
        let peer = request.extensions().get::<ConnectInfo<Peer>>().cloned();
        let client = hyper::upgrade::on(&mut request);
        let mut answer = sender.send_request(asked).await?;
        anyhow::ensure!(
            answer.status() == StatusCode::SWITCHING_PROTOCOLS,
            "the owner answered {}",
            answer.status()
        );
        let owner = hyper::upgrade::on(&mut answer);
        let relay = self.clone();
        tokio::spawn(async move {
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

    fn remember(&self, wire: Arc<Wire>) -> Forget {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.inner.carried).insert(number, wire);
        Forget {
            relay: self.clone(),
            number,
        }
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        lock(&self.relay.inner.carried).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_own_address_is_the_one_towards_nats() {
        for url in [
            "nats://127.0.0.1:4222",
            "tls://user:secret@127.0.0.1:4222, nats://other:4222",
        ] {
            let address = own_address(url, 4004).await.unwrap();
            assert_eq!(address, ([127, 0, 0, 1], 4004).into(), "{url}");
        }
        assert!(own_address("nats://no such host", 1).await.is_err());
    }
}
