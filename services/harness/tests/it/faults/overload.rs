//! More work than can be done, and replicas that do not answer: what is asked is asked once, what cannot be answered in time
//! is refused at once, and all the rest is answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::join_all;
use parlance_harness::Stack;
use parlance_harness::eventually::eventually;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::metrics::{gauge, metric, sum};

const SOON: Duration = Duration::from_secs(15);
/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// Members that read, so many that none has as many reads under way as one user may.
const MEMBERS: usize = 400;
/// How many reads wait for the lock.
const READS: usize = 20;
/// What they may cost: a tenth more, and two hedges that were saved up before.
const MOST_EXECUTIONS: f64 = 24.0;
/// How long the most that is possible is measured.
const MEASURED: Duration = Duration::from_secs(4);
/// How long more is asked, and the part of it that counts: by then queries that nobody drops wait longer than anybody does.
const OVERLOAD: Duration = Duration::from_secs(14);
const COUNTED_FROM: Duration = Duration::from_secs(6);
/// How many times more.
const FACTOR: f64 = 3.0;
/// The part of that that must really be asked.
const OFFERED: f64 = 0.9;
/// What must be left of the most that is possible.
const GOODPUT: f64 = 0.8;
/// How soon it must be over.
const RECOVERED: Duration = Duration::from_secs(5);
/// An answer that waited for nothing.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Members of a group, one after the other, read its history: one user alone is held back before others notice.
#[derive(Clone)]
struct Reader {
    http: reqwest::Client,
    url: String,
    tokens: Arc<[String]>,
    next: Arc<AtomicUsize>,
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Read,
    /// With when to come again.
    Refused,
    /// Nobody would have waited so long.
    Late,
}

impl Reader {
    async fn of(stack: &Stack) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let (base, token) = (stack.gateway(0).base_url(), stack.token("alice"));
        let members: Vec<_> = (0..MEMBERS).map(|number| format!("member-{number}")).collect();
        let group = json!({"title": "Readers", "participant_ids": members});
        let create = || async {
            let request = http.post(format!("{base}/api/v1/conversations/group"));
            let request = request.bearer_auth(&token).json(&group);
            let body: Value = request.send().await?.error_for_status()?.json().await?;
            let id = body["id"].as_str().map(str::to_owned);
            id.ok_or_else(|| anyhow::anyhow!("no id in {body}"))
        };
        let id = eventually(SOON, "a conversation", create).await.unwrap();
        let url = format!("{base}/api/v1/conversations/{id}/messages");
        let sent = http
            .post(&url)
            .bearer_auth(&token)
            .json(&json!({"content": "hello"}));
        assert!(sent.send().await.unwrap().status().is_success());
        let tokens = members.iter().map(|member| stack.token(member)).collect();
        Self {
            http,
            url,
            tokens,
            next: Arc::default(),
        }
    }

    /// One read. Anything but an answer, or a refusal that says when to come again, is an error.
    async fn read(&self) -> anyhow::Result<Outcome> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.tokens.len();
        let request = self.http.get(&self.url).bearer_auth(&self.tokens[next]);
        let answer = match request.send().await {
            Err(error) if error.is_timeout() => return Ok(Outcome::Late),
            answer => answer?,
        };
        match answer.status() {
            StatusCode::OK => Ok(Outcome::Read),
            StatusCode::SERVICE_UNAVAILABLE => {
                let after = answer.headers().get(RETRY_AFTER);
                let seconds: u64 = after
                    .and_then(|after| after.to_str().ok()?.parse().ok())
                    .unwrap_or(0);
                ensure!(
                    (1..=10).contains(&seconds),
                    "503 without a Retry-After: {after:?}"
                );
                Ok(Outcome::Refused)
            }
            other => anyhow::bail!("{other}: {}", answer.text().await?),
        }
    }

    /// One read that is answered, and soon.
    async fn is_read_at_once(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let outcome = self.read().await?;
        ensure!(outcome == Outcome::Read, "refused");
        ensure!(begun.elapsed() < AT_ONCE, "after {:?}", begun.elapsed());
        Ok(())
    }

    /// Reads a second that `workers` can make together, each one after the other.
    async fn most(&self, workers: usize) -> f64 {
        let begun = Instant::now();
        let work = |_| async {
            let mut read = 0_u32;
            while begun.elapsed() < MEASURED {
                read += u32::from(self.read().await.unwrap() == Outcome::Read);
            }
            read
        };
        let read: u32 = join_all((0..workers).map(work)).await.into_iter().sum();
        f64::from(read) / begun.elapsed().as_secs_f64()
    }

    /// Asks so often a second, whatever becomes of it. Returns how many were answered a second in the time that counts, and
    /// how many had no answer for longer than any may take.
    async fn goodput(&self, rate: f64) -> anyhow::Result<(f64, usize)> {
        let begun = Instant::now();
        let ended = Arc::<Mutex<Vec<(Duration, anyhow::Result<Outcome>)>>>::default();
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        let mut under_way = Vec::new();
        while begun.elapsed() < OVERLOAD {
            tick.tick().await;
            let (reader, ended) = (self.clone(), Arc::clone(&ended));
            under_way.push(tokio::spawn(async move {
                let outcome = reader.read().await;
                ended.lock().unwrap().push((begun.elapsed(), outcome));
            }));
        }
        let offered = f64::from(u32::try_from(under_way.len())?) / begun.elapsed().as_secs_f64();
        ensure!(
            offered >= rate * OFFERED,
            "only {offered:.0} of {rate:.0} reads a second were asked"
        );
        let (mut answered, mut late) = (0_u32, 0);
        let ended = std::mem::take(&mut *ended.lock().unwrap());
        for (at, outcome) in ended {
            let outcome = outcome?;
            answered += u32::from(outcome == Outcome::Read && (COUNTED_FROM..OVERLOAD).contains(&at));
            late += usize::from(outcome == Outcome::Late);
        }
        for one in under_way {
            one.abort();
        }
        let counted = OVERLOAD - COUNTED_FROM;
        Ok((f64::from(answered) / counted.as_secs_f64(), late))
    }
}

