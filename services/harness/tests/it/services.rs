//! Services of other teams, in their own languages and with the clients they would use: what `proto/README.md` promises
//! them, and that its programs run as they stand.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::devstack::accounts::Role;
use parlance_harness::devstack::service::Kind;
use parlance_harness::devstack::{clients, repository};
use parlance_harness::eventually::eventually;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::presence::post;

const PATIENCE: Duration = Duration::from_secs(120);
const NOWHERE: &str = "0190a6e0-0000-7000-8000-000000000001";

/// A language in which services are written.
#[derive(Clone, Copy, Debug)]
pub enum Language {
    Node,
    Python,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::Node, Self::Python];

    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// A program of the harness.
    fn program(self, name: &str) -> Command {
        let folder = repository().join("services/harness");
        match self {
            Self::Node => self.file(&folder.join(format!("js/services/{name}.mjs"))),
            Self::Python => self.file(&folder.join(format!("python/{name}.py"))),
        }
    }

    pub fn file(self, path: &Path) -> Command {
        let mut command = match self {
            Self::Node => Command::new("node"),
            Self::Python => Command::new("python3"),
        };
        if matches!(self, Self::Python) {
            command.env("PYTHONPATH", clients::python().unwrap());
        }
        command.arg(path);
        command
    }
}

/// Runs a program in a role.
async fn run(stack: &Stack, role: Role, mut program: Command, arguments: &[&str], input: &str) -> Output {
    let (user, password) = stack.credentials(role);
    let mut child = program
        .args(arguments)
        .env("NATS_URL", stack.nats_url())
        .env("NATS_USER", user)
        .env("NATS_PASSWORD", password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // A program that does not read it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    output.await.expect("the program ends").unwrap()
}

pub async fn printed(stack: &Stack, role: Role, program: Command, arguments: &[&str], input: &str) -> Value {
    let Output {
        status,
        stdout,
        stderr,
    } = run(stack, role, program, arguments, input).await;
    let (said, failed) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{said}{failed}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{failed}"))
}

/// What came of each of these messages: `{stream, duplicate, reply}`.
pub async fn publish(stack: &Stack, language: Language, messages: &[Value]) -> Vec<Value> {
    let input = Value::from(messages).to_string();
    let results = printed(stack, Role::Emitter, language.program("publish"), &[], &input).await;
    results.as_array().unwrap().clone()
}

/// A message with this body, under an id of its own.
pub fn message(target: &str, id: &str, body: &Value) -> Value {
    let headers = json!({ "Parlance-Message-Id": id, "Content-Type": "application/json" });
    json!({ "subject": format!("chat.system.{target}"), "headers": headers, "body": body.to_string() })
}

async fn stack() -> (Stack, String) {
    let stack = Stack::builder()
        .gateways(1)
        .accounts()
        .persistence_env("PARLANCE_FEED_CONSUMERS", "feed")
        .start()
        .await
        .unwrap();
    let conversation = direct_conversation(&stack).await;
    (stack, conversation)
}

/// Begins the conversation of alice with bob.
pub async fn direct_conversation(stack: &Stack) -> String {
    let asked = json!({ "user_id": "bob" });
    let created = post(stack, 0, "alice", "/conversations/direct", &asked).await;
    created["id"].as_str().unwrap().to_owned()
}

/// The service's own ids, subjects, codes and reasons of what is parked.
pub async fn parked(stack: &Stack) -> Vec<(Option<String>, String, String, String)> {
    let database = stack.database().await.unwrap();
    sqlx::query_as("SELECT command_id, subject, error_code, error FROM dead_letters ORDER BY command_id")
        .fetch_all(&database)
        .await
        .unwrap()
}

/// Messages that are refused: what is wrong with it, the message, the code and a part of the reason.
fn refused(conversation: &str) -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let to = |id: &str, body: Value| message(conversation, id, &body);
    let says = |extra: Value| {
        let mut body = Map::from_iter([
            ("sender_id".into(), "shop".into()),
            ("content".into(), "x".into()),
        ]);
        body.extend(extra.as_object().cloned().unwrap_or_default());
        Value::from(body)
    };
    let mut by_nats = to("nats", says(json!({})));
    by_nats["headers"] = json!({ "Nats-Msg-Id": "nats", "Content-Type": "application/json" });
    let foreign = format!("#{}", 99);
    vec![
        (
            "without content",
            to("empty", json!({ "sender_id": "shop" })),
            "invalid",
            "content is empty",
        ),
        (
            "an unknown conversation",
            message(NOWHERE, "nowhere", &says(json!({}))),
            "not_found",
            "",
        ),
        (
            "no reply_to",
            to("reply-text", says(json!({ "reply_to": "x" }))),
            "invalid",
            "reply_to is neither",
        ),
        (
            "a foreign reply_to",
            to("reply-seq", says(json!({ "reply_to": foreign }))),
            "invalid",
            "reply_to",
        ),
        (
            "metadata as an object",
            to("object", says(json!({ "metadata_json": { "order": 1 } }))),
            "invalid",
            "metadata_json must be a string",
        ),
        (
            "broken metadata",
            to("metadata", says(json!({ "metadata_json": "[1" }))),
            "invalid",
            "JSON object",
        ),
        (
            "NUL",
            to("nul", says(json!({ "content": "a\0b" }))),
            "invalid",
            "NUL",
        ),
        (
            "to itself",
            message("user.service_3Ashop", "itself", &says(json!({}))),
            "invalid",
            "itself",
        ),
        (
            "too large",
            to("large", says(json!({ "content": "x".repeat(70_000) }))),
            "too_large",
            "65536",
        ),
        (
            "an unknown type",
            to("type", says(json!({ "type": "LATER" }))),
            "invalid",
            "type",
        ),
        ("the id of NATS", by_nats, "invalid", "Parlance-Message-Id"),
    ]
}

