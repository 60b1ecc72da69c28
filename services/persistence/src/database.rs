//! Connections to Postgres: their options, the pools, and connections held by one task.
//! Must not hold SQL beyond what sets a connection up.

use std::str::FromStr;
use std::time::Duration;

use parlance_runtime::config::{Invalid, Validate, in_range};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres, Transaction};
use tokio::time::{Instant, timeout};

/// Connections for writes outside of ingest: provisioning and dead letters.
const WRITE_CONNECTIONS: u32 = 3;
/// Connections for reports of presence.
const REPORT_CONNECTIONS: u32 = 3;
/// A read may go on beyond its deadline for one part of so many of the limit of reads.
const EXACT: u32 = 20;
/// Connections for idempotency keys.
pub(crate) const KEY_CONNECTIONS: u32 = 3;
/// Longest attempt at ending on the server what was given up here.
const ENDING: Duration = Duration::from_secs(1);

/// Section `database`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Connection URL; may hold a password.
    pub url: SecretString,
    /// Connections for queries.
    pub max_connections: u32,
    /// See `defaults.toml`.
    pub connect_timeout_ms: u64,
    /// See `defaults.toml`.
    pub read_timeout_ms: u64,
    /// See `defaults.toml`.
    pub write_timeout_ms: u64,
}

/// The ways to the database.
#[derive(Clone)]
pub struct Database {
    /// For queries: read-only by convention, with a statement timeout.
    pub reads: PgPool,
    /// For small writes outside of ingest; without a statement timeout.
    pub writes: PgPool,
    /// For reports of presence, which renew the leases of gateways: other writes must not hold them up.
    pub reports: PgPool,
    /// How long a statement of a query may take.
    pub read_timeout: Duration,
    /// For claims of idempotency keys and their ends, and for nothing else.
    pub keys: PgPool,
    options: PgConnectOptions,
    connect_timeout: Duration,
}

/// A connection for one read, which may be cut at any time.
pub struct Reading {
    /// Outside of a transaction.
    pub connection: PoolConnection<Postgres>,
    /// Whether a transaction is about to begin on it.
    begins: bool,
}

/// A connection owned by one task: no check-out, no ping, and after any doubt simply a new one.
pub struct Held {
    options: PgConnectOptions,
    connect_timeout: Duration,
    connection: Option<PgConnection>,
    /// Of the server.
    process: Option<i32>,
}

impl DatabaseSettings {
    /// Patience for one attempt to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// Patience for one batch of writes.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}

impl Validate for DatabaseSettings {
    fn validate(&self) -> Result<(), Invalid> {
        let url = self.url.expose_secret();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(Invalid::hidden(
                "database.url",
                "a URL that begins with postgres://",
            ));
        }
        in_range("database.max_connections", self.max_connections, 1..=1000)?;
        in_range(
            "database.connect_timeout_ms",
            self.connect_timeout_ms,
            100..=9_000,
        )?;
        in_range("database.read_timeout_ms", self.read_timeout_ms, 100..=600_000)?;
        in_range(
            "database.write_timeout_ms",
            self.write_timeout_ms,
            1_000..=600_000,
        )
    }
}

