//! Checks before serving: is the database there, new enough, durable and of our schema? Every refusal is one
//! line with what, where and what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use parlance_runtime::startup::StartupError;
use secrecy::ExposeSecret;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, timeout_at};

use crate::database::DatabaseSettings;
use crate::store;

/// Oldest supported server.
const OLDEST_SERVER: i32 = 150_000;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const TLS_HINT: &str = "check sslmode and sslrootcert of DATABASE_URL, and the server's certificate";

/// Reaches the database within the configured patience and checks the server.
///
/// # Errors
/// What to tell the operator.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgConnection, StartupError> {
    let options: PgConnectOptions = settings.url.expose_secret().parse().map_err(|_| {
        StartupError::new(
            "cannot read the database URL",
            "database.url",
            "see defaults.toml for its form",
        )
    })?;
    let place = place(&options);
    let deadline = Instant::now() + settings.connect_timeout();
    let mut last = "no answer in time".to_owned();
    let mut hint = "start Postgres there, or set DATABASE_URL to where it is";
    loop {
        let error = match timeout_at(deadline, PgConnection::connect_with(&options)).await {
            Ok(Ok(connection)) => return checked(connection, &place).await,
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(StartupError::new(
                    format!("cannot reach the database ({last})"),
                    place,
                    hint,
                ));
            }
        };
        let refusal = refusal(&error);
        (last, hint) = (refusal.cause, refusal.hint);
        if refusal.is_final || Instant::now() + RETRY_PAUSE >= deadline {
            return Err(StartupError::new(
                format!("cannot use the database ({last})"),
                place,
                hint,
            ));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Checks that no migration is missing.
///
/// # Errors
/// Names the first one missing, or one that differs from what was applied.
pub async fn check_schema(connection: &mut PgConnection) -> Result<(), StartupError> {
    let hint = "run: parlance-persistence migrate";
    let problem = |what: String| StartupError::new(what, "table _sqlx_migrations", hint);
    let failed = |error: sqlx::Error| problem(format!("cannot read the applied migrations ({error})"));
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let applied: BTreeMap<i64, (Vec<u8>, bool)> = if exists {
        let rows: Vec<(i64, Vec<u8>, bool)> =
            sqlx::query_as("SELECT version, checksum, success FROM _sqlx_migrations")
                .fetch_all(connection)
                .await
                .map_err(failed)?;
        rows.into_iter()
            .map(|(version, checksum, success)| (version, (checksum, success)))
            .collect()
    } else {
        BTreeMap::new()
    };
    for migration in migrations().iter() {
        let name = format!(
            "{}_{}",
            migration.version,
            migration.description.replace(' ', "_")
        );
        match applied.get(&migration.version) {
            Some((checksum, true)) if **checksum == *migration.checksum => {}
            Some((_, true)) => {
                let hint =
                    "the file was edited after it was applied: restore it, add a new migration instead";
                return Err(StartupError::new(
                    format!("migration {name} differs from the applied one"),
                    "migrations",
                    hint,
                ));
            }
            Some((_, false)) | None => return Err(problem(format!("migration {name} is not applied"))),
        }
    }
    Ok(())
}

/// Applies what is missing. Safe from several processes at once.
///
/// # Errors
/// What the database said.
pub async fn migrate(connection: &mut PgConnection) -> anyhow::Result<()> {
    migrations().run(connection).await?;
    Ok(())
}

/// Makes the rows of the leases and checks that the number of partitions is what it always was.
///
/// # Errors
/// Another number of partitions is in use.
pub async fn check_partitions(connection: &mut PgConnection, partitions: u16) -> anyhow::Result<()> {
    let ids: Vec<i32> = (-1..i32::from(partitions)).collect();
    let known = store::leases::ensure(connection, &ids).await?;
    if known == i64::from(partitions) {
        return Ok(());
    }
    let what = format!("ingest.partitions is {partitions}, but {known} partitions are in use");
    let hint = "set ingest.partitions to what was used so far; to change it, let the stream COMMANDS run \
                empty, stop all replicas and gateways, and delete the rows";
    Err(StartupError::new(what, "table partition_leases", hint).into())
}

/// All migrations, embedded.
fn migrations() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    // A newer release may have been here: what it added is no reason to stop an older one.
    migrator.set_ignore_missing(true);
    migrator
}

async fn checked(mut connection: PgConnection, place: &str) -> Result<PgConnection, StartupError> {
    let failed = |error: sqlx::Error| {
        StartupError::new(
            format!("cannot question the database ({error})"),
            place,
            "look into its log",
        )
    };
    let number: String = sqlx::query_scalar("SELECT current_setting('server_version_num')")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if number.parse().unwrap_or(0) < OLDEST_SERVER {
        let what = format!("Postgres {number} is too old");
        return Err(StartupError::new(what, place, "use Postgres 15 or later"));
    }
    let commit: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if commit == "off" {
        let what = "synchronous_commit is off, so a confirmed message could be lost";
        let hint = "set it to on for the server, the database and the role";
        return Err(StartupError::new(what, place, hint));
    }
    let fsync: String = sqlx::query_scalar("SELECT current_setting('fsync')")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if fsync == "off" {
        tracing::warn!(place, "fsync is off: fit for tests only");
    }
    Ok(connection)
}

struct Refusal {
    cause: String,
    hint: &'static str,
    /// Waiting will not help.
    is_final: bool,
}

fn refusal(error: &sqlx::Error) -> Refusal {
    let cause = error.to_string();
    let (hint, is_final) = match error {
        sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
            "28P01" | "28000" => ("check user and password of DATABASE_URL, and pg_hba.conf", true),
            "3D000" => ("create the database, or correct its name in DATABASE_URL", true),
            "57P03" => ("Postgres is starting up or shutting down: try again", false),
            "53300" => (
                "raise max_connections of the server, or lower database.max_connections",
                false,
            ),
            _ => ("look into the log of Postgres", true),
        },
        sqlx::Error::Tls(_) => (TLS_HINT, true),
        // What is wrong with the server's certificate comes as what was wrongly read.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => (TLS_HINT, true),
        sqlx::Error::Configuration(_) => ("correct DATABASE_URL", true),
        _ => ("start Postgres there, or set DATABASE_URL to where it is", false),
    };
    Refusal {
        cause,
        hint,
        is_final,
    }
}

/// Where the database is, without user and password.
fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or("(default)");
    match options.get_socket() {
        Some(socket) => format!("socket {}, database {database}", socket.display()),
        None => format!(
            "{}:{}, database {database}",
            options.get_host(),
            options.get_port()
        ),
    }
}
