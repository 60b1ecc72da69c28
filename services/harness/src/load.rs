//! Load for fault tests: many users of the stock Socket.IO client, played by one Node.js process.
//!
//! Must not judge what they see: that is the checker's.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Stack;
use crate::devstack::repository;
use crate::environment;
use crate::history::History;

/// Longest silence of a player that lives.
const SILENCE: Duration = Duration::from_secs(20);
/// Longest wait of a client for an answer: the gateway says `unknown` after 10 s.
const ACK_TIMEOUT_MS: u64 = 12_000;
/// Longest wait for all clients to be quiet and equal after the sending has stopped.
const DRAIN_MS: u64 = 30_000;

/// Messages a second that two debug builds of all services digest beside each other on two slow cores.
const RATE: u32 = 60;

/// How long a sleeper reads nothing: longer than a gateway has patience.
const SLEEP_MS: u64 = 12_000;

/// How many do how much.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Users, each with one client.
    pub users: usize,
    /// Conversations.
    pub conversations: usize,
    /// Members of each conversation.
    pub members: usize,
    /// New messages a second, all queues together.
    pub rate: u32,
    /// Bytes that every message has beyond its name.
    pub padding: usize,
    /// How often every message is sent at once, over sockets and REST of all gateways in turn.
    pub copies: u32,
    /// How many clients stop reading for twelve seconds at a time.
    pub sleepers: usize,
    /// How all clients connect; `None` mixes the ways.
    pub transports: Option<&'static [&'static str]>,
}

/// What a player reports four times a second.
#[derive(Clone, Debug, Deserialize)]
pub struct Progress {
    /// `running`, `draining` or `done`.
    pub phase: String,
    /// Milliseconds since the player started.
    pub at: f64,
    /// Attempts to send so far.
    pub sends: u64,
    /// Positive answers so far.
    pub acked: u64,
    /// Clients that are connected and have joined all their conversations.
    pub connected: usize,
}

/// A running player; killed when dropped.
#[derive(Debug)]
pub struct Player {
    child: Child,
    orders: ChildStdin,
    progress: Lines<BufReader<ChildStdout>>,
    history: PathBuf,
    finals: PathBuf,
    clients: usize,
}

/// The file with a player's orders.
#[derive(Serialize)]
struct Plan {
    gateways: Vec<String>,
    users: Vec<User>,
    conversations: Vec<Conversation>,
    rate: u32,
    padding: usize,
    copies: u32,
    sleep_ms: u64,
    edit_every: u32,
    delete_every: u32,
    ack_timeout_ms: u64,
    drain_ms: u64,
    history: PathBuf,
    #[serde(rename = "final")]
    finals: PathBuf,
}

#[derive(Serialize)]
struct User {
    id: String,
    token: String,
    transports: &'static [&'static str],
    via: &'static str,
    /// Messages of one queue that may await their answer at once.
    window: u32,
    /// No member of anything; sends nevertheless.
    stranger: bool,
    /// Stops reading now and then.
    sleeps: bool,
}

#[derive(Serialize)]
struct Conversation {
    title: String,
    members: Vec<String>,
}

impl Default for Load {
    fn default() -> Self {
        let rate = environment::variable("PARLANCE_FAULTS_RATE").and_then(|rate| rate.parse().ok());
        Self {
            users: 16,
            conversations: 8,
            members: 5,
            rate: rate.unwrap_or(RATE),
            padding: 60,
            copies: 1,
            sleepers: 0,
            transports: None,
        }
    }
}

impl Load {
    /// Starts the users and returns once all of them are connected and messages are answered.
    ///
    /// # Errors
    /// Node.js or its packages are missing, or the stack does not serve.
    pub async fn start(self, stack: &Stack) -> anyhow::Result<Player> {
        let mut player = self.play(stack, stack.entrances())?;
        player.all_connected().await?;
        let enough = u64::from(self.rate);
        player
            .until("the first answers", |progress| progress.acked >= enough)
            .await?;
        Ok(player)
    }

    /// Starts the users at these addresses, with the tokens of the stack.
    ///
    /// # Errors
    /// Node.js or its packages are missing.
    pub fn play(self, stack: &Stack, entrances: Vec<String>) -> anyhow::Result<Player> {
        let folder = stack.folder();
        let plan = self.plan(stack, folder, entrances);
        let path = folder.join("plan.json");
        std::fs::write(&path, serde_json::to_vec(&plan)?).context("cannot write the plan")?;
        let scripts = repository().join("services/harness/js");
        let node = environment::program("node")
            .context("node is not installed: `make doctor` says how to get it")?;
        ensure!(
            scripts.join("node_modules/socket.io-client").is_dir(),
            "socket.io-client is not installed: run `npm ci` in services/harness/js, or use `make test`"
        );
        let mut child = Command::new(node)
            .arg(scripts.join("player.mjs"))
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run the player")?;
        let orders = child.stdin.take().context("the player has no standard input")?;
        let output = child.stdout.take().context("the player has no standard output")?;
        Ok(Player {
            child,
            orders,
            progress: BufReader::new(output).lines(),
            history: plan.history,
            finals: plan.finals,
            clients: plan.users.len(),
        })
    }

