//! TLS towards clients: the certificate, its renewal, and handshakes beside each other.
//!
//! Must not know sessions or events, nor what is written over a connection.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use parlance_runtime::config::Invalid;
use parlance_runtime::tasks;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::edge::addresses::{AddressQuota, AddressSlot, ClientAddress};

/// Between two looks at the files. Contents are compared, because mounted secrets change by a symbolic link.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Handshakes under way at once. Beyond it newcomers wait in the kernel until one ends, at the latest after the
/// patience with each.
const MAX_UNDER_WAY: usize = 2048;
/// Those of one address, so that silent connections of one client hold up nobody else. Proxies have no such limit.
const MAX_OF_ADDRESS: usize = MAX_UNDER_WAY / 8;

/// The certificate that clients are shown. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Files>);

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    shown: Mutex<Shown>,
}

struct Shown {
    pem: Pem,
    config: Arc<ServerConfig>,
    own: CertificateDer<'static>,
}

/// Trusts who shows this certificate and has its key.
#[derive(Debug)]
struct Same {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A connection before it is encrypted.
pub struct Arrived<S> {
    /// The stream.
    pub stream: S,
    /// Where it comes from.
    pub addr: SocketAddr,
    /// What it counts as; none for a trusted proxy's.
    pub slot: Option<AddressSlot>,
}

/// Connections that are not encrypted yet.
pub struct Handshakes {
    certificate: Certificate,
    patience: Duration,
    under_way: JoinSet<Option<Arrived<Stream>>>,
    of_addresses: AddressQuota,
}

/// A connection with or without TLS.
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// Which of them is no PEM of its kind, or that they do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Invalid> {
        let pem = Pem::read(certificate, key)?;
        let (config, own) = pem.config(certificate, key)?;
        Ok(Self(Arc::new(Files {
            certificate: certificate.into(),
            key: key.into(),
            shown: Mutex::new(Shown { pem, config, own }),
        })))
    }

    /// Shows what the files hold now to those who connect from here on; tells whether it is another one.
    ///
    /// # Errors
    /// As [`Certificate::read`]; the one before is shown on.
    pub fn reread(&self) -> Result<bool, Invalid> {
        let Files { certificate, key, .. } = &*self.0;
        let pem = Pem::read(certificate, key)?;
        let mut shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.pem == pem {
            return Ok(false);
        }
        let (config, own) = pem.config(certificate, key)?;
        *shown = Shown { pem, config, own };
        Ok(true)
    }

    /// Follows the files until `stop`: every minute, and at SIGHUP.
    ///
    /// # Errors
    /// The signal cannot be listened for.
    pub async fn follow(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            match self.reread() {
                Ok(true) => {
                    tracing::info!(file = %self.0.certificate.display(), "another certificate is shown from now on")
                }
                Ok(false) => {}
                // One of the two may have been written before the other.
                Err(error) => tracing::warn!(%error, "the certificate was not replaced"),
            }
        }
    }

    /// Encrypts a connection to another gateway, which must show the same certificate: names say nothing here,
    /// because gateways reach each other by address. For the moment in which one is renewed they may differ.
    ///
    /// # Errors
    /// It shows another one, or speaks no TLS.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let same = Same {
            certificate: {
                let shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.own.clone()
            },
            provider: Arc::clone(&provider),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(same))
            .with_no_client_auth();
        config.enable_sni = false;
        let name = ServerName::try_from("gateway").map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    fn acceptor(&self) -> TlsAcceptor {
        let shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&shown.config))
    }
}

impl Pem {
    fn read(certificate: &Path, key: &Path) -> Result<Self, Invalid> {
        let read = |setting, file: &Path| {
            std::fs::read(file).map_err(|error| {
                let allowed = format!("a file that can be read ({error})");
                Invalid::new(setting, file.display(), allowed)
            })
        };
        Ok(Self {
            certificate: read("http.tls_cert_file", certificate)?,
            key: read("http.tls_key_file", key)?,
        })
    }

