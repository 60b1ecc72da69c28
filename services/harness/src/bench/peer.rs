//! The peer: the stock chat stack of `peers/node` with its own Postgres and Redis, on free ports.
//!
//! Postgres is the same program with the same settings as Parlance's.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::devstack::account::Account;
use crate::devstack::launch::{Launch, Lifetime};
use crate::devstack::packages::Packaged;
use crate::devstack::probe::Probe;
use crate::devstack::process::Process;
use crate::devstack::{ports, repository};
use crate::environment;
use crate::stack::folder::Folder;
use crate::stack::{StackBuilder, start_postgres, with_fresh_ports};

/// A running peer; its processes end when it is dropped.
#[derive(Debug)]
pub struct Peer {
    // Fields are dropped in this order: servers before what they need, files last.
    replicas: Vec<Process>,
    redis: Process,
    postgres: Process,
    secret: String,
    _folder: Folder,
}

impl Peer {
    /// Starts so many replicas.
    ///
    /// # Errors
    /// Node.js, its packages or Redis are missing, or a server does not get ready.
    pub async fn start(replicas: usize) -> anyhow::Result<Self> {
        let scripts = repository().join("services/harness/peers/node");
        ensure!(
            scripts.join("node_modules/socket.io").is_dir(),
            "the packages of the peer are not installed: run `npm ci` in services/harness/peers/node, or use `make bench`"
        );
        let node = environment::program("node")
            .context("node is not installed: `make doctor` says how to get it")?;
        let folder = Folder::create()?;
        let builder = StackBuilder::default().fsync(true);
        let postgres = start_postgres(&builder, &folder).await?;
        let schema = std::fs::read_to_string(scripts.join("schema.sql"))?;
        let database = sqlx::PgPool::connect(postgres.base_url()).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(schema))
            .execute(&database)
            .await?;
        database.close().await;
        let redis = start_redis(&folder).await?;
        let secret = environment::random_hex();
        let settings = [
            ("NODE_ENV", "production"),
            ("DATABASE_URL", postgres.base_url()),
            ("REDIS_URL", redis.base_url()),
            ("JWT_SECRET", &secret),
        ];
        let mut started = vec![];
        for number in 1..=replicas {
            let log = folder.path().join(format!("logs/node-{number}.log"));
            let launch = Launch {
                name: format!("node-{number}"),
                arguments: vec![scripts.join("server.mjs").display().to_string()],
                environment: settings
                    .map(|(name, value)| (name.into(), value.to_owned()))
                    .into(),
                ..launch(node.clone(), log)
            };
            started.push(with_fresh_ports(|| on_port(launch.clone(), "http", "PORT")).await?);
        }
        Ok(Self {
            replicas: started,
            redis,
            postgres,
            secret,
            _folder: folder,
        })
    }

    /// The Node.js processes.
    #[must_use]
    pub fn replicas(&self) -> &[Process] {
        &self.replicas
    }

    /// The Redis server.
    #[must_use]
    pub fn redis(&self) -> &Process {
        &self.redis
    }

    /// The Postgres server.
    #[must_use]
    pub fn postgres(&self) -> &Process {
        &self.postgres
    }

    /// The secret that the replicas accept tokens of.
    #[must_use]
    pub fn jwt_secret(&self) -> &str {
        &self.secret
    }
}

/// Redis only relays between replicas: it stores nothing.
async fn start_redis(folder: &Folder) -> anyhow::Result<Process> {
    let redis = Packaged::redis()?;
    let log = folder.path().join("logs/redis.log");
    with_fresh_ports(|| {
        let port = ports::free()?.to_string();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let launch = Launch {
            name: "redis".into(),
            arguments: arguments.map(str::to_owned).into(),
            environment: redis.environment(),
            ..launch(redis.program.clone(), log.clone())
        };
        Ok(process(launch, "redis", &port))
    })
    .await
}

fn launch(program: PathBuf, log: PathBuf) -> Launch {
    Launch {
        name: String::new(),
        program,
        arguments: vec![],
        environment: vec![],
        stdout: None,
        log,
        lifetime: Lifetime::WithParent,
        account: Account::Caller,
        orphan_signal: "KILL",
    }
}

/// A server that reads its port from `variable`.
fn on_port(mut launch: Launch, scheme: &str, variable: &str) -> anyhow::Result<Process> {
    let port = ports::free()?.to_string();
    launch.environment.push((variable.into(), port.clone()));
    Ok(process(launch, scheme, &port))
}

fn process(launch: Launch, scheme: &str, port: &str) -> Process {
    let address = format!("127.0.0.1:{port}");
    let url = format!("{scheme}://{address}");
    Process::new(launch, Probe::Port { address }, url.clone(), url)
}