async fn refusals_are_answered_and_parked(
    stack: &Stack,
    language: Language,
    conversation: &str,
    accepted_seq: u64,
) {
    let mut cases = refused(conversation);
    // Both languages in one stack: each has ids of its own.
    for (_, sent, ..) in &mut cases {
        for name in ["Parlance-Message-Id", "Nats-Msg-Id"] {
            if let Some(id) = sent["headers"][name].as_str() {
                sent["headers"][name] = format!("{}-{id}", language.name()).into();
            }
        }
    }
    let mut messages: Vec<Value> = cases.iter().map(|case| case.1.clone()).collect();
    let known = json!({ "sender_id": "shop", "content": "fine", "later": { "any": [1] } });
    let mut fine = message(conversation, &format!("{}-fine", language.name()), &known);
    // Beside ours that of NATS does no harm, whatever it is.
    fine["headers"]["Nats-Msg-Id"] = format!("beside-{}", language.name()).into();
    messages.push(fine);
    let results = publish(stack, language, &messages).await;
    let mut letters = parked(stack).await;
    let own = format!("{}-", language.name());
    letters.retain(|letter| letter.0.as_ref().is_some_and(|id| id.starts_with(&own)));
    for ((what, sent, code, reason), result) in cases.iter().zip(&results) {
        let headers = &sent["headers"];
        let id = headers["Parlance-Message-Id"]
            .as_str()
            .or(headers["Nats-Msg-Id"].as_str());
        let refusal = &result["reply"]["refused"];
        assert_eq!(refusal["code"], *code, "{what}: {result}");
        assert!(
            refusal["message"].as_str().unwrap().contains(reason),
            "{what}: {result}"
        );
        assert_eq!(result["reply"]["id"].as_str(), id, "{what}: {result}");
        let letter = letters.iter().find(|letter| letter.0.as_deref() == id);
        let (_, subject, parked_code, error) =
            letter.unwrap_or_else(|| panic!("{what} is not parked: {letters:?}"));
        assert_eq!(
            (sent["subject"].as_str(), parked_code.as_str()),
            (Some(subject.as_str()), *code),
            "{what}"
        );
        assert_eq!(refusal["message"], *error, "{what}");
    }
    assert_eq!(letters.len(), cases.len(), "{letters:?}");
    let accepted = &results[cases.len()]["reply"]["accepted"];
    assert_eq!(
        (&accepted["seq"], &accepted["repeated"]),
        (&json!(accepted_seq), &json!(false)),
        "{results:?}"
    );
    assert_eq!(accepted["conversation_id"], conversation);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_answered_and_parked_under_the_id_that_its_sender_knows() {
    let (stack, conversation) = stack().await;
    for (language, seq) in [(Language::Node, 1), (Language::Python, 2)] {
        refusals_are_answered_and_parked(&stack, language, &conversation, seq).await;
    }
}

/// The stream compares ids of NATS over all subjects; ours it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn one_id_sent_to_three_users_in_a_loop_reaches_three_and_a_repeat_is_answered_as_one() {
    let (stack, _) = stack().await;
    let body = json!({ "sender_id": "shop", "content": "Good morning" });
    for language in Language::ALL {
        let users = ["ann", "ben", "cyd"].map(|user| format!("user.{user}-{}", language.name()));
        let mut messages = users.map(|target| message(&target, "morning", &body));
        for repeated in [false, true] {
            if repeated {
                // Client libraries differ in how they spell headers.
                for sent in &mut messages {
                    sent["headers"] =
                        json!({ "parlance-message-id": "morning", "CONTENT-TYPE": "application/json" });
                }
            }
            let results = publish(&stack, language, &messages).await;
            for result in &results {
                let accepted = &result["reply"]["accepted"];
                let found = (&result["duplicate"], &accepted["seq"], &accepted["repeated"]);
                assert_eq!(
                    found,
                    (&json!(false), &json!(1), &json!(repeated)),
                    "{language:?} {results:?}"
                );
            }
        }
    }
    assert_eq!(parked(&stack).await, []);
    // By the id of NATS alone the stream takes the first; of the others it says that it did not.
    let targets = ["dan", "eve", "fay"].map(|user| format!("user.{user}"));
    let by_nats: Vec<Value> = targets
        .iter()
        .map(|target| {
            let mut sent = message(target, "", &body);
            sent["headers"] = json!({ "Nats-Msg-Id": "evening", "Content-Type": "application/json" });
            sent
        })
        .collect();
    // Python waits for no outcome before it has published all of them, within the window of the stream.
    let results = publish(&stack, Language::Python, &by_nats).await;
    for result in &results {
        let is_taken = result["duplicate"] == json!(false);
        assert_eq!(is_taken, result["reply"]["refused"].is_object(), "{results:?}");
    }
    assert_eq!(results[0]["duplicate"], json!(false), "{results:?}");
    assert_eq!(results[0]["reply"]["refused"]["code"], "invalid", "{results:?}");
}

