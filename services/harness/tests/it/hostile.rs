//! Users who send what is costly, what never ends and what kills: it costs only them.
//!
//! Commands are sent as a gateway sends them, so that no limit of a gateway stands in the way; a bystander's
//! conversation is on the same partition as theirs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parlance_bus::subject::partition_of;
use parlance_bus::{Bus, ConnectSettings, Subscription, Tls};
use parlance_harness::Stack;
use parlance_harness::bench::processes::{Server, memory};
use parlance_harness::eventually::{equal, eventually};
use parlance_proto::v1::{
    self, Command, ConfirmationBatch, ConversationKind, ErrorCode, Role, command, confirmation,
};
use parlance_proto::{ConversationId, MessageId, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const PARTITIONS: u16 = 16;
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that one of a hundred of a bystander's sends may take; on a busy machine, what it took before.
pub(crate) const BYSTANDER: Duration = Duration::from_millis(250);
/// How long a command of the user `costly` computes, by the flaw `costly_commands`.
const COMPUTES: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(40);

pub(crate) type Answer = Result<confirmation::Result, ErrorCode>;

/// A gateway, as persistence knows one.
#[derive(Clone)]
pub(crate) struct Gateway {
    bus: Bus,
    waiting: mpsc::UnboundedSender<(String, oneshot::Sender<Answer>)>,
}

impl Gateway {
    pub(crate) async fn connect(stack: &Stack) -> Self {
        let settings = ConnectSettings {
            url: stack.nats_url().into(),
            name: "hostile".into(),
            inbox_prefix: "_INBOX".into(),
            user: String::new(),
            password: String::new(),
            credentials_file: String::new(),
            tls: Tls::default(),
        };
        let bus = Bus::connect(&settings).await.unwrap();
        bus.connected().await;
        let confirmations = bus.subscribe_confirmations("hostile").await.unwrap();
        bus.flush().await.unwrap();
        let (waiting, waiters) = mpsc::unbounded_channel();
        tokio::spawn(answer(confirmations, waiters));
        Self { bus, waiting }
    }

    async fn send(&self, command: &Command) -> oneshot::Receiver<Answer> {
        self.send_under(command, &command.id).await
    }

    async fn send_under(&self, command: &Command, id: &str) -> oneshot::Receiver<Answer> {
        let (tx, rx) = oneshot::channel();
        self.waiting.send((command.id.clone(), tx)).unwrap();
        self.bus
            .send_command(command, PARTITIONS, id, Instant::now() + PATIENCE)
            .await
            .unwrap();
        rx
    }

    pub(crate) async fn ask(&self, command: &Command) -> Answer {
        let answer = self.send(command).await;
        timeout(PATIENCE, answer).await.expect("an answer").unwrap()
    }

    /// The command comes once more, as after a fault: the stream does not know it any more.
    pub(crate) async fn ask_again(&self, command: &Command) -> Answer {
        let id = Uuid::from_bytes(random()).to_string();
        let answer = self.send_under(command, &id).await;
        timeout(PATIENCE, answer).await.expect("an answer").unwrap()
    }

    async fn done(&self, command: &Command) -> confirmation::Result {
        self.ask(command).await.unwrap()
    }
}

async fn answer(
    mut confirmations: Subscription<ConfirmationBatch>,
    mut waiters: mpsc::UnboundedReceiver<(String, oneshot::Sender<Answer>)>,
) {
    let mut waiting: HashMap<String, oneshot::Sender<Answer>> = HashMap::new();
    loop {
        tokio::select! {
            biased;
            Some((id, waiter)) = waiters.recv() => drop(waiting.insert(id, waiter)),
            Some(batch) = confirmations.next() => {
                for confirmation in batch.confirmations {
                    let answer = match confirmation.result.unwrap() {
                        confirmation::Result::Error(error) => Err(error.code()),
                        result => Ok(result),
                    };
                    if let Some(waiter) = waiting.remove(&confirmation.command_id) {
                        let _ = waiter.send(answer);
                    }
                }
            }
            else => return,
        }
    }
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(crate) fn as_(who: &str, conversation: ConversationId, body: command::Body) -> Command {
    Command {
        id: Uuid::from_bytes(random()).to_string(),
        reply_to: "hostile".into(),
        actor: Some(v1::Actor {
            user_id: who.into(),
            username: who.into(),
            kind: v1::SenderKind::User.into(),
        }),
        conversation_id: conversation.to_string(),
        issued_at_ms: 0,
        service: None,
        body: Some(body),
    }
}

fn random() -> [u8; 16] {
    let hex = parlance_harness::environment::random_hex();
    let mut bytes = u128::from_str_radix(&hex[..32], 16).unwrap().to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// A fresh conversation on partition 0.
pub(crate) fn conversation() -> ConversationId {
    loop {
        let id = ConversationId::from_uuid(Uuid::from_bytes(random()));
        if partition_of(id, PARTITIONS) == 0 {
            return id;
        }
    }
}

pub(crate) fn group(who: &str, id: ConversationId, others: Vec<String>) -> Command {
    let create = v1::CreateConversation {
        kind: ConversationKind::Group.into(),
        title: "Tea".into(),
        participant_ids: others,
        provision_users: true,
        ..Default::default()
    };
    as_(who, id, command::Body::CreateConversation(create))
}

pub(crate) fn send(who: &str, id: ConversationId, own: &str) -> Command {
    let send = v1::SendMessage {
        message_id: MessageId::derive(id, &user(who), own).to_string(),
        content: own.into(),
        client_msg_id: Some(own.into()),
        ..Default::default()
    };
    as_(who, id, command::Body::SendMessage(send))
}

pub(crate) fn add(who: &str, id: ConversationId, users: Vec<String>) -> Command {
    let add = v1::AddMembers {
        user_ids: users,
        provision_users: true,
        ..Default::default()
    };
    as_(who, id, command::Body::AddMembers(add))
}

fn people(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("person-{number}")).collect()
}

/// A user who writes all the time, and how long each answer took.
struct Bystander {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Duration>>,
}

impl Bystander {
    async fn begin(gateway: &Gateway, id: ConversationId, round: &'static str) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let gateway = gateway.clone();
        let task = tokio::spawn(async move {
            let mut took = Vec::new();
            for number in 0.. {
                if stopped.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
                    break;
                }
                let command = send("bystander", id, &format!("{round}-{number}"));
                let began = Instant::now();
                gateway.done(&command).await;
                took.push(began.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            took
        });
        Self { stop, task }
    }

    /// The time within which 99 of 100 were answered.
    async fn end(self) -> Duration {
        let took = self.took().await;
        took[(took.len() - 1) * 99 / 100]
    }

    /// The time within which all were answered.
    async fn longest(self) -> Duration {
        self.took().await.into_iter().max().unwrap()
    }

    async fn took(self) -> Vec<Duration> {
        let _ = self.stop.send(());
        let mut took = self.task.await.expect("no send of the bystander failed");
        took.sort_unstable();
        println!(
            "bystander: {} sends, p99 {:?}, longest {:?}",
            took.len(),
            took[(took.len() - 1) * 99 / 100],
            took.last()
        );
        took
    }
}

/// The services of the stack that run.
pub(crate) fn services(stack: &Stack) -> Vec<Server> {
    let roles = [
        ("gateways", stack.gateways()),
        ("persistence", stack.persistence_replicas()),
    ];
    roles
        .into_iter()
        .flat_map(|(role, processes)| processes.iter().map(move |process| (role, process)))
        .filter_map(|(role, process)| {
            Some(Server {
                role,
                pid: process.pid()?,
            })
        })
        .collect()
}

/// What the services keep in memory while a user is hostile.
pub(crate) struct Memory {
    servers: Vec<Server>,
    before: BTreeMap<&'static str, u64>,
    stop: oneshot::Sender<()>,
    peak: JoinHandle<BTreeMap<&'static str, u64>>,
}

impl Memory {
    /// Looks from now on.
    pub(crate) fn watch(stack: &Stack) -> Self {
        let servers = services(stack);
        let (stop, mut stopped) = oneshot::channel();
        let watched = servers.clone();
        let peak = tokio::spawn(async move {
            let mut peak = BTreeMap::new();
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                for (role, now) in memory(&watched) {
                    let known = peak.entry(role).or_default();
                    *known = now.max(*known);
                }
                tokio::time::sleep(PAUSE).await;
            }
            peak
        });
        Self {
            before: memory(&servers),
            servers,
            stop,
            peak,
        }
    }

    async fn assert_as_before(self) {
        println!("memory in KiB: {}", self.compared().await.unwrap());
    }

    /// What it was, in KiB; an error where it was more than half as much again as before, or is still a minute later.
    pub(crate) async fn compared(self) -> Result<String, String> {
        let Self {
            servers,
            before,
            stop,
            peak,
        } = self;
        let _ = stop.send(());
        let peak = peak.await.unwrap();
        let figures = format!("before {before:?}, at most {peak:?}");
        let is_small = |now: &BTreeMap<&'static str, u64>| {
            let mut each = now.iter();
            each.all(|(role, now)| *now <= before[role] * 3 / 2)
        };
        if !is_small(&peak) {
            return Err(figures);
        }
        let is_back = || async { is_small(&memory(&servers)).then_some(()) };
        let back = eventually(PATIENCE, "the memory is given back", is_back).await;
        back.map_err(|error| format!("{error}: {figures}"))?;
        Ok(format!("{figures}, now {:?}", memory(&servers)))
    }
}

async fn count(stack: &Stack, sql: &'static str) -> i64 {
    let rows = stack.database().await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&rows).await.unwrap()
}

