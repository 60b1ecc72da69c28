//! Lets a specification kill, pause and start the processes of its stack, and ask the database: one order a
//! line, one answer a line.
//!
//! Orders: `kill|pause|resume|terminate|hang-up|start|wait-exit <process>`, `start <process> <failpoints>`,
//! `sql <query of one number>`. Processes are `gateway-1`, `persistence-2`, `nats`, `postgres`.

use std::time::Duration;

use anyhow::{Context, bail};
use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::spec::{Transport, outcome};

const EXIT_LIMIT: Duration = Duration::from_secs(30);

/// [`outcome`] over WebSocket with a director that the specification finds in `PARLANCE_DIRECTOR`. `points` are
/// the failpoints of the whole stack; a process that is started with others keeps them.
pub async fn directed(stack: &Stack, name: &str, pattern: &str, points: &str) -> Result<String, String> {
    directed_with(stack, name, pattern, points, &[]).await
}

/// [`directed`] with further variables.
pub async fn directed_with(
    stack: &Stack,
    name: &str,
    pattern: &str,
    points: &str,
    variables: &[(&str, String)],
) -> Result<String, String> {
    directed_over(stack, name, Transport::Websocket, pattern, points, variables).await
}

/// [`directed_with`] over any transport.
pub async fn directed_over(
    stack: &Stack,
    name: &str,
    transport: Transport,
    pattern: &str,
    points: &str,
    variables: &[(&str, String)],
) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut variables = variables.to_vec();
    variables.push(("PARLANCE_DIRECTOR", port.to_string()));
    tokio::select! {
        outcome = outcome(stack, name, transport, &variables, pattern) => outcome,
        () = direct(stack, &listener, points) => unreachable!("a director works until it is dropped"),
    }
}

async fn direct(stack: &Stack, listener: &TcpListener, points: &str) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        if let Err(error) = take_order(stack, stream, points).await {
            println!("an order was not carried out: {error:#}");
        }
    }
}

async fn take_order(stack: &Stack, stream: TcpStream, points: &str) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let answer = match carry_out(stack, line.trim(), points).await {
        Ok(answer) => answer,
        Err(error) => format!("error: {}", format!("{error:#}").replace('\n', " | ")),
    };
    Ok(stream.write_all(format!("{answer}\n").as_bytes()).await?)
}

async fn carry_out(stack: &Stack, line: &str, points: &str) -> anyhow::Result<String> {
    let (order, rest) = line.split_once(' ').context("an order without an object")?;
    if order == "sql" {
        let number: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(rest))
            .fetch_one(&stack.database().await?)
            .await?;
        return Ok(number.to_string());
    }
    let (name, further) = rest.split_once(' ').unwrap_or((rest, ""));
    let process = process(stack, name)?;
    match order {
        "kill" => process.kill(),
        "pause" => process.pause(),
        "resume" => process.resume(),
        "terminate" => process.terminate(),
        "hang-up" => process.hang_up(),
        "wait-exit" => drop(process.wait_exit(EXIT_LIMIT).await?),
        "start" if further.is_empty() => process.start().await?,
        "start" => {
            let all = format!("{points};{further}");
            process.start_with(&[("PARLANCE_FAILPOINTS", &all)]).await?;
        }
        _ => bail!("no such order: {order}"),
    }
    Ok("done".into())
}

fn process<'a>(stack: &'a Stack, name: &str) -> anyhow::Result<&'a Process> {
    let services = stack.gateways().iter().chain(stack.persistence_replicas());
    services
        .chain([stack.nats(), stack.postgres()])
        .find(|process| process.name() == name)
        .with_context(|| format!("no process is called {name}"))
}