    fn config(
        &self,
        certificate: &Path,
        key: &Path,
    ) -> Result<(Arc<ServerConfig>, CertificateDer<'static>), Invalid> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        let Some(own) = chain.first().cloned() else {
            let allowed = "a PEM file with a certificate and those that lead to its root";
            return Err(Invalid::new("http.tls_cert_file", certificate.display(), allowed));
        };
        let wrong_key = |allowed: String| Invalid::new("http.tls_key_file", key.display(), allowed);
        let secret = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong_key("a PEM file with a private key that is not encrypted".into()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|error| wrong_key(format!("the key of http.tls_cert_file ({error})")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(config), own))
    }
}

impl ServerCertVerifier for Same {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl Handshakes {
    /// None under way. One that takes longer than `patience` is given up.
    pub fn new(certificate: Certificate, patience: Duration) -> Self {
        Self {
            certificate,
            patience,
            under_way: JoinSet::new(),
            of_addresses: AddressQuota::new(MAX_OF_ADDRESS),
        }
    }

    /// Whether another one may begin.
    pub fn have_room(&self) -> bool {
        self.under_way.len() < MAX_UNDER_WAY
    }

    /// Begins one. A connection whose address has too many under way is closed.
    pub fn begin(&mut self, arrived: Arrived<TcpStream>) {
        let Arrived { stream, addr, slot } = arrived;
        let is_counted = slot.is_some();
        let turn = is_counted
            .then(|| self.of_addresses.open(ClientAddress::of(addr.ip())))
            .flatten();
        if is_counted && turn.is_none() {
            metrics::counter!("chat_gateway_refused_addresses_total", "limit" => "tls_handshakes")
                .increment(1);
            return;
        }
        let (acceptor, patience) = (self.certificate.acceptor(), self.patience);
        tasks::spawn_in(&mut self.under_way, "tls handshake", async move {
            let (result, stream) = match timeout(patience, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let stream = Stream::Tls(Box::new(stream));
                    ("ok", Some(Arrived { stream, addr, slot }))
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, %addr, "TLS handshake failed");
                    ("failed", None)
                }
                Err(_) => ("timeout", None),
            };
            metrics::counter!("chat_gateway_tls_handshakes_total", "result" => result).increment(1);
            drop(turn);
            stream
        });
    }

    /// The next one that succeeded. Nothing is lost where the caller stops waiting.
    pub async fn next(&mut self) -> Arrived<Stream> {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(Some(done))) => return done,
                Some(_) => {}
                None => pending().await,
            }
        }
    }
}

impl Stream {
    /// Whether bytes that were written may still wait in it: TLS takes more than the kernel does.
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::rustls::RootCertStore;

    use super::*;
    use crate::edge::addresses::{AddressQuota, Proxies};
    use crate::edge::socket::listener::Accepting;

    struct Place {
        folder: TempDir,
        issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
        root: CertificateDer<'static>,
    }

    impl Place {
        fn new() -> Self {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut root = rcgen::CertificateParams::new([]).unwrap();
            root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let certificate = root.self_signed(&key).unwrap();
            let place = Self {
                folder: TempDir::new().unwrap(),
                root: certificate.der().clone(),
                issuer: rcgen::Issuer::new(root, key),
            };
            place.renew("localhost");
            place
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn renew(&self, host: &str) {
            let key = rcgen::KeyPair::generate().unwrap();
            let leaf = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
            let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
            fs::write(self.file("cert.pem"), leaf.pem()).unwrap();
            fs::write(self.file("key.pem"), key.serialize_pem()).unwrap();
        }

        fn read(&self) -> Result<Certificate, Invalid> {
            Certificate::read(&self.file("cert.pem"), &self.file("key.pem"))
        }

        fn connector(&self) -> TlsConnector {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            let config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        }
    }