/// Queries that a replica has carried out.
async fn asked(stack: &Stack, index: usize) -> anyhow::Result<f64> {
    metric(stack.persistence(index), "chat_persistence_query_seconds_count").await
}

/// Waits until the gateway knows both replicas and divides its queries among them.
async fn both_are_asked(stack: &Stack, reader: &Reader) {
    let both = || async {
        for _ in 0..10 {
            ensure!(reader.read().await? == Outcome::Read, "refused");
        }
        let (first, second) = (asked(stack, 0).await?, asked(stack, 1).await?);
        ensure!(first > 50.0 && second > 50.0, "{first} and {second} queries");
        Ok(())
    };
    eventually(SOON, "both replicas are asked", both).await.unwrap();
}

async fn executions(stack: &Stack) -> f64 {
    let count = "chat_persistence_query_seconds_count";
    sum(stack.persistence_replicas(), count, "name=\"list_messages\"")
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_for_a_lock_are_carried_out_once() {
    let stack = Stack::builder().persistence(2).start().await.unwrap();
    let reader = Reader::of(&stack).await;
    // A hedge needs another replica, and has a budget after so many queries.
    both_are_asked(&stack, &reader).await;
    let rows = stack.database().await.unwrap();
    let mut lock = rows.begin().await.unwrap();
    sqlx::query("LOCK TABLE messages")
        .execute(&mut *lock)
        .await
        .unwrap();
    let before = executions(&stack).await;
    let held = async {
        sqlx::query("SELECT pg_sleep(4.3)")
            .execute(&mut *lock)
            .await
            .unwrap();
        lock.rollback().await.unwrap();
    };
    let ((), reads) = tokio::join!(held, join_all((0..READS).map(|_| reader.read())));
    let refused = reads
        .into_iter()
        .filter(|read| *read.as_ref().unwrap() == Outcome::Refused);
    let refused = refused.count();
    let counted = || async {
        let executions = executions(&stack).await - before;
        ensure!(executions >= 20.0, "{executions}");
        Ok(executions)
    };
    let executions = eventually(SOON, "all are counted", counted).await.unwrap();
    println!("{READS} reads during a lock: {executions} executions, {refused} refused");
    assert!(
        executions <= MOST_EXECUTIONS,
        "{executions} executions of {READS} reads"
    );
    // The lock ends before their deadline; a machine that is busy may make some late.
    assert!(refused <= READS / 4, "{refused} of {READS} were refused");
    eventually(RECOVERED, "reads are answered at once", || {
        reader.is_read_at_once()
    })
    .await
    .unwrap();
}

/// Asks three times as much as the slowed down replica can do, with these flaws.
pub(crate) async fn goodput_under_overload(points: &str) -> anyhow::Result<()> {
    let points = format!("slow_reads=return;{points}");
    let stack = Stack::builder()
        .failpoints(&points)
        .persistence_env("PARLANCE_QUERIES_CONCURRENCY", 4)
        .start()
        .await?;
    let reader = Reader::of(&stack).await;
    let most = reader.most(8).await;
    let (goodput, late) = reader.goodput(most * FACTOR).await?;
    println!(
        "most {most:.0} reads a second, {goodput:.0} of {:.0}",
        most * FACTOR
    );
    ensure!(
        goodput >= most * GOODPUT,
        "goodput under overload: {goodput:.0} of at most {most:.0} a second"
    );
    ensure!(late == 0, "{late} had no answer within {PATIENCE:?}");
    eventually(RECOVERED, "recovery from overload", || reader.is_read_at_once()).await?;
    let shed = metric(stack.persistence(0), "chat_persistence_queries_shed_total").await?;
    ensure!(shed > 0.0, "nothing was shed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_the_load_leaves_the_goodput_and_is_over_at_once() {
    // What else the machine does may take from the one phase and not from the other.
    let mut outcome = Ok(());
    for _ in 0..3 {
        outcome = goodput_under_overload("").await;
        match &outcome {
            Ok(()) => break,
            Err(error) => println!("{error:#}"),
        }
    }
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_persistence_replica_fails_no_read() {
    let stack = Stack::builder().persistence(2).start().await.unwrap();
    let reader = Reader::of(&stack).await;
    both_are_asked(&stack, &reader).await;
    stack.persistence(0).pause();
    let read = |_| async {
        let begun = Instant::now();
        let outcome = reader.read().await.unwrap();
        (outcome, begun.elapsed())
    };
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        for (outcome, time) in join_all((0..8).map(read)).await {
            assert_eq!(outcome, Outcome::Read);
            slowest = slowest.max(time);
        }
    }
    println!("slowest read beside a paused replica: {slowest:?}");
    let silent = |count: f64| {
        let gateway = stack.gateway(0);
        move || async move {
            let silent = gauge(gateway, "chat_gateway_silent_replicas").await?;
            ensure!(silent == Some(count), "{silent:?}");
            Ok(())
        }
    };
    eventually(SOON, "the gateway knows that it does not answer", silent(1.0))
        .await
        .unwrap();
    for _ in 0..5 {
        for (outcome, time) in join_all((0..8).map(read)).await {
            assert!(
                outcome == Outcome::Read && time < AT_ONCE,
                "{outcome:?} after {time:?}"
            );
        }
    }
    stack.persistence(0).resume();
    eventually(SOON, "the gateway knows that it answers", silent(0.0))
        .await
        .unwrap();
    let before = asked(&stack, 0).await.unwrap();
    let again = || async {
        reader.read().await?;
        let now = asked(&stack, 0).await?;
        ensure!(now > before + 20.0, "{now} queries, {before} before");
        Ok(())
    };
    eventually(SOON, "it is asked again", again).await.unwrap();
}
