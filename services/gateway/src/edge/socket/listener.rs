//! Connections of clients with what the Socket.IO layer lacks: no Nagle delay, a limit for each address, an end for
//! clients that stop reading, a way to stop reading from a client, and a switch that closes one connection.
//!
//! Must not know sessions or events.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

use super::tls::{Arrived, Certificate, Handshakes, Stream};
use crate::edge::addresses::{AddressQuota, AddressSlot, ClientAddress, Proxies};
use crate::session::wire::{Peer, Wire};

/// Accepts connections and counts them.
pub struct Accepting {
    listener: TcpListener,
    handshakes: Option<Handshakes>,
    write_stall: Duration,
    open: Arc<AtomicUsize>,
    proxies: Proxies,
    quota: AddressQuota,
}

/// A connection that a client has made.
pub struct Accepted {
    /// The stream.
    pub io: WireIo,
    /// The connection as requests know it.
    pub peer: Peer,
    /// Whether a trusted proxy made it, for whatever clients.
    pub is_proxied: bool,
}

/// The stream hyper and the WebSocket layer read and write.
pub struct WireIo {
    stream: Stream,
    wire: Arc<Wire>,
    write_stall: Duration,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Given back at the end of the connection.
    _slot: Option<AddressSlot>,
}

impl Accepting {
    /// `write_stall` is how long a write may make no progress. Each address may have as many connections open as
    /// `quota` says; those of `proxies` are not counted.
    pub fn new(listener: TcpListener, write_stall: Duration, proxies: Proxies, quota: AddressQuota) -> Self {
        Self {
            listener,
            handshakes: None,
            write_stall,
            open: Arc::default(),
            proxies,
            quota,
        }
    }

    /// Encrypts all connections. A client that takes longer than `patience` for its part is given up.
    pub fn encrypted(mut self, certificate: Certificate, patience: Duration) -> Self {
        self.handshakes = Some(Handshakes::new(certificate, patience));
        self
    }

    /// The number of open connections, kept up to date.
    pub fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }

    fn prepare(&self, stream: &TcpStream) {
        // Without it every step of a handshake waits some 40 ms for a delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        // Ends what the kernel still holds for a client that stopped acknowledging.
        #[cfg(target_os = "linux")]
        {
            let stall = u32::try_from(self.write_stall.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, stall) {
                tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
            }
        }
    }

    fn wrap(&self, arrived: Arrived<Stream>) -> Accepted {
        let Arrived { stream, addr, slot } = arrived;
        let wire = Arc::new(Wire::new(Arc::clone(&self.open)));
        Accepted {
            is_proxied: slot.is_none(),
            peer: Peer {
                addr,
                wire: Arc::clone(&wire),
            },
            io: WireIo {
                stream,
                wire,
                write_stall: self.write_stall,
                stalled: None,
                _slot: slot,
            },
        }
    }

    /// The next connection. Those beyond what their address may have open are closed at once: nothing is read from
    /// them, and no TLS handshake begins.
    ///
    /// Nothing is lost where the caller stops waiting, but handshakes of TLS go on only here.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let Some(handshakes) = &mut self.handshakes else {
                let accepted = Listener::accept(&mut self.listener).await;
                if let Some(Arrived { stream, addr, slot }) = self.admit(accepted) {
                    return self.wrap(Arrived {
                        stream: Stream::Plain(stream),
                        addr,
                        slot,
                    });
                }
                continue;
            };
            let accepted = tokio::select! {
                arrived = handshakes.next() => return self.wrap(arrived),
                accepted = Listener::accept(&mut self.listener), if handshakes.have_room() => accepted,
            };
            if let Some(arrived) = self.admit(accepted)
                && let Some(handshakes) = &mut self.handshakes
            {
                handshakes.begin(arrived);
            }
        }
    }

    fn admit(&self, (stream, addr): (TcpStream, SocketAddr)) -> Option<Arrived<TcpStream>> {
        let slot = if self.proxies.trusts(addr.ip()) {
            None
        } else {
            let slot = self.quota.open(ClientAddress::of(addr.ip()));
            if slot.is_none() {
                metrics::counter!("chat_gateway_refused_addresses_total", "limit" => "connections")
                    .increment(1);
                return None;
            }
            slot
        };
        self.prepare(&stream);
        Some(Arrived { stream, addr, slot })
    }
}

