//! How the services are run: who may come in and how many, what is counted and logged, what is given back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};
use serde_json::Value;

use crate::metrics::gauge;
use crate::spec::{Transport, run};

const SOON: Duration = Duration::from_secs(15);

fn polling(stack: &Stack) -> String {
    format!(
        "{}/socket.io/?EIO=4&transport=polling",
        stack.gateway(0).base_url()
    )
}

async fn status(request: reqwest::RequestBuilder) -> anyhow::Result<u16> {
    Ok(request.send().await?.status().as_u16())
}

async fn counts(process: &Process, name: &str, wanted: f64) {
    let look = || async {
        let found = gauge(process, name).await?;
        equal(found, &Some(wanted)).map_err(anyhow::Error::msg)
    };
    eventually(SOON, format_args!("{name} is {wanted}"), look)
        .await
        .unwrap();
}

/// What a process logged in JSON; a line that is none is a defect.
fn log(stack: &Stack, name: &str) -> Vec<Value> {
    let folder = stack.folder().join("logs");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let own = files.filter(|path| {
        path.file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(name))
    });
    own.flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect::<Vec<_>>()
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_rooms_are_counted_logged_and_given_back() {
    let stack = Stack::builder()
        .env("PARLANCE_TELEMETRY_LOG", "info,parlance_gateway=debug")
        .env("PARLANCE_TELEMETRY_LOG_FORMAT", "json")
        .gateway_env("PARLANCE_ROOMS_LINGER_MS", 100)
        .start()
        .await
        .unwrap();
    run(&stack, "seeds/inbox", Transport::Websocket).await;
    let gateway = stack.gateway(0);
    for name in ["chat_gateway_connections", "chat_gateway_rooms"] {
        counts(gateway, name, 0.0).await;
    }
    for name in [
        "chat_gateway_connects_total",
        "chat_gateway_disconnects_total",
        "chat_gateway_events_total",
    ] {
        assert!(gauge(gateway, name).await.unwrap() > Some(0.0), "{name}");
    }
    let delivered = gauge(gateway, "chat_message_delivery_seconds_count")
        .await
        .unwrap();
    assert!(delivered > Some(0.0), "how long messages took: {delivered:?}");
    let answered = gauge(stack.persistence(0), "chat_persistence_query_seconds_count")
        .await
        .unwrap();
    assert!(answered > Some(0.0), "how long answers took: {answered:?}");

    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for line in log(&stack, "gateway") {
        // The announcement on the standard output.
        if line["ready_to_serve"] == true {
            continue;
        }
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        if let Some(message) = line["fields"]["message"].as_str().or(line["message"].as_str()) {
            *said.entry(message.to_owned()).or_default() += 1;
        }
    }
    let (came, went) = (said.get("connected"), said.get("disconnected"));
    assert!(
        came.is_some() && came == went,
        "{came:?} came, {went:?} went: {said:?}"
    );
    assert!(!log(&stack, "persistence").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fell_silent_is_given_up() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_SOCKET_PING_INTERVAL_MS", 300)
        .gateway_env("PARLANCE_SOCKET_PING_TIMEOUT_MS", 300)
        .start()
        .await
        .unwrap();
    assert!(connect(&stack).await.starts_with("40"));
    for name in ["chat_gateway_connects_total", "chat_gateway_disconnects_total"] {
        counts(stack.gateway(0), name, 1.0).await;
    }
    counts(stack.gateway(0), "chat_gateway_connections", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_full_sends_newcomers_elsewhere() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_SOCKET_MAX_CONNECTIONS", 3)
        .start()
        .await
        .unwrap();
    let url = polling(&stack);
    let answers = |wanted: u16| {
        let url = url.clone();
        async move {
            let look = || async {
                // Each on a connection of its own, which ends with it.
                let request = reqwest::Client::new().get(&url).header("connection", "close");
                equal(status(request).await?, &wanted).map_err(anyhow::Error::msg)
            };
            eventually(SOON, format_args!("a handshake is answered {wanted}"), look)
                .await
                .unwrap();
        }
    };
    answers(200).await;
    let address = stack.gateway(0).base_url().trim_start_matches("http://");
    let held: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    answers(503).await;
    // Load balancers look at this, and leave it out.
    let ready = format!("{}/readyz", stack.gateway(0).internal_url());
    let is = |wanted: u16| {
        let ready = &ready;
        async move {
            let look = || async {
                equal(status(reqwest::Client::new().get(ready)).await?, &wanted).map_err(anyhow::Error::msg)
            };
            eventually(SOON, format_args!("/readyz answers {wanted}"), look)
                .await
                .unwrap();
        }
    };
    is(503).await;
    drop(held);
    answers(200).await;
    is(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_counts_other_partitions_than_persistence_takes_no_clients() {
    let stack = Stack::builder().start().await.unwrap();
    let gateway = stack.gateway(0);
    let ready = format!("{}/readyz", gateway.internal_url());
    gateway.kill();
    let says_why = || async {
        let said = reqwest::get(&ready).await?.text().await?;
        anyhow::ensure!(
            said.contains("bus.partitions is 8, but persistence has 16"),
            "{said}"
        );
        Ok(())
    };
    tokio::select! {
        started = gateway.start_with(&[("PARLANCE_BUS_PARTITIONS", "8")]) => panic!("it serves: {started:?}"),
        said = eventually(SOON, "it says why it does not serve", says_why) => said.unwrap(),
    }
    let handshake = reqwest::Client::new().get(polling(&stack));
    assert_eq!(status(handshake).await.unwrap(), 503);
    // Who does not look at readiness stores nothing where nobody looks for it.
    let sent = reqwest::Client::new()
        .post(format!("{}/api/v1/conversations/direct", gateway.base_url()))
        .bearer_auth(stack.token("alice"))
        .json(&serde_json::json!({ "user_id": "bob" }));
    assert_eq!(status(sent).await.unwrap(), 503);
    gateway.restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_clients_is_let_in_at_its_pace() {
    const PER_SECOND: usize = 10;
    let stack = Stack::builder()
        .gateway_env("PARLANCE_SOCKET_HANDSHAKES_PER_SECOND", PER_SECOND)
        .start()
        .await
        .unwrap();
    let url = polling(&stack);
    let client = reqwest::Client::new();
    let opened = || async { equal(status(client.get(&url)).await?, &200).map_err(anyhow::Error::msg) };
    eventually(SOON, "a handshake is answered 200", opened)
        .await
        .unwrap();

    let begun = Instant::now();
    let storm = (0..20 * PER_SECOND).map(|_| client.get(&url).send());
    let answers = futures::future::try_join_all(storm).await.unwrap();
    // What may come at once, and what the time of the storm allows.
    let most = PER_SECOND + 1 + PER_SECOND * usize::try_from(begun.elapsed().as_secs() + 1).unwrap();
    let (let_in, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
    assert!(
        (1..=most).contains(&let_in.len()),
        "{} of at most {most}",
        let_in.len()
    );
    let mut pauses = BTreeSet::new();
    for answer in refused {
        assert_eq!(answer.status(), 503);
        // A balancer of connections takes the next attempt elsewhere.
        assert_eq!(answer.headers()["connection"], "close");
        let pause: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=5).contains(&pause), "{pause}");
        pauses.insert(pause);
    }
    assert!(pauses.len() > 1, "all are to come again at once");

    // Admitted clients are not slowed down.
    let open = let_in.into_iter().next().unwrap().text().await.unwrap();
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    let session = format!("{url}&sid={}", open["sid"].as_str().unwrap());
    for _ in 0..3 * PER_SECOND {
        assert_eq!(status(client.post(&session).body("3")).await.unwrap(), 200);
    }
    eventually(SOON, "a handshake is answered 200", opened)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_come_in_from_listed_origins_only() {
    const LISTED: &str = "https://chat.example";
    let stack = Stack::builder()
        .gateway_env("SOCKET_CORS_ORIGINS", LISTED)
        .start()
        .await
        .unwrap();
    let http = reqwest::Client::new();
    let own = stack.gateway(0).base_url().to_owned();
    for (origin, wanted) in [
        (LISTED, 200),
        (own.as_str(), 200),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let handshake = http.get(polling(&stack)).header("origin", origin);
        assert_eq!(status(handshake).await.unwrap(), wanted, "{origin}");
    }
    let url = format!("{own}/api/conversations/direct");
    for (origin, allowed) in [(LISTED, Some(LISTED)), ("https://evil.example", None)] {
        let preflight = http
            .request(reqwest::Method::OPTIONS, &url)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        let answer = preflight.send().await.unwrap();
        let told = answer
            .headers()
            .get("access-control-allow-origin")
            .map(|value| value.to_str().unwrap());
        assert_eq!(told, allowed, "{origin}");
        if allowed.is_some() {
            let headers = answer.headers()["access-control-allow-headers"].to_str().unwrap();
            assert!(headers.contains("authorization"), "{headers}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_token_of_an_unknown_or_deleted_user_opens_nothing() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_AUTH_PROVISION", "strict")
        .start()
        .await
        .unwrap();
    let database = stack.database().await.unwrap();
    let http = reqwest::Client::new();
    let url = format!("{}/api/v1/conversations", stack.gateway(0).base_url());
    let answers = |wanted: u16| {
        let request = http.get(&url).bearer_auth(stack.token("alice"));
        async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), wanted, "{}", answer.text().await.unwrap());
        }
    };
    answers(401).await;
    sqlx::query("INSERT INTO users (user_id, username) VALUES ('alice', 'alice')")
        .execute(&database)
        .await
        .unwrap();
    answers(200).await;
    sqlx::query("UPDATE users SET deleted_at = now() WHERE user_id = 'alice'")
        .execute(&database)
        .await
        .unwrap();
    answers(401).await;

    // A user deleted elsewhere is not created again by a token that is still valid.
    let stack = Stack::builder().start().await.unwrap();
    let database = stack.database().await.unwrap();
    let url = format!("{}/api/v1/conversations", stack.gateway(0).base_url());
    let asks = || status(http.get(&url).bearer_auth(stack.token("alice")));
    assert_eq!(asks().await.unwrap(), 200);
    sqlx::query("UPDATE users SET deleted_at = now() WHERE user_id = 'alice'")
        .execute(&database)
        .await
        .unwrap();
    assert_eq!(asks().await.unwrap(), 401);
    let own = connect(&stack).await;
    assert!(own.contains("unknown user"), "{own}");
}

/// What a handshake of alice is answered.
async fn connect(stack: &Stack) -> String {
    let http = reqwest::Client::new();
    let url = polling(stack);
    let open = http.get(&url).send().await.unwrap().text().await.unwrap();
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    let own = format!("{url}&sid={}", open["sid"].as_str().unwrap());
    let connect = format!("40{{\"token\":\"{}\"}}", stack.token("alice"));
    assert_eq!(status(http.post(&own).body(connect)).await.unwrap(), 200);
    loop {
        let said = http.get(&own).send().await.unwrap().text().await.unwrap();
        // Heartbeats come in between.
        let mut packets = said.split('\u{1e}').filter(|packet| *packet != "2");
        if let Some(packet) = packets.next() {
            return packet.to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_its_time_to_end_unless_it_is_told_twice() {
    let window = |drain: &'static str, grace: &'static str| {
        [
            ("PARLANCE_SHUTDOWN_WAIT_MS", "200"),
            ("PARLANCE_SHUTDOWN_DRAIN_MS", drain),
            ("PARLANCE_SHUTDOWN_GRACE_MS", grace),
        ]
    };
    let stack = Stack::builder().start().await.unwrap();
    let gateway = stack.gateway(0);
    for (drain, grace, times) in [("2000", "20000", 1), ("60000", "70000", 2)] {
        gateway.kill();
        gateway.start_with(&window(drain, grace)).await.unwrap();
        let takes_handshakes = || async {
            equal(status(reqwest::Client::new().get(polling(&stack))).await?, &200)
                .map_err(anyhow::Error::msg)
        };
        eventually(SOON, "it takes handshakes", takes_handshakes)
            .await
            .unwrap();
        for _ in 0..20 {
            assert!(connect(&stack).await.starts_with("40"));
        }
        counts(gateway, "chat_gateway_connections", 20.0).await;
        let begun = Instant::now();
        gateway.terminate();
        counts(gateway, "chat_gateway_draining", 1.0).await;
        if times == 2 {
            gateway.terminate();
        }
        let ended = gateway.wait_exit(SOON).await.unwrap();
        let took = begun.elapsed();
        assert!(
            ended.success(),
            "told {times} times: {ended}\n{}",
            gateway.log_tail(20)
        );
        assert!(
            times == 2 || took >= Duration::from_secs(2),
            "it hurried: {took:?}"
        );
    }
}
