//! A throw-away stack for a system test: own Postgres, NATS, database and services, all on free ports.
//!
//! Everything is killed and every file removed when the [`Stack`] is dropped. Must not share anything
//! with a development stack except downloaded servers.

mod builder;
pub(crate) mod folder;

use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::try_join_all;

use crate::devstack::TlsFiles;
use crate::devstack::account::Account;
use crate::devstack::accounts::{Accounts, Role};
use crate::devstack::balancer::{Balancer, Target};
use crate::devstack::launch::Lifetime;
use crate::devstack::nats::{Cluster, Nats};
use crate::devstack::packages::Packaged;
use crate::devstack::ports;
use crate::devstack::postgres::Postgres;
use crate::devstack::process::Process;
use crate::devstack::programs::{PostgresPrograms, nats_for_tests};
use crate::devstack::service::{Kind, Service, migrate};
use crate::environment;
use crate::token::Token;
pub use builder::StackBuilder;
use folder::Folder;

const READY_LIMIT: Duration = Duration::from_secs(60);
const ATTEMPTS: usize = 3;

impl StackBuilder {
    /// Starts everything and waits until all of it serves.
    ///
    /// # Errors
    /// A program is missing or does not get ready; carries the end of its log.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let folder = Folder::create()?;
        let secret = environment::random_hex();
        let accounts = self.accounts.then(|| Accounts::new(&secret));
        let (postgres, nats) = tokio::try_join!(
            start_postgres(&self, &folder),
            start_nats(&self, &folder, accounts.as_ref())
        )?;
        let mut stack = Stack {
            balancer: None,
            gateways: vec![],
            persistence: vec![],
            nats,
            postgres,
            secret,
            tls: self.tls.clone(),
            accounts,
            folder,
        };
        if self.migrate {
            let mut settings = stack.connections();
            settings.extend(self.shared.iter().chain(&self.persist).cloned());
            migrate(&self.binary(Kind::Persistence)?, &settings)?;
        }
        let persistence =
            (1..=self.persistence).map(|number| stack.service(&self, Kind::Persistence, number));
        let gateways = (1..=self.gateways).map(|number| stack.service(&self, Kind::Gateway, number));
        let (persistence, gateways) = tokio::try_join!(try_join_all(persistence), try_join_all(gateways))?;
        stack.persistence = persistence;
        stack.gateways = gateways;
        if self.balanced {
            stack.balancer = Some(start_balancer(&stack).await?);
        }
        Ok(stack)
    }
}

impl StackBuilder {
    fn binary(&self, kind: Kind) -> anyhow::Result<std::path::PathBuf> {
        if self.faulty {
            kind.faulty_binary()
        } else {
            kind.binary()
        }
    }
}

/// Running servers and services. Replicas are counted from 0.
#[derive(Debug)]
pub struct Stack {
    // Fields are dropped in this order: services before what they need, files last.
    balancer: Option<Process>,
    gateways: Vec<Process>,
    persistence: Vec<Process>,
    nats: Vec<Process>,
    postgres: Process,
    secret: String,
    tls: Option<TlsFiles>,
    accounts: Option<Accounts>,
    folder: Folder,
}

impl Stack {
    /// A stack of one gateway and one persistence replica, to be changed before it starts.
    #[must_use]
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// The load balancer.
    ///
    /// # Panics
    /// The stack was not [`StackBuilder::balanced`].
    #[must_use]
    pub fn balancer(&self) -> &Process {
        self.balancer
            .as_ref()
            .expect("the stack is built with a balancer")
    }

    /// Starts a load balancer in front of anything that answers `/readyz`.
    ///
    /// # Errors
    /// There is no balancer program, or none of the targets answers.
    pub async fn balance(&self, targets: Vec<Target>) -> anyhow::Result<Process> {
        let program = Packaged::haproxy()?;
        with_fresh_ports(|| {
            let balancer = Balancer {
                program: program.clone(),
                folder: self.folder.path().join("balancer"),
                port: ports::free()?,
                monitor_port: ports::free()?,
                targets: targets.clone(),
                log: self.folder.path().join("logs/balancer.log"),
            };
            balancer.configure()?;
            Ok(Process::new(
                balancer.launch(Lifetime::WithParent),
                balancer.probe(),
                balancer.url(),
                balancer.monitor_url(),
            ))
        })
        .await
    }

    /// Where clients come in: the load balancer, or each gateway where there is none.
    #[must_use]
    pub fn entrances(&self) -> Vec<String> {
        let balancer = self.balancer.iter();
        let gateways = self.gateways.iter().filter(|_| self.balancer.is_none());
        balancer
            .chain(gateways)
            .map(|process| process.base_url().to_owned())
            .collect()
    }

