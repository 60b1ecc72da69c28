//! Sends a message into a conversation, as a service of another team does: with async-nats and nothing of ours. The same
//! program stands in `proto/README.md`.

#![expect(
    clippy::disallowed_methods,
    reason = "a whole program, as a service of another team has it, reads its environment"
)]

// cargo add async-nats futures serde_json tokio --features tokio/full
use async_nats::{ConnectOptions, HeaderMap};
use futures::StreamExt;
use std::{env, error::Error, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [conversation, id, content] = <[String; 3]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: emit CONVERSATION ID CONTENT")?;
    let nats = ConnectOptions::with_user_and_password(env::var("NATS_USER")?, env::var("NATS_PASSWORD")?)
        .custom_inbox_prefix("_INBOX.emitter.shop")
        .connect(env::var("NATS_URL")?)
        .await?;
    let inbox = nats.new_inbox();
    let mut outcome = nats.subscribe(inbox.clone()).await?;
    let mut headers = HeaderMap::new();
    headers.insert("Parlance-Message-Id", id.as_str());
    headers.insert("Parlance-Reply-To", inbox.as_str());
    headers.insert("Content-Type", "application/json");
    let message = serde_json::json!({ "sender_id": "shop", "sender_name": "Shop", "content": content });
    let subject = format!("chat.system.{conversation}");
    async_nats::jetstream::new(nats)
        .publish_with_headers(subject, headers, message.to_string().into())
        .await?
        .await?; // the stream has it
    let reply = tokio::time::timeout(Duration::from_secs(10), outcome.next()).await?;
    println!(
        "{}",
        String::from_utf8_lossy(&reply.ok_or("connection closed")?.payload)
    );
    Ok(())
}
