//! How the two programs refuse to start: one line with what, where and what to do, at once, without a secret.

use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::Duration;

use futures::future::join_all;
use parlance_harness::Stack;
use parlance_harness::devstack::service::Kind;
use tokio::process::Command;

/// Part of every secret in this file; it may appear nowhere.
const CANARY: &str = "s3cret-canary";
const LIMIT: Duration = Duration::from_secs(10);
/// Settings that cannot work.
const BAD_SETTINGS: i32 = 64;
/// Anything else that keeps a program from starting.
const CANNOT_START: i32 = 1;

struct Case {
    kind: Kind,
    /// Set, or with an empty value unset, on top of settings that would work.
    variables: Vec<(&'static str, String)>,
    code: i32,
    /// What the line must name.
    names: Vec<String>,
}

fn case<const V: usize, const N: usize>(
    kind: Kind,
    variables: [(&'static str, &str); V],
    code: i32,
    names: [&str; N],
) -> Case {
    Case {
        kind,
        variables: variables.map(|(name, value)| (name, value.to_owned())).to_vec(),
        code,
        names: names.map(str::to_owned).to_vec(),
    }
}

/// Runs the program with settings that work but for those of the case.
async fn run(stack: &Stack, case: &Case) -> Output {
    let mut command = Command::new(case.kind.binary().unwrap());
    command
        .arg("run")
        .env_clear()
        .env("PARLANCE_NATS_URL", stack.nats_url())
        .env("PARLANCE_INTERNAL_HOST", "127.0.0.1")
        .env("PARLANCE_INTERNAL_PORT", "0");
    if case.kind == Kind::Gateway {
        command
            .env("PARLANCE_HTTP_HOST", "127.0.0.1")
            .env("PARLANCE_HTTP_PORT", "0")
            .env("PARLANCE_JWT_SECRET", format!("{CANARY} of a sufficient length"));
    } else {
        command.env("DATABASE_URL", stack.database_url());
    }
    for (name, value) in &case.variables {
        match value.as_str() {
            "" => command.env_remove(name),
            value => command.env(name, value),
        };
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{:?} with {:?} still runs", case.kind, case.variables))
        .unwrap()
}

async fn assert_refused(stack: &Stack, case: Case) {
    let output = run(stack, &case).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    let context = format!("{:?} with {:?}:\n{errors}", case.kind, case.variables);
    assert_eq!(output.status.code(), Some(case.code), "{context}");
    assert!(
        output.stdout.is_empty(),
        "announced nothing, as it does not serve: {context}"
    );
    let prefix = format!("parlance-{}: ", case.kind.label());
    let said: Vec<_> = errors.lines().filter(|line| line.starts_with(&prefix)).collect();
    assert_eq!(said.len(), 1, "one line: {context}");
    assert_eq!(errors.lines().last(), Some(said[0]), "the last one: {context}");
    for name in &case.names {
        assert!(said[0].contains(name.as_str()), "no {name} in {context}");
    }
    assert!(!errors.contains(CANARY), "a secret was printed: {context}");
}

fn bad_settings(folder: &std::path::Path) -> Vec<Case> {
    use Kind::{Gateway, Persistence};
    let key = folder.join("missing.pem").display().to_string();
    let short = &CANARY[..8];
    vec![
        case(
            Gateway,
            [("PARLANCE_HTTP_PORT", "banana")],
            BAD_SETTINGS,
            ["http.port", "banana"],
        ),
        case(
            Gateway,
            [("PARLANCE_BUS_PARTITIONS", "0")],
            BAD_SETTINGS,
            ["bus.partitions", "within 1 and 1024"],
        ),
        case(
            Gateway,
            [("PARLANCE_AUTH_PROVISION", "maybe")],
            BAD_SETTINGS,
            ["auth.provision", "jit", "strict"],
        ),
        case(
            Gateway,
            [("PARLANCE_HTTP_PROT", "1")],
            BAD_SETTINGS,
            ["PARLANCE_HTTP_PROT"],
        ),
        case(
            Gateway,
            [("PARLANCE_JWT_SECRET", "")],
            BAD_SETTINGS,
            ["jwt.secret", "jwt.jwks_url"],
        ),
        case(
            Gateway,
            [("PARLANCE_JWT_SECRET", short)],
            BAD_SETTINGS,
            ["jwt.secret", "16 bytes"],
        ),
        case(
            Gateway,
            [("PARLANCE_JWT_JWKS_URL", "https://example.com/keys")],
            BAD_SETTINGS,
            ["jwt.secret", "jwt.jwks_url"],
        ),
        case(
            Gateway,
            [
                ("PARLANCE_JWT_SECRET", ""),
                ("PARLANCE_JWT_PUBLIC_KEY_FILE", &key),
            ],
            BAD_SETTINGS,
            ["jwt.public_key_file", "missing.pem"],
        ),
        case(
            Persistence,
            [("PARLANCE_INGEST_BATCH_MAX", "-1")],
            BAD_SETTINGS,
            ["ingest.batch_max"],
        ),
        case(
            Persistence,
            [("PARLANCE_INGEST_BATCHES", "1")],
            BAD_SETTINGS,
            ["PARLANCE_INGEST_BATCHES"],
        ),
    ]
}

/// Secrets that everybody knows where others can connect, and one that is missing.
fn bad_secrets() -> Vec<Case> {
    use Kind::{Gateway, Persistence};
    vec![
        case(
            Gateway,
            [
                ("PARLANCE_JWT_SECRET", "dev-only-secret-change-me"),
                ("PARLANCE_HTTP_HOST", "0.0.0.0"),
            ],
            BAD_SETTINGS,
            ["jwt.secret", "a secret of your own", "PARLANCE_DEVELOPMENT"],
        ),
        case(
            Gateway,
            [("PARLANCE_NATS_USER", "gateway")],
            BAD_SETTINGS,
            ["nats.password"],
        ),
        case(
            Persistence,
            [
                (
                    "DATABASE_URL",
                    "postgres://parlance:dev-only-postgres@127.0.0.1/none",
                ),
                ("PARLANCE_INTERNAL_HOST", "0.0.0.0"),
            ],
            BAD_SETTINGS,
            ["database.url", "a secret of your own", "PARLANCE_DEVELOPMENT"],
        ),
    ]
}

/// Where clients connect, and from which pages.
fn bad_edge() -> Vec<Case> {
    use Kind::Gateway;
    vec![
        case(
            Gateway,
            [(
                "PARLANCE_CORS_ORIGINS",
                "https://a.example,https://a.example/chat",
            )],
            BAD_SETTINGS,
            ["cors.origins", "https://a.example/chat", "without a path"],
        ),
        case(
            Gateway,
            [("PARLANCE_DIALECT_ORIGINS", "a.example=chats")],
            BAD_SETTINGS,
            ["dialect.origins", "a.example", "scheme and host"],
        ),
        case(
            Gateway,
            [("PARLANCE_SOCKET_PATH", "/socket.io,/docs")],
            BAD_SETTINGS,
            ["socket.path", "/docs"],
        ),
        case(
            Gateway,
            [("PARLANCE_SOCKET_NAMESPACES", "/,chat")],
            BAD_SETTINGS,
            ["socket.namespaces", "begins with /"],
        ),
        case(
            Gateway,
            [("PARLANCE_SOCKET_CLIENT_FOLDER", "/no/such/folder")],
            BAD_SETTINGS,
            ["socket.client_folder", "/no/such/folder", "socket.io-client"],
        ),
    ]
}

/// Files with an unknown key, with a syntax error that stands beside a secret, and none at all.
fn bad_files(folder: &std::path::Path) -> Vec<Case> {
    let file = folder.join("parlance.toml");
    std::fs::write(&file, "[internal]\nprot = 1\n").unwrap();
    let broken = folder.join("broken.toml");
    std::fs::write(&broken, format!("[jwt]\nsecret = \"{CANARY}\n")).unwrap();
    let (file, broken) = (file.display().to_string(), broken.display().to_string());
    let missing = folder.join("missing.toml").display().to_string();
    let mut cases = Vec::new();
    for kind in [Kind::Gateway, Kind::Persistence] {
        let with_file = |path: &str, names: &[&str]| Case {
            kind,
            variables: vec![("PARLANCE_CONFIG", path.to_owned())],
            code: BAD_SETTINGS,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        cases.push(with_file(&file, &["internal.prot", "parlance.toml"]));
        cases.push(with_file(&missing, &["missing.toml"]));
        cases.push(with_file(&broken, &["broken.toml"]));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_named_before_anything_is_bound() {
    let stack = Stack::builder().servers_only().start().await.unwrap();
    let cases = bad_settings(stack.folder())
        .into_iter()
        .chain(bad_secrets())
        .chain(bad_edge())
        .chain(bad_files(stack.folder()));
    join_all(cases.map(|case| assert_refused(&stack, case))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_missing_or_too_old_is_named() {
    use Kind::{Gateway, Persistence};
    let stack = Stack::builder().servers_only().start().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // Held so that nobody else serves there: what connects to it gets no answer of a database.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("postgres://ann:{CANARY}@{}/chat", deaf.local_addr().unwrap());
    let closed = {
        let once = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("postgres://ann:{CANARY}@{}/chat", once.local_addr().unwrap())
    };
    let other = stack.database_url().replace("/parlance", "/elsewhere");
    let garbage = format!("postgres//{CANARY}");
    let nats = format!("nats://ann:{CANARY}@:port:");
    let cases = vec![
        case(
            Gateway,
            [("PARLANCE_HTTP_PORT", &*port)],
            CANNOT_START,
            [&*port, "in use", "http.port"],
        ),
        case(
            Gateway,
            [("PARLANCE_INTERNAL_PORT", &*port)],
            CANNOT_START,
            [&*port, "in use", "internal.port"],
        ),
        case(
            Persistence,
            [("PARLANCE_INTERNAL_PORT", &*port)],
            CANNOT_START,
            [&*port, "in use", "internal.port"],
        ),
        case(
            Persistence,
            [("DATABASE_URL", &*closed)],
            CANNOT_START,
            ["database", "127.0.0.1", "DATABASE_URL"],
        ),
        case(
            Persistence,
            [("DATABASE_URL", &*silent)],
            CANNOT_START,
            ["database", "127.0.0.1", "DATABASE_URL"],
        ),
        case(
            Persistence,
            [("DATABASE_URL", &*other)],
            CANNOT_START,
            ["elsewhere"],
        ),
        case(
            Persistence,
            [],
            CANNOT_START,
            ["not applied", "parlance-persistence migrate"],
        ),
    ];
    join_all(cases.into_iter().map(|case| assert_refused(&stack, case))).await;
    let unreadable = vec![
        case(
            Persistence,
            [("DATABASE_URL", &*garbage)],
            BAD_SETTINGS,
            ["database.url", "DATABASE_URL"],
        ),
        case(
            Gateway,
            [("PARLANCE_NATS_URL", &*nats)],
            CANNOT_START,
            ["nats.url", "NATS address"],
        ),
        // Its database comes first, and is not migrated here.
        case(
            Persistence,
            [("PARLANCE_NATS_URL", &*nats)],
            CANNOT_START,
            ["not applied"],
        ),
    ];
    join_all(unreadable.into_iter().map(|case| assert_refused(&stack, case))).await;
    drop((taken, deaf));
}
