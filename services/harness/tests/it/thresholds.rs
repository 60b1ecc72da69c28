//! The largest that is legitimate: what one command on it takes and what memory the services need for it. Measures in
//! whatever build it is given (`PARLANCE_BIN_DIR`); run it by name.

use std::time::{Duration, Instant};

use parlance_harness::Stack;
use parlance_harness::bench::processes::memory;
use parlance_proto::v1::{self, Role, command};
use serde_json::{Value, json};

use crate::hostile::{Gateway, add, as_, conversation, group, of_all_partitions, send, services};

/// Members of the largest group: the setting `limits.group_members`.
const MEMBERS: usize = 10_000;
/// Users in one command.
const AT_ONCE: usize = 1_000;
/// Ranges of the largest read set.
const RANGES: usize = 2_000;
/// Bytes of the largest journal by default.
const JOURNAL: usize = 384 * 1024;
/// Commands of each kind.
const TIMES: usize = 20;

fn people(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|number| format!("person-{number:05}-of-the-largest-group"))
        .collect()
}

fn show(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{what}: median {median:.1?}, longest {longest:.1?} of {}",
        took.len()
    );
}

async fn timed<T>(took: &mut Vec<Duration>, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let outcome = work.await;
    took.push(began.elapsed());
    outcome
}

fn resident(stack: &Stack) -> String {
    format!("{:?} KiB", memory(&services(stack)))
}

async fn group_of_ten_thousand(stack: &Stack, gateway: &Gateway) {
    let id = conversation();
    let mut took = Vec::new();
    let first = group("alice", id, people(0..AT_ONCE - 1));
    timed(&mut took, gateway.ask(&first)).await.unwrap();
    show("group: create with 1,000", std::mem::take(&mut took));
    for from in (AT_ONCE..MEMBERS).step_by(AT_ONCE) {
        let command = add("alice", id, people(from - 1..from + AT_ONCE - 1));
        timed(&mut took, gateway.ask(&command)).await.unwrap();
    }
    show("group: add 1,000", std::mem::take(&mut took));
    for number in 0..TIMES {
        let command = send("alice", id, &format!("m{number}"));
        timed(&mut took, gateway.ask(&command)).await.unwrap();
    }
    show("group of 10,000: send", std::mem::take(&mut took));
    for who in people(0..TIMES) {
        let read = v1::MarkRead {
            message_ids: vec!["#12".into()],
            ..Default::default()
        };
        let command = as_(&who, id, command::Body::MarkRead(read));
        timed(&mut took, gateway.ask(&command)).await.ok();
    }
    show("group of 10,000: receipt", std::mem::take(&mut took));
    for who in people(0..TIMES) {
        let role = v1::ChangeRole {
            user_id: who.clone(),
            role: Role::Moderator.into(),
        };
        let role = as_("alice", id, command::Body::ChangeRole(role));
        timed(&mut took, gateway.ask(&role)).await.unwrap();
    }
    show("group of 10,000: role", std::mem::take(&mut took));
    for user_id in people(0..TIMES) {
        let remove = as_(
            "alice",
            id,
            command::Body::RemoveMember(v1::RemoveMember { user_id }),
        );
        timed(&mut took, gateway.ask(&remove)).await.unwrap();
    }
    show("group of 10,000: remove", std::mem::take(&mut took));
    let delete = as_(
        "alice",
        id,
        command::Body::DeleteConversation(v1::DeleteConversation {}),
    );
    timed(&mut took, gateway.ask(&delete)).await.unwrap();
    show("group of 10,000: delete", took);
    println!("after the group: {}", resident(stack));
}

async fn read_set(stack: &Stack, gateway: &Gateway) {
    let id = conversation();
    gateway
        .ask(&group("alice", id, vec!["bob".into()]))
        .await
        .unwrap();
    let mut sent = Vec::new();
    for number in 0..RANGES * 2 + 10 {
        sent.push(tokio::spawn({
            let (gateway, command) = (gateway.clone(), send("alice", id, &format!("m{number}")));
            async move { gateway.ask(&command).await.unwrap() }
        }));
        if sent.len() == 200 {
            futures::future::join_all(sent.drain(..)).await;
        }
    }
    futures::future::join_all(sent).await;
    let mut took = Vec::new();
    for from in (0..RANGES).step_by(100) {
        let read = v1::MarkRead {
            message_ids: (from..from + 100)
                .map(|nth| format!("#{}", nth * 2 + 3))
                .collect(),
            ..Default::default()
        };
        let command = as_("bob", id, command::Body::MarkRead(read));
        timed(&mut took, gateway.ask(&command)).await.ok();
    }
    show("read set up to 2,000 ranges: 100 more", took);
    println!("after the read set: {}", resident(stack));
}

async fn journal(stack: &Stack) {
    let http = reqwest::Client::new();
    let base = format!("{}/api/v1/journals", stack.gateway(0).base_url());
    let token = stack.token("alice");
    let paragraph = "What everyone can read, nobody has to remember. ";
    let mut text = paragraph.repeat(JOURNAL / paragraph.len());
    let new = json!({ "title": "The largest", "content": text });
    let answer = http
        .post(&base)
        .bearer_auth(&token)
        .json(&new)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let made: Value = answer.json().await.unwrap();
    let url = format!("{base}/{}", made["id"].as_str().unwrap());
    let mut took = Vec::new();
    for number in 0..TIMES {
        let place = number * text.len() / TIMES / 48 * 48;
        text.replace_range(place..place + 4, &format!("No{number:02}"));
        let edit = http
            .patch(&url)
            .bearer_auth(&token)
            .json(&json!({ "content": text }));
        let answer = timed(&mut took, edit.send()).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
    show("journal of 384 KiB: whole text over REST", took);
    println!("after the journal: {}", resident(stack));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn the_largest_of_each() {
    let stack = Stack::builder().gateways(1).persistence(1).start().await.unwrap();
    of_all_partitions(&stack, 1).await;
    let gateway = Gateway::connect(&stack).await;
    println!("before: {}", resident(&stack));
    group_of_ten_thousand(&stack, &gateway).await;
    read_set(&stack, &gateway).await;
    journal(&stack).await;
}
