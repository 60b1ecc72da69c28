//! TLS everywhere: clients, NATS and Postgres. Certificates are made for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parlance_harness::devstack::TlsFiles;
use parlance_harness::devstack::programs::PostgresPrograms;
use parlance_harness::eventually::eventually;
use parlance_harness::{Stack, environment};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::director::directed_with;
use crate::spec::{Transport, run_with};

/// Attempts to reach NATS are explained after three seconds.
const EXPLAINED: Duration = Duration::from_secs(20);

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        // Else they would only differ in their keys.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = folder.join(format!("{name}.pem"));
        fs::write(&root, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { issuer, root }
    }

    /// A certificate for this machine.
    fn signs(&self, folder: &Path, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            root: self.root.clone(),
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// Whether there is a Postgres that can encrypt. Where everything is checked there must be.
fn can_encrypt() -> bool {
    let Err(error) = PostgresPrograms::with_tls() else {
        return true;
    };
    let required = environment::variable("PARLANCE_TLS_REQUIRED").is_some();
    assert!(!required, "{error}");
    eprintln!("NOT CHECKED: {error}");
    false
}

fn trusting(root: &Path) -> Vec<(&'static str, String)> {
    vec![("NODE_EXTRA_CA_CERTS", root.display().to_string())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_carried_with_everything_encrypted() {
    if !can_encrypt() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let files = Authority::new(folder.path(), "root").signs(folder.path(), "own");
    let stack = Stack::builder().gateways(2).tls(&files).start().await.unwrap();
    let variables = trusting(&files.root);
    for transport in [Transport::Websocket, Transport::Polling, Transport::Default] {
        run_with(&stack, "seeds/threads", transport, &variables).await;
    }
    run_with(&stack, "crossing", Transport::Websocket, &variables).await;

    let encrypted: Vec<bool> = sqlx::query_scalar(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'parlance%'",
    )
    .fetch_all(&stack.database().await.unwrap())
    .await
    .unwrap();
    assert!(
        !encrypted.is_empty() && encrypted.iter().all(|ssl| *ssl),
        "{encrypted:?}"
    );
    // One that has just been begun is not encrypted yet.
    let all_encrypted = || async {
        let page = format!("{}/connz", stack.nats().internal_url());
        let page: serde_json::Value = reqwest::get(page).await?.json().await?;
        let connections = page["connections"].as_array().into_iter().flatten();
        let versions: Vec<_> = connections.map(|one| one["tls_version"].as_str()).collect();
        let are_encrypted = versions.len() >= 3 && versions.iter().all(Option::is_some);
        anyhow::ensure!(are_encrypted, "{page}");
        anyhow::Ok(())
    };
    eventually(EXPLAINED, "every connection to NATS is encrypted", all_encrypted)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_another_certificate_is_refused() {
    if !can_encrypt() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let files = Authority::new(folder.path(), "root").signs(folder.path(), "own");
    let foreign = Authority::new(folder.path(), "foreign");
    let stranger = foreign.signs(folder.path(), "stranger");
    let stack = Stack::builder().tls(&files).start().await.unwrap();

    // A client does not speak with a gateway of another root.
    let url = format!("{}/", stack.gateway(0).base_url());
    let trusting = |root: &Path| {
        let root = reqwest::Certificate::from_pem(&fs::read(root).unwrap()).unwrap();
        reqwest::Client::builder().tls_certs_only([root]).build().unwrap()
    };
    assert_eq!(
        trusting(&files.root).get(&url).send().await.unwrap().status(),
        200
    );
    let refused = trusting(&foreign.root).get(&url).send().await.unwrap_err();
    assert!(format!("{refused:?}").contains("UnknownIssuer"), "{refused:?}");
    let plain = url.replace("https:", "http:");
    assert!(trusting(&files.root).get(&plain).send().await.is_err());

    // A gateway does not speak with NATS of another root, nor NATS with a gateway of another root.
    let (root, key) = (
        foreign.root.display().to_string(),
        stranger.key.display().to_string(),
    );
    let certificate = stranger.certificate.display().to_string();
    for (settings, reason) in [
        (vec![("PARLANCE_NATS_CA_FILE", root.as_str())], "UnknownIssuer"),
        (
            vec![
                ("PARLANCE_NATS_CERT_FILE", certificate.as_str()),
                ("PARLANCE_NATS_KEY_FILE", key.as_str()),
            ],
            "cannot connect to NATS",
        ),
    ] {
        stack.gateway(0).kill();
        let mark = stack.gateway(0).log_tail(usize::MAX).len();
        let explained = async {
            let said = || async { stack.gateway(0).log_tail(usize::MAX)[mark..].contains(reason) };
            eventually(EXPLAINED, format_args!("the log says {reason}"), said).await
        };
        tokio::select! {
            started = stack.gateway(0).start_with(&settings) => panic!("{reason}: {started:?}"),
            explained = explained => explained.unwrap(),
        }
        assert!(!stack.gateway(0).is_ready().await);
    }

    // Persistence does not speak with Postgres of another root.
    stack.persistence(0).kill();
    let url = stack.verified_database_url(&foreign.root);
    let refused = stack.persistence(0).start_with(&[("DATABASE_URL", &url)]).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("UnknownIssuer") && refused.contains("sslrootcert"),
        "{refused}"
    );
    stack.persistence(0).start().await.unwrap();
    stack.gateway(0).kill();
    stack.gateway(0).start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_none_stop_the_start_with_one_line() {
    let stack = Stack::builder().start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let files = Authority::new(folder.path(), "root").signs(folder.path(), "own");
    let other = Authority::new(folder.path(), "other").signs(folder.path(), "other");
    let (certificate, key) = (
        files.certificate.display().to_string(),
        other.key.display().to_string(),
    );
    for (settings, part) in [
        (
            vec![("PARLANCE_HTTP_TLS_CERT_FILE", certificate.as_str())],
            "must be set too, because http.tls_cert_file is",
        ),
        (
            vec![
                ("PARLANCE_HTTP_TLS_CERT_FILE", certificate.as_str()),
                ("PARLANCE_HTTP_TLS_KEY_FILE", key.as_str()),
            ],
            "the key of http.tls_cert_file",
        ),
        (
            vec![
                ("PARLANCE_HTTP_TLS_CERT_FILE", "/nowhere.pem"),
                ("PARLANCE_HTTP_TLS_KEY_FILE", key.as_str()),
            ],
            "/nowhere.pem",
        ),
        (
            vec![("PARLANCE_NATS_CA_FILE", key.as_str())],
            "cannot use nats.ca_file",
        ),
    ] {
        stack.gateway(0).kill();
        let refused = stack.gateway(0).start_with(&settings).await.unwrap_err();
        let refused = refused.to_string();
        let last = refused
            .lines()
            .rfind(|line| line.starts_with("parlance-gateway:"));
        assert!(last.is_some_and(|line| line.contains(part)), "{part}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_while_connections_stay() {
    if !can_encrypt() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "root");
    let (current, next) = (
        authority.signs(folder.path(), "current"),
        authority.signs(folder.path(), "next"),
    );
    let stack = Stack::builder().tls(&current).start().await.unwrap();
    let names = |files: &TlsFiles| json!({ "certificate": files.certificate, "key": files.key });
    let mut variables = trusting(&current.root);
    let certificates = json!([names(&current), names(&next)]).to_string();
    variables.push(("PARLANCE_CERTIFICATES", certificates));
    let told = directed_with(&stack, "tls", ".", "", &variables).await;
    println!("{}", told.unwrap_or_else(|text| panic!("{text}")));
}
