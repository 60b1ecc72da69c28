//! HTTP/1.1 on accepted connections, with what the loop of axum lacks: an end for connections that ask nothing, and a
//! bound on what is kept of a request before it is understood.
//!
//! ```text
//! accepted ── head ──► handler ── response ──► head ──► …        101 ──► WebSocket, no limit of ours
//!          patience            (no limit)     patience
//! ```
//! Must not know routes.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parlance_runtime::tasks;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower_http::timeout::TimeoutBody;

use super::listener::{Accepted, Accepting};

/// Largest head of a request in bytes: tokens and cookies are some thousands.
const HEAD: usize = 64 * 1024;

/// How long a connection may be open without a whole request head: from its beginning, and from the end of each
/// response. A body may pause for as long.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With clients.
    pub client: Duration,
    /// With trusted proxies, which keep connections for later requests.
    pub proxy: Duration,
}

/// Serves requests until `stop`, then those that are under way.
///
/// # Errors
/// None: a connection that fails ends alone.
pub async fn serve(
    mut accepting: Accepting,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepting.accept() => accepted,
        };
        let (router, stop) = (router.clone(), stop.clone());
        tasks::spawn_on(
            &connections,
            "connection",
            connection(accepted, router, patience, stop),
        );
    }
    // Who tries now is refused by the kernel and goes elsewhere.
    drop(accepting);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn connection(accepted: Accepted, router: Router, patience: Patience, stop: CancellationToken) {
    let Accepted { io, peer, is_proxied } = accepted;
    let patience = if is_proxied {
        patience.proxy
    } else {
        patience.client
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| Body::new(TimeoutBody::new(patience, body)));
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(
                router
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {}),
            )
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD);
    let mut connection = pin!(
        builder
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades()
    );
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        if error.is_timeout() {
            metrics::counter!("chat_gateway_idle_connections_closed_total").increment(1);
        }
        tracing::debug!(%error, "a connection failed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Extension;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::edge::addresses::{AddressQuota, Proxies};

    const PATIENCE: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    struct Server {
        address: std::net::SocketAddr,
        /// A slow request has its handler.
        begun: Arc<Notify>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<anyhow::Result<()>>,
    }

    async fn server(proxies: &[String]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxies = Proxies::new(proxies).unwrap();
        let accepting = Accepting::new(listener, LONG, proxies, AddressQuota::new(100));
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/slow", get(slow))
            .route(
                "/body",
                post(async |body: Body| match axum::body::to_bytes(body, 100).await {
                    Ok(body) => format!("{} bytes", body.len()),
                    Err(_) => "cut".to_owned(),
                }),
            );
        let patience = Patience {
            client: PATIENCE,
            proxy: LONG,
        };
        let (begun, stop) = (Arc::<Notify>::default(), CancellationToken::new());
        let router = router.layer(Extension(Arc::clone(&begun)));
        let task = tokio::spawn(serve(accepting, router, patience, stop.clone()));
        Server {
            address,
            begun,
            stop,
            task,
        }
    }

    async fn slow(Extension(begun): Extension<Arc<Notify>>) {
        begun.notify_one();
        tokio::time::sleep(PATIENCE * 3).await;
    }

    /// What the server says until it closes the connection, and how long that takes.
    async fn until_closed(server: &Server, sent: &str) -> (String, Duration) {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut said)).await;
        drop(read.expect("the connection stays open"));
        (String::from_utf8(said).unwrap(), begun.elapsed())
    }

    #[tokio::test]
    async fn silent_half_and_idle_connections_are_closed_soon() {
        let server = server(&[]).await;
        for (sent, said) in [
            ("", ""),
            ("GET / HTTP/1.1\r\nhost: x\r\nx-half: ", ""),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "here"),
            (
                "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf",
                "cut",
            ),
        ] {
            let (answer, took) = until_closed(&server, sent).await;
            assert!(answer.ends_with(said), "{answer}");
            assert!(took < LONG / 2, "{sent:?} held a connection for {took:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_take_its_time() {
        let server = server(&[]).await;
        let (answer, _) = until_closed(&server, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn the_connection_of_a_trusted_proxy_is_kept() {
        let server = server(&["127.0.0.1".to_owned()]).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        for _ in 0..2 {
            // Neither closed nor answered.
            assert!(timeout(PATIENCE * 3, stream.read(&mut [0; 1])).await.is_err());
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut said = [0; 512];
            let read = timeout(LONG, stream.read(&mut said)).await.unwrap().unwrap();
            assert!(said[..read].ends_with(b"here"));
        }
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let server = server(&[]).await;
        let endless = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}", "x".repeat(2 * HEAD));
        let (answer, took) = until_closed(&server, &endless).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
        assert!(took < PATIENCE, "{took:?}");
    }

    #[tokio::test]
    async fn the_end_waits_for_requests_and_not_for_idle_connections() {
        let server = server(&["127.0.0.1".to_owned()]).await;
        let _idle = TcpStream::connect(server.address).await.unwrap();
        let mut asking = TcpStream::connect(server.address).await.unwrap();
        asking
            .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        server.begun.notified().await;
        server.stop.cancel();
        let mut said = Vec::new();
        asking.read_to_end(&mut said).await.unwrap();
        assert!(said.starts_with(b"HTTP/1.1 200"));
        timeout(LONG / 2, server.task).await.unwrap().unwrap().unwrap();
    }
}
