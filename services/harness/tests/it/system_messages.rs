//! Messages of other backend services, sent as such a service would: by the NATS protocol and nothing of ours.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parlance_harness::Stack;
use parlance_harness::eventually::{equal, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(15);
const JSON: Option<&str> = Some("application/json");

/// Subject, `Parlance-Message-Id`, `Content-Type`, payload.
type Publication<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a [u8]);

/// A connection of a service in another language.
pub struct Service {
    stream: BufReader<TcpStream>,
}

impl Service {
    pub async fn connect(stack: &Stack) -> Self {
        let address = stack.nats_url().trim_start_matches("nats://");
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let hello = b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB inbox 1\r\n";
        stream.write_all(hello).await.unwrap();
        Self { stream }
    }

    /// Publishes and returns what the stream answers.
    pub async fn publish(
        &mut self,
        subject: &str,
        id: Option<&str>,
        kind: Option<&str>,
        payload: &[u8],
    ) -> Value {
        let mut head = String::from("NATS/1.0\r\n");
        for (name, value) in [("Parlance-Message-Id", id), ("Content-Type", kind)] {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        let line = format!(
            "HPUB {subject} inbox {} {}\r\n{head}",
            head.len(),
            head.len() + payload.len()
        );
        self.stream.write_all(line.as_bytes()).await.unwrap();
        self.stream.write_all(payload).await.unwrap();
        self.stream.write_all(b"\r\n").await.unwrap();
        tokio::time::timeout(SOON, self.answer())
            .await
            .expect("the stream answers")
    }

    async fn answer(&mut self) -> Value {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            if line.starts_with("PING") {
                self.stream.write_all(b"PONG\r\n").await.unwrap();
            }
            if line.starts_with("MSG inbox") {
                let size: usize = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
                let mut payload = vec![0; size + 2];
                self.stream.read_exact(&mut payload).await.unwrap();
                return serde_json::from_slice(&payload[..size]).unwrap();
            }
            assert!(
                !line.starts_with("HMSG"),
                "no stream listens to chat.system: {line}"
            );
        }
    }
}

