//! The systems that are compared, started in the same way: fsync on, rate limits lifted, every process on one core.
//!
//! Must not know scenarios.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use parlance_bus::{Bus, ConnectSettings, Tls};
use sqlx::PgPool;

use super::dialect::Dialect;
use super::peer::Peer;
use super::processes::Server;
use super::world::{Contender, World};
use crate::devstack::process::Process;
use crate::{Stack, Token, eventually};

/// A running system; its processes end when it is dropped.
#[derive(Debug)]
pub struct System {
    /// Which one.
    pub contender: Contender,
    /// What the generator speaks to it.
    pub dialect: Dialect,
    stack: Processes,
}

#[derive(Debug)]
enum Processes {
    Parlance(Stack),
    Node(Peer),
}

impl System {
    /// Starts a system with so many gateways (of the peer: replicas), stores `world` and waits until clients are admitted.
    ///
    /// # Errors
    /// A program is missing or does not get ready.
    pub async fn start(
        contender: Contender,
        dialect: Dialect,
        gateways: usize,
        world: &World,
    ) -> anyhow::Result<Self> {
        let (stack, dialect) = match contender {
            Contender::Parlance => (Processes::Parlance(parlance(gateways).await?), dialect),
            Contender::Node => (Processes::Node(Peer::start(gateways).await?), Dialect::Chats),
        };
        let system = Self {
            contender,
            dialect,
            stack,
        };
        let database = system.database().await?;
        world.store(contender, &database).await?;
        database.close().await;
        Ok(system)
    }

    /// A valid token of a user.
    ///
    /// # Errors
    /// The claims cannot be encoded.
    pub fn token(&self, user: &str) -> anyhow::Result<String> {
        let secret = match &self.stack {
            Processes::Parlance(stack) => stack.jwt_secret(),
            Processes::Node(peer) => peer.jwt_secret(),
        };
        Token::new(user).sign(secret)
    }

    /// Where clients connect to each gateway.
    ///
    /// # Errors
    /// Never: all of them listen on loopback.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let address = |gateway: &Process| {
            let url = gateway.base_url();
            let address = url.strip_prefix("http://").context("not an http:// URL")?;
            Ok(address.parse()?)
        };
        self.gateways().iter().map(address).collect()
    }

    /// All processes that run now.
    #[must_use]
    pub fn servers(&self) -> Vec<Server> {
        let processes: Vec<(&'static str, &Process)> = match &self.stack {
            Processes::Parlance(stack) => {
                let persistence = stack.persistence_replicas().iter();
                let others = [("postgres", stack.postgres()), ("nats", stack.nats())];
                let persistence = persistence.map(|process| ("persistence", process));
                persistence.chain(others).collect()
            }
            Processes::Node(peer) => vec![("postgres", peer.postgres()), ("redis", peer.redis())],
        };
        let gateways = self.gateways().iter().map(|process| ("gateway", process));
        let running = |(role, process): (&'static str, &Process)| {
            let pid = process.pid()?;
            Some(Server { role, pid })
        };
        gateways.chain(processes).filter_map(running).collect()
    }

    /// The gateways, or the replicas of the peer.
    #[must_use]
    pub fn gateways(&self) -> &[Process] {
        match &self.stack {
            Processes::Parlance(stack) => stack.gateways(),
            Processes::Node(peer) => peer.replicas(),
        }
    }

    /// A pool for the system's database, to prepare it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn database(&self) -> anyhow::Result<PgPool> {
        let url = match &self.stack {
            Processes::Parlance(stack) => stack.database_url(),
            Processes::Node(peer) => peer.postgres().base_url(),
        };
        PgPool::connect(url)
            .await
            .context("cannot connect to the database")
    }

    /// A connection to the bus of Parlance, as a service has one.
    ///
    /// # Errors
    /// There is none.
    pub async fn bus(&self) -> anyhow::Result<Bus> {
        let Processes::Parlance(stack) = &self.stack else {
            bail!("the peer has no bus");
        };
        let settings = ConnectSettings {
            url: stack.nats_url().to_owned(),
            name: "bench".to_owned(),
            inbox_prefix: "_INBOX.bench".to_owned(),
            user: String::new(),
            password: String::new(),
            credentials_file: String::new(),
            tls: Tls::default(),
        };
        Ok(Bus::connect(&settings).await?)
    }

    /// Waits until every gateway answers a request for a conversation list: services turn clients away until they have
    /// seen each other once.
    ///
    /// # Errors
    /// One does not within half a minute.
    pub async fn lets_clients_in(&self) -> anyhow::Result<()> {
        let token = self.token(&World::user(0))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        for gateway in self.gateways() {
            let url = format!("{}/api/conversations?limit=1", gateway.base_url());
            let look = || async {
                let answer = http.get(&url).bearer_auth(&token).send().await?;
                answer.error_for_status()?;
                anyhow::Ok(())
            };
            eventually(Duration::from_secs(30), "an answer of the system", look).await?;
        }
        Ok(())
    }
}

/// Defaults but for the limits on users, whose place the generator takes by the thousand.
async fn parlance(gateways: usize) -> anyhow::Result<Stack> {
    Stack::builder()
        .gateways(gateways)
        .fsync(true)
        .gateway_env("PARLANCE_SOCKET_HANDSHAKES_PER_SECOND", 1_000_000)
        .gateway_env("PARLANCE_LIMITS_EVENTS_PER_SECOND", 1_000_000)
        .gateway_env("PARLANCE_LIMITS_EVENTS_BURST", 1_000_000)
        .start()
        .await
}