impl WireIo {
    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.wire.wrote(*bytes);
        }
        count_unacknowledged(&result);
        self.unless_stalled(cx, result)
    }

    /// Ends what waits for the client for too long.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.wire.set_blocked(result.is_pending());
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let limit = self.write_stall;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(stalled.as_mut().poll(cx));
        metrics::counter!("chat_gateway_slow_consumers_total", "kind" => "stalled").increment(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Counts a client that the kernel gave up, for it took nothing for so long: where little is written, that is before anything
/// has to wait here.
fn count_unacknowledged<T>(result: &Poll<io::Result<T>>) {
    if let Poll::Ready(Err(error)) = result
        && error.kind() == io::ErrorKind::TimedOut
    {
        metrics::counter!("chat_gateway_slow_consumers_total", "kind" => "unacknowledged").increment(1);
    }
}

impl AsyncRead for WireIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Registered before the flags are looked at, so that no change is missed.
        self.wire.register_reader(cx.waker());
        if self.wire.is_killed() {
            return Poll::Ready(Ok(()));
        }
        if self.wire.is_paused() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        count_unacknowledged(&result);
        result
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if self.stream.holds_back() {
            return self.unless_stalled(cx, result);
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.unless_stalled(cx, result)
    }
}

impl Drop for WireIo {
    fn drop(&mut self) {
        self.wire.closed();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn connected(stall: Duration) -> (WireIo, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let mut accepting = accepting(listener, stall, &[], 1);
        let (accepted, client) = tokio::join!(accepting.accept(), client);
        (accepted.io, client.unwrap())
    }

    fn accepting(listener: TcpListener, stall: Duration, proxies: &[&str], most: usize) -> Accepting {
        let proxies: Vec<_> = proxies.iter().map(|&network| network.to_owned()).collect();
        let proxies = Proxies::new(&proxies).unwrap();
        Accepting::new(listener, stall, proxies, AddressQuota::new(most))
    }

    /// How many of five connections of this machine are accepted.
    async fn accepted_of_five(proxies: &[&str]) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = accepting(listener, Duration::from_secs(1), proxies, 2);
        let (held, _clients) = {
            let mut clients = Vec::new();
            for _ in 0..5 {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            let mut held = Vec::new();
            while let Ok(accepted) =
                tokio::time::timeout(Duration::from_millis(200), accepting.accept()).await
            {
                held.push(accepted);
            }
            (held, clients)
        };
        let count = held.len();
        drop(held);
        // The address may come again once its connections have ended.
        let _client = TcpStream::connect(address).await.unwrap();
        accepting.accept().await;
        count
    }

    #[tokio::test]
    async fn an_address_has_so_many_connections_and_a_trusted_proxy_any_number() {
        assert_eq!(accepted_of_five(&[]).await, 2);
        assert_eq!(accepted_of_five(&["127.0.0.0/8"]).await, 5);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up() {
        let (mut io, _client) = connected(Duration::from_millis(200)).await;
        let block = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = io.write_all(&block).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// The kernel's buffers are full, and nothing more is written.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up_by_the_kernel_where_no_write_waits() {
        let (mut io, _client) = connected(Duration::from_secs(1)).await;
        let block = vec![0; 1 << 20];
        while tokio::time::timeout(Duration::from_millis(200), io.write(&block))
            .await
            .is_ok()
        {}
        io.stalled = None;
        let error = io.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_killed_connection_reads_as_closed() {
        let (mut io, _client) = connected(Duration::from_secs(5)).await;
        let wire = Arc::clone(&io.wire);
        let reader = tokio::spawn(async move { io.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        wire.kill();
        assert_eq!(reader.await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_paused_connection_is_not_read_until_resumed() {
        let (mut io, mut client) = connected(Duration::from_secs(5)).await;
        let wire = Arc::clone(&io.wire);
        wire.pause();
        client.write_all(b"x").await.unwrap();
        let reader = tokio::spawn(async move { io.read(&mut [0; 8]).await });
        let early = tokio::time::timeout(Duration::from_millis(50), async {
            while !reader.is_finished() {
                tokio::task::yield_now().await;
            }
        });
        assert!(early.await.is_err(), "read while paused");
        // Another session of the connection still wants it to wait.
        wire.pause();
        wire.resume();
        assert!(wire.is_paused());
        wire.resume();
        assert_eq!(reader.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn open_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = accepting(listener, Duration::from_secs(1), &[], 1);
        let open = accepting.open();
        let _client = TcpStream::connect(address).await.unwrap();
        let accepted = accepting.accept().await;
        assert_eq!(open.load(Ordering::Relaxed), 1);
        drop(accepted);
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
