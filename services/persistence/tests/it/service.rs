//! The running service: two replicas, real NATS, real Postgres.

use std::collections::HashMap;
use std::time::Duration;

use parlance_bus::subject::partition_of;
use parlance_bus::{Bus, ConnectSettings, Subscription, Tls};
use parlance_harness::{Stack, eventually};
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Command, Confirmation, ConfirmationBatch, ErrorCode, MessageType, command, confirmation,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::journals::{edit, journal};
use crate::works::{conversation, creation, poison, sending};

const PARTITIONS: u16 = 16;
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway as the service sees one.
struct Gateway {
    bus: Bus,
    confirmations: Subscription<ConfirmationBatch>,
    known: HashMap<String, Confirmation>,
}

impl Gateway {
    async fn connect(stack: &Stack) -> Self {
        let settings = ConnectSettings {
            url: stack.nats_url().into(),
            name: "tester".into(),
            inbox_prefix: "_INBOX".into(),
            user: String::new(),
            password: String::new(),
            credentials_file: String::new(),
            tls: Tls::default(),
        };
        let bus = Bus::connect(&settings).await.unwrap();
        bus.connected().await;
        let confirmations = bus.subscribe_confirmations("tester").await.unwrap();
        bus.flush().await.unwrap();
        Self {
            bus,
            confirmations,
            known: HashMap::new(),
        }
    }

    async fn send(&self, command: &Command) {
        self.bus
            .send_command(command, PARTITIONS, &command.id, Instant::now() + PATIENCE)
            .await
            .unwrap();
    }

    async fn confirmation(&mut self, command: &Command) -> Confirmation {
        loop {
            if let Some(known) = self.known.get(&command.id) {
                return known.clone();
            }
            let batch = timeout(PATIENCE, self.confirmations.next())
                .await
                .unwrap()
                .unwrap();
            self.known
                .extend(batch.confirmations.into_iter().map(|c| (c.command_id.clone(), c)));
        }
    }

    /// Sends and waits for the answer: a seq or an error.
    async fn ask(&mut self, command: &Command) -> Result<u64, ErrorCode> {
        self.send(command).await;
        match self.confirmation(command).await.result.unwrap() {
            confirmation::Result::Message(message) => Ok(message.seq),
            confirmation::Result::Conversation(conversation) => Ok(conversation.head_seq),
            confirmation::Result::Receipt(receipt) => Ok(receipt.version),
            confirmation::Result::Thread(thread) => Ok(thread.reply_count),
            confirmation::Result::Journal(journal) => Ok(journal.version),
            confirmation::Result::Error(error) => Err(error.code()),
        }
    }
}

/// Publishes as any program could, in the plain NATS protocol, and waits until the server has seen it.
async fn publish(stack: &Stack, subject: &str, headers: &[(&str, &str)], payload: &[u8]) {
    let address = stack.nats_url().trim_start_matches("nats://");
    let mut socket = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut head = String::from("NATS/1.0\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let command = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {subject} {} {}\r\n{head}",
        head.len(),
        head.len() + payload.len()
    );
    socket.write_all(command.as_bytes()).await.unwrap();
    socket.write_all(payload).await.unwrap();
    socket.write_all(b"\r\nPING\r\n").await.unwrap();
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        assert!(
            socket.read_line(&mut line).await.unwrap() > 0 && !line.starts_with("-ERR"),
            "{line}"
        );
    }
}

async fn becomes(stack: &Stack, sql: &'static str, expected: i64) {
    let pool = stack.database().await.unwrap();
    eventually(PATIENCE, sql, || async {
        let found: i64 = sqlx::query_scalar(sql)
            .fetch_one(&pool)
            .await
            .map_err(|e| e.to_string())?;
        parlance_harness::eventually::equal(found, &expected)
    })
    .await
    .unwrap();
}

async fn stack() -> Stack {
    Stack::builder().gateways(0).persistence(2).start().await.unwrap()
}

async fn number(stack: &Stack, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&stack.database().await.unwrap())
        .await
        .unwrap()
}