const LETTERS: &str = "SELECT count(*) FROM dead_letters";
const EPOCHS: &str = "SELECT max(epoch) FROM partition_leases WHERE partition >= 0";

pub(crate) async fn of_all_partitions(stack: &Stack, replicas: i64) {
    let owned = "SELECT count(DISTINCT owner) FROM partition_leases
                 WHERE partition >= 0 AND expires_at > now() HAVING count(*) = 16";
    let rows = stack.database().await.unwrap();
    let look = || async {
        let owners: Option<i64> = sqlx::query_scalar(owned).fetch_optional(&rows).await?;
        equal(owners, &Some(replicas)).map_err(anyhow::Error::msg)
    };
    eventually(PATIENCE, "all partitions have an owner", look)
        .await
        .unwrap();
}

/// The largest of each kind that is allowed, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_costliest_commands_hold_up_no_bystander_on_their_partition() {
    let stack = Stack::builder().gateways(0).persistence(1).start().await.unwrap();
    of_all_partitions(&stack, 1).await;
    let gateway = Gateway::connect(&stack).await;
    let (quiet, noisy) = (conversation(), conversation());
    gateway
        .done(&group("bystander", quiet, vec!["friend".into()]))
        .await;
    gateway.done(&group("mallory", noisy, people(0..50))).await;
    for number in 0..200 {
        gateway
            .done(&send("person-0", noisy, &format!("m{number}")))
            .await;
    }
    let before = Bystander::begin(&gateway, quiet, "before").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = before.end().await;

    let memory = Memory::watch(&stack);
    let during = Bystander::begin(&gateway, quiet, "during").await;
    let began = Instant::now();
    for round in 0..2 {
        let large = conversation();
        let every_second: Vec<String> = (0..100)
            .map(|number| format!("#{}", number * 2 + 1 + round))
            .collect();
        let read = v1::MarkRead {
            message_ids: every_second,
            ..Default::default()
        };
        let role = v1::ChangeRole {
            user_id: "person-7".into(),
            role: Role::Moderator.into(),
        };
        let remove = v1::RemoveMember {
            user_id: "person-7".into(),
        };
        let commands = [
            group("mallory", large, people(0..700)),
            add("mallory", large, people(700..1_400)),
            as_("mallory", noisy, command::Body::MarkRead(read)),
            as_("mallory", large, command::Body::ChangeRole(role)),
            as_("mallory", large, command::Body::RemoveMember(remove)),
            as_(
                "mallory",
                large,
                command::Body::DeleteConversation(v1::DeleteConversation {}),
            ),
        ];
        for command in commands {
            let began = Instant::now();
            let outcome = gateway.ask(&command).await;
            let code = outcome.err();
            println!("{:?} after {:?}: {code:?}", kind(&command), began.elapsed());
        }
    }
    println!("all of them took {:?}", began.elapsed());
    let p99 = during.end().await;
    assert!(
        p99 <= BYSTANDER.max(before * 3),
        "a bystander waited {p99:?}, before {before:?}"
    );
    memory.assert_as_before().await;
}