    fn accepting(listener: TcpListener, stall: Duration) -> Accepting {
        Accepting::new(listener, stall, Proxies::new(&[]).unwrap(), AddressQuota::new(9))
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said() {
        let place = Place::new();
        assert!(place.read().is_ok());
        let told = |part: &str| {
            let error = place.read().err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        };
        let good = fs::read(place.file("key.pem")).unwrap();
        fs::write(
            place.file("key.pem"),
            rcgen::KeyPair::generate().unwrap().serialize_pem(),
        )
        .unwrap();
        told("http.tls_key_file");
        fs::write(place.file("key.pem"), "no key").unwrap();
        told("private key");
        fs::remove_file(place.file("key.pem")).unwrap();
        told("a file that can be read");
        fs::write(place.file("key.pem"), good).unwrap();
        fs::write(place.file("cert.pem"), "no certificate").unwrap();
        told("http.tls_cert_file");
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let place = Place::new();
        let certificate = place.read().unwrap();
        assert!(!certificate.reread().unwrap());
        let shown_for = async |host: &str| {
            let (server, client) = tokio::io::duplex(1 << 16);
            let name = host.to_owned().try_into().unwrap();
            let accepted = certificate.acceptor().accept(server);
            let (_, connected) = tokio::join!(accepted, place.connector().connect(name, client));
            connected.is_ok()
        };
        assert!(shown_for("localhost").await);
        place.renew("chat.example");
        assert!(certificate.reread().unwrap());
        assert!(shown_for("chat.example").await && !shown_for("localhost").await);
        fs::write(place.file("cert.pem"), "half a certi").unwrap();
        assert!(certificate.reread().is_err());
        assert!(shown_for("chat.example").await);
    }

    #[tokio::test]
    async fn who_does_not_finish_a_handshake_holds_up_nobody() {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(300);
        let mut accepting =
            accepting(listener, Duration::from_secs(5)).encrypted(place.read().unwrap(), patience);
        let mut silent = TcpStream::connect(address).await.unwrap();
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = "localhost".try_into().unwrap();
            let mut stream = place.connector().connect(name, stream).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let (accepted, _client) = tokio::join!(accepting.accept(), client);
        let mut accepted = accepted.io;
        let mut said = [0; 5];
        accepted.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
        let given_up = async { silent.read(&mut [0; 1]).await };
        tokio::select! {
            _ = accepting.accept() => panic!("nobody else came"),
            read = given_up => assert!(matches!(read, Ok(0) | Err(_))),
        }
    }

    #[tokio::test]
    async fn silent_connections_of_one_address_leave_room_for_others() {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let quota = AddressQuota::new(2 * MAX_UNDER_WAY);
        let mut handshakes = Handshakes::new(place.read().unwrap(), Duration::from_secs(60));
        let mut clients = Vec::new();
        for index in 0..MAX_OF_ADDRESS + 9 {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, addr) = listener.accept().await.unwrap();
            let slot = quota.open(ClientAddress::of(addr.ip()));
            handshakes.begin(Arrived { stream, addr, slot });
            assert_eq!(handshakes.under_way.len(), MAX_OF_ADDRESS.min(index + 1));
        }
        // Closed at once, and a proxy still gets in.
        assert!(matches!(
            clients.last_mut().unwrap().read(&mut [0; 1]).await,
            Ok(0) | Err(_)
        ));
        clients.push(TcpStream::connect(address).await.unwrap());
        let (stream, addr) = listener.accept().await.unwrap();
        handshakes.begin(Arrived {
            stream,
            addr,
            slot: None,
        });
        assert_eq!(handshakes.under_way.len(), MAX_OF_ADDRESS + 1);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up_also_when_flushing() {
        let place = Place::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stall = Duration::from_millis(200);
        let mut accepting = accepting(listener, stall).encrypted(place.read().unwrap(), stall * 10);
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = "localhost".try_into().unwrap();
            place.connector().connect(name, stream).await.unwrap()
        };
        let (accepted, _client) = tokio::join!(accepting.accept(), client);
        let mut accepted = accepted.io;
        let block = vec![0; 1 << 14];
        let error = loop {
            if let Err(error) = accepted.write_all(&block).await {
                break error;
            }
            // What the layers above do after each frame.
            if let Err(error) = accepted.flush().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn gateways_trust_each_other_by_the_certificate_they_share() {
        let (place, other) = (Place::new(), Place::new());
        for (shown, wanted) in [(place.read().unwrap(), true), (other.read().unwrap(), false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut accepting =
                accepting(listener, Duration::from_secs(5)).encrypted(shown, Duration::from_secs(5));
            let stream = TcpStream::connect(address).await.unwrap();
            let certificate = place.read().unwrap();
            let connected = tokio::select! {
                connected = certificate.connect(stream) => connected.is_ok(),
                _ = async { loop { accepting.accept().await; } } => unreachable!(),
            };
            assert_eq!(connected, wanted);
        }
    }
}
