//! The suite must be able to fail: each known flaw of such systems, switched on in services that were built with the patches in
//! `services/harness/flaws`, breaks the test of the promise it breaks. Without a flaw all of these promises hold.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt as _;
use parlance_harness::Stack;
use parlance_harness::devstack::service::Kind;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::stack::StackBuilder;
use serde_json::{Value, json};

use crate::director::{directed, directed_with};
use crate::faults::overload;
use crate::flaws::flaws;
use crate::system_messages::Service;
use crate::{feed, redelivery};

const SOON: Duration = Duration::from_secs(15);
/// How long the specification waits for what cannot come.
const LESS_PATIENT: Duration = Duration::from_secs(15);
/// Longer than any test looks: what is missing then is not found by comparing.
const NEVER_COMPARE: u32 = 600_000;
/// Small enough to be filled in a moment.
const SMALL_STREAM: u32 = 1 << 20;

fn stack(points: &str, check_interval: u32) -> StackBuilder {
    Stack::builder()
        .gateways(2)
        .persistence(2)
        .failpoints(points)
        // Whoever waits for what cannot come waits less.
        .gateway_env("PARLANCE_SEND_TIMEOUT_MS", 4_000)
        .gateway_env("PARLANCE_ROOMS_CHECK_INTERVAL_MS", check_interval)
        // A client that does not read is to be noticed by what waits for it.
        .gateway_env("PARLANCE_SOCKET_WRITE_STALL_MS", 60_000)
        .gateway_env("PARLANCE_SOCKET_MAX_BACKLOG_BYTES", 1 << 20)
}

/// The test named `promise` fails for the reason that `complaint` names when `point` is switched on.
async fn is_caught(point: &str, check_interval: u32, promise: &str, complaint: &str) {
    let points = format!("{point}=return");
    let stack = stack(&points, check_interval).start().await.unwrap();
    let patience = [("PARLANCE_PATIENCE_MS", LESS_PATIENT.as_millis().to_string())];
    let outcome = directed_with(&stack, "faults/promises", promise, &points, &patience).await;
    let Err(text) = outcome else {
        panic!("the flaw {point} was not noticed by: {promise}");
    };
    assert!(
        text.contains(complaint),
        "{point}: failed for another reason than {complaint:?}:\n{text}"
    );
    println!("{point}: caught by {promise:?}");
}

macro_rules! caught {
    ($($test:ident: $point:literal, $interval:expr, $promise:literal, $complaint:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            is_caught($point, $interval, $promise, $complaint).await;
        }
    )*};
}

