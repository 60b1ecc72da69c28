//! The assembly of the service: what runs, in which order it begins and ends.
//!
//! End: pulling stops, the batches in hand are finished, partitions are handed over, then probes go dark.

use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt as _;
use parlance_bus::inspect::Followers;
use parlance_bus::{Bus, StreamSettings};
use parlance_runtime::health::{self, Condition, Health};
use parlance_runtime::lifecycle::Lifecycle;
use parlance_runtime::startup::{announce, bind};
use parlance_runtime::telemetry::{self, MetricsHandle};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::database::Database;
use crate::expiry::Expiry;
use crate::feed::{CatchUp, Feed};
use crate::identity;
use crate::ingest::Ingest;
use crate::ingest::announce::Announcer;
use crate::ingest::batch::Limits;
use crate::ingest::finish::Finisher;
use crate::ingest::lane::Core;
use crate::leases::Leases;
use crate::liveness::Liveness;
use crate::measures;
use crate::operations::Operations;
use crate::ownership::Owned;
use crate::presence::{Presence, Sweeper};
use crate::push::Pushing;
use crate::queries::Queries;
use crate::store::kept::KeptJournals;
use crate::{signals, startup, thread};

/// Pause between attempts to make the streams.
const STREAMS_PAUSE: Duration = Duration::from_secs(1);
/// How often the streams are looked after: an operator may delete them, and no connection tells.
const STREAMS_CHECK: Duration = Duration::from_secs(2);
/// Longest time between two attempts to make consumers of the feed again.
const FOLLOWERS_PAUSE: Duration = Duration::from_secs(60);

/// Serves until told to stop.
///
/// # Errors
/// Whatever hinders serving at all.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let replica = identity::replica_name();
    let telemetry = telemetry::init(&config.telemetry, "parlance-persistence", &replica)?;
    telemetry::describe_all(measures::MEASURES);
    let result = serve(&config, &replica, telemetry.metrics()).await;
    telemetry.shutdown();
    result
}

/// Applies missing migrations.
///
/// # Errors
/// The database is away or refuses.
pub async fn migrate(config: Config) -> anyhow::Result<ExitCode> {
    let mut connection = startup::connect(&config.database).await?;
    startup::migrate(&mut connection).await?;
    Ok(ExitCode::SUCCESS)
}