/// The protobuf form of `SystemMessage`, as any implementation would write it.
fn protobuf(texts: &[(u8, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, text) in texts {
        assert!(text.len() < 128);
        bytes.extend([number << 3 | 2, u8::try_from(text.len()).unwrap()]);
        bytes.extend(text.as_bytes());
    }
    bytes
}

struct Scene {
    stack: Stack,
    conversation: String,
    http: reqwest::Client,
}

impl Scene {
    async fn new() -> Self {
        let stack = Stack::builder().gateways(1).persistence(2).start().await.unwrap();
        let http = reqwest::Client::new();
        let created: Value = http
            .post(format!(
                "{}/api/v1/conversations/direct",
                stack.gateway(0).base_url()
            ))
            .bearer_auth(stack.token("alice"))
            .json(&json!({"user_id": "bob"}))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let conversation = created["id"].as_str().unwrap().to_owned();
        Self {
            stack,
            conversation,
            http,
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1{path}", self.stack.gateway(0).base_url());
        let answer = self
            .http
            .get(url)
            .bearer_auth(self.stack.token("alice"))
            .send()
            .await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The messages of the conversation, ascending, once there are `count`.
    async fn messages(&self, conversation: &str, count: usize) -> Vec<Value> {
        let path = format!("/conversations/{conversation}/messages?limit=100");
        let look = || async {
            let page = self.get(&path).await?;
            let mut messages = page["messages"].as_array().cloned().unwrap_or_default();
            messages.sort_by_key(|message| message["seq"].as_u64());
            equal(messages.len(), &count).map_err(anyhow::Error::msg)?;
            anyhow::Ok(messages)
        };
        eventually(SOON, format_args!("{count} messages"), look)
            .await
            .unwrap()
    }

    async fn parked(&self, count: i64) {
        let database = self.stack.database().await.unwrap();
        let look = || async {
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
                .fetch_one(&database)
                .await?;
            equal(rows, &count).map_err(anyhow::Error::msg)
        };
        eventually(SOON, "garbage is parked", look).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_speaks_in_protobuf_and_json_and_a_repeat_is_the_same_message() {
    let scene = Scene::new().await;
    let mut service = Service::connect(&scene.stack).await;
    let subject = format!("chat.system.{}", scene.conversation);
    let binary = protobuf(&[(1, "weather"), (2, "Weather"), (5, "Rain 🌧"), (6, r#"{"mm":3}"#)]);
    let text = json!({
        "sender_id": "helper-bot", "sender_name": "Helper", "sender_kind": "AGENT", "type": "TEXT",
        "content": "May I help?", "metadata_json": "{\"score\":0.5}",
    })
    .to_string();

    // Each three times: twice within the stream's own window, once after a lost answer would be repeated.
    for _ in 0..3 {
        let stored = service.publish(&subject, Some("w-1"), None, &binary).await;
        assert_eq!(stored["stream"], "SYSTEM", "{stored}");
        service
            .publish(&subject, Some("b-1"), JSON, text.as_bytes())
            .await;
        scene.messages(&scene.conversation, 2).await;
    }
    service
        .publish(
            &subject,
            Some("w-2"),
            None,
            &protobuf(&[(1, "weather"), (5, "Sun")]),
        )
        .await;
    let messages = scene.messages(&scene.conversation, 3).await;
    let [rain, help, sun] = &messages[..] else {
        panic!("three messages")
    };
    assert_eq!(rain["content"], "Rain 🌧");
    assert_eq!(rain["type"], "system");
    assert_eq!(
        rain["sender"],
        json!({"id": "service:weather", "username": "Weather"})
    );
    assert_eq!(rain["metadata"], json!({"mm": 3}));
    assert_eq!(help["content"], "May I help?");
    assert_eq!(help["type"], "text");
    assert_eq!(
        help["sender"],
        json!({"id": "service:helper-bot", "username": "Helper"})
    );
    assert_eq!(sun["content"], "Sun");
    let conversation = scene
        .get(&format!("/conversations/{}", scene.conversation))
        .await
        .unwrap();
    assert_eq!(
        conversation["unread"], 3,
        "what a service says is unread like anything else"
    );
    assert_eq!(
        conversation["participants"].as_array().unwrap().len(),
        2,
        "a service is no member"
    );
    scene.parked(0).await;
}

/// Services choose their ids without knowing of each other.
#[tokio::test(flavor = "multi_thread")]
async fn one_id_of_two_services_or_in_two_conversations_is_two_messages() {
    let scene = Scene::new().await;
    let mut service = Service::connect(&scene.stack).await;
    let subject = format!("chat.system.{}", scene.conversation);
    for (sender, subject) in [
        ("weather", &subject[..]),
        ("traffic", &subject),
        ("weather", "chat.system.user.alice"),
    ] {
        let message = protobuf(&[(1, sender), (5, "Good morning")]);
        let taken = service.publish(subject, Some("1"), None, &message).await;
        assert!(taken["duplicate"].is_null(), "{taken}");
    }
    service
        .publish(
            &subject,
            Some("1"),
            None,
            &protobuf(&[(1, "weather"), (5, "again")]),
        )
        .await;
    let messages = scene.messages(&scene.conversation, 2).await;
    let senders: Vec<_> = messages.iter().map(|message| &message["sender"]["id"]).collect();
    assert_eq!(senders, ["service:weather", "service:traffic"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_a_service_is_parked_and_stops_nobody() {
    let scene = Scene::new().await;
    let mut service = Service::connect(&scene.stack).await;
    let subject = format!("chat.system.{}", scene.conversation);
    let nowhere = "chat.system.0190a6e0-0000-7000-8000-000000000001";
    let good = protobuf(&[(1, "weather"), (5, "fine")]);
    let garbage: [Publication<'_>; 9] = [
        (&subject, None, None, &good),
        (&subject, Some("g-1"), None, b"\xff\xff\xff garbage"),
        (&subject, Some("g-2"), JSON, b"{not json"),
        (&subject, Some("g-3"), JSON, br#"{"content":"no sender"}"#),
        (
            &subject,
            Some("g-4"),
            JSON,
            br#"{"sender_id":"alice","sender_kind":"USER","content":"posing"}"#,
        ),
        (
            &subject,
            Some("g-5"),
            JSON,
            br#"{"sender_id":"bot","content":"x","type":"unknown"}"#,
        ),
        ("chat.system.not-a-conversation", Some("g-6"), None, &good),
        ("chat.system.user.not_encoded_zz", Some("g-7"), None, &good),
        (
            &subject,
            Some("g-8"),
            JSON,
            br#"{"sender_id":"a b","content":"x"}"#,
        ),
    ];
    for (number, (subject, id, kind, payload)) in garbage.into_iter().enumerate() {
        service.publish(subject, id, kind, payload).await;
        let id = format!("good-{number}");
        service
            .publish(
                &format!("chat.system.{}", scene.conversation),
                Some(&id),
                None,
                &good,
            )
            .await;
    }
    let messages = scene.messages(&scene.conversation, 9).await;
    assert!(messages.iter().all(|message| message["content"] == "fine"));
    scene.parked(9).await;
    // What is well formed but cannot be carried out is parked too, and stops nobody either.
    service.publish(nowhere, Some("n-1"), None, &good).await;
    service
        .publish(
            &subject,
            Some("n-2"),
            JSON,
            br#"{"sender_id":"bot","content":"a\u0000b"}"#,
        )
        .await;
    service
        .publish(
            &subject,
            Some("n-3"),
            JSON,
            br#"{"sender_id":"bot","content":"x","metadata_json":"[1"}"#,
        )
        .await;
    service.publish(&subject, Some("last"), None, &good).await;
    let messages = scene.messages(&scene.conversation, 10).await;
    assert!(messages.iter().all(|message| message["content"] == "fine"));
    scene.parked(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reaches_a_user_in_a_conversation_of_their_own() {
    let scene = Scene::new().await;
    let mut service = Service::connect(&scene.stack).await;
    let message = protobuf(&[(1, "billing"), (2, "Billing"), (5, "Your invoice")]);
    for _ in 0..2 {
        service
            .publish("chat.system.user.alice", Some("inv-1"), None, &message)
            .await;
    }
    let look = || async {
        let page = scene.get("/conversations").await?;
        let all = page["conversations"].as_array().cloned().unwrap_or_default();
        let own = all.into_iter().find(|one| {
            let members = one["participants"].as_array().cloned().unwrap_or_default();
            members
                .iter()
                .any(|member| member["user_id"] == "service:billing")
        });
        own.filter(|one| one["head_seq"] == 1)
            .ok_or_else(|| anyhow::anyhow!("no conversation with billing: {page}"))
    };
    let own = eventually(SOON, "the conversation with the service", look)
        .await
        .unwrap();
    assert_eq!(own["last_message"]["content"], "Your invoice");
    assert_eq!(own["unread"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_told_of_every_message_and_answers_as_an_agent() {
    let scene = Scene::new().await;
    let url = format!(
        "{}/api/v1/conversations/{}/messages",
        scene.stack.gateway(0).base_url(),
        scene.conversation
    );
    let question = json!({"content": "Where is my order?"});
    let sent = scene
        .http
        .post(url)
        .bearer_auth(scene.stack.token("alice"))
        .json(&question);
    assert_eq!(sent.send().await.unwrap().status(), 201);

    let mut service = Service::connect(&scene.stack).await;
    let subject = format!("chat.evt.{}", scene.conversation);
    let asked = json!({"last_by_subj": subject}).to_string();
    let told = service
        .publish("$JS.API.STREAM.MSG.GET.EVENTS", None, None, asked.as_bytes())
        .await;
    assert_eq!(told["message"]["subject"], subject, "{told}");
    let data = STANDARD
        .decode(told["message"]["data"].as_str().unwrap())
        .unwrap();
    let content = b"Where is my order?";
    assert!(data.windows(content.len()).any(|part| part == content), "{told}");

    let answer = json!({
        "sender_id": "helper-bot", "sender_name": "Helper", "sender_kind": "AGENT", "type": "TEXT",
        "content": "On its way.",
    });
    let subject = format!("chat.system.{}", scene.conversation);
    service
        .publish(&subject, Some("a-1"), JSON, answer.to_string().as_bytes())
        .await;
    let messages = scene.messages(&scene.conversation, 2).await;
    let kinds: Vec<_> = messages.iter().map(|message| &message["sender_kind"]).collect();
    assert_eq!(kinds, ["user", "agent"]);
}
