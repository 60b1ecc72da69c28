//! What one polling client does to a TCP connection that a load balancer uses for others as well.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::eventually::eventually;

const PATIENCE: Duration = Duration::from_secs(10);

/// One connection, kept open, as a balancer has it.
struct Connection {
    http: reqwest::Client,
    gateway: String,
}

impl Connection {
    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = self.http.get(format!("{}{path}", self.gateway));
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    async fn post(&self, session: &str, packets: String) -> anyhow::Result<String> {
        let url = format!("{}{session}", self.gateway);
        let request = self.http.post(url).body(packets);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_client_that_floods_leaves_the_connection_to_others() {
    let stack = Stack::builder()
        .gateway_env("PARLANCE_SOCKET_MAX_WAITING_EVENTS", 8)
        .start()
        .await
        .unwrap();
    let connection = Connection {
        http: reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(1)
            .timeout(PATIENCE)
            .build()
            .unwrap(),
        gateway: stack.gateway(0).base_url().to_owned(),
    };
    let handshake = "/socket.io/?EIO=4&transport=polling";
    let opened = eventually(PATIENCE, "a handshake", || connection.get(handshake))
        .await
        .unwrap();
    let opened: serde_json::Value = serde_json::from_str(opened.trim_start_matches('0')).unwrap();
    let session = format!("{handshake}&sid={}", opened["sid"].as_str().unwrap());
    let hello = serde_json::json!({ "token": stack.token("alice"), "since": {} });
    connection.post(&session, format!("40{hello}")).await.unwrap();
    // The first heartbeat may come before the answer.
    let connected = || async { connection.get(&session).await.ok()?.contains("40{").then_some(()) };
    eventually(PATIENCE, "connected", connected).await.unwrap();

    let flood = vec![r#"42["nonsense"]"#; 200].join("\u{1e}");
    connection.post(&session, flood).await.unwrap();
    for _ in 0..4 {
        connection.get("/health").await.unwrap();
    }
}
