//! What unauthenticated clients and one user may cost a gateway, beside a bystander who must not notice.

use std::time::{Duration, Instant};

use parlance_harness::Stack;
use parlance_harness::bench::processes::memory;
use parlance_harness::devstack::process::Process;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::token::Token;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hostile::services;
use crate::presence::post;
use crate::spec::{Transport, run};
use crate::system_messages::Service;

const PATIENCE: Duration = Duration::from_secs(20);
/// An address of documentation's own network, as a proxy writes it.
const ATTACKER: &str = "203.0.113.9";
const BYSTANDER: &str = "198.51.100.7";

/// A connection to the public port.
pub(crate) async fn dial(gateway: &Process) -> TcpStream {
    let address = gateway.base_url().trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

/// A WebSocket that is not authenticated.
pub(crate) async fn websocket(gateway: &Process) -> TcpStream {
    let mut stream = dial(gateway).await;
    let request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: parlance\r\nconnection: upgrade\r\n\
                   upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

/// The header of a masked frame with so many bytes, which may never come. The mask is zero.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first, 0x80 | 127];
    header.extend(length.to_be_bytes());
    header.extend([0; 4]);
    header
}

/// Whether the server closes the connection before the patience is over.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let end = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
    tokio::time::timeout(PATIENCE, end).await.is_ok()
}

/// A handshake of polling, in the name of an address behind a trusted proxy.
pub(crate) async fn handshake(http: &reqwest::Client, gateway: &Process, address: &str) -> u16 {
    let url = format!("{}/socket.io/?EIO=4&transport=polling", gateway.base_url());
    let request = http.get(url).header("x-forwarded-for", address);
    request.send().await.unwrap().status().as_u16()
}

async fn metric(gateway: &Process, line: &str) -> f64 {
    let text = reqwest::get(format!("{}/metrics", gateway.internal_url()));
    let text = text.await.unwrap().text().await.unwrap();
    let found = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_default()
}