    /// The gateway with this index.
    ///
    /// # Panics
    /// The stack has fewer gateways.
    #[must_use]
    pub fn gateway(&self, index: usize) -> &Process {
        &self.gateways[index]
    }

    /// All gateways.
    #[must_use]
    pub fn gateways(&self) -> &[Process] {
        &self.gateways
    }

    /// The persistence replica with this index.
    ///
    /// # Panics
    /// The stack has fewer replicas.
    #[must_use]
    pub fn persistence(&self, index: usize) -> &Process {
        &self.persistence[index]
    }

    /// All persistence replicas.
    #[must_use]
    pub fn persistence_replicas(&self) -> &[Process] {
        &self.persistence
    }

    /// The NATS server; of a cluster the first.
    ///
    /// # Panics
    /// Never: there is one.
    #[must_use]
    pub fn nats(&self) -> &Process {
        &self.nats[0]
    }

    /// All NATS servers.
    #[must_use]
    pub fn nats_servers(&self) -> &[Process] {
        &self.nats
    }

    /// The Postgres server.
    #[must_use]
    pub fn postgres(&self) -> &Process {
        &self.postgres
    }

    /// `postgres://…` of the stack's database.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.postgres.base_url()
    }

    /// The same, for who speaks to a server with a certificate of `root` only.
    #[must_use]
    pub fn verified_database_url(&self, root: &std::path::Path) -> String {
        format!(
            "{}?sslmode=verify-full&sslrootcert={}",
            self.database_url(),
            root.display()
        )
    }

    /// `nats://…`; of a cluster the first.
    #[must_use]
    pub fn nats_url(&self) -> &str {
        self.nats().base_url()
    }

    /// The user name and password of a role, where the stack has [`StackBuilder::accounts`]; else empty ones.
    #[must_use]
    pub fn credentials(&self, role: Role) -> (String, String) {
        match &self.accounts {
            Some(accounts) => (role.name().to_owned(), accounts.password(role)),
            None => (String::new(), String::new()),
        }
    }

    /// The secret that the gateways accept tokens of.
    #[must_use]
    pub fn jwt_secret(&self) -> &str {
        &self.secret
    }

    /// A valid token for `subject`. For an odd one: [`Token`] and [`Stack::jwt_secret`].
    ///
    /// # Panics
    /// Never: these claims can always be encoded.
    #[must_use]
    pub fn token(&self, subject: &str) -> String {
        Token::new(subject)
            .sign(&self.secret)
            .expect("claims made of strings and numbers can be encoded")
    }

    /// A connection pool to the stack's database, for assertions.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn database(&self) -> anyhow::Result<sqlx::PgPool> {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(4);
        options
            .connect(self.database_url())
            .await
            .context("cannot connect to the database of the stack")
    }

    /// Waits until every process serves, for example after one of them was killed and restarted.
    ///
    /// # Errors
    /// One does not serve in time; carries the end of its log.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        try_join_all(self.processes().map(|process| process.wait_ready(READY_LIMIT)))
            .await
            .map(drop)
    }

    /// A folder for files of the test, removed with the stack.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        [&self.postgres]
            .into_iter()
            .chain(&self.nats)
            .chain(&self.persistence)
            .chain(&self.gateways)
            .chain(&self.balancer)
    }

    fn connections(&self) -> Vec<(String, String)> {
        let urls: Vec<_> = self.nats.iter().map(Process::base_url).collect();
        let database = match &self.tls {
            Some(files) => self.verified_database_url(&files.root),
            None => self.database_url().into(),
        };
        let telemetry = environment::variable("PARLANCE_TEST_LOG").unwrap_or_else(|| "info".into());
        vec![
            ("DATABASE_URL".into(), database),
            ("PARLANCE_NATS_URL".into(), urls.join(",")),
            ("PARLANCE_JWT_SECRET".into(), self.secret.clone()),
            ("PARLANCE_TELEMETRY_LOG".into(), telemetry),
        ]
    }

    async fn service(&self, builder: &StackBuilder, kind: Kind, number: usize) -> anyhow::Result<Process> {
        let own = if kind == Kind::Gateway {
            &builder.gateway
        } else {
            &builder.persist
        };
        let mut settings = self.connections();
        if kind == Kind::Gateway {
            // A gateway that could reach the database would hide that it needs it.
            settings.retain(|(name, _)| name != "DATABASE_URL");
        }
        let role = if kind == Kind::Gateway {
            Role::Gateway
        } else {
            Role::Persistence
        };
        if let Some(accounts) = &self.accounts {
            settings.push(("PARLANCE_NATS_USER".into(), role.name().into()));
            settings.push(("PARLANCE_NATS_PASSWORD".into(), accounts.password(role)));
        }
        settings.extend(builder.shared.iter().chain(own).cloned());
        let binary = builder.binary(kind)?;
        with_fresh_ports(|| {
            let service = Service {
                kind,
                number,
                binary: binary.clone(),
                http_port: ports::free()?,
                internal_port: ports::free()?,
                environment: settings.clone(),
                logs: self.folder.path().join("logs"),
            };
            let launch = service.launch(Lifetime::WithParent);
            Ok(Process::new(
                launch,
                service.probe(),
                service.base_url(),
                service.internal_url(),
            ))
        })
        .await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in self.processes() {
                eprintln!(
                    "---- end of the log of {} ----\n{}",
                    process.name(),
                    process.log_tail(60)
                );
            }
        }
    }
}