/// Every partition has an owner who holds at most its share.
async fn shared_by(stack: &Stack, replicas: i64, within: Duration) {
    let shares =
        "SELECT coalesce(array_agg(n ORDER BY n), '{}') FROM (SELECT count(*) AS n FROM partition_leases
                  WHERE partition >= 0 AND owner IS NOT NULL AND expires_at > now() GROUP BY owner) AS share";
    let pool = stack.database().await.unwrap();
    let share = i64::from(PARTITIONS) / replicas;
    let expected = vec![share; usize::try_from(replicas).unwrap()];
    eventually(within, "shares", || async {
        let shares: Vec<i64> = sqlx::query_scalar(shares)
            .fetch_one(&pool)
            .await
            .map_err(|e| e.to_string())?;
        parlance_harness::eventually::equal(shares, &expected)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn poison_is_parked_alone_and_everyone_else_is_served() {
    let stack = stack().await;
    let mut gateway = Gateway::connect(&stack).await;
    let id = conversation();
    assert_eq!(gateway.ask(&creation("alice", id, &["bob"])).await, Ok(0));
    let commands: Vec<Command> = (1..=40)
        .map(|n| match n {
            13 | 14 | 40 => poison("alice", id, &format!("m{n}")),
            _ => sending("alice", id, &format!("m{n}"), "good"),
        })
        .collect();
    for command in &commands {
        gateway.send(command).await;
    }
    let mut seqs = Vec::new();
    for command in &commands {
        match gateway.confirmation(command).await.result.unwrap() {
            confirmation::Result::Message(message) => seqs.push(message.seq),
            confirmation::Result::Error(error) => assert_eq!(error.code(), ErrorCode::Unprocessable),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seqs, (1..=37).collect::<Vec<_>>());
    assert_eq!(
        number(
            &stack,
            "SELECT count(*) FROM dead_letters WHERE error LIKE 'SQLSTATE 22%'"
        )
        .await,
        3
    );
    assert_eq!(number(&stack, "SELECT count(*) FROM messages").await, 37);
}

#[tokio::test]
async fn what_is_no_command_or_came_on_a_foreign_partition_is_parked_and_hinders_nobody() {
    let stack = stack().await;
    let mut gateway = Gateway::connect(&stack).await;
    let id = conversation();
    gateway.ask(&creation("alice", id, &["bob"])).await.unwrap();
    // A gateway with another number of partitions: the command comes where it does not belong.
    let foreign = |id: &ConversationId| partition_of(*id, PARTITIONS) != partition_of(*id, 1);
    let strange = std::iter::repeat_with(conversation).find(foreign).unwrap();
    for partition in 0..PARTITIONS {
        publish(
            &stack,
            &format!("chat.cmd.{partition}.x"),
            &[],
            b"\xff no protobuf \0",
        )
        .await;
    }
    let lost = creation("alice", strange, &["bob"]);
    gateway
        .bus
        .send_command(&lost, 1, &lost.id, Instant::now() + PATIENCE)
        .await
        .unwrap();
    let answer = gateway.confirmation(&lost).await.result.unwrap();
    assert!(matches!(answer, confirmation::Result::Error(error) if error.code() == ErrorCode::Unprocessable));
    assert_eq!(gateway.ask(&sending("alice", id, "m1", "x")).await, Ok(1));
    becomes(
        &stack,
        "SELECT count(*) FROM dead_letters",
        i64::from(PARTITIONS) + 1,
    )
    .await;
    assert_eq!(number(&stack, "SELECT count(*) FROM conversations").await, 1);
}

#[tokio::test]
async fn a_service_s_message_is_stored_and_what_cannot_be_one_is_parked() {
    let stack = stack().await;
    let mut gateway = Gateway::connect(&stack).await;
    let id = conversation();
    gateway.ask(&creation("alice", id, &["bob"])).await.unwrap();
    let json: &[(&str, &str)] = &[
        ("Content-Type", "application/json"),
        ("Parlance-Message-Id", "order-17"),
    ];
    let body = br#"{"sender_id":"shop","sender_name":"The Shop","sender_kind":"AGENT","content":"shipped"}"#;
    publish(&stack, &format!("chat.system.{id}"), json, body).await;
    publish(
        &stack,
        "chat.system.user.bob",
        &[
            ("Content-Type", "application/json"),
            ("Parlance-Message-Id", "order-18"),
        ],
        body,
    )
    .await;
    becomes(
        &stack,
        "SELECT count(*) FROM messages WHERE sender_name = 'The Shop' AND sender_kind = 2",
        2,
    )
    .await;
    let before = number(&stack, "SELECT sum(head_seq)::bigint FROM conversations").await;
    publish(
        &stack,
        &format!("chat.system.{id}"),
        &[("Content-Type", "application/json")],
        body,
    )
    .await;
    publish(
        &stack,
        &format!("chat.system.{id}"),
        &[("Parlance-Message-Id", "order-19")],
        b"\xff",
    )
    .await;
    publish(
        &stack,
        "chat.system.nowhere",
        &[("Parlance-Message-Id", "order-20")],
        body,
    )
    .await;
    // Larger than those of users may be, and larger than the bus takes once it is a command.
    for (order, bytes) in [("order-21", 65_537), ("order-22", 960_000)] {
        let large = format!(r#"{{"sender_id":"shop","content":"{}"}}"#, "x".repeat(bytes));
        let headers = [
            ("Content-Type", "application/json"),
            ("Parlance-Message-Id", order),
        ];
        publish(&stack, &format!("chat.system.{id}"), &headers, large.as_bytes()).await;
    }
    becomes(
        &stack,
        "SELECT count(*) FROM dead_letters WHERE partition IS NULL",
        5,
    )
    .await;
    assert_eq!(
        number(&stack, "SELECT sum(head_seq)::bigint FROM conversations").await,
        before
    );
    assert_eq!(gateway.ask(&sending("bob", id, "m1", "thanks")).await, Ok(2));
    // Bob and the shop have a conversation of their own now.
    assert_eq!(
        number(
            &stack,
            "SELECT count(*) FROM conversations WHERE kind = 1 AND created_by = 'service:shop'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_killed_replica_s_partitions_go_over_in_time_and_in_order() {
    let stack = stack().await;
    shared_by(&stack, 2, PATIENCE).await;
    let mut gateway = Gateway::connect(&stack).await;
    // Enough conversations that both replicas work on some.
    let ids: Vec<_> = (0..12).map(|_| conversation()).collect();
    for &id in &ids {
        gateway.ask(&creation("alice", id, &["bob"])).await.unwrap();
    }
    let mut sent: Vec<Command> = Vec::new();
    for n in 1..=60 {
        for &id in &ids {
            let command = sending("alice", id, &format!("m{n}"), "x");
            gateway.send(&command).await;
            sent.push(command);
        }
        if n == 20 {
            stack.persistence(0).kill();
        }
    }
    shared_by(&stack, 1, Duration::from_secs(10)).await;
    // Confirmations of what was committed but not announced come with the redelivery.
    for command in &sent {
        assert!(matches!(
            gateway.confirmation(command).await.result,
            Some(confirmation::Result::Message(_))
        ));
    }
    let in_order = "SELECT count(*) FROM messages WHERE client_msg_id = 'm' || seq";
    assert_eq!(number(&stack, in_order).await, 12 * 60);
    stack.persistence(0).spawn().unwrap();
    stack.wait_ready().await.unwrap();
    shared_by(&stack, 2, Duration::from_secs(10)).await;
    // An orderly end leaves nothing to wait for.
    stack.persistence(1).terminate();
    shared_by(&stack, 1, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn sharing_a_journal_opens_it_for_the_members_before_the_message_is_done_with() {
    let stack = Stack::builder().gateways(0).start().await.unwrap();
    let mut gateway = Gateway::connect(&stack).await;
    let (chat, diary) = (conversation(), conversation());
    assert_eq!(gateway.ask(&creation("alice", chat, &["bob"])).await, Ok(0));
    assert_eq!(gateway.ask(&journal("alice", diary, "dear")).await, Ok(1));
    let edit = || edit("bob", diary, parlance_journal::EMPTY_UPDATE.to_vec());
    assert_eq!(gateway.ask(&edit()).await, Err(ErrorCode::NotFound));
    let mut sharing = sending("alice", chat, "m1", "");
    if let Some(command::Body::SendMessage(send)) = &mut sharing.body {
        send.r#type = MessageType::JournalShare.into();
        send.metadata_json = format!(r#"{{"journalId":"{diary}"}}"#);
    }
    assert_eq!(gateway.ask(&sharing).await, Ok(1));
    // Now he is a viewer: he may know the journal, not change it.
    let deadline = Instant::now() + PATIENCE;
    while gateway.ask(&edit()).await != Err(ErrorCode::Forbidden) {
        assert!(Instant::now() < deadline, "the journal stays closed");
    }
}

/// What the bus can never carry is no reason to do a command again and again.
#[tokio::test]
async fn what_cannot_be_confirmed_or_handed_in_ends_and_holds_up_nobody() {
    let stack = Stack::builder().gateways(0).start().await.unwrap();
    let mut gateway = Gateway::connect(&stack).await;
    let id = conversation();
    assert_eq!(gateway.ask(&creation("alice", id, &["bob"])).await, Ok(0));
    let mut nowhere = sending("alice", id, "m1", "for a gateway that cannot be");
    nowhere.reply_to = "no such gateway".into();
    gateway.send(&nowhere).await;
    // More than the bus takes, and less than NATS does.
    let name = "n".repeat(960_000);
    let large = format!(r#"{{"sender_id":"shop","sender_name":"{name}","content":"hi"}}"#);
    let kind = ("Content-Type", "application/json");
    let subject = format!("chat.system.{id}");
    publish(
        &stack,
        &subject,
        &[("Parlance-Message-Id", "large"), kind],
        large.as_bytes(),
    )
    .await;
    let small = br#"{"sender_id":"shop","content":"behind it"}"#;
    publish(&stack, &subject, &[("Parlance-Message-Id", "small"), kind], small).await;
    becomes(
        &stack,
        "SELECT count(*) FROM dead_letters WHERE command_id = 'large'",
        1,
    )
    .await;
    becomes(&stack, "SELECT count(*) FROM messages", 2).await;
    eventually(PATIENCE, "nothing waits any more", || async {
        let lag = gateway.bus.lag().await.map_err(|error| error.to_string())?;
        let waiting: u64 = lag
            .iter()
            .filter(|lag| lag.stream == "COMMANDS")
            .map(|lag| lag.messages)
            .sum();
        parlance_harness::eventually::equal(waiting, &0)
    })
    .await
    .unwrap();
}
