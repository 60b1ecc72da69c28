//! Connections to Postgres: their options, the pools, and connections held by one task.
//! Must not hold SQL beyond what sets a connection up.

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::timeout;

use crate::config::DatabaseSettings;

/// Connections for writes outside of ingest: provisioning and dead letters.
const WRITE_CONNECTIONS: u32 = 3;
/// Connections for reports of presence.
const REPORT_CONNECTIONS: u32 = 3;
/// Connections for idempotency keys.
pub(crate) const KEY_CONNECTIONS: u32 = 3;
/// Longest attempt at ending on the server what was given up here.
const ENDING: Duration = Duration::from_secs(1);

/// The ways to the database.
#[derive(Clone)]
pub struct Database {
    /// For queries: read-only by convention, with a statement timeout.
    pub reads: PgPool,
    /// For small writes outside of ingest; without a statement timeout.
    pub writes: PgPool,
    /// For reports of presence, which renew the leases of gateways: other writes must not hold them up.
    pub reports: PgPool,
    /// For claims of idempotency keys and their ends, and for nothing else.
    pub keys: PgPool,
    options: PgConnectOptions,
    connect_timeout: Duration,
}

/// A connection owned by one task: no check-out, no ping, and after any doubt simply a new one.
pub struct Held {
    options: PgConnectOptions,
    connect_timeout: Duration,
    connection: Option<PgConnection>,
    /// Of the server.
    process: Option<i32>,
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
            keys,
            options,
            connect_timeout: settings.connect_timeout(),
        })
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