pub(crate) async fn start_postgres(builder: &StackBuilder, folder: &Folder) -> anyhow::Result<Process> {
    let account = Account::detect()?;
    let server = Postgres {
        programs: if builder.tls.is_some() {
            PostgresPrograms::with_tls()?
        } else {
            PostgresPrograms::for_tests()?
        },
        account,
        data: folder.path().join("postgres"),
        port: 0,
        tls: builder.tls.clone(),
        fsync: builder.fsync,
        log: folder.path().join("logs/postgres.log"),
    };
    server.initialise()?;
    let process = with_fresh_ports(|| {
        let server = Postgres {
            port: ports::free()?,
            ..server.clone()
        };
        Ok(Process::new(
            server.launch(Lifetime::WithParent),
            server.probe(),
            server.url(),
            server.url(),
        ))
    })
    .await?;
    create_database(&server, &process).await?;
    Ok(process)
}

async fn start_balancer(stack: &Stack) -> anyhow::Result<Process> {
    let targets = stack.gateways.iter().map(|gateway| {
        anyhow::Ok(Target {
            port: port_of(gateway.base_url())?,
            internal_port: port_of(gateway.internal_url())?,
        })
    });
    stack.balance(targets.collect::<anyhow::Result<_>>()?).await
}

fn port_of(url: &str) -> anyhow::Result<u16> {
    let port = url.rsplit(['/', ':']).find_map(|part| part.parse().ok());
    port.with_context(|| format!("{url} names no port"))
}

async fn create_database(server: &Postgres, process: &Process) -> anyhow::Result<()> {
    Postgres {
        port: port_of(process.base_url())?,
        ..server.clone()
    }
    .create_database()
    .await
    .context("cannot create the database")
}

async fn start_nats(
    builder: &StackBuilder,
    folder: &Folder,
    accounts: Option<&Accounts>,
) -> anyhow::Result<Vec<Process>> {
    let routes = (0..builder.nats_servers).map(|_| ports::free());
    let routes: Vec<_> = routes.collect::<anyhow::Result<_>>()?;
    let servers = (0..builder.nats_servers).map(|index| {
        let cluster = (builder.nats_servers > 1).then(|| Cluster {
            server: format!("nats-{}", index + 1),
            port: routes[index],
            routes: routes.clone(),
        });
        start_nats_server(builder, folder, cluster, accounts)
    });
    try_join_all(servers).await
}

async fn start_nats_server(
    builder: &StackBuilder,
    folder: &Folder,
    cluster: Option<Cluster>,
    accounts: Option<&Accounts>,
) -> anyhow::Result<Process> {
    let program = nats_for_tests()?;
    let name = cluster.as_ref().map_or("nats", |cluster| &cluster.server);
    with_fresh_ports(|| {
        let server = Nats {
            program: program.clone(),
            folder: folder.path().join(name),
            port: ports::free()?,
            monitor_port: ports::free()?,
            max_payload: builder.max_payload,
            max_pending: builder.max_pending,
            cluster: cluster.clone(),
            tls: builder.tls.clone(),
            accounts: accounts.cloned(),
            log: folder.path().join(format!("logs/{name}.log")),
        };
        server.configure()?;
        Ok(Process::new(
            server.launch(Lifetime::WithParent),
            server.probe(),
            server.url(),
            server.monitor_url(),
        ))
    })
    .await
}

/// Starts what `make` describes; another program may take a port between choosing and binding it, so
/// a few attempts are made.
pub(crate) async fn with_fresh_ports(make: impl Fn() -> anyhow::Result<Process>) -> anyhow::Result<Process> {
    for _ in 1..ATTEMPTS {
        let process = make()?;
        match process.start().await {
            Ok(()) => return Ok(process),
            Err(error) if lost_port(&error) => drop(process),
            Err(error) => bail!(error),
        }
    }
    let process = make()?;
    process.start().await?;
    Ok(process)
}

fn lost_port(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains("already in use") || text.contains("in use by") || text.contains("port is taken")
}
