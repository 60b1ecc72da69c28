//! The roles of `deploy/nats.conf`: a whole stack lives within them, and no role can do what is another's.

use std::time::Duration;

use parlance_bus::{Bus, ConnectSettings, Tls};
use parlance_harness::Stack;
use parlance_harness::devstack::accounts::Role;
use parlance_harness::eventually::{equal, eventually};
use parlance_harness::token::Token;
use parlance_proto::v1::{self, Query, Reply, query, reply};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::presence::{Watchers, post};
use crate::spec::{Transport, run, run_with};

const PATIENCE: Duration = Duration::from_secs(30);
/// What NATS and the services write down when something was refused.
const REFUSALS: [&str; 3] = ["Violation", "refused an operation", "Authorization"];
const CONVERSATION: &str = "0190a6e0-0000-7000-8000-000000000001";

/// A connection of one role that speaks the protocol by itself.
pub(crate) struct Member {
    stream: BufReader<TcpStream>,
    inbox: String,
}

impl Member {
    pub(crate) async fn connect(stack: &Stack, role: Role) -> Self {
        let (user, pass) = stack.credentials(role);
        let address = stack.nats_url().trim_start_matches("nats://");
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let inbox = format!("{}.test", role.inbox());
        let mut member = Self { stream, inbox };
        let hello =
            json!({ "verbose": false, "headers": true, "no_responders": true, "user": user, "pass": pass });
        assert_eq!(member.objection(&format!("CONNECT {hello}\r\n")).await, None);
        let own = format!("SUB {} 1\r\n", member.inbox);
        assert_eq!(member.objection(&own).await, None);
        member
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        assert!(read.unwrap().unwrap() > 0, "the server closed the connection");
        line
    }

    /// What the server has against an operation.
    pub(crate) async fn objection(&mut self, operation: &str) -> Option<String> {
        let asked = format!("{operation}PING\r\n");
        self.stream.write_all(asked.as_bytes()).await.unwrap();
        let mut objection = None;
        loop {
            let line = self.line().await;
            if line.starts_with("-ERR") {
                objection = Some(line.trim().to_owned());
            } else if line.starts_with("PONG") {
                return objection;
            }
        }
    }

    /// The payload of the answer to a request.
    pub(crate) async fn asks(&mut self, subject: &str, headers: &str, payload: &[u8]) -> Vec<u8> {
        let head = format!("NATS/1.0\r\n{headers}\r\n");
        let all = head.len() + payload.len();
        let line = format!("HPUB {subject} {} {} {all}\r\n{head}", self.inbox, head.len());
        self.stream.write_all(line.as_bytes()).await.unwrap();
        self.stream.write_all(payload).await.unwrap();
        self.stream.write_all(b"\r\n").await.unwrap();
        loop {
            let line = self.line().await;
            assert!(!line.starts_with("-ERR"), "{subject}: {line}");
            let mut words = line.split_whitespace();
            let kind = words.next();
            if kind != Some("MSG") && kind != Some("HMSG") {
                continue;
            }
            let sizes: Vec<usize> = words.skip(2).filter_map(|word| word.parse().ok()).collect();
            let size = *sizes.last().unwrap();
            let mut payload = vec![0; size + 2];
            self.stream.read_exact(&mut payload).await.unwrap();
            payload.truncate(size);
            let headers = if kind == Some("HMSG") {
                sizes[sizes.len() - 2]
            } else {
                0
            };
            return payload.split_off(headers);
        }
    }
}

fn publish(subject: &str) -> String {
    format!("PUB {subject} 0\r\n\r\n")
}

fn subscribe(subject: &str) -> String {
    format!("SUB {subject} 7\r\n")
}

/// Every line of every log that tells of a refusal.
fn refusals(stack: &Stack) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(stack.folder().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let told = text
            .lines()
            .filter(|line| REFUSALS.iter().any(|word| line.contains(word)));
        found.extend(told.map(|line| format!("{}: {line}", path.display())));
    }
    found
}

