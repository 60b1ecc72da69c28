//! Services whose answers stream: one message that grows, by offsets, whoever dies meanwhile.

use std::time::Duration;

use parlance_harness::Stack;
use parlance_harness::dev::demo_agent::demo_agent;
use parlance_harness::devstack::accounts::Role;
use parlance_harness::eventually::{equal, eventually};
use serde_json::{Value, json};

use crate::director::directed_with;
use crate::presence::post;
use crate::services::{Language, block, direct_conversation, message, parked, printed, program, publish};

const SOON: Duration = Duration::from_secs(15);

async fn stack(persistence: usize) -> (Stack, String) {
    let stack = Stack::builder()
        .gateways(2)
        .persistence(persistence)
        .accounts()
        .persistence_env("PARLANCE_INTAKE_STREAM_SILENCE_MS", 4_000)
        .start()
        .await
        .unwrap();
    let conversation = direct_conversation(&stack).await;
    (stack, conversation)
}

/// A step of a stream of the service `shop`.
fn step(conversation: &str, id: &str, step: &str, rest: Value) -> Value {
    let mut body = json!({ "sender_id": "shop", "sender_kind": "AGENT", "stream": step });
    body.as_object_mut()
        .unwrap()
        .extend(rest.as_object().cloned().unwrap_or_default());
    message(conversation, id, &body)
}

/// The stored text of each stream, how it ended (1: it has not), and how many rows and changes the conversation has.
async fn stored(stack: &Stack) -> Vec<(String, Option<i16>, bool)> {
    let database = stack.database().await.unwrap();
    sqlx::query_as("SELECT content, stream, deleted_at IS NOT NULL FROM messages ORDER BY seq")
        .fetch_all(&database)
        .await
        .unwrap()
}

/// What a reply says, in short.
fn short(result: &Value) -> String {
    let reply = &result["reply"];
    let outcome = match reply["refused"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None if reply["accepted"]["repeated"] == json!(true) => "repeated".to_owned(),
        None if reply["accepted"].is_object() => "accepted".to_owned(),
        None => format!("{result}"),
    };
    match reply["expected_offset"].as_u64() {
        Some(offset) => format!("{outcome} {offset}"),
        None => outcome,
    }
}