/// What is costly is carried out beside everything else, but not before what was sent earlier into its conversation.
#[tokio::test(flavor = "multi_thread")]
async fn a_costly_command_stays_in_its_place_among_the_others_of_its_conversation() {
    let stack = Stack::builder().gateways(0).persistence(1).start().await.unwrap();
    of_all_partitions(&stack, 1).await;
    let gateway = Gateway::connect(&stack).await;
    for _ in 0..6 {
        let id = conversation();
        gateway.done(&group("alice", id, vec!["bob".into()])).await;
        // All are there at once when it goes on: they come in one batch.
        stack.persistence(0).pause();
        let mut sends = Vec::new();
        for number in 0..20 {
            sends.push(gateway.send(&send("bob", id, &format!("before-{number}"))).await);
        }
        let added = gateway.send(&add("alice", id, people(0..300))).await;
        for number in 0..5 {
            sends.push(gateway.send(&send("bob", id, &format!("behind-{number}"))).await);
        }
        stack.persistence(0).resume();
        let mut seqs = Vec::new();
        for answer in sends {
            match timeout(PATIENCE, answer).await.expect("an answer").unwrap() {
                Ok(confirmation::Result::Message(message)) => seqs.push(message.seq),
                other => panic!("{other:?}"),
            }
        }
        timeout(PATIENCE, added)
            .await
            .expect("an answer")
            .unwrap()
            .unwrap();
        // 300 come as three changes.
        let expected: Vec<u64> = (0..20).chain(23..28).map(|place| seqs[0] + place).collect();
        assert_eq!(seqs, expected);
    }
}