/// Otherwise a service could have persistence publish what is closed to the service itself.
#[tokio::test(flavor = "multi_thread")]
async fn no_outcome_goes_anywhere_but_to_an_inbox_of_services() {
    let (stack, conversation) = stack().await;
    let body = json!({ "sender_id": "shop", "content": "x" });
    let elsewhere = [
        format!("chat.evt.{conversation}"),
        "chat.control.token.t".to_owned(),
        "_INBOX.gateway.x".to_owned(),
        "_INBOX.emitter.>".to_owned(),
    ];
    let messages = elsewhere.iter().enumerate().map(|(number, subject)| {
        let mut sent = message(&conversation, &format!("to-{number}"), &body);
        sent["headers"]["Parlance-Reply-To"] = subject.as_str().into();
        sent
    });
    // The last is behind the others, which are settled once it is.
    let last = message(&conversation, "last", &body);
    let messages: Vec<Value> = messages.chain([last]).collect();
    let results = publish(&stack, Language::Python, &messages).await;
    assert_eq!(
        results.last().unwrap()["reply"]["accepted"]["seq"],
        1,
        "{results:?}"
    );
    let letters = parked(&stack).await;
    assert_eq!(letters.len(), elsewhere.len(), "{letters:?}");
    assert!(
        letters.iter().all(|letter| letter.3.contains("_INBOX.emitter")),
        "{letters:?}"
    );
    let log = stack.nats().log_tail(10_000);
    assert!(!log.contains("Violation"), "{log}");
}

/// What a call must print: only a refusal by the server's permissions counts as refused.
fn expected(call: &str) -> &'static str {
    if call.starts_with("refused: ") {
        "refused"
    } else {
        "ok"
    }
}