/// Declares every seq known before as void; for after a restore.
///
/// # Errors
/// The database is away or lacks migrations.
pub async fn new_epoch(config: Config) -> anyhow::Result<ExitCode> {
    let mut connection = startup::connect(&config.database).await?;
    startup::check_schema(&mut connection).await?;
    crate::store::epoch::replace(&mut connection, identity::random()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: &Config, replica: &str, metrics: MetricsHandle) -> anyhow::Result<ExitCode> {
    let listener = bind(&config.internal.host, config.internal.port, "internal.port").await?;
    let address = listener.local_addr()?;
    let mut connection = startup::connect(&config.database).await?;
    startup::check_schema(&mut connection).await?;
    startup::check_partitions(&mut connection, config.ingest.partitions).await?;
    drop(connection);
    let database = Database::new(&config.database)?;
    let connection = config.nats.connect(replica);
    let bus = Bus::connect(&connection).await?;
    let explained = connection.explain(&bus);
    signals::begin(config.ingest.partitions);

    let health = Health::new();
    let life = Lifecycle::new();
    life.end_on_panic();
    life.spawn_background("explain NATS", explained.map(Ok));
    let drained = CancellationToken::new();
    let router = health::router(health.clone(), metrics);
    life.spawn(
        "internal",
        health::serve_internal(listener, router, drained.clone()),
    );
    life.spawn(
        "nats",
        watch_link(bus.clone(), config.clone(), health.condition("nats"), life.soft()),
    );
    let presence = begin_presence(config, &bus, &database, &life);
    begin_expiry(config, &bus, &database, &life);
    if config.push.enabled {
        let pushing = Pushing {
            bus: bus.clone(),
            database: database.clone(),
            settings: config.pushes(),
        };
        life.spawn("push", pushing.run(life.soft()));
    }
    let liveness = Liveness::default();
    life.spawn("liveness", liveness.clone().run(database.clone(), life.soft()));
    let queries = Queries {
        replica: replica.to_owned(),
        partitions: config.ingest.partitions,
        bus: bus.clone(),
        database: database.clone(),
        concurrency: config.queries.concurrency,
        waiting: config.queries.waiting,
        inline_participants: config.limits.inline_participants,
        user_blocks: config.limits.user_blocks,
        presence,
        liveness,
    };
    life.spawn("queries", queries.run(life.soft()));
    let operations = Operations {
        bus: bus.clone(),
        database: database.clone(),
        partitions: config.ingest.partitions,
        intake_limits: config.intake.limits(),
        gateway_lease: config.presence.limits().lease,
    };
    life.spawn("operations", operations.run(life.soft()));
    life.spawn(
        "ingest",
        work(
            config.clone(),
            replica.to_owned(),
            bus,
            database,
            health,
            life.clone(),
            drained,
        ),
    );
    tracing::info!(replica, %address, "started");
    announce(None, address);
    Ok(life.run(Duration::from_millis(config.shutdown.grace_ms)).await)
}

/// Deletes what is kept for a time alone.
fn begin_expiry(config: &Config, bus: &Bus, database: &Database, life: &Lifecycle) {
    let expiry = Expiry {
        bus: bus.clone(),
        database: database.clone(),
        age: config.ingest.remembered(),
        letters: config.dead_letters.kept(),
        report_days: config.reports.keep_days,
    };
    life.spawn("expiry", expiry.run(life.soft()));
}

/// Takes in what gateways report, and gives up those that are silent.
fn begin_presence(config: &Config, bus: &Bus, database: &Database, life: &Lifecycle) -> Presence {
    let presence = Presence {
        bus: bus.clone(),
        database: database.clone(),
        limits: config.presence.limits(),
    };
    let sweeper = Sweeper {
        presence: presence.clone(),
        every: Duration::from_millis(config.presence.sweep_ms),
    };
    life.spawn("presence", sweeper.run(life.soft()));
    presence
}

/// Leases, ingest and finishing: they end one after the other, each when its source has run dry.
async fn work(
    config: Config,
    replica: String,
    bus: Bus,
    database: Database,
    health: Health,
    life: Lifecycle,
    drained: CancellationToken,
) -> anyhow::Result<()> {
    let _drained = drained.drop_guard();
    let owned = Owned::default();
    let (queue, jobs) = mpsc::channel(config.ingest.queue);
    let feed = Feed::default();
    let (finisher, finishing) = Finisher::new(
        bus.clone(),
        database.clone(),
        config.ingest.partitions,
        owned.clone(),
        feed.clone(),
    );
    let catch_up = CatchUp {
        bus: bus.clone(),
        database: database.clone(),
        owned: owned.clone(),
        feed: feed.clone(),
    };
    let leases = Leases {
        owner: replica.clone(),
        partitions: config.ingest.partitions,
        intake_limits: config.intake.limits(),
        ttl: config.lease.ttl(),
        bus: bus.clone(),
        database: database.clone(),
        owned: owned.clone(),
        queue,
        runtime: Handle::current(),
        intake: config.intake.enabled,
        database_condition: health.condition("database"),
        leases_condition: health.condition("leases"),
    };
    let ingest = Ingest {
        core: Core {
            owner: replica,
            bounds: config.bounds(),
            kept_journals: KeptJournals::default(),
            write_timeout: config.database.write_timeout(),
            announcer: Announcer {
                bus: bus.clone(),
                partitions: config.ingest.partitions,
                feed,
            },
            database,
            owned,
            finisher,
            runtime: Handle::current(),
        },
        partitions: config.ingest.partitions,
        limits: Limits {
            max: config.ingest.batch_max,
            bytes: config.ingest.batch_bytes,
            linger: Duration::from_millis(config.ingest.linger_ms),
        },
    };
    let soft = life.soft();
    tokio::join!(
        thread::apart("leases", move || leases.run(soft)),
        ingest.run(jobs, life.hard()),
        finishing.run(life.hard()),
        catch_up.run(life.soft())
    );
    // The last acknowledgements may still sit in the client's buffer.
    if tokio::time::timeout(Duration::from_secs(1), bus.flush())
        .await
        .is_err()
    {
        tracing::debug!("left without a flush; what is not acknowledged comes again");
    }
    Ok(())
}

/// Reports the state of NATS and makes the streams: after every connect, because the server may be a new one,
/// and where they vanish. What they held is sent again by whoever got no answer.
async fn watch_link(
    bus: Bus,
    config: Config,
    condition: Condition,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let streams = config.nats.streams();
    let mut link = bus.link();
    loop {
        let state = *link.borrow_and_update();
        let made = state.connected && made_streams(&bus, &config, &condition).await;
        if !state.connected {
            condition.set_unready("connecting to NATS");
        }
        let vanished = async {
            if state.connected && !made {
                tokio::time::sleep(STREAMS_PAUSE).await;
            } else if made {
                vanished(&bus, &config, &streams).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = link.changed() => changed?,
            () = vanished => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn made_streams(bus: &Bus, config: &Config, condition: &Condition) -> bool {
    let made = async {
        bus.ensure_streams(&config.nats.streams()).await?;
        bus.ensure_followers(&config.feed.consumers).await
    };
    match made.await {
        Ok(()) => {
            condition.set_ready();
            true
        }
        Err(error) => {
            tracing::warn!(%error, "cannot make the streams yet");
            condition.set_unready("cannot make the streams");
            false
        }
    }
}

/// Shows how full the streams are and how far their followers, makes followers again that were deleted, and returns when a
/// stream was.
async fn vanished(bus: &Bus, config: &Config, streams: &StreamSettings) {
    let mut followers = config.feed.consumers.clone();
    if config.push.enabled {
        followers.push(parlance_bus::push::SOURCE.to_owned());
    }
    let (mut pause, mut not_before) = (STREAMS_CHECK, Instant::now());
    loop {
        tokio::time::sleep(STREAMS_CHECK).await;
        match bus.look_at_streams(streams).await {
            Ok(found) => {
                signals::show_streams(&found.used);
                if !found.missing.is_empty() {
                    tracing::error!(missing = ?found.missing, "streams were deleted; making them again");
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "streams not looked for"),
        }
        let mut missing = match bus.followers(&followers).await {
            Ok(Followers { found, missing }) => {
                signals::show_followers(&found);
                missing
            }
            Err(error) => {
                tracing::debug!(%error, "followers not looked for");
                continue;
            }
        };
        missing.retain(|name| config.feed.consumers.contains(name));
        if missing.is_empty() {
            pause = STREAMS_CHECK;
        } else if Instant::now() >= not_before {
            // A service deletes its own to begin again with the oldest event. No reason to be unready.
            tracing::info!(?missing, "consumers of the feed are not there; making them again");
            if let Err(error) = bus.ensure_followers(&missing).await {
                tracing::warn!(%error, "cannot make consumers of the feed; trying again");
            }
            not_before = Instant::now() + pause;
            pause = (pause * 2).min(FOLLOWERS_PAUSE);
        }
    }
}