caught! {
    an_ack_on_acceptance_is_caught: "ack_on_accept", 2_000,
        "an ack is given for what is stored", "acked before it was stored";
    unknown_told_as_rejected_is_caught: "unknown_as_rejected", 2_000,
        "what may be stored is never called rejected", "called rejected and yet stored";
    repeats_swallowed_by_the_stream_are_caught: "dedup_by_stream", 2_000,
        "a repeat gets the first answer", "the repeat was not answered";
    client_ids_as_message_ids_of_the_bus_are_caught: "dedup_by_client_id", 2_000,
        "two people may use one client id", "the second was swallowed";
    seqs_from_the_clock_are_caught: "seq_by_time", 2_000,
        "seqs are given without a hole", "seqs have a hole";
    repeats_that_are_not_told_again_are_caught: "skip_republish", NEVER_COMPARE,
        "what was stored by a replica that died", "sees message:new";
    holes_that_are_skipped_are_caught: "skip_holes", 2_000,
        "an event lost on the bus is fetched", "a lost event left a hole";
    heads_that_are_not_compared_are_caught: "no_heads_check", 2_000,
        "the last event lost on the bus", "sees message:new";
    full_buffers_that_are_ignored_are_caught: "ignore_full_buffers", 2_000,
        "a client that reads too slowly", "it is closed, or told again";
    slow_clients_told_to_go_for_ever_are_caught: "disconnect_the_slow", 2_000,
        "a client that reads too slowly", "told to go for ever";
    membership_checked_only_at_join_is_caught: "members_at_join_only", 2_000,
        "who is removed is told nothing more", "shown what came after the removal";
    senders_named_by_payloads_are_caught: "trust_sender_id", 2_000,
        "a payload cannot name its sender", "believed who it said it was";
    repeats_counted_as_unread_are_caught: "unread_by_repeats", 2_000,
        "a message is unread once", "repeats were counted";
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_flaw_every_promise_holds() {
    let stack = stack("", 2_000).start().await.unwrap();
    let outcome = directed(&stack, "faults/promises", ".", "").await;
    match outcome {
        Ok(text) => println!("{text}"),
        Err(text) => panic!("{text}"),
    }
}

/// Which of these texts are in a program.
fn texts_in(program: PathBuf, texts: &BTreeSet<String>) -> BTreeSet<String> {
    let bytes = std::fs::read(program).unwrap();
    // Once over a large file.
    let mut by_first = vec![Vec::new(); 256];
    for text in texts {
        by_first[usize::from(text.as_bytes()[0])].push(text);
    }
    let mut found = BTreeSet::new();
    for (at, first) in bytes.iter().enumerate() {
        for text in &by_first[usize::from(*first)] {
            if bytes[at..].starts_with(text.as_bytes()) {
                found.insert((*text).clone());
            }
        }
    }
    found
}

/// What reads failpoints, and each flaw, is in the programs that were asked for it, and in no others.
#[test]
fn only_services_built_for_this_suite_have_failpoints_and_flaws() {
    let variable = "PARLANCE_FAILPOINTS".to_owned();
    let flaws: BTreeSet<String> = flaws().into_iter().map(|flaw| flaw.name).collect();
    let texts = &flaws | &BTreeSet::from([variable.clone()]);
    let mut built = BTreeSet::new();
    for kind in [Kind::Gateway, Kind::Persistence] {
        let others = texts_in(kind.binary().unwrap(), &texts);
        assert_eq!(others, BTreeSet::new(), "{kind:?} has failpoints or flaws");
        let faulty = texts_in(kind.faulty_binary().unwrap(), &texts);
        assert!(
            faulty.contains(&variable),
            "{kind:?} was built without failpoints"
        );
        built.extend(faulty);
    }
    assert_eq!(built, texts, "built without a flaw: run `make faulty`");
}

/// Publishes messages of a service while nobody stores them until one is refused; whether all that the stream
/// accepted are stored in the end.
async fn accepted_means_stored(points: &str) -> anyhow::Result<()> {
    let stack = stack(points, 2_000).persistence_env("PARLANCE_NATS_COMMANDS_MAX_BYTES", SMALL_STREAM);
    let stack = stack.start().await?;
    let conversation = a_conversation(&stack).await?;
    let mut service = Service::connect(&stack).await;
    // A replica that only stood still would have been handed messages that the stream then drops.
    for replica in stack.persistence_replicas() {
        replica.kill();
    }
    let content = "x".repeat(50_000);
    let mut accepted = 0;
    for number in 0..40 {
        let message = json!({"sender_id": "shop", "content": content}).to_string();
        let subject = format!("chat.system.{conversation}");
        let id = format!("order-{number}");
        let kind = Some("application/json");
        let answer = service
            .publish(&subject, Some(&id), kind, message.as_bytes())
            .await;
        accepted += i64::from(answer.get("error").is_none());
    }
    for replica in stack.persistence_replicas() {
        replica.start().await?;
    }
    let rows = stack.database().await?;
    let stored = || async {
        let query = sqlx::query_scalar("SELECT count(*) FROM messages WHERE sender_id = 'service:shop'");
        let count: i64 = query.fetch_one(&rows).await?;
        equal(count, &accepted).map_err(anyhow::Error::msg)
    };
    eventually(SOON, "what was accepted is stored", stored)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_and_drops_nothing() {
    accepted_means_stored("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_that_drops_the_oldest_is_caught() {
    let error = accepted_means_stored("discard_old=return").await.unwrap_err();
    assert!(
        error.to_string().contains("what was accepted is stored"),
        "{error:#}"
    );
}

/// Whether a command that nobody can read is kept for an operator, and the next one is carried out.
async fn poison_is_parked(points: &str) -> anyhow::Result<()> {
    let stack = stack(points, 2_000).start().await?;
    let conversation = a_conversation(&stack).await?;
    let mut service = Service::connect(&stack).await;
    for partition in 0..16 {
        let subject = format!("chat.cmd.{partition}.{conversation}");
        service
            .publish(&subject, None, None, b"\xff\x00 no command")
            .await;
    }
    let sent = reqwest::Client::new()
        .post(format!(
            "{}/api/v1/conversations/{conversation}/messages",
            stack.gateway(0).base_url()
        ))
        .bearer_auth(stack.token("alice"))
        .json(&json!({"content": "behind it"}))
        .send()
        .await?;
    anyhow::ensure!(
        sent.status().is_success(),
        "the next command failed: {}",
        sent.text().await?
    );
    let rows = stack.database().await?;
    let parked = || async {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&rows)
            .await?;
        equal(count, &16).map_err(anyhow::Error::msg)
    };
    eventually(SOON, "the poison is parked", parked).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_kept_and_holds_up_nobody() {
    poison_is_parked("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_that_is_dropped_is_caught() {
    let error = poison_is_parked("no_parking=return").await.unwrap_err();
    assert!(error.to_string().contains("the poison is parked"), "{error:#}");
}

/// Without it, what changed nothing or was refused would be carried out anew when it comes again.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_that_are_forgotten_are_caught() {
    let error = redelivery::changes_nothing("forget_outcomes=return")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("redelivery"), "{error:#}");
}

/// Without them a replica is busy with what nobody waits for any more.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_that_are_ignored_are_caught() {
    let error = overload::goodput_under_overload("ignore_deadlines=return")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("goodput under overload"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_feed_lacks_and_nobody_noted_is_caught() {
    let caught = AssertUnwindSafe(feed::catches_up("forget_gaps=return")).catch_unwind();
    let text = caught.await.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("what the feed lacks is noted"), "{text}");
}

async fn a_conversation(stack: &Stack) -> anyhow::Result<String> {
    let url = format!("{}/api/v1/conversations/direct", stack.gateway(0).base_url());
    let create = || async {
        let request = reqwest::Client::new()
            .post(&url)
            .bearer_auth(stack.token("alice"));
        let answer = request.json(&json!({"user_id": "bob"})).send().await?;
        let body: Value = answer.error_for_status()?.json().await?;
        let id = body["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| anyhow::anyhow!("no id in {body}"))
    };
    eventually(SOON, "a conversation", create).await
}