/// What the usual calls of a client library come to within each role.
async fn calls(stack: &Stack, conversation: &str, language: Language) {
    for role in [Role::Push, Role::Emitter] {
        // Persistence has only just begun to make the consumers.
        let behaves = || async {
            let program = language.program("roles");
            let results = printed(stack, role, program, &[role.name(), conversation], "").await;
            for (call, result) in results.as_object().unwrap() {
                anyhow::ensure!(*result == expected(call), "{call}: {result}");
            }
            Ok(())
        };
        let what = format!("{language:?} as {}", role.name());
        eventually(PATIENCE, &what, behaves).await.unwrap();
    }
    // A service that deletes its consumer of the feed begins again with the oldest event.
    let again = || async {
        let program = language.program("roles");
        let user = Role::Feed.name();
        let results = printed(stack, Role::Feed, program, &[user, conversation], "").await;
        for (call, result) in results.as_object().unwrap() {
            anyhow::ensure!(*result == expected(call), "{call}: {result}");
        }
        Ok(())
    };
    for _ in 0..2 {
        eventually(PATIENCE, "the consumer is made again", again)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_calls_of_nats_js_and_nats_py_work_within_each_role() {
    let (stack, conversation) = stack().await;
    for content in ["one", "two", "three"] {
        let path = format!("/conversations/{conversation}/messages");
        post(&stack, 0, "alice", &path, &json!({ "content": content })).await;
    }
    for language in Language::ALL {
        calls(&stack, &conversation, language).await;
    }
}

/// The block of that language with this place in `proto/README.md`, from 0.
pub fn block(language: &str, place: usize) -> String {
    let text = std::fs::read_to_string(repository().join("proto/README.md")).unwrap();
    let fence = format!("```{language}\n");
    let from = text
        .split(&fence)
        .nth(place + 1)
        .unwrap_or_else(|| panic!("no {language} in proto/README.md"));
    from.split("\n```").next().unwrap().to_owned() + "\n"
}

/// A folder with one program of the document, beside the packages that it imports.
pub fn program(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let packages = repository().join("services/harness/js/node_modules");
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

async fn emits(stack: &Stack, conversation: &str, program: Command, id: &str, seq: u64) {
    let outcome = printed(
        stack,
        Role::Emitter,
        program,
        &[conversation, id, "from the document"],
        "",
    )
    .await;
    assert_eq!(outcome["id"], id, "{outcome}");
    assert_eq!(outcome["accepted"]["seq"], seq, "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_the_document_send_a_message() {
    let (stack, conversation) = stack().await;
    let (_node, path) = program("emit.mjs", &block("js", 0));
    emits(&stack, &conversation, Language::Node.file(&path), "node-1", 1).await;
    let (_python, path) = program("emit.py", &block("py", 0));
    emits(&stack, &conversation, Language::Python.file(&path), "python-1", 2).await;

    let example = std::fs::read_to_string(repository().join("services/bus/examples/emit.rs")).unwrap();
    assert!(
        example.ends_with(&block("rust", 0)),
        "services/bus/examples/emit.rs is not what proto/README.md shows"
    );
    let built = Kind::Gateway.binary().unwrap().with_file_name("examples/emit");
    assert!(
        built.is_file(),
        "build it: cargo build --workspace --example emit"
    );
    emits(&stack, &conversation, Command::new(built), "rust-1", 3).await;

    let (go, _) = program("main.go", &block("go", 0));
    for step in [&["mod", "init", "emit"][..], &["mod", "tidy"]] {
        let mut command = Command::new("go");
        command.args(step).current_dir(go.path()).kill_on_drop(true);
        let done = tokio::time::timeout(PATIENCE, command.output()).await;
        if !done.is_ok_and(|done| done.is_ok_and(|output| output.status.success())) {
            eprintln!("no Go toolchain here, or no proxy for modules: the program for Go is NOT checked");
            return;
        }
    }
    let mut command = Command::new("go");
    command.args(["run", "."]).current_dir(go.path());
    emits(&stack, &conversation, command, "go-1", 4).await;
}

/// What `make proto-clients` makes.
async fn types() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut generate = Command::new(repository().join("proto/clients/generate"));
    let done = generate.arg(folder.path()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, done)
        .await
        .expect("the types are generated in time")
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generated_types_send_a_message_and_read_its_outcome_and_event() {
    let types = types().await;
    let folder = types.path().to_str().unwrap();
    let (stack, conversation) = stack().await;
    let (_, password) = stack.credentials(Role::Feed);
    let arguments = [folder, &password, &conversation];
    for (language, name, seq) in [
        (Language::Node, "types", 1),
        (Language::Python, "types_of_the_bus", 2),
    ] {
        let found = printed(&stack, Role::Emitter, language.program(name), &arguments, "").await;
        let content = format!("as protobuf from {}", language.name());
        let event = match language {
            Language::Node => "messageCreated",
            Language::Python => "message_created",
        };
        let expected = json!({ "outcome": "accepted", "seq": seq, "event": event, "content": content });
        assert_eq!(found, expected);
    }
}
