//! The stack itself: starts, survives kills, keeps data, leaves nothing behind.

use std::time::Duration;

use anyhow::Context as _;
use parlance_harness::Stack;
use parlance_harness::devstack::identity::Identity;
use parlance_harness::eventually::{equal, eventually};

const SOON: Duration = Duration::from_secs(20);

async fn servers() -> Stack {
    Stack::builder().servers_only().start().await.unwrap()
}

async fn jetstream_messages(stack: &Stack) -> anyhow::Result<u64> {
    let page = reqwest::get(format!("{}/jsz", stack.nats().internal_url())).await?;
    let page: serde_json::Value = page.json().await?;
    Ok(page["config"]["max_storage"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_rows_survive_a_killed_postgres() {
    let stack = servers().await;
    let database = stack.database().await.unwrap();
    sqlx::query("CREATE TABLE kept (id int)")
        .execute(&database)
        .await
        .unwrap();
    sqlx::query("INSERT INTO kept SELECT generate_series(1, 1000)")
        .execute(&database)
        .await
        .unwrap();
    let before = stack.postgres().pid().unwrap();

    stack.postgres().kill();
    assert!(!stack.postgres().is_ready().await);
    stack.postgres().start().await.unwrap();

    assert_ne!(stack.postgres().pid(), Some(before));
    let rows = || async {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM kept")
            .fetch_one(&database)
            .await?;
        anyhow::Ok(count)
    };
    let count = eventually(SOON, "the pool finds the server again", rows)
        .await
        .unwrap();
    assert_eq!(count, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_comes_back_on_its_port_with_jetstream() {
    let stack = servers().await;
    let url = stack.nats_url().to_owned();
    assert!(jetstream_messages(&stack).await.unwrap() > 0);
    stack.nats().restart().await.unwrap();
    assert_eq!(stack.nats_url(), url);
    assert!(stack.nats().is_ready().await);
    assert!(jetstream_messages(&stack).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_lives_but_does_not_answer() {
    let stack = servers().await;
    for process in [stack.postgres(), stack.nats()] {
        process.pause();
        assert!(process.pid().is_some());
        assert!(
            !process.is_ready().await,
            "{} answers although paused",
            process.name()
        );
        process.resume();
        process.wait_ready(SOON).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stacks_started_at_once_do_not_disturb_each_other() {
    let (one, two, three) = tokio::join!(servers(), servers(), servers());
    let urls = [one.database_url(), two.database_url(), three.database_url()];
    for stack in [&one, &two, &three] {
        let database = stack.database().await.unwrap();
        sqlx::query("CREATE TABLE own (id int)")
            .execute(&database)
            .await
            .unwrap();
        assert_eq!(urls.iter().filter(|url| **url == stack.database_url()).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_stack_leaves_no_process_and_no_file() {
    let stack = servers().await;
    let folder = stack.folder().to_path_buf();
    let pool = stack.database().await.unwrap();
    let mut family: Vec<_> = [stack.postgres(), stack.nats()]
        .iter()
        .filter_map(|process| process.pid())
        .collect();
    family.extend(parlance_harness::devstack::identity::descendants(
        stack.postgres().pid().unwrap(),
    ));
    let family: Vec<_> = family.into_iter().filter_map(Identity::of).collect();
    assert!(family.len() > 4, "Postgres has several processes of its own");
    stack.postgres().pause();

    drop(stack);

    drop(pool);
    let left = || async { equal(family.iter().filter(|process| process.is_alive()).count(), &0) };
    eventually(SOON, "no process left", left).await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_serve_on_ports_of_their_own_and_come_back_on_them() {
    let stack = Stack::builder().gateways(2).persistence(2).start().await.unwrap();
    // A gateway is ready only once persistence answers it.
    let replicas = || stack.persistence_replicas().iter().chain(stack.gateways());
    let mut urls: Vec<_> = replicas()
        .flat_map(|replica| [replica.base_url(), replica.internal_url()])
        .collect();
    urls.sort_unstable();
    urls.dedup();
    assert_eq!(
        urls.len(),
        6,
        "two addresses per gateway, one per persistence replica: {urls:?}"
    );

    replicas().for_each(|replica| replica.kill());
    assert!(replicas().all(|replica| replica.pid().is_none()));
    for replica in replicas() {
        replica.start().await.unwrap();
    }
    stack.wait_ready().await.unwrap();

    stack.gateway(0).terminate();
    let status = stack.gateway(0).wait_exit(SOON).await.unwrap();
    assert!(
        status.code().is_some(),
        "a gateway that is asked to end does so itself: {status}"
    );
}

/// How many requests the balancer has handed to each gateway.
async fn shares(stack: &Stack) -> anyhow::Result<[u64; 2]> {
    let page = reqwest::get(stack.balancer().internal_url())
        .await?
        .text()
        .await?;
    let share = |server: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("gateways,{server},")));
        let total = line?.split(',').nth(7)?;
        total.parse().ok()
    };
    let both = share("gateway-1").zip(share("gateway-2"));
    both.map(Into::into).context("no such line")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balancer_goes_round_and_leaves_out_who_is_away() {
    let stack = Stack::builder().gateways(2).balanced().start().await.unwrap();
    let http = reqwest::Client::new();
    let handshake = format!(
        "{}/socket.io/?EIO=4&transport=polling",
        stack.balancer().base_url()
    );
    let ten_are_served = || async {
        let before = shares(&stack).await?;
        for _ in 0..10 {
            let status = http.get(&handshake).send().await?.status();
            equal(status.as_u16(), &200).map_err(anyhow::Error::msg)?;
        }
        let after = shares(&stack).await?;
        anyhow::Ok([after[0] - before[0], after[1] - before[1]])
    };
    assert_eq!(ten_are_served().await.unwrap(), [5, 5]);
    for (away, wanted) in [(0, [0, 10]), (1, [10, 0])] {
        stack.gateway(away).kill();
        let one_serves_all = || async { equal(ten_are_served().await?, &wanted).map_err(anyhow::Error::msg) };
        eventually(SOON, "the other one serves all", one_serves_all)
            .await
            .unwrap();
        stack.gateway(away).start().await.unwrap();
        let both_serve = || async { equal(ten_are_served().await?, &[5, 5]).map_err(anyhow::Error::msg) };
        eventually(SOON, "both serve again", both_serve).await.unwrap();
    }
    stack.balancer().kill();
    assert!(!stack.balancer().is_ready().await);
    stack.balancer().start().await.unwrap();
}
