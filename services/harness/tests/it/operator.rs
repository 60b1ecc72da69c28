//! The command `parlance` against a real stack: what it shows is so, and what it orders is done.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::time::Duration;

use parlance_bus::subject;
use parlance_harness::Stack;
use parlance_harness::devstack::accounts::Role;
use parlance_harness::devstack::service::Kind;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::token::Token;
use parlance_proto::ConversationId;
use parlance_proto::v1::{Actor, Command, MessageType, Push, SendMessage, SenderKind, command};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::accounts::push_service;
use crate::presence::{Watchers, post};
use crate::system_messages::Service;

const PATIENCE: Duration = Duration::from_secs(20);
const PARTITIONS: u16 = 16;
const CONTENT: &str = "words of alice";
const INCOMPLETE: i32 = 4;
const NO: i32 = 3;

/// Runs the command; `input` is its standard input.
async fn parlance(stack: &Stack, arguments: &[&str], input: &str) -> Output {
    let binary = Kind::Gateway.binary().unwrap().with_file_name("parlance");
    let (user, password) = stack.credentials(Role::Operator);
    let mut child = tokio::process::Command::new(binary)
        .args(arguments)
        .env_clear()
        .env("PARLANCE_NATS_URL", stack.nats_url())
        .env("PARLANCE_NATS_USER", user)
        .env("PARLANCE_NATS_PASSWORD", password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // A program that does not read it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("parlance {arguments:?} still runs"))
        .unwrap()
}

/// What it prints as JSON; it must succeed.
async fn shown(stack: &Stack, arguments: &[&str]) -> Value {
    let all: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
    let output = parlance(stack, &all, "").await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The line it fails with.
async fn fails(stack: &Stack, arguments: &[&str]) -> String {
    let output = parlance(stack, arguments, "").await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// All gateways and all reports of them are known.
async fn settled(stack: &Stack) {
    let database = stack.database().await.unwrap();
    let gateways = i64::try_from(stack.gateways().len()).unwrap();
    let known = || async {
        let reported: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM gateways WHERE lost_at IS NULL AND instance <> '00000000-0000-0000-0000-000000000000'",
        )
        .fetch_one(&database)
        .await?;
        let owned: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM partition_leases WHERE partition >= 0 AND expires_at > now()",
        )
        .fetch_one(&database)
        .await?;
        equal((reported, owned), &(gateways, i64::from(PARTITIONS))).map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "gateways and partitions", known)
        .await
        .unwrap();
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

async fn direct(stack: &Stack, user: &str, other: &str) -> String {
    let made = post(
        stack,
        0,
        user,
        "/conversations/direct",
        &json!({ "user_id": other }),
    )
    .await;
    made["id"].as_str().unwrap().to_owned()
}

/// Partitions and streams.
async fn assert_waiting(stack: &Stack) {
    let shared_out = || async {
        // It says so by its exit code where nobody works a partition yet.
        let output = parlance(stack, &["partitions", "--json"], "").await;
        let partitions: Value = serde_json::from_slice(&output.stdout)?;
        let partitions = list(&partitions);
        let owners: BTreeSet<_> = partitions.iter().map(|one| one["owner"].as_str()).collect();
        let pulled = partitions.iter().filter(|one| one["pulled"] == true).count();
        let all = usize::from(PARTITIONS);
        let seen = (partitions.len(), pulled, owners.len(), owners.contains(&None));
        equal(seen, &(all, all, 2, false)).map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "both replicas work partitions", shared_out)
        .await
        .unwrap();

    let lag = shown(stack, &["lag"]).await;
    let names: Vec<_> = list(&lag)
        .iter()
        .map(|one| one["stream"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["COMMANDS", "SYSTEM", "EVENTS", "CONTROL", "PUSH", "PUSH_PARKED"]
    );
    assert!(list(&lag).iter().all(|one| one["exists"] == true), "{lag}");
    assert_eq!(list(&lag[0]["consumers"]).len(), usize::from(PARTITIONS));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_rooms_partitions_and_lag_are_shown_as_they_are() {
    let stack = Stack::builder()
        .accounts()
        .gateways(2)
        .persistence(2)
        .start()
        .await
        .unwrap();
    let conversation = direct(&stack, "ann", "ben").await;
    let watchers = Watchers::start(
        &stack,
        &json!([
            { "user": "ann", "dialect": "native", "gateways": [0] },
            { "user": "ben", "dialect": "chats", "gateways": [1] },
        ]),
    );
    watchers.connected("ann", 1).await;
    watchers.connected("ben", 1).await;
    settled(&stack).await;
    let followed = || async {
        let rooms = shown(&stack, &["rooms", &conversation]).await;
        list(&rooms["followers"]).len() == 2
    };
    eventually(PATIENCE, "both follow the conversation", followed)
        .await
        .unwrap();

    let gateways = shown(&stack, &["connections"]).await;
    assert_eq!(list(&gateways).len(), 2, "{gateways}");
    let mut dialects = Vec::new();
    for gateway in list(&gateways) {
        assert_eq!(
            (&gateway["state"], &gateway["websocket"], &gateway["users"]),
            (&json!("ready"), &json!(1), &json!(1))
        );
        dialects.extend(gateway["dialects"].as_object().unwrap().keys().cloned());
    }
    dialects.sort();
    assert_eq!(dialects, ["chats", "native"]);

    let sessions = shown(&stack, &["connections", "ben"]).await;
    let [session] = list(&sessions) else {
        panic!("{sessions}")
    };
    assert_eq!(
        (&session["dialect"], &session["transport"]),
        (&json!("chats"), &json!("websocket"))
    );
    let none = shown(&stack, &["connections", "nobody"]).await;
    assert_eq!(list(&none).len(), 0);

    let rooms = shown(&stack, &["rooms"]).await;
    for gateway in list(&rooms) {
        assert!(gateway["rooms"].as_u64().unwrap() >= 1, "{rooms}");
    }
    let rooms = shown(&stack, &["rooms", &conversation]).await;
    assert_eq!(list(&rooms["gateways"]).len(), 2, "{rooms}");
    let mut followers: Vec<_> = list(&rooms["followers"])
        .iter()
        .map(|one| one["user_id"].as_str().unwrap())
        .collect();
    followers.sort_unstable();
    assert_eq!(followers, ["ann", "ben"]);

    assert_waiting(&stack).await;

    // For operators: a table with a line for each.
    let table = parlance(&stack, &["connections"], "").await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("GATEWAY"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_gateway_sends_its_clients_to_the_other_and_ends() {
    let stack = Stack::builder().accounts().gateways(2).start().await.unwrap();
    let watchers = Watchers::start(
        &stack,
        &json!([{ "user": "ann", "dialect": "native", "gateways": [0, 1] }]),
    );
    watchers.connected("ann", 1).await;
    settled(&stack).await;
    let sessions = shown(&stack, &["connections", "ann"]).await;
    let gateway = sessions[0]["gateway"].as_str().unwrap().to_owned();

    let refused = fails(&stack, &["drain", "gw-none", "--timeout", "1"]).await;
    assert!(
        refused.contains("gw-none") && refused.contains("parlance connections"),
        "{refused}"
    );
    let draining = shown(&stack, &["drain", &gateway]).await;
    assert_eq!(
        draining,
        json!({ "gateway": gateway, "draining": true, "before": false })
    );
    watchers.connected("ann", 2).await;
    let status = stack.gateway(0).wait_exit(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}");
    let moved = || async {
        let output = parlance(&stack, &["connections", "ann", "--json"], "").await;
        let sessions: Value = serde_json::from_slice(&output.stdout)?;
        anyhow::ensure!(
            list(&sessions).len() == 1 && sessions[0]["gateway"] != *gateway,
            "{sessions}"
        );
        Ok(())
    };
    eventually(PATIENCE, "ann is on the other gateway", moved)
        .await
        .unwrap();
    assert!(
        stack.gateway(1).pid().is_some(),
        "only the one that was named ended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_judged_as_clients_would_be() {
    let stack = Stack::builder().gateways(2).start().await.unwrap();
    settled(&stack).await;
    let check = async |token: String, code: i32| {
        let output = parlance(&stack, &["token", "check", "--json"], &format!("{token}\n")).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(list(&verdicts).len(), 2, "{verdicts}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(&token));
        verdicts
    };
    for verdict in list(&check(stack.token("ann"), 0).await) {
        assert_eq!(
            (&verdict["valid"], &verdict["user_id"]),
            (&json!(true), &json!("ann"))
        );
        assert!(verdict["expires_at"].as_i64().unwrap() > 0);
    }
    let late = Token::new("ann")
        .expires_in(-60)
        .sign(stack.jwt_secret())
        .unwrap();
    let forged = Token::new("ann")
        .sign("another secret of a sufficient length")
        .unwrap();
    for (token, reason) in [
        (late, "the token has expired"),
        (forged, "the token's signature is not valid"),
        ("no token at all".to_owned(), "the token is malformed"),
    ] {
        for verdict in list(&check(token, NO).await) {
            assert_eq!(
                (&verdict["valid"], &verdict["reason"]),
                (&json!(false), &json!(reason))
            );
        }
    }
    for entry in std::fs::read_dir(stack.folder().join("logs")).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(
            !String::from_utf8_lossy(&text).contains("eyJ"),
            "a token was logged"
        );
    }
}

/// A message as a gateway would hand it in.
fn message(conversation: &str, sender: &str) -> Command {
    Command {
        id: Uuid::from_u128(u128::from(sender.len() as u64) + 77).to_string(),
        reply_to: "gw-gone".to_owned(),
        actor: Some(Actor {
            user_id: sender.to_owned(),
            username: sender.to_owned(),
            kind: SenderKind::User.into(),
        }),
        conversation_id: conversation.to_owned(),
        issued_at_ms: 0,
        service: None,
        body: Some(command::Body::SendMessage(SendMessage {
            message_id: Uuid::from_u128(u128::from(sender.len() as u64) + 99).to_string(),
            r#type: MessageType::Text.into(),
            content: CONTENT.to_owned(),
            ..SendMessage::default()
        })),
    }
}

/// Publishes it on a partition that is not its conversation's, where it cannot be processed.
async fn misplace(service: &mut Service, command: &Command) {
    let id: ConversationId = command.conversation_id.parse().unwrap();
    let wrong = (subject::partition_of(id, PARTITIONS) + 1) % PARTITIONS;
    let subject = format!("chat.cmd.{wrong}.{id}");
    let stored = service
        .publish(&subject, Some(&command.id), None, &command.encode_to_vec())
        .await;
    assert_eq!(stored["stream"], "COMMANDS", "{stored}");
}

/// The ids of all dead letters, once there are so many.
async fn letters(stack: &Stack, count: usize) -> Vec<Value> {
    let parked = || async {
        let page = shown(stack, &["dead-letters", "list"]).await;
        let letters = list(&page["dead_letters"]).to_vec();
        anyhow::ensure!(letters.len() == count, "{} are parked", letters.len());
        Ok(letters)
    };
    let what = format!("{count} dead letters");
    let found = std::sync::Mutex::new(Vec::new());
    let look = || async {
        *found.lock().unwrap() = parked().await?;
        anyhow::Ok(())
    };
    eventually(PATIENCE, what, look).await.unwrap();
    found.into_inner().unwrap()
}

async fn messages(stack: &Stack, conversation: &str) -> Vec<String> {
    let id: Uuid = conversation.parse().unwrap();
    sqlx::query_scalar("SELECT sender_id FROM messages WHERE conversation_id = $1 ORDER BY seq")
        .bind(id)
        .fetch_all(&stack.database().await.unwrap())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_lands_when_it_is_replayed_once_and_only_for_who_may() {
    let stack = Stack::builder().gateways(1).start().await.unwrap();
    settled(&stack).await;
    let conversation = direct(&stack, "alice", "bob").await;
    let mut service = Service::connect(&stack).await;
    misplace(&mut service, &message(&conversation, "alice")).await;
    let first = letters(&stack, 1).await.remove(0);
    let id = first["id"].as_str().unwrap();
    assert_eq!(
        (&first["kind"], &first["code"]),
        (&json!("command"), &json!("unprocessable"))
    );

    let letter = shown(&stack, &["dead-letters", "show", id]).await;
    assert_eq!(
        (&letter["actor"], &letter["action"], &letter["conversation_id"]),
        (&json!("alice"), &json!("send_message"), &json!(conversation))
    );
    assert!(!letter.to_string().contains(CONTENT), "{letter}");
    let letter = shown(&stack, &["dead-letters", "show", id, "--content"]).await;
    assert!(letter["payload"].as_str().unwrap().contains(CONTENT), "{letter}");

    assert_eq!(messages(&stack, &conversation).await, Vec::<String>::new());
    let replayed = shown(&stack, &["dead-letters", "replay", id]).await;
    let home = subject::command(conversation.parse().unwrap(), PARTITIONS);
    assert_eq!(replayed["replayed_to"], json!([home]));
    let landed = || async { messages(&stack, &conversation).await == ["alice"] };
    eventually(PATIENCE, "the message is stored", landed)
        .await
        .unwrap();
    letters(&stack, 0).await;
    let gone = fails(&stack, &["dead-letters", "replay", id]).await;
    assert!(gone.contains("no such dead letter"), "{gone}");

    // The same command once more, and that of someone who may not write there.
    misplace(
        &mut service,
        &Command {
            issued_at_ms: 1,
            service: None,
            id: Uuid::from_u128(5).to_string(),
            ..message(&conversation, "alice")
        },
    )
    .await;
    letters(&stack, 1).await;
    misplace(&mut service, &message(&conversation, "mallory")).await;
    for letter in letters(&stack, 2).await {
        shown(
            &stack,
            &["dead-letters", "replay", letter["id"].as_str().unwrap()],
        )
        .await;
    }
    // What comes after both shows that they were dealt with.
    let path = format!("/conversations/{conversation}/messages");
    let sent = post(&stack, 0, "bob", &path, &json!({ "content": "after" })).await;
    assert!(
        sent["id"].is_string() || sent["message"]["id"].is_string(),
        "{sent}"
    );
    assert_eq!(messages(&stack, &conversation).await, ["alice", "bob"]);
    letters(&stack, 0).await;
}

/// Parks something as a service would have.
async fn park(stack: &Stack, subject: &str, message_id: Option<&str>, payload: &[u8]) -> String {
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO dead_letters (id, subject, command_id, payload, error_code, error)
         VALUES (gen_random_uuid(), $1, $2, $3, 'unavailable', 'for a test') RETURNING id",
    )
    .bind(subject)
    .bind(message_id)
    .bind(payload)
    .fetch_one(&stack.database().await.unwrap())
    .await
    .unwrap();
    id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_services_and_pushes_are_replayed_as_what_they_were() {
    let stack = Stack::builder().accounts().start().await.unwrap();
    settled(&stack).await;
    let conversation = direct(&stack, "alice", "bob").await;
    let system = format!("chat.system.{conversation}");
    // The same message, parked twice.
    for _ in 0..2 {
        let payload = json!({ "sender_id": "shop", "content": "sent on" }).to_string();
        let id = park(&stack, &system, Some("order-7"), payload.as_bytes()).await;
        shown(&stack, &["dead-letters", "replay", &id]).await;
    }
    let landed = || async { messages(&stack, &conversation).await == ["service:shop"] };
    eventually(PATIENCE, "the message is stored", landed)
        .await
        .unwrap();

    let bus = push_service(&stack).await;
    let bound = || async { bus.pushes().await };
    let mut feed = eventually(PATIENCE, "the consumer of pushes", bound)
        .await
        .unwrap();
    let push = Push {
        recipient_ids: vec!["somebody".to_owned()],
        ..Push::default()
    };
    let subject = format!("chat.push.{conversation}");
    let id = park(&stack, &subject, None, &push.encode_to_vec()).await;
    let replayed = shown(&stack, &["dead-letters", "replay", &id]).await;
    assert_eq!(replayed["replayed_to"], json!([subject]));
    let taken = async {
        loop {
            let fed = feed.next_batch(1).await.unwrap().remove(0);
            fed.ack().await;
            if fed.push().unwrap() == push {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
    letters(&stack, 0).await;
    let stored = || async { messages(&stack, &conversation).await.len() };
    assert_eq!(stored().await, 1, "a repeat is no second message");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_paged_and_discarded_for_good() {
    let stack = Stack::builder().gateways(1).start().await.unwrap();
    settled(&stack).await;
    let mut service = Service::connect(&stack).await;
    for number in 0..3 {
        // Nobody says what its id is.
        let payload = format!("{{\"sender_id\":\"shop\",\"content\":\"{number}\"}}");
        let subject = format!("chat.system.{}", Uuid::from_u128(1));
        service
            .publish(&subject, None, Some("application/json"), payload.as_bytes())
            .await;
    }
    let all = letters(&stack, 3).await;
    let page = shown(&stack, &["dead-letters", "list", "--limit", "2"]).await;
    let cursor = page["cursor"].as_str().unwrap();
    let rest = shown(
        &stack,
        &["dead-letters", "list", "--limit", "2", "--cursor", cursor],
    )
    .await;
    let paged: Vec<_> = list(&page["dead_letters"])
        .iter()
        .chain(list(&rest["dead_letters"]))
        .cloned()
        .collect();
    assert_eq!((paged, &rest["cursor"]), (all.clone(), &Value::Null));

    let id = all[0]["id"].as_str().unwrap();
    let useless = fails(&stack, &["dead-letters", "replay", id]).await;
    assert!(useless.contains("Parlance-Message-Id"), "{useless}");
    let asked = fails(&stack, &["dead-letters", "discard", id]).await;
    assert!(asked.contains("--yes"), "{asked}");
    letters(&stack, 3).await;
    shown(&stack, &["dead-letters", "discard", id, "--yes"]).await;
    let left = letters(&stack, 2).await;
    assert!(left.iter().all(|letter| letter["id"] != id), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_an_error_that_says_what_to_check() {
    let stack = Stack::builder()
        .accounts()
        .gateways(2)
        .persistence(1)
        .start()
        .await
        .unwrap();
    settled(&stack).await;
    stack.persistence(0).kill();
    for command in [&["partitions"][..], &["lag"], &["dead-letters", "list"]] {
        let error = fails(&stack, &[command, &["--timeout", "1"]].concat()).await;
        assert!(
            error.contains("persistence does not answer") && error.contains("/readyz"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    // Gateways answer all the same, and it is said that there may be more.
    let output = parlance(&stack, &["connections", "--json"], "").await;
    assert_eq!(output.status.code(), Some(INCOMPLETE), "{output:?}");
    let gateways: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list(&gateways).len(), 2);
    stack.persistence(0).start().await.unwrap();
    stack.wait_ready().await.unwrap();
    settled(&stack).await;
    stack.gateway(1).pause();
    let output = parlance(&stack, &["connections", "--timeout", "1"], "").await;
    assert_eq!(output.status.code(), Some(INCOMPLETE), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("1 of 2 gateways answered"), "{said}");
    for gateway in stack.gateways() {
        gateway.kill();
    }
    let error = fails(&stack, &["connections", "--timeout", "1"]).await;
    assert!(error.contains("no gateway answers"), "{error}");
    stack.nats().kill();
    let error = fails(&stack, &["partitions", "--timeout", "1"]).await;
    assert!(
        error.contains("no connection to NATS") && error.contains("PARLANCE_NATS_URL"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_document_show_who_is_connected_and_say_so_where_nobody_is() {
    let stack = Stack::builder().accounts().gateways(1).start().await.unwrap();
    settled(&stack).await;
    let document = parlance_harness::devstack::repository().join("services/README.md");
    let text = std::fs::read_to_string(document).unwrap();
    let section = text.split("## Operators: `parlance`").nth(1).unwrap();
    let lines = section
        .split("```sh\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let built = lines.lines().filter(|line| !line.starts_with("cargo "));
    let script = built.collect::<Vec<_>>().join("\n");
    let binary = Kind::Gateway.binary().unwrap().with_file_name("parlance");
    let (_, password) = stack.credentials(Role::Operator);
    let script = script
        .replace("nats://127.0.0.1:4222", stack.nats_url())
        .replace("dev-only-operator", &password)
        .replace("target/release/parlance", binary.to_str().unwrap());
    let mut shell = tokio::process::Command::new("/bin/sh");
    let output = shell.args(["-ec", &script]).env_clear().output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].starts_with("GATEWAY") && lines[1..] == ["nobody"],
        "{printed}"
    );
}
