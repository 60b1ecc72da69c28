//! The edge: which pages may connect, where Socket.IO is served, and what an operator reads of those who were refused.

use parlance_harness::Stack;
use parlance_harness::devstack::repository;
use parlance_harness::eventually::eventually;

use crate::spec::{Transport, run};

/// A stack with every setting of the edge in use.
async fn stack(gateways: usize) -> Stack {
    let library = repository().join("services/harness/js/node_modules/socket.io-client/dist");
    Stack::builder()
        .gateways(gateways)
        .gateway_env(
            "PARLANCE_CORS_ORIGINS",
            "https://Listed.example:443/,https://*.wild.example,http://localhost:*",
        )
        .gateway_env("PARLANCE_CORS_HEADERS", "X-Request-Id")
        .gateway_env(
            "PARLANCE_DIALECT_ORIGINS",
            "HTTPS://listed.example/=chats,https://*.wild.example=inbox",
        )
        .gateway_env("PARLANCE_SOCKET_PATH", "/socket.io,/ws/")
        .gateway_env("PARLANCE_SOCKET_NAMESPACES", "/,/ws,/chat")
        .gateway_env("PARLANCE_SOCKET_CLIENT_FOLDER", library.display())
        .gateway_env("PARLANCE_AUTH_QUERY_TOKEN", "token")
        .gateway_env("PARLANCE_SOCKET_MAX_WAITING_EVENTS", 32)
        .gateway_env("PARLANCE_TELEMETRY_LOG", "debug")
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn front_ends_connect_where_and_from_where_the_settings_say() {
    let stack = stack(2).await;
    for transport in [Transport::Websocket, Transport::Polling, Transport::Default] {
        run(&stack, "edge", transport).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_for_clients_that_accept_it() {
    let stack = Stack::builder().gateways(2).start().await.unwrap();
    run(&stack, "compression", Transport::Websocket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_line_with_its_reason_and_setting_and_no_token() {
    let stack = stack(1).await;
    let base = stack.gateway(0).base_url().to_owned();
    let http = reqwest::Client::new();
    let jwt = stack.token("alice");
    let handshake = format!("{base}/socket.io/?EIO=4&transport=polling");

    let foreign = http.get(&handshake).header("origin", "https://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    let expired = parlance_harness::token::Token::new("alice").expires_in(-60);
    let expired = expired.sign(stack.jwt_secret()).unwrap();
    let rest = http
        .get(format!("{base}/api/v1/conversations"))
        .bearer_auth(&expired);
    assert_eq!(rest.send().await.unwrap().status(), 401);
    let elsewhere = http.get(format!("{base}/chatt/?EIO=4&transport=polling"));
    assert_eq!(elsewhere.send().await.unwrap().status(), 404);
    // A namespace that is not served, with the token in the query of each request.
    let url = format!("{handshake}&token={jwt}");
    let open = http.get(&url).send().await.unwrap().text().await.unwrap();
    let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
    let own = format!("{url}&sid={}", open["sid"].as_str().unwrap());
    let connect = http.post(&own).body("40/nowhere,");
    assert_eq!(connect.send().await.unwrap().status(), 200);

    eventually(std::time::Duration::from_secs(10), "the lines", || async {
        let log = stack.gateway(0).log_tail(10_000);
        let has = |parts: &[&str]| {
            log.lines()
                .any(|line| line.contains("refused a client") && parts.iter().all(|part| line.contains(part)))
        };
        anyhow::ensure!(has(&["https://evil.example", "cors.origins"]), "no Origin");
        anyhow::ensure!(has(&["expired", "jwt.leeway_seconds"]), "no token");
        anyhow::ensure!(has(&["/chatt", "socket.path"]), "no path");
        anyhow::ensure!(has(&["/nowhere", "socket.namespaces"]), "no namespace");
        Ok(())
    })
    .await
    .unwrap();

    // However many come, there are few lines.
    for _ in 0..100 {
        let foreign = http.get(&handshake).header("origin", "https://evil.example");
        assert_eq!(foreign.send().await.unwrap().status(), 403);
    }
    let log = stack.gateway(0).log_tail(100_000);
    let lines = log.lines().filter(|line| line.contains("evil.example")).count();
    assert!((1..=10).contains(&lines), "{lines} lines");
    for secret in [&jwt, &expired] {
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!log.contains(signature), "a token was logged");
    }
}