fn kind(command: &Command) -> String {
    let name = format!("{:?}", command.body.as_ref().unwrap());
    name.split('(').next().unwrap_or_default().to_owned()
}

/// Commands that compute for longer than a transaction may last, one of each way through persistence.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_never_end_are_quarantined_and_cost_no_lease() {
    let stack = Stack::builder()
        .gateways(0)
        .persistence(2)
        .failpoints("costly_commands=return")
        .start()
        .await
        .unwrap();
    of_all_partitions(&stack, 2).await;
    let gateway = Gateway::connect(&stack).await;
    let (quiet, noisy) = (conversation(), conversation());
    gateway
        .done(&group("bystander", quiet, vec!["friend".into()]))
        .await;
    gateway
        .done(&group("mallory", noisy, vec!["costly".into()]))
        .await;
    let epochs = count(&stack, EPOCHS).await;
    let memory = Memory::watch(&stack);
    let bystander = Bystander::begin(&gateway, quiet, "during").await;
    let costly = [
        send("costly", noisy, "light"),
        group("costly", conversation(), people(0..200)),
    ];
    for command in &costly {
        let refused = gateway.ask(command).await.unwrap_err();
        assert_eq!(refused, ErrorCode::TooCostly, "{}", kind(command));
    }
    // Those behind it in its conversation, in their order.
    for number in 0..5 {
        let behind = gateway
            .done(&send("mallory", noisy, &format!("behind-{number}")))
            .await;
        assert!(matches!(behind, confirmation::Result::Message(message) if message.seq == number + 1));
    }
    bystander.end().await;
    assert_eq!(count(&stack, LETTERS).await, 2);
    let named = "SELECT count(*) FROM dead_letters WHERE error_code = 'too_costly'";
    assert_eq!(count(&stack, named).await, 2);
    assert_eq!(count(&stack, EPOCHS).await, epochs, "a lease was lost");
    // It comes again: refused as before.
    let refused = gateway.ask_again(&costly[1]).await.unwrap_err();
    assert_eq!(refused, ErrorCode::TooCostly);
    memory.assert_as_before().await;
}