/// Persistence has answered once: handshakes are admitted.
async fn admits(http: &reqwest::Client, gateway: &Process) {
    let admitted = || async { (handshake(http, gateway, BYSTANDER).await == 200).then_some(()) };
    eventually(PATIENCE, "a handshake", admitted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_frames_of_strangers_hold_no_memory() {
    let stack = Stack::builder().start().await.unwrap();
    let gateway = stack.gateway(0);
    admits(&reqwest::Client::new(), gateway).await;
    let mut sockets = Vec::new();
    for _ in 0..15 {
        sockets.push(websocket(gateway).await);
    }
    let resident = || memory(&services(&stack))["gateways"];
    let before = resident();
    let megabyte = vec![b'x'; 1 << 20];
    let mut most = 0;
    for socket in &mut sockets {
        socket.write_all(&header(0x81, 9_900_000)).await.unwrap();
        // The server stops reading; what it does not take is refused with the connection.
        let frame = async {
            for _ in 0..9 {
                if socket.write_all(&megabyte).await.is_err() {
                    break;
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(1), frame).await);
        most = most.max(resident().saturating_sub(before));
    }
    println!("15 unfinished frames of 9.9 MB held {most} KiB");
    assert!(
        most < 15 * 1024,
        "{most} KiB are held for clients without a token"
    );
    for socket in &mut sockets {
        assert!(is_closed(socket).await, "a frame that is too large is left open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_post_before_the_token_is_refused_wherever_it_arrives() {
    let stack = Stack::builder().gateways(2).start().await.unwrap();
    let http = reqwest::Client::new();
    admits(&http, stack.gateway(0)).await;
    let base = stack.gateway(0).base_url();
    let open = http.get(format!("{base}/socket.io/?EIO=4&transport=polling"));
    let open = open.send().await.unwrap().text().await.unwrap();
    let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
    let sid = open["sid"].as_str().unwrap();
    let large = format!("40{{\"token\":\"{}\"}}", "x".repeat(2_000_000));
    // At another gateway it is the owner who refuses, after the first piece.
    for (index, wanted) in [(1, 400), (0, 413)] {
        let base = stack.gateway(index).base_url();
        let url = format!("{base}/socket.io/?EIO=4&transport=polling&sid={sid}");
        let answer = http.post(url).body(large.clone()).send().await.unwrap();
        assert_eq!(answer.status(), wanted, "at gateway {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_are_closed_soon() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_HTTP_TRUSTED_PROXIES", "")
        .gateway_env("PARLANCE_HTTP_IDLE_TIMEOUT_MS", 1_000)
        .start()
        .await
        .unwrap();
    let gateway = stack.gateway(0);
    for (kind, sent) in [
        ("silent", ""),
        (
            "half a head",
            "GET /health HTTP/1.1\r\nhost: parlance\r\nx-half: ",
        ),
        ("idle", "GET / HTTP/1.1\r\nhost: parlance\r\n\r\n"),
        (
            "half a body",
            "POST /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\nhost: parlance\r\ncontent-length: 99\r\n\r\n4",
        ),
    ] {
        let begun = Instant::now();
        let mut stream = dial(gateway).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert!(is_closed(&mut stream).await, "{kind}: left open");
        println!("{kind}: closed after {:?}", begun.elapsed());
    }
    assert!(metric(gateway, "chat_gateway_idle_connections_closed_total").await >= 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_own_part_of_connections_and_handshakes() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_SOCKET_HANDSHAKES_PER_ADDRESS", 20)
        .gateway_env("PARLANCE_SOCKET_HANDSHAKES_UNDER_WAY", 16)
        .gateway_env("PARLANCE_HTTP_CONNECTIONS_PER_ADDRESS", 30)
        .start()
        .await
        .unwrap();
    let gateway = stack.gateway(0);
    let http = reqwest::Client::new();
    admits(&http, gateway).await;
    // The attacker never goes on with a handshake: two at a time are under way and two wait, the rest come too fast. Nor
    // does it help to name another address oneself: a proxy adds the one that it sees.
    for named in [ATTACKER.to_owned(), format!("192.0.2.1, {ATTACKER}")] {
        let attack = (0..60).map(|_| handshake(&http, gateway, &named));
        let mut refused = [0; 2];
        for answer in futures::future::join_all(attack).await {
            match answer {
                200 => {}
                503 => refused[0] += 1,
                429 => refused[1] += 1,
                other => panic!("{other}"),
            }
        }
        println!(
            "refused as too many under way: {}, as too fast: {}",
            refused[0], refused[1]
        );
        assert!(refused[0] > 0 && refused[1] >= 20, "{named}: {refused:?}");
        // Nobody else notices.
        for bystander in ["198.51.100.8", "198.51.100.9"] {
            assert_eq!(handshake(&http, gateway, bystander).await, 200);
        }
    }
    assert!(
        metric(
            gateway,
            r#"chat_gateway_refused_addresses_total{limit="handshakes"}"#
        )
        .await
            > 0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_what_an_address_may_have_are_closed_at_once() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_HTTP_TRUSTED_PROXIES", "192.0.2.0/24")
        .gateway_env("PARLANCE_HTTP_CONNECTIONS_PER_ADDRESS", 5)
        .start()
        .await
        .unwrap();
    let gateway = stack.gateway(0);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(dial(gateway).await);
    }
    let mut further = dial(gateway).await;
    let begun = Instant::now();
    assert!(is_closed(&mut further).await && begun.elapsed() < PATIENCE / 4);
    drop(held);
    let served = || async {
        let answer = reqwest::get(gateway.base_url()).await.ok()?;
        answer.status().is_success().then_some(())
    };
    eventually(PATIENCE, "served again", served).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_session_of_a_user_makes_room_and_reads_why() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_SOCKET_SESSIONS_PER_USER", 3)
        .start()
        .await
        .unwrap();
    for transport in [Transport::Websocket, Transport::Polling] {
        run(&stack, "crowded", transport).await;
    }
}

/// A service that may send into conversations names a victim as the sender of what would open the victim's journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_names_a_user_is_not_that_user() {
    let stack = Stack::builder().start().await.unwrap();
    let base = format!("{}/api/v1", stack.gateway(0).base_url());
    let http = reqwest::Client::new();
    let conversation = post(
        &stack,
        0,
        "alice",
        "/conversations/direct",
        &json!({ "user_id": "bob" }),
    )
    .await;
    let conversation = conversation["id"].as_str().unwrap();
    let journal = post(&stack, 0, "alice", "/journals", &json!({ "title": "Diary" })).await;
    let journal = journal["id"].as_str().unwrap();
    let share = json!({
        "sender_id": "alice", "sender_name": "Alice", "sender_kind": "AGENT", "type": "JOURNAL_SHARE",
        "content": "read this", "metadata_json": json!({ "journalId": journal }).to_string(),
    });
    let mut service = Service::connect(&stack).await;
    let subject = format!("chat.system.{conversation}");
    let share = share.to_string();
    service
        .publish(
            &subject,
            Some("share-1"),
            Some("application/json"),
            share.as_bytes(),
        )
        .await;
    let sender = || async {
        let url = format!("{base}/conversations/{conversation}/messages");
        let page = http.get(url).bearer_auth(stack.token("bob")).send().await?;
        let page: serde_json::Value = page.json().await?;
        equal(
            page["messages"][0]["sender"]["id"].clone(),
            &json!("service:alice"),
        )
        .map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "the message", sender).await.unwrap();
    let status = async |user: &str, path: &str| {
        let request = http.get(format!("{base}{path}")).bearer_auth(stack.token(user));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("bob", &format!("/journals/{journal}")).await, 404);
    assert_eq!(status("alice", &format!("/journals/{journal}")).await, 200);
    // An agent is a user too, and none of this conversation.
    let agent = Token::new("robot")
        .claim("role", "agent")
        .sign(stack.jwt_secret())
        .unwrap();
    let foreign = http.post(format!("{base}/conversations/{conversation}/messages"));
    let foreign = foreign.bearer_auth(agent).json(&json!({ "content": "may I?" }));
    assert_eq!(foreign.send().await.unwrap().status(), 404);
    // Nor does a token make a user of a service's id.
    assert_eq!(status("service:alice", "/conversations").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_sends_much_is_slowed_down_alone_and_a_follower_who_falls_behind_is_seen() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_LIMITS_BYTES_PER_SECOND", 1_024)
        .gateway_env("PARLANCE_LIMITS_BYTES_BURST", 1_000_000)
        .persistence_env("PARLANCE_NATS_EVENTS_MAX_BYTES", 1_048_576)
        .persistence_env("PARLANCE_FEED_CONSUMERS", "search")
        .start()
        .await
        .unwrap();
    let http = reqwest::Client::new();
    let conversation = post(
        &stack,
        0,
        "alice",
        "/conversations/direct",
        &json!({ "user_id": "bob" }),
    )
    .await;
    let path = format!("/conversations/{}/messages", conversation["id"].as_str().unwrap());
    let url = format!("{}/api/v1{path}", stack.gateway(0).base_url());
    let send = async |user: &str| {
        let message = json!({ "content": "x".repeat(60_000) });
        let request = http.post(&url).bearer_auth(stack.token(user)).json(&message);
        request.send().await.unwrap().status().as_u16()
    };
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(send("alice").await);
    }
    // 16 of 60 KB fit into what may come at once.
    assert!(answers[..16].iter().all(|status| *status == 201), "{answers:?}");
    assert!(answers[17..].iter().all(|status| *status == 429), "{answers:?}");
    assert_eq!(send("bob").await, 201);
    // A body that does not say its length counts as what it has.
    let mut stream = dial(stack.gateway(0)).await;
    let (token, body) = (stack.token("bob"), json!({ "content": "short" }).to_string());
    let chunked = format!(
        "POST /api/v1{path} HTTP/1.1\r\nhost: parlance\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    // Nobody pulls for the service `search`, and EVENTS is nearly full.
    let behind = || async {
        let persistence = stack.persistence(0);
        let used = metric(persistence, r#"chat_bus_follower_used_ratio{consumer="search"}"#).await;
        anyhow::ensure!(used > 0.5, "{used}");
        Ok(())
    };
    eventually(PATIENCE, "the consumer is reported to be behind", behind)
        .await
        .unwrap();
}
