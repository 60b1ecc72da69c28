//! An agent that answers people word by word and, killed meanwhile, goes on where it was. `services/harness/python/agent.py` is
//! the same in Python.

#![expect(
    clippy::disallowed_methods,
    reason = "a whole program, as a service of another team has it, reads its environment"
)]

use std::env;
use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use async_nats::{Client, ConnectOptions, HeaderMap};
use futures::StreamExt as _;
use parlance_proto::v1::{EventBatch, Message, SenderKind, event};
use prost::Message as _;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let reader = connect("feed", "NATS_FEED_PASSWORD", "_INBOX.feed").await?;
    let writer = connect("emitter", "NATS_EMITTER_PASSWORD", "_INBOX.emitter.shop").await?;
    let stream = jetstream::new(reader).get_stream_no_info("EVENTS").await?;
    let feed = stream.get_consumer::<pull::Config>("feed").await;
    let feed = feed.map_err(|error| error.to_string())?;
    let mut messages = feed.messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        for event in EventBatch::decode(message.payload.clone())?.events {
            if let Some(event::Body::MessageCreated(created)) = event.body
                && let Some(asked) = created.message
                && asked.sender.as_ref().map(|sender| sender.kind()) == Some(SenderKind::User)
            {
                answer(&writer, &asked).await?;
            }
        }
        message.ack().await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn connect(user: &str, password: &str, inbox: &str) -> Result<Client> {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), env::var(password)?);
    Ok(options
        .custom_inbox_prefix(inbox)
        .connect(env::var("NATS_URL")?)
        .await?)
}

async fn answer(writer: &Client, asked: &Message) -> Result<()> {
    let text = format!("You said: {}", asked.content);
    let mut next = step(writer, asked, json!({ "stream": "START" })).await?;
    while let Some(at) = next.filter(|at| *at < text.len()) {
        let rest = &text[at..];
        let word = rest.find(' ').map_or(rest, |end| &rest[..=end]);
        let append = json!({ "stream": "APPEND", "offset": at, "content": word });
        next = step(writer, asked, append).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some(at) = next {
        step(writer, asked, json!({ "stream": "FINISH", "offset": at })).await?;
    }
    Ok(())
}

/// Takes a step; where the next text begins, `None` once the message has ended, interrupted perhaps or deleted.
async fn step(writer: &Client, asked: &Message, mut body: Value) -> Result<Option<usize>> {
    body["sender_id"] = "shop".into();
    body["sender_name"] = "Agent".into();
    body["sender_kind"] = "AGENT".into();
    let inbox = writer.new_inbox();
    let mut outcome = writer.subscribe(inbox.clone()).await?;
    let mut headers = HeaderMap::new();
    headers.insert("Parlance-Message-Id", asked.id.as_str());
    headers.insert("Parlance-Reply-To", inbox.as_str());
    headers.insert("Content-Type", "application/json");
    let subject = format!("chat.system.{}", asked.conversation_id);
    jetstream::new(writer.clone())
        .publish_with_headers(subject, headers, body.to_string().into())
        .await?
        .await?;
    let reply = tokio::time::timeout(Duration::from_secs(10), outcome.next()).await?;
    let reply: Value = serde_json::from_slice(&reply.ok_or("connection closed")?.payload)?;
    let next = reply["expected_offset"].as_u64();
    Ok(next.map(usize::try_from).transpose()?)
}