/// A change of a journal that computes for longer than a transaction may last: messages have a lane beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_journal_keeps_no_message_waiting_however_long_it_takes() {
    let stack = Stack::builder()
        .gateways(0)
        .persistence(1)
        .failpoints("costly_commands=return")
        .start()
        .await
        .unwrap();
    of_all_partitions(&stack, 1).await;
    let gateway = Gateway::connect(&stack).await;
    let (quiet, journal) = (conversation(), conversation());
    gateway
        .done(&group("bystander", quiet, vec!["friend".into()]))
        .await;
    let create = v1::CreateConversation {
        kind: ConversationKind::Journal.into(),
        title: "Diary".into(),
        provision_users: true,
        ..Default::default()
    };
    gateway
        .done(&as_(
            "mallory",
            journal,
            command::Body::CreateConversation(create),
        ))
        .await;
    let before = Bystander::begin(&gateway, quiet, "before").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = before.longest().await;
    let during = Bystander::begin(&gateway, quiet, "during").await;
    let edit = v1::EditJournal { update: vec![0, 0] };
    let edit = as_("costly", journal, command::Body::EditJournal(edit));
    assert_eq!(gateway.ask(&edit).await.unwrap_err(), ErrorCode::TooCostly);
    let longest = during.longest().await;
    assert!(
        longest <= COMPUTES.mul_f64(0.6).max(before * 3),
        "a bystander waited {longest:?}, before {before:?}"
    );
}

/// A command that ends every replica that tries it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_kills_its_replica_is_quarantined_by_a_later_one() {
    let stack = Stack::builder()
        .gateways(0)
        .persistence(2)
        .failpoints("deadly_commands=return")
        .start()
        .await
        .unwrap();
    of_all_partitions(&stack, 2).await;
    let gateway = Gateway::connect(&stack).await;
    let (quiet, noisy) = (conversation(), conversation());
    gateway
        .done(&group("bystander", quiet, vec!["friend".into()]))
        .await;
    gateway
        .done(&group("mallory", noisy, vec!["deadly".into()]))
        .await;
    let deadly = gateway.send(&send("deadly", noisy, "deadly")).await;
    let bystander = Bystander::begin(&gateway, quiet, "during").await;
    let mut deaths = 0;
    let restarts = async {
        loop {
            for replica in stack.persistence_replicas() {
                if replica.pid().is_none() {
                    deaths += 1;
                    replica.spawn().unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let refused = tokio::select! {
        refused = timeout(Duration::from_secs(90), deadly) => refused.expect("it ends").unwrap(),
        () = restarts => unreachable!(),
    };
    assert_eq!(refused.unwrap_err(), ErrorCode::TooCostly);
    println!("{deaths} replicas died of it");
    assert!((2..=5).contains(&deaths), "{deaths} replicas died of it");
    bystander.end().await;
    assert_eq!(count(&stack, LETTERS).await, 1);
    gateway.done(&send("mallory", noisy, "behind it")).await;
}

/// Whatever the database does, nothing is wrong with the commands.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_quarantines_nothing() {
    let stack = Stack::builder()
        .gateways(0)
        .persistence(2)
        .persistence_env("PARLANCE_DATABASE_WRITE_TIMEOUT_MS", 1_000)
        .start()
        .await
        .unwrap();
    of_all_partitions(&stack, 2).await;
    let gateway = Gateway::connect(&stack).await;
    let (first, second) = (conversation(), conversation());
    gateway.done(&group("alice", first, vec!["bob".into()])).await;
    // A table that a session holds, as a migration does.
    let rows = stack.database().await.unwrap();
    let mut holder = rows.begin().await.unwrap();
    sqlx::query("LOCK TABLE participants IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let light = gateway.send(&send("alice", first, "light")).await;
    let heavy = gateway.send(&group("alice", second, people(0..150))).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    holder.rollback().await.unwrap();
    for waiting in [light, heavy] {
        timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    }
    // A server that stands still, and one that dies.
    for round in 0..3 {
        let light = gateway
            .send(&send("alice", first, &format!("light-{round}")))
            .await;
        let heavy = gateway
            .send(&add("alice", second, people(200 + round * 10..210 + round * 10)))
            .await;
        if round == 2 {
            stack.postgres().kill();
            stack.postgres().start().await.unwrap();
        } else {
            stack.postgres().pause();
            tokio::time::sleep(Duration::from_secs(3)).await;
            stack.postgres().resume();
        }
        for waiting in [light, heavy] {
            timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
        }
    }
    assert_eq!(count(&stack, LETTERS).await, 0);
    assert_eq!(count(&stack, "SELECT count(*) FROM command_attempts").await, 0);
}