    fn plan(self, stack: &Stack, folder: &Path, gateways: Vec<String>) -> Plan {
        let name = |number: usize| format!("user{}", number % self.users);
        let user = |number: usize| User {
            id: name(number),
            token: stack.token(&name(number)),
            transports: self.transports.unwrap_or(match number % 4 {
                1 => &["polling"],
                3 => &["polling", "websocket"],
                _ => &["websocket"],
            }),
            via: if number % 5 == 4 { "rest" } else { "socket" },
            // Copies on different ways overtake each other: nothing keeps the order of two at once.
            window: if number.is_multiple_of(2) && number % 5 != 4 && self.copies == 1 {
                8
            } else {
                1
            },
            stranger: false,
            // These connect by WebSocket alone.
            sleeps: number.is_multiple_of(2) && number / 2 < self.sleepers,
        };
        let stranger = User {
            id: "stranger".into(),
            token: stack.token("stranger"),
            transports: &["websocket"],
            via: "socket",
            window: 1,
            stranger: true,
            sleeps: false,
        };
        let conversation = |number: usize| Conversation {
            title: format!("conversation {number}"),
            members: (0..self.members)
                .map(|member| name(number * 2 + member))
                .collect(),
        };
        Plan {
            gateways,
            users: (0..self.users).map(user).chain([stranger]).collect(),
            conversations: (0..self.conversations).map(conversation).collect(),
            rate: self.rate,
            padding: self.padding,
            copies: self.copies,
            sleep_ms: SLEEP_MS,
            edit_every: 20,
            delete_every: 40,
            ack_timeout_ms: ACK_TIMEOUT_MS,
            drain_ms: DRAIN_MS,
            history: folder.join("history.jsonl"),
            finals: folder.join("final.json"),
        }
    }
}

impl Player {
    /// Waits until the player reports what `look` wants.
    ///
    /// # Errors
    /// The player ended, or says nothing any more.
    pub async fn until(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Progress) -> bool,
    ) -> anyhow::Result<Progress> {
        loop {
            let line = tokio::time::timeout(SILENCE, self.progress.next_line()).await;
            let Some(line) = line.context("the player says nothing any more")?? else {
                bail!(
                    "the player ended while it was waited for {what}: {:?}",
                    self.child.wait().await?
                );
            };
            let progress: Progress =
                serde_json::from_str(&line).context("the player's report cannot be read")?;
            if look(&progress) {
                return Ok(progress);
            }
        }
    }

    /// Lets the load go on for this long by the player's clock.
    ///
    /// # Errors
    /// As [`Player::until`].
    pub async fn goes_on_for(&mut self, time: Duration) -> anyhow::Result<Progress> {
        let mut end = None;
        let milliseconds = time.as_secs_f64() * 1_000.0;
        self.until("time to pass", |progress| {
            progress.at >= *end.get_or_insert(progress.at + milliseconds)
        })
        .await
    }

    /// Lets the load go on until so many messages a second are answered over `sample`, or `most` has passed: on a busy machine
    /// the load itself takes its time.
    ///
    /// # Errors
    /// As [`Player::until`].
    pub async fn goes_on_until_answered(
        &mut self,
        rate: f64,
        sample: Duration,
        most: Duration,
    ) -> anyhow::Result<Progress> {
        let (sample, most) = (sample.as_secs_f64() * 1_000.0, most.as_secs_f64() * 1_000.0);
        let mut seen = VecDeque::<(f64, u64)>::new();
        let mut end = None;
        self.until("the answers to come back", |progress| {
            seen.push_back((progress.at, progress.acked));
            // The latest that is old enough stays.
            while seen.get(1).is_some_and(|(at, _)| *at <= progress.at - sample) {
                seen.pop_front();
            }
            let (at, acked) = seen[0];
            let seconds = (progress.at - at) / 1_000.0;
            let answered = u32::try_from(progress.acked - acked).map_or(f64::MAX, f64::from);
            let is_back = progress.at - at >= sample && answered >= rate * seconds;
            is_back || progress.at >= *end.get_or_insert(progress.at + most)
        })
        .await
    }

    /// Waits until every client is connected and has joined its conversations.
    ///
    /// # Errors
    /// As [`Player::until`], or not within a minute.
    pub async fn all_connected(&mut self) -> anyhow::Result<Progress> {
        let clients = self.clients;
        let connected = self.until("all clients to connect", |progress| progress.connected == clients);
        tokio::time::timeout(Duration::from_secs(60), connected)
            .await
            .context("not all clients connect")?
    }

    /// Notes this moment in the history.
    ///
    /// # Errors
    /// The player ended.
    pub async fn mark(&mut self, name: &str) -> anyhow::Result<()> {
        self.order(&format!("mark {name}\n")).await
    }

    /// Stops the sending, waits until all is quiet, and reads what was written down.
    ///
    /// # Errors
    /// The player ended early, or its files cannot be read.
    pub async fn stop(mut self) -> anyhow::Result<History> {
        self.order("stop\n").await?;
        self.until("the end", |progress| progress.phase == "done").await?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "the player failed: {status}");
        History::read(&self.history, &self.finals)
    }

    async fn order(&mut self, line: &str) -> anyhow::Result<()> {
        self.orders
            .write_all(line.as_bytes())
            .await
            .context("the player takes no orders any more")
    }
}