/// Connected as the service that carries pushes out.
pub async fn push_service(stack: &Stack) -> Bus {
    let (user, password) = stack.credentials(Role::Push);
    let settings = ConnectSettings {
        url: stack.nats_url().into(),
        name: "pushing".into(),
        inbox_prefix: "_INBOX.push".into(),
        user,
        password,
        credentials_file: String::new(),
        tls: Tls::default(),
    };
    let bus = Bus::connect(&settings).await.unwrap();
    bus.connected().await;
    bus
}

/// A push is taken, another is left until it is parked, and a message of a service arrives.
async fn other_services(stack: &Stack) {
    let body = json!({ "title": "Group", "participant_ids": ["bob"] });
    let group = post(stack, 0, "alice", "/conversations/group", &body).await;
    let group = group["id"].as_str().unwrap();
    let path = format!("/conversations/{group}/messages");
    let bus = push_service(stack).await;
    let bound = || async { bus.pushes().await };
    let mut feed = eventually(PATIENCE, "the consumer of pushes", bound)
        .await
        .unwrap();
    let sent = post(stack, 0, "alice", &path, &json!({ "content": "pushed" })).await;
    assert!(sent["seq"].is_number() || sent["message"].is_object(), "{sent}");
    // Everything is taken but the last, which is left.
    loop {
        let fed = timeout(PATIENCE, feed.next_batch(1)).await.unwrap().unwrap();
        let push = fed[0].push().unwrap();
        if push.recipient_ids == ["bob"] {
            break;
        }
        fed[0].ack().await;
    }

    let mut emitter = Member::connect(stack, Role::Emitter).await;
    let message = json!({ "sender_id": "shop", "sender_name": "Shop", "content": "sent on" }).to_string();
    let headers = "Parlance-Message-Id: order-1\r\nContent-Type: application/json\r\n";
    let subject = format!("chat.system.{group}");
    let stored = emitter.asks(&subject, headers, message.as_bytes()).await;
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["stream"], "SYSTEM", "{stored}");
    let lost = headers.replace("order-1", "order-2");
    emitter
        .asks("chat.system.nowhere", &lost, message.as_bytes())
        .await;

    let database = stack.database().await.unwrap();
    let kept = || async {
        let messages: i64 =
            sqlx::query_scalar("SELECT count(*) FROM messages WHERE sender_id = 'service:shop'")
                .fetch_one(&database)
                .await?;
        let parked: Vec<String> = sqlx::query_scalar(
            "SELECT split_part(subject, '.', 2) FROM dead_letters WHERE subject NOT LIKE '%push.%' OR error LIKE '%attempts'
             GROUP BY 1 ORDER BY 1",
        )
        .fetch_all(&database)
        .await?;
        equal((messages, parked), &(1, vec!["push".into(), "system".into()])).map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "what services sent, and left", kept)
        .await
        .unwrap();
}