/// What one language's program hears, published all at once: nothing waits for the outcome of what came before.
async fn steps_are_answered(stack: &Stack, language: Language, conversation: &str) {
    let at = |offset: usize, content: &str| json!({ "offset": offset, "content": content });
    let id = format!("answer-{language:?}");
    let cancelled = format!("cancelled-{language:?}");
    let empty = format!("empty-{language:?}");
    let steps = [
        (step(conversation, &id, "APPEND", at(0, "early")), "not_found"),
        (
            step(conversation, &id, "START", json!({ "content": "Hé" })),
            "accepted 3",
        ),
        (step(conversation, &id, "APPEND", at(3, "llo")), "accepted 6"),
        (step(conversation, &id, "APPEND", at(3, "llo")), "repeated 6"),
        (step(conversation, &id, "APPEND", at(4, "lo, wor")), "accepted 11"),
        (step(conversation, &id, "APPEND", at(12, "?")), "conflict 11"),
        (
            step(conversation, &id, "APPEND", json!({ "content": "?" })),
            "invalid 11",
        ),
        (step(conversation, &id, "APPEND", at(10, "é")), "invalid 11"),
        (step(conversation, &id, "APPEND", at(11, "a\0b")), "invalid"),
        (
            step(conversation, &id, "APPEND", json!({ "offset": 99 })),
            "accepted 11",
        ),
        (
            step(conversation, &id, "START", json!({ "content": "Hé" })),
            "repeated 11",
        ),
        (step(conversation, &id, "FINISH", at(12, "")), "conflict 11"),
        (step(conversation, &id, "FINISH", at(11, "ld")), "accepted 13"),
        (step(conversation, &id, "FINISH", at(11, "ld")), "repeated 13"),
        (step(conversation, &id, "APPEND", at(11, "ld")), "repeated 13"),
        (step(conversation, &id, "APPEND", at(13, "!")), "conflict"),
        (step(conversation, &id, "CANCEL", json!({})), "conflict"),
        (step(conversation, &cancelled, "START", json!({})), "accepted 0"),
        (step(conversation, &cancelled, "FINISH", json!({})), "invalid 0"),
        (
            step(conversation, &cancelled, "APPEND", at(0, "half")),
            "accepted 4",
        ),
        (step(conversation, &cancelled, "CANCEL", json!({})), "accepted 4"),
        (step(conversation, &empty, "START", json!({})), "accepted 0"),
        (step(conversation, &empty, "CANCEL", json!({})), "accepted 0"),
        (step(conversation, &empty, "ELSE", json!({})), "invalid"),
    ];
    let messages: Vec<Value> = steps.iter().map(|(message, _)| message.clone()).collect();
    let results = publish(stack, language, &messages).await;
    for ((message, expected), result) in steps.iter().zip(&results) {
        assert_eq!(short(result), *expected, "{language:?}: {message} {result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_taken_once_by_its_offset_and_a_gap_is_refused_with_where_to_go_on() {
    let (stack, conversation) = stack(1).await;
    for language in Language::ALL {
        steps_are_answered(&stack, language, &conversation).await;
    }
    let finished = ("Héllo, world".to_owned(), Some(2), false);
    let (cancelled, empty) = (
        ("half".to_owned(), Some(3), false),
        (String::new(), Some(3), true),
    );
    let mut expected = vec![finished, cancelled, empty];
    expected.extend(expected.clone());
    assert_eq!(stored(&stack).await, expected);
    // Three messages and three ends of each language: one place in the sequence for each.
    let database = stack.database().await.unwrap();
    let (head, open): (i64, i64) =
        sqlx::query_as("SELECT max(head_seq), (SELECT count(*) FROM open_streams) FROM conversations")
            .fetch_one(&database)
            .await
            .unwrap();
    assert_eq!((head, open), (12, 0));
    // Only what cannot be read as a step is parked.
    let letters = parked(&stack).await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(
        letters.iter().all(|letter| letter.3.contains("stream must be")),
        "{letters:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_falls_silent_leaves_its_text_interrupted() {
    let (stack, conversation) = stack(2).await;
    let steps = [
        step(
            &conversation,
            "dies",
            "START",
            json!({ "content": "I was about to" }),
        ),
        step(
            &conversation,
            "dies",
            "APPEND",
            json!({ "offset": 14, "content": " say" }),
        ),
        step(&conversation, "mute", "START", json!({})),
    ];
    for result in publish(&stack, Language::Python, &steps).await {
        assert!(short(&result).starts_with("accepted"), "{result}");
    }
    let interrupted = || async {
        let expected = vec![
            ("I was about to say".to_owned(), Some(4), false),
            // Nothing is left of what never said anything.
            (String::new(), Some(4), true),
        ];
        equal(stored(&stack).await, &expected)
    };
    eventually(SOON, "both are interrupted", interrupted)
        .await
        .unwrap();
    let late = step(
        &conversation,
        "dies",
        "APPEND",
        json!({ "offset": 18, "content": "!" }),
    );
    let results = publish(&stack, Language::Node, &[late]).await;
    assert_eq!(short(&results[0]), "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_stream_than_the_settings_allow() {
    let stack = Stack::builder()
        .gateways(1)
        .accounts()
        .persistence_env("PARLANCE_INTAKE_STREAMS_PER_SERVICE", 3)
        .persistence_env("PARLANCE_INTAKE_STREAMS_PER_CONVERSATION", 2)
        .persistence_env("PARLANCE_INTAKE_STREAM_BYTES_PER_SECOND", 256)
        .persistence_env("PARLANCE_INTAKE_CONTENT_BYTES", 2_000)
        .start()
        .await
        .unwrap();
    let mut conversations = Vec::new();
    for user in ["bob", "carol"] {
        let created = post(
            &stack,
            0,
            "alice",
            "/conversations/direct",
            &json!({ "user_id": user }),
        )
        .await;
        conversations.push(created["id"].as_str().unwrap().to_owned());
    }
    let (first, second) = (&conversations[0], &conversations[1]);
    let long = "x".repeat(600);
    let steps = [
        (step(first, "1", "START", json!({})), "accepted 0"),
        (step(first, "2", "START", json!({})), "accepted 0"),
        (step(first, "3", "START", json!({})), "rate_limited"),
        (step(second, "4", "START", json!({})), "accepted 0"),
        (step(second, "5", "START", json!({})), "rate_limited"),
        (
            // More than may come at once: taken, and the next waits for longer.
            step(first, "1", "APPEND", json!({ "offset": 0, "content": long })),
            "accepted 600",
        ),
        (
            step(first, "1", "APPEND", json!({ "offset": 600, "content": long })),
            "rate_limited 600",
        ),
        (step(first, "1", "CANCEL", json!({})), "accepted 600"),
        (
            step(first, "2", "START", json!({ "content": "x".repeat(2_001) })),
            "too_large",
        ),
    ];
    let messages: Vec<Value> = steps.iter().map(|(message, _)| message.clone()).collect();
    let results = publish(&stack, Language::Python, &messages).await;
    for ((message, expected), result) in steps.iter().zip(&results) {
        assert_eq!(short(result), *expected, "{message} {result}");
    }
    // What ended makes room.
    let again = step(second, "5", "START", json!({}));
    let results = publish(&stack, Language::Python, &[again]).await;
    assert_eq!(short(&results[0]), "accepted 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_cannot_be_stored_are_refused_beyond_a_number_and_taken_later() {
    let stack = Stack::builder().gateways(1).accounts().start().await.unwrap();
    let conversation = direct_conversation(&stack).await;
    let start = step(&conversation, "1", "START", json!({}));
    let results = publish(&stack, Language::Python, &[start]).await;
    assert_eq!(short(&results[0]), "accepted 0");
    let database = stack.database().await.unwrap();
    let mut stalled = database.begin().await.unwrap();
    sqlx::query("SELECT FROM conversations FOR UPDATE")
        .execute(&mut *stalled)
        .await
        .unwrap();
    let append = |offset: usize| {
        step(
            &conversation,
            "1",
            "APPEND",
            json!({ "offset": offset, "content": "x" }),
        )
    };
    // The last is beyond what was taken: refused with where to go on, not for its gap.
    let steps: Vec<Value> = (0..130).map(append).collect();
    let results = publish(&stack, Language::Python, &steps).await;
    for (at, result) in results.iter().enumerate() {
        let expected = match at {
            0..128 => format!("accepted {}", at + 1),
            _ => "rate_limited 128".to_owned(),
        };
        assert_eq!(short(result), expected, "step {at}");
    }
    stalled.rollback().await.unwrap();
    let is_stored = || async { equal(stored(&stack).await, &vec![("x".repeat(128), Some(1), false)]) };
    eventually(SOON, "what was taken is stored", is_stored)
        .await
        .unwrap();
    let results = publish(&stack, Language::Python, &[append(128)]).await;
    assert_eq!(short(&results[0]), "accepted 129");
}

/// The NATS user of a service, for programs in JavaScript.
pub fn agent(stack: &Stack) -> Vec<(&'static str, String)> {
    let (user, password) = stack.credentials(Role::Emitter);
    vec![
        ("NATS_URL", stack.nats_url().to_owned()),
        ("NATS_USER", user.to_owned()),
        ("NATS_PASSWORD", password.to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_a_message_grow_late_ones_soon_and_may_stop_it() {
    let (stack, _) = stack(2).await;
    match directed_with(&stack, "streams", ".", "", &agent(&stack)).await {
        Ok(text) => println!("{text}"),
        Err(text) => panic!("{text}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn front_ends_are_shown_edits_where_the_settings_say_so() {
    let stack = Stack::builder()
        .gateways(2)
        .accounts()
        .gateway_env("PARLANCE_DIALECT_STREAMS", "edits")
        .start()
        .await
        .unwrap();
    match directed_with(&stack, "streams_by_edits", ".", "", &agent(&stack)).await {
        Ok(text) => println!("{text}"),
        Err(text) => panic!("{text}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_the_document_stream_a_message() {
    let (stack, conversation) = stack(1).await;
    let words = ["Ein", "Gruß", "aus", "dem", "Dokument"];
    let text = words.join(" ") + " ";
    for (language, fence, name) in [
        (Language::Node, "js", "answer.mjs"),
        (Language::Python, "py", "answer.py"),
    ] {
        let (_folder, path) = program(name, &block(fence, 1));
        let arguments: Vec<&str> = [conversation.as_str(), name].into_iter().chain(words).collect();
        let outcome = printed(&stack, Role::Emitter, language.file(&path), &arguments, "").await;
        assert_eq!(outcome["id"], name, "{outcome}");
        assert_eq!(outcome["expected_offset"], text.len(), "{outcome}");
        assert_eq!(outcome["accepted"]["repeated"], json!(false), "{outcome}");
    }
    let finished = (text, Some(2), false);
    assert_eq!(stored(&stack).await, [finished.clone(), finished]);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_in_rust_and_python_answer_in_a_conversation_of_two_dialects() {
    assert!(demo_agent().await.unwrap());
}
