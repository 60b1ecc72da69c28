//! What a service can have the bus repeat: stored events, into rooms they are not of.

use std::collections::HashSet;

use parlance_harness::Stack;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::spec::{Transport, run};

/// Marks what was sent into another room.
const ECHO: &str = "_INBOX.echo";

/// Sends each event that was committed into the rooms of all conversations known so far.
async fn echo(stack: &Stack) {
    let address = stack.nats_url().trim_start_matches("nats://");
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    stream
        .write_all(b"CONNECT {\"verbose\":false}\r\nSUB chat.evt.> 1\r\n")
        .await
        .unwrap();
    let mut known = HashSet::new();
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return;
        }
        if line.starts_with("PING") {
            stream.write_all(b"PONG\r\n").await.unwrap();
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(&"MSG"), Some(&subject), Some(size)) = (words.first(), words.get(1), words.last()) else {
            continue;
        };
        let mut payload = vec![0; size.parse::<usize>().unwrap() + 2];
        let is_echo = words.contains(&ECHO);
        let subject = subject.to_owned();
        stream.read_exact(&mut payload).await.unwrap();
        if is_echo {
            continue;
        }
        for other in known.iter().filter(|other| **other != subject) {
            let head = format!("PUB {other} {ECHO} {}\r\n", payload.len() - 2);
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&payload).await.unwrap();
        }
        known.insert(subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_other_conversations_are_shown_in_no_room() {
    let stack = Stack::builder().gateways(2).persistence(1).start().await.unwrap();
    tokio::select! {
        () = run(&stack, "foreign_events", Transport::Websocket) => {}
        () = echo(&stack) => panic!("NATS has closed the connection"),
    }
}