impl Database {
    /// Prepares pools that connect when first used.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn new(settings: &DatabaseSettings) -> Result<Self, sqlx::Error> {
        let options = options(settings)?;
        let read_timeout = format!("{}ms", settings.read_timeout_ms);
        let reads = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.connect_timeout())
            .connect_lazy_with(options.clone().options([("statement_timeout", read_timeout)]));
        let writes = PgPoolOptions::new()
            .max_connections(WRITE_CONNECTIONS)
            .acquire_timeout(settings.connect_timeout())
            .connect_lazy_with(options.clone());
        let reports = PgPoolOptions::new()
            .max_connections(REPORT_CONNECTIONS)
            .acquire_timeout(settings.connect_timeout())
            .connect_lazy_with(options.clone());
        let keys = PgPoolOptions::new()
            .max_connections(KEY_CONNECTIONS)
            .acquire_timeout(settings.connect_timeout())
            .connect_lazy_with(options.clone());
        Ok(Self {
            reads,
            writes,
            reports,
            read_timeout: Duration::from_millis(settings.read_timeout_ms),
            keys,
            options,
            connect_timeout: settings.connect_timeout(),
        })
    }

    /// A connection for one read.
    ///
    /// # Errors
    /// None is free within the connect timeout, or the database cannot be reached.
    pub async fn reading(&self) -> Result<Reading, sqlx::Error> {
        let connection = self.reads.acquire().await?;
        Ok(Reading {
            connection,
            begins: false,
        })
    }

    /// How a read begins that has less time than connections for reads give each statement anyway: as a transaction,
    /// whose end is also the end of its limit, whatever happens. The others are spared that way to the database. The limit
    /// is one of each statement, not of all together: the read is to be cut at its deadline as well.
    pub fn read_only_for(&self, deadline: Instant) -> Option<AssertSqlSafe<String>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left >= self.read_timeout - self.read_timeout / EXACT {
            return None;
        }
        let limit = left.as_millis().max(1);
        Some(AssertSqlSafe(format!(
            "BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}"
        )))
    }

    /// A connection for one task, made when first used.
    pub fn held(&self) -> Held {
        Held {
            options: self.options.clone(),
            connect_timeout: self.connect_timeout,
            connection: None,
            process: None,
        }
    }
}

impl Reading {
    /// Begins a transaction.
    ///
    /// # Errors
    /// [`sqlx::Error`] if the statement fails.
    pub async fn begin_with(
        &mut self,
        begin: AssertSqlSafe<String>,
    ) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
        self.begins = true;
        let transaction = self.connection.begin_with(begin).await?;
        self.begins = false;
        Ok(transaction)
    }
}

impl Drop for Reading {
    /// A connection whose transaction was cut while it began may be in one that nobody ends: it is closed.
    fn drop(&mut self) {
        if self.begins {
            self.connection.close_on_drop();
        }
    }
}

/// A connection, and the server's process that it is to.
async fn connect(options: &PgConnectOptions) -> Result<(PgConnection, i32), sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let process = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut connection)
        .await?;
    Ok((connection, process))
}

impl Held {
    /// The connection, made anew if there is none.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn get(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.process = None;
                let (connection, process) = timeout(self.connect_timeout, connect(&self.options))
                    .await
                    .map_err(|_| sqlx::Error::PoolTimedOut)??;
                self.process = Some(process);
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Forgets the connection: after an error or an abandoned statement its state is not known.
    pub fn discard(&mut self) {
        self.connection = None;
    }

    /// The same where a statement was given up that took too long: the server would go on with it, and keep its locks from
    /// whoever tries again.
    pub async fn abandon(&mut self) {
        self.discard();
        let Some(process) = self.process.take() else {
            return;
        };
        let ended = timeout(self.connect_timeout.min(ENDING), async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            sqlx::query("SELECT pg_terminate_backend($1)")
                .bind(process)
                .execute(&mut connection)
                .await
        });
        if !matches!(ended.await, Ok(Ok(_))) {
            tracing::debug!(process, "the database may still work on what was given up");
        }
    }
}

/// Options of every connection.
fn options(settings: &DatabaseSettings) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(settings.url.expose_secret())?;
    Ok(options
        .application_name("parlance-persistence")
        .options([
            // The statements are few and static: planning each batch anew would be most of its cost.
            ("plan_cache_mode", "force_generic_plan"),
            // All of them look rows up by key. A plan made while a table was empty would else read it whole,
            // and go on doing so until the server's statistics are renewed.
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            // Where a small table can only be read whole, the planner now counts an enormous cost, and would
            // compile each such statement anew for longer than it runs.
            ("jit", "off"),
            // For the same reason it would share short queries out to other processes, which takes longer than they run
            // and takes the cores from all others.
            ("max_parallel_workers_per_gather", "0"),
            // A stopped replica must not keep its partitions' rows locked beyond the lease.
            ("idle_in_transaction_session_timeout", "2s"),
            // The server's side of a vanished replica: its locks end with its connection.
            ("tcp_keepalives_idle", "2"),
            ("tcp_keepalives_interval", "1"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "4s"),
            ("timezone", "UTC"),
        ])
        .disable_statement_logging())
}