/// A service of its own finds its durable consumer of the feed and takes an event from it.
async fn follower(stack: &Stack) {
    let mut follower = Member::connect(stack, Role::Feed).await;
    let made = follower.asks("$JS.API.CONSUMER.INFO.EVENTS.feed", "", b"").await;
    let made: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!(made["config"]["filter_subject"], "chat.evt.>", "{made}");
    assert!(made["config"]["deliver_subject"].is_null(), "{made}");
    let event = follower.asks(TAKE_EVENT, "", b"1").await;
    assert!(event.len() > 36, "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_stack_lives_within_its_roles() {
    let stack = Stack::builder()
        .gateways(2)
        .persistence(2)
        .accounts()
        .balanced()
        .patient()
        .gateway_env("PARLANCE_JWT_SERVICE_CLAIM", "scope")
        .gateway_env("PARLANCE_JWT_SERVICE_VALUE", "parlance:internal")
        .persistence_env("PARLANCE_PUSH_BACKOFF_MS", 300)
        .persistence_env("PARLANCE_FEED_CONSUMERS", "feed")
        .start()
        .await
        .unwrap();
    // Over the load balancer the gateways pass requests on to each other.
    let balanced = [("PARLANCE_GATEWAYS", stack.balancer().base_url().to_owned())];
    run_with(&stack, "changes", Transport::Polling, &balanced).await;
    run(&stack, "crossing", Transport::Default).await;
    let (user, password) = stack.credentials(Role::Operator);
    let url = stack
        .nats_url()
        .replace("nats://", &format!("nats://{user}:{password}@"));
    let operator = [("PARLANCE_NATS_URL", url)];
    run_with(&stack, "control", Transport::Websocket, &operator).await;
    let seconds = [("PARLANCE_JOURNAL_SECONDS", "3".to_owned())];
    run_with(&stack, "journal_load", Transport::Websocket, &seconds).await;
    other_services(&stack).await;
    follower(&stack).await;

    let watchers = Watchers::start(
        &stack,
        &json!([
            { "user": "dora", "dialect": "native", "gateways": [0] },
            { "user": "emil", "dialect": "native", "gateways": [1] },
        ]),
    );
    post(
        &stack,
        1,
        "dora",
        "/conversations/direct",
        &json!({ "user_id": "emil" }),
    )
    .await;
    watchers.becomes("dora", "emil", "online", PATIENCE).await;
    // Whoever begins again takes over consumers and reads what was ordered before.
    stack.gateway(0).restart().await.unwrap();
    stack.persistence(0).restart().await.unwrap();
    stack.wait_ready().await.unwrap();
    watchers.connected("dora", 2).await;
    let order = json!({ "jti": "t-9" });
    let service = Token::new("shop").claim("scope", "parlance:internal");
    let url = format!("{}/internal/tokens/revoke", stack.gateway(0).internal_url());
    let answer = reqwest::Client::new().post(url).json(&order);
    let answer = answer.bearer_auth(service.sign(stack.jwt_secret()).unwrap());
    assert_eq!(answer.send().await.unwrap().status().as_u16(), 202);
    run(&stack, "crossing", Transport::Polling).await;
    assert_eq!(refusals(&stack), Vec::<String>::new());
}

const LOCKED_OUT: &str = "chat.control.user.alice";
const TAKE_PUSH: &str = "$JS.API.CONSUMER.MSG.NEXT.PUSH.push";
const TAKE_EVENT: &str = "$JS.API.CONSUMER.MSG.NEXT.EVENTS.feed";

/// A role, what it does, and how.
pub(crate) type Row = (Role, &'static str, String);

fn at(prefix: &str) -> String {
    format!("{prefix}.{CONVERSATION}")
}

#[rustfmt::skip]
pub(crate) fn forbidden() -> Vec<Row> {
    vec![
        (Role::Gateway, "invents an event", publish(&at("chat.evt"))),
        (Role::Gateway, "confirms what is not stored", publish("chat.cfm.gw-1")),
        (Role::Gateway, "invents a notice", publish("chat.usr.alice")),
        (Role::Gateway, "invents presence", publish("chat.prs.alice")),
        (Role::Gateway, "invents a push", publish(&at("chat.push"))),
        (Role::Gateway, "gives an operator's order", publish("chat.ops.drain")),
        (Role::Gateway, "answers questions", subscribe("chat.qry.*")),
        (Role::Gateway, "answers questions to a replica", subscribe("chat.qry.*.persistence-1")),
        (Role::Gateway, "reads commands of others", subscribe("chat.cmd.>")),
        (Role::Gateway, "reads pushes", subscribe("chat.push.>")),
        (Role::Gateway, "reads everything", subscribe(">")),
        (Role::Gateway, "reads answers to persistence", subscribe("_INBOX.persistence.>")),
        (Role::Gateway, "reads all answers", subscribe("_INBOX.>")),
        (Role::Gateway, "deletes a stream", publish("$JS.API.STREAM.DELETE.COMMANDS")),
        (Role::Gateway, "forgets revocations", publish("$JS.API.STREAM.PURGE.CONTROL")),
        (Role::Gateway, "takes commands", publish("$JS.API.CONSUMER.CREATE.COMMANDS.mine")),
        (Role::Gateway, "has orders delivered elsewhere", publish("$JS.API.CONSUMER.CREATE.CONTROL.mine")),
        (Role::Gateway, "has orders delivered elsewhere, unnamed", publish("$JS.API.CONSUMER.CREATE.CONTROL")),
        (Role::Gateway, "pulls orders to anywhere", publish("$JS.API.CONSUMER.MSG.NEXT.CONTROL.mine")),
        (Role::Gateway, "speaks below another gateway's name", publish("chat.gw.gw-1.poll")),
        (Role::Gateway, "answers operators in place of persistence", subscribe("chat.ops.persistence")),
        (Role::Persistence, "reads tokens that operators have judged", subscribe("chat.ops.gateways")),
        (Role::Persistence, "sends as another service", publish(&at("chat.system"))),
        (Role::Persistence, "gives an order to gateways", publish(LOCKED_OUT)),
        (Role::Persistence, "speaks to gateways as a gateway", publish("chat.gw.gw-1.poll")),
        (Role::Persistence, "deletes a stream", publish("$JS.API.STREAM.DELETE.EVENTS")),
        (Role::Persistence, "makes a stream of its own", publish("$JS.API.STREAM.CREATE.MINE")),
        (Role::Persistence, "reads answers to gateways", subscribe("_INBOX.gateway.>")),
        (Role::Persistence, "reads what gateways tell each other", subscribe("chat.gw.>")),
        (Role::Emitter, "sends as a user", publish(&format!("chat.cmd.0.{CONVERSATION}"))),
        (Role::Emitter, "locks a user out", publish(LOCKED_OUT)),
        (Role::Emitter, "asks persistence", publish("chat.qry.list_messages")),
        (Role::Emitter, "asks a replica of persistence", publish("chat.qry.list_messages.persistence-1")),
        (Role::Emitter, "reads what is said", subscribe(&at("chat.evt"))),
        (Role::Emitter, "reads messages of other services", subscribe("chat.system.>")),
        (Role::Emitter, "reads the feed", publish(TAKE_EVENT)),
        (Role::Emitter, "reads the stream directly", publish("$JS.API.STREAM.MSG.GET.SYSTEM")),
        (Role::Emitter, "looks at the stream", publish("$JS.API.STREAM.INFO.SYSTEM")),
        (Role::Emitter, "takes its own message back", publish("$JS.API.STREAM.MSG.DELETE.SYSTEM")),
        (Role::Emitter, "answers itself", publish("_INBOX.emitter.x")),
        (Role::Emitter, "answers a gateway", publish("_INBOX.gateway.x")),
        (Role::Emitter, "reads answers to other emitters' teams", subscribe("_INBOX.feed.>")),
        (Role::Emitter, "reads outcomes of another service", subscribe("_INBOX.emitter.billing.>")),
        (Role::Emitter, "reads outcomes of all services", subscribe("_INBOX.emitter.>")),
        (Role::Emitter, "hears whom readers stop of another service", subscribe("chat.stop.billing")),
        (Role::Emitter, "hears whom readers stop of all services", subscribe("chat.stop.*")),
        (Role::Emitter, "stops another service", publish("chat.stop.billing")),
        (Role::Gateway, "stops a service past persistence", publish("chat.stop.shop")),
        (Role::Push, "reads pushes past its consumer", subscribe("chat.push.>")),
        (Role::Push, "makes a consumer of its own", publish("$JS.API.CONSUMER.CREATE.PUSH.mine")),
        (Role::Push, "reads the feed", publish(TAKE_EVENT)),
        (Role::Push, "deletes the consumer", publish("$JS.API.CONSUMER.DELETE.PUSH.push")),
        (Role::Push, "reads a push by its number", publish("$JS.API.STREAM.MSG.GET.PUSH")),
        (Role::Push, "sends messages", publish(&at("chat.system"))),
        (Role::Push, "reads presence", subscribe("chat.prs.>")),
        (Role::Feed, "invents an event", publish(&at("chat.evt"))),
        (Role::Feed, "takes pushes", publish(TAKE_PUSH)),
        (Role::Feed, "takes events of persistence", publish("$JS.API.CONSUMER.MSG.NEXT.EVENTS.push-source")),
        (Role::Feed, "alters the consumer of persistence", publish("$JS.API.CONSUMER.CREATE.EVENTS.push-source.chat.evt.>")),
        (Role::Feed, "has events delivered elsewhere", publish("$JS.API.CONSUMER.CREATE.EVENTS.mine")),
        (Role::Feed, "has events delivered elsewhere, by the older subject", publish("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.mine")),
        (Role::Feed, "takes events of another service", publish("$JS.API.CONSUMER.MSG.NEXT.EVENTS.search")),
        (Role::Feed, "acknowledges events of another service", publish("$JS.ACK.EVENTS.search.1.1.1.1.0")),
        (Role::Feed, "deletes a consumer", publish("$JS.API.CONSUMER.DELETE.EVENTS.push-source")),
        (Role::Feed, "makes its own again, to anywhere", publish("$JS.API.CONSUMER.CREATE.EVENTS.feed.chat.evt.>")),
        (Role::Feed, "reads a push by its number", publish("$JS.API.DIRECT.GET.PUSH")),
        (Role::Feed, "has a stored event published as it is", publish("$JS.API.DIRECT.GET.EVENTS")),
        (Role::Feed, "has the last event of a conversation published as it is", publish(&format!("$JS.API.DIRECT.GET.EVENTS.{}", at("chat.evt")))),
        (Role::Feed, "deletes an event", publish("$JS.API.STREAM.MSG.DELETE.EVENTS")),
        (Role::Feed, "empties the feed", publish("$JS.API.STREAM.PURGE.EVENTS")),
        (Role::Feed, "reads commands", subscribe("chat.cmd.>")),
        (Role::Operator, "sends as a user", publish(&format!("chat.cmd.0.{CONVERSATION}"))),
        (Role::Operator, "reads what is said", subscribe("chat.evt.>")),
        (Role::Operator, "reads answers to gateways", subscribe("_INBOX.gateway.>")),
        (Role::Operator, "deletes a stream", publish("$JS.API.STREAM.DELETE.EVENTS")),
        (Role::Operator, "answers in place of services", subscribe("chat.ops.>")),
        (Role::Operator, "reads messages that nobody reported", publish("chat.qry.list_messages")),
        (Role::Emitter, "reads reported messages", publish("chat.qry.list_reports")),
    ]
}

#[rustfmt::skip]
fn allowed() -> Vec<Row> {
    vec![
        (Role::Gateway, "sends a command", publish(&format!("chat.cmd.0.{CONVERSATION}"))),
        (Role::Gateway, "asks a replica of persistence", publish("chat.qry.list_messages.persistence-1")),
        (Role::Gateway, "passes a request on", publish("chat.gw.gw-1")),
        (Role::Gateway, "hears other gateways", subscribe("chat.gw.gw-1")),
        (Role::Gateway, "hears operators", subscribe("chat.ops.gateways")),
        (Role::Gateway, "follows a conversation", subscribe(&at("chat.evt"))),
        (Role::Persistence, "tells of an event", publish(&at("chat.evt"))),
        (Role::Persistence, "answers a gateway", publish("_INBOX.gateway.x")),
        (Role::Persistence, "hears what it is asked itself", subscribe("chat.qry.*.persistence-1")),
        (Role::Persistence, "makes the consumer of another service", publish("$JS.API.CONSUMER.CREATE.EVENTS.search")),
        (Role::Persistence, "reads orders for a gateway", publish("$JS.API.CONSUMER.CREATE.CONTROL.page")),
        (Role::Persistence, "hears operators", subscribe("chat.ops.persistence")),
        (Role::Emitter, "sends a message", publish(&at("chat.system"))),
        (Role::Emitter, "asks for the account, as clients do first", publish("$JS.API.INFO")),
        (Role::Emitter, "reads the outcome of its message", subscribe("_INBOX.emitter.shop.x")),
        (Role::Persistence, "tells a service what became of its message", publish("_INBOX.emitter.shop.x")),
        (Role::Emitter, "hears that a reader wants it to stop", subscribe("chat.stop.shop")),
        (Role::Persistence, "asks a service to stop", publish("chat.stop.shop")),
        (Role::Persistence, "shows readers the text of a message that streams", publish(&at("chat.eph"))),
        (Role::Push, "takes pushes", publish(TAKE_PUSH)),
        (Role::Push, "finds its stream by subject, as nats.go does", publish("$JS.API.STREAM.NAMES")),
        (Role::Push, "looks at its stream", publish("$JS.API.STREAM.INFO.PUSH")),
        (Role::Feed, "takes events", publish(TAKE_EVENT)),
        (Role::Feed, "finds its stream by subject, as nats.go does", publish("$JS.API.STREAM.NAMES")),
        (Role::Feed, "looks at its stream, as async-nats does", publish("$JS.API.STREAM.INFO.EVENTS")),
        (Role::Feed, "looks at its consumer", publish("$JS.API.CONSUMER.INFO.EVENTS.feed")),
        (Role::Feed, "reads an event by its number", publish("$JS.API.STREAM.MSG.GET.EVENTS")),
        (Role::Feed, "begins again with the oldest event", publish("$JS.API.CONSUMER.DELETE.EVENTS.feed")),
        (Role::Operator, "asks the services", publish("chat.ops.gateways.connections")),
        (Role::Operator, "locks a user out", publish(LOCKED_OUT)),
        (Role::Operator, "reads reported messages", publish("chat.qry.list_reports")),
        (Role::Operator, "settles a report", publish("chat.qry.resolve_report")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_role_is_refused() {
    let stack = Stack::builder().servers_only().accounts().start().await.unwrap();
    let (allowed, forbidden) = (allowed(), forbidden());
    for role in Role::ALL {
        let mut member = Member::connect(&stack, role).await;
        for (_, what, operation) in allowed.iter().filter(|row| row.0 == role) {
            let objection = member.objection(operation).await;
            assert_eq!(objection, None, "{} {what}", role.name());
        }
        for (_, what, operation) in forbidden.iter().filter(|row| row.0 == role) {
            let objection = member.objection(operation).await.unwrap_or_default();
            assert!(
                objection.contains("Permissions Violation"),
                "{} {what}: {objection:?}",
                role.name()
            );
        }
    }
}

/// What a role may not say itself it cannot have persistence or a gateway say, by asking to be answered there.
#[tokio::test(flavor = "multi_thread")]
async fn answers_go_to_inboxes_alone() {
    let stack = Stack::builder().accounts().start().await.unwrap();
    let mut gateway = Member::connect(&stack, Role::Gateway).await;
    for subject in [
        at("chat.evt"),
        "chat.cfm.gw-1".to_owned(),
        "chat.control.token.t".to_owned(),
    ] {
        assert_eq!(gateway.objection(&subscribe(&subject)).await, None, "{subject}");
        // A question that persistence refuses, and so answers at once.
        let question = format!("PUB chat.qry.ping {subject} 0\r\n\r\n");
        assert_eq!(gateway.objection(&question).await, None, "{subject}");
    }
    // Answered in order, so an answer to the others would have come before this one.
    let answer = gateway.asks("chat.qry.ping", "", b"").await;
    assert!(!answer.is_empty());
    let log = stack.persistence(0).log_tail(1_000);
    assert_eq!(log.matches("elsewhere than in an inbox").count(), 3, "{log}");
}

/// Who may ask for one thing alone cannot ask for another in its name.
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_reports_is_all_that_an_operator_may_ask_persistence_for() {
    let stack = Stack::builder().accounts().start().await.unwrap();
    let mut operator = Member::connect(&stack, Role::Operator).await;
    let ping = query::Body::Ping(v1::Ping {});
    let list = query::Body::ListReports(v1::ListReports::default());
    for (body, is_answered) in [(list, true), (ping, false)] {
        let query = Query {
            body: Some(body),
            ..Query::default()
        };
        let answer = operator
            .asks("chat.qry.list_reports", "", &query.encode_to_vec())
            .await;
        let answer = Reply::decode(answer.as_slice()).unwrap().body;
        assert_eq!(
            matches!(answer, Some(reply::Body::Reports(_))),
            is_answered,
            "{answer:?}"
        );
        assert_eq!(
            matches!(answer, Some(reply::Body::Error(_))),
            !is_answered,
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_enters_without_a_role() {
    let stack = Stack::builder().servers_only().accounts().start().await.unwrap();
    for hello in [json!({}), json!({ "user": "gateway", "pass": "guessed" })] {
        let address = stack.nats_url().trim_start_matches("nats://");
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut member = Member {
            stream,
            inbox: String::new(),
        };
        let line = format!("CONNECT {hello}\r\nPING\r\n");
        member.stream.write_all(line.as_bytes()).await.unwrap();
        let mut said = member.line().await;
        while said.starts_with("INFO") {
            said = member.line().await;
        }
        assert!(said.contains("Authorization Violation"), "{said}");
    }
}
