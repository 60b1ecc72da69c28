//! What persistence is asked: partitions, streams.

use parlance_proto::v1::{GetLag, Lag, ListPartitions, Partitions, StreamLag, ops, ops_reply};
use serde_json::{Value, json};

use crate::ask::{Operator, refused};
use crate::cli::Verdict;
use crate::show::{Table, print};

/// `partitions`.
pub async fn partitions(operator: &Operator) -> anyhow::Result<Verdict> {
    let asked = ops::Body::ListPartitions(ListPartitions {});
    let partitions = match operator.persistence(asked).await? {
        ops_reply::Body::Partitions(Partitions { partitions }) => partitions,
        body => return Err(refused(body)),
    };
    let mut table = Table::new([
        "PARTITION",
        "OWNER",
        "EPOCH",
        "LEASE MS",
        "PULLED",
        "WAITING",
        "IN WORK",
    ]);
    let mut all = Vec::new();
    let mut worked = true;
    for one in &partitions {
        let owned = !one.owner.is_empty() && one.expires_in_ms > 0;
        worked &= owned;
        let owner = if owned { one.owner.as_str() } else { "-" };
        table.row([
            one.partition.to_string(),
            owner.to_owned(),
            one.epoch.to_string(),
            one.expires_in_ms.to_string(),
            if one.pulled { "yes" } else { "no" }.to_owned(),
            one.waiting.to_string(),
            one.in_work.to_string(),
        ]);
        all.push(json!({
            "partition": one.partition, "owner": owned.then_some(owner), "epoch": one.epoch,
            "expires_in_ms": one.expires_in_ms, "pulled": one.pulled, "waiting": one.waiting,
            "in_work": one.in_work,
        }));
    }
    print(operator.json, &Value::Array(all), &table)?;
    Ok(if worked { Verdict::Done } else { Verdict::No })
}

/// `lag`.
pub async fn lag(operator: &Operator) -> anyhow::Result<Verdict> {
    let streams = match operator.persistence(ops::Body::GetLag(GetLag {})).await? {
        ops_reply::Body::Lag(Lag { streams }) => streams,
        body => return Err(refused(body)),
    };
    let mut table = Table::new([
        "STREAM",
        "MESSAGES",
        "BYTES",
        "CONSUMER",
        "WAITING",
        "IN WORK",
        "REDELIVERED",
    ]);
    for stream in &streams {
        rows(&mut table, stream);
    }
    let all: Vec<Value> = streams.iter().map(shown).collect();
    print(operator.json, &Value::Array(all), &table)?;
    Ok(Verdict::Done)
}

fn rows(table: &mut Table, stream: &StreamLag) {
    let dash = || "-".to_owned();
    let (messages, bytes) = if stream.exists {
        (stream.messages.to_string(), stream.bytes.to_string())
    } else {
        ("missing".to_owned(), dash())
    };
    if stream.consumers.is_empty() {
        table.row([
            stream.stream.clone(),
            messages,
            bytes,
            dash(),
            dash(),
            dash(),
            dash(),
        ]);
        return;
    }
    for consumer in &stream.consumers {
        table.row([
            stream.stream.clone(),
            messages.clone(),
            bytes.clone(),
            consumer.consumer.clone(),
            consumer.waiting.to_string(),
            consumer.in_work.to_string(),
            consumer.redelivered.to_string(),
        ]);
    }
}

fn shown(stream: &StreamLag) -> Value {
    let consumers: Vec<Value> = stream
        .consumers
        .iter()
        .map(|one| {
            json!({
                "consumer": one.consumer, "waiting": one.waiting, "in_work": one.in_work,
                "redelivered": one.redelivered,
            })
        })
        .collect();
    json!({
        "stream": stream.stream, "exists": stream.exists, "messages": stream.messages, "bytes": stream.bytes,
        "first_seq": stream.first_seq, "last_seq": stream.last_seq, "consumers": consumers,
    })
}
