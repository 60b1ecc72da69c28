//! Assembly: what is made from what, and the order in which a gateway begins and ends.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use futures::future::BoxFuture;
use parlance_bus::Bus;
use parlance_runtime::config::{ConfigError, is_loopback};
use parlance_runtime::health::{self, Condition, Health};
use parlance_runtime::lifecycle::Lifecycle;
use parlance_runtime::startup;
use parlance_runtime::telemetry::{self, MetricsHandle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::actions::control;
use crate::actions::core::{Areas, Core, Rules};
use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::config::{RELAY_AUTO, Settings, Shutdown};
use crate::delivery::presence::{PresenceFanout, Presences, Reporter};
use crate::delivery::presence_input::{self, Inbox, PresenceReports};
use crate::delivery::repair::{self, Repair};
use crate::delivery::rooms::{Begun, Rooms};
use crate::delivery::served::Served;
use crate::delivery::users::Users;
use crate::edge::addresses::{AddressQuota, Addresses, Proxies};
use crate::edge::bundle::Bundle;
use crate::edge::compression::Compression;
use crate::edge::endpoints::Endpoints;
use crate::edge::gate::{Dialects, Gate, GateRules};
use crate::edge::headers::AllowedHeaders;
use crate::edge::origins::Origins;
use crate::edge::refusals::Refusals;
use crate::edge::rest::state::RestState;
use crate::edge::socket::handshake::Handshake;
use crate::edge::socket::http::{self, Patience};
use crate::edge::socket::listener::Accepting;
use crate::edge::socket::polling::Polling;
use crate::edge::socket::relay::Relay;
use crate::edge::socket::returning::Returns;
use crate::edge::socket::state::SocketState;
use crate::edge::socket::tls::Certificate;
use crate::edge::{self, Entrance, cors, rest, socket};
use crate::ids::new_id;
use crate::limits::Limits;
use crate::session::sessions::Sessions;
use crate::session::transports::Transports;
use crate::slots::Slots;
use crate::{contract, measures, operations, signals};

/// How often the number of connections is written down.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the lookup of the own address may hold up the start.
const LOOKUP: Duration = Duration::from_secs(2);

/// Participants of a group that is held whole here whatever is set.
const LEAST_HELD: u32 = 200;
/// The most participants of a group that is held whole here.
const MOST_HELD: u32 = 1_000;

/// A gateway before it serves anybody.
struct Assembled {
    sockets: SocketState,
    rest: RestState,
    areas: Areas,
    begun: Begun,
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// What keeps it from starting, as one line for the operator.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let instance = format!("gw-{}", new_id().simple());
    let auth = Authenticator::from_settings(&settings.jwt).map_err(ConfigError::from)?;
    let certificate = settings.certificate().map_err(ConfigError::from)?;
    let bundle = Bundle::read(&settings.socket.client_folder).map_err(ConfigError::from)?;
    let http = startup::bind(&settings.http.host, settings.http.port, "http.port").await?;
    let internal = startup::bind(&settings.internal.host, settings.internal.port, "internal.port").await?;
    let telemetry = telemetry::init(&settings.telemetry, "parlance-gateway", &instance)?;
    telemetry::describe_all(measures::MEASURES);
    signals::begin(settings.socket.max_connections);
    check_file_limit(settings.socket.max_connections);
    settings.jwt.warn_of_gaps();
    let connection = settings.connection(instance.clone());
    let bus = Bus::connect(&connection).await.context("nats.url")?;
    let addresses = (http.local_addr()?, internal.local_addr()?);

    let lifecycle = Lifecycle::new();
    lifecycle.end_on_panic();
    lifecycle.spawn_background("explain NATS", done(connection.explain(&bus)));
    let proxies = Proxies::new(&settings.http.trusted_proxies).map_err(ConfigError::from)?;
    let accepting = accepting(&settings, http, proxies.clone(), certificate.clone(), &lifecycle);
    let (reports, inbox) = presence_input::channel();
    let address = relay_address(&settings, addresses.0.port()).await;
    let relay = Relay::new(bus.clone(), settings.socket.message_limit(), address, certificate)?;
    let limits = Addresses::new(
        proxies,
        settings.http.connections_per_address,
        settings.socket.handshakes_per_address,
    );
    let Assembled {
        sockets,
        rest,
        areas,
        begun,
    } = assemble(
        &settings,
        auth,
        bus,
        &lifecycle,
        &accepting,
        reports,
        (relay, limits),
    )?;
    let health = Health::new();
    spawn_tasks(&settings, (&sockets, &areas), begun, &health, &lifecycle);
    let operations = operations::run(areas.clone(), lifecycle.soft(), health.clone(), lifecycle.hard());
    lifecycle.spawn_background("operations", done(operations));

    let router = router(
        &settings,
        (&sockets, &rest),
        bundle,
        &health,
        &lifecycle,
        telemetry.metrics(),
    );
    let stopped = CancellationToken::new();
    spawn_presence(&settings, areas, &lifecycle, inbox, &stopped);
    spawn_servers(
        &lifecycle,
        accepting,
        (router, settings.http.patience()),
        internal,
        rest::internal::router(&rest, settings.jwt.has_services())
            .merge(health::router(health, telemetry.metrics())),
        &stopped,
    );
    spawn_drain(
        &lifecycle,
        settings.shutdown.wait_ms,
        &settings.shutdown,
        &sockets,
        stopped,
    );
    tracing::info!(%instance, http = %addresses.0, internal = %addresses.1, "gateway started");
    startup::announce(Some(addresses.0), addresses.1);

    let code = lifecycle
        .run(Duration::from_millis(settings.shutdown.grace_ms))
        .await;
    telemetry.shutdown();
    Ok(code)
}

/// Says when connections will fail before the replica counts as full.
fn check_file_limit(max_connections: usize) {
    match startup::raise_file_limit() {
        Ok(Some(limit)) if limit <= max_connections as u64 => tracing::warn!(
            limit,
            max_connections,
            "the limit of open files is below socket.max_connections: raise it (ulimit -n), or lower the setting"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// The listener for clients, and what keeps its certificate current.
fn accepting(
    settings: &Settings,
    listener: tokio::net::TcpListener,
    proxies: Proxies,
    certificate: Option<Certificate>,
    lifecycle: &Lifecycle,
) -> Accepting {
    let accepting = Accepting::new(
        listener,
        Duration::from_millis(settings.socket.write_stall_ms),
        proxies,
        AddressQuota::new(settings.http.connections_per_address),
    );
    let Some(certificate) = certificate else {
        return accepting;
    };
    lifecycle.spawn("certificate", certificate.clone().follow(lifecycle.soft()));
    accepting.encrypted(
        certificate,
        Duration::from_millis(settings.socket.connect_timeout_ms),
    )
}

/// Where other gateways reach this one; empty where they cannot.
async fn relay_address(settings: &Settings, port: u16) -> String {
    if settings.relay.address != RELAY_AUTO {
        return settings.relay.address.clone();
    }
    let found = tokio::time::timeout(LOOKUP, socket::relay::own_address(&settings.nats.url, port)).await;
    match found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        // That would be each gateway's own.
        Ok(address) if address.ip().is_loopback() && !is_loopback(&settings.http.host) => {
            tracing::info!(
                "NATS is reached over loopback, so gateways cannot tell their addresses; set relay.address to have \
                 upgrades carried between them"
            );
            String::new()
        }
        Ok(address) => address.to_string(),
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot tell the own address; set relay.address, or polling clients upgrade only where they began"
            );
            String::new()
        }
    }
}

/// Participants up to which a group is held whole here. With fewer, messages of usual groups would lose their statuses; more do
/// not fit an answer of persistence.
fn most_held(large_group: usize) -> u32 {
    let wanted = u32::try_from(large_group).unwrap_or(u32::MAX);
    wanted.clamp(LEAST_HELD, MOST_HELD)
}

/// Participants up to which a group announces presence: of these it must be held.
fn large_group(set: usize) -> usize {
    set.min(usize::try_from(MOST_HELD).unwrap_or(usize::MAX))
}

fn assemble(
    settings: &Settings,
    auth: Authenticator,
    bus: Bus,
    lifecycle: &Lifecycle,
    accepting: &Accepting,
    reports: PresenceReports,
    (relay, addresses): (Relay, Addresses),
) -> Result<Assembled, ConfigError> {
    auth.revocations().await_reading();
    let (areas, begun) = areas(settings, auth, bus, lifecycle, reports);
    let core = Core::new(
        areas.clone(),
        Rules {
            limits: Limits::new(settings.limits.clone()),
            partitions: settings.bus.partitions,
            send_timeout: settings.send_timeout(),
            provision: settings.auth.provision == "jit",
            large_group: large_group(settings.presence.large_group),
        },
    );
    let gate = Gate::new(GateRules {
        origins: Origins::new(&settings.cors.origins)?,
        allowed_headers: AllowedHeaders::new(&settings.cors.headers)?,
        endpoints: Endpoints::new(&settings.socket.path, &settings.socket.namespaces)?,
        addresses,
        refusals: Refusals::default(),
        dialects: Dialects {
            default: settings.dialect.default.clone(),
            origins: settings.dialect.by_origin()?,
            learn: settings.dialect.learn,
            streams: settings.dialect.streams,
        },
        query_token: settings.auth.query_token.clone(),
    });
    let sockets = SocketState::new(socket::state::SocketParts {
        core: core.clone(),
        gate: gate.clone(),
        transports: Transports::default(),
        relay,
        returns: Returns::default(),
        draining: lifecycle.soft(),
        refusing: CancellationToken::new(),
        expiry_notice: Duration::from_secs(settings.auth.expiry_notice_seconds),
        connections: accepting.open(),
        max_connections: settings.socket.max_connections,
        max_backlog_bytes: settings.socket.max_backlog_bytes,
        max_waiting_events: settings.socket.max_waiting_events,
        max_waiting_bytes: settings.socket.max_waiting_bytes,
    });
    let rest = RestState {
        core,
        gate,
        requests: Slots::new(rest::PER_USER),
        compression: Compression::new(settings.http.compress_bytes),
    };
    Ok(Assembled {
        sockets,
        rest,
        areas,
        begun,
    })
}

/// What actions stand on, from the bus upwards.
fn areas(
    settings: &Settings,
    auth: Authenticator,
    bus: Bus,
    lifecycle: &Lifecycle,
    reports: PresenceReports,
) -> (Areas, Begun) {
    let backend = Backend::new(
        bus.clone(),
        most_held(settings.presence.large_group),
        lifecycle.hard(),
    );
    let linger = Duration::from_millis(settings.rooms.linger_ms);
    let served = Served::new(backend.clone());
    let (rooms, begun) = Rooms::new(
        bus.clone(),
        backend.clone(),
        served.clone(),
        linger,
        reports.clone(),
    );
    let areas = Areas {
        users: Users::new(bus.clone(), backend.clone(), rooms.clone()),
        presence: Presences::new(reports),
        sessions: Sessions::new(settings.socket.sessions_per_user),
        auth,
        bus,
        backend,
        served,
        rooms,
    };
    (areas, begun)
}

/// What serves clients until the last is gone, and so ends with the hard token only.
fn spawn_tasks(
    settings: &Settings,
    (sockets, areas): (&SocketState, &Areas),
    begun: Begun,
    health: &Health,
    lifecycle: &Lifecycle,
) {
    let hard = || lifecycle.hard();
    let spawn = |name, task: BoxFuture<'static, anyhow::Result<()>>| lifecycle.spawn_background(name, task);

    let (core, stop) = (sockets.core.clone(), hard());
    spawn(
        "confirmations",
        Box::pin(async move { core.receive_confirmations(stop).await }),
    );
    let (users, stop) = (areas.users.clone(), hard());
    spawn("notices", Box::pin(async move { users.follow(stop).await }));
    let known = health.condition("revocations");
    let orders = control::follow(sockets.core.clone(), known, hard());
    spawn("control", Box::pin(orders));
    let (backend, nats, stop) = (areas.backend.clone(), health.condition("nats"), hard());
    let partitions = settings.bus.partitions;
    spawn(
        "backend",
        Box::pin(async move { backend.watch(nats, partitions, stop).await }),
    );
    let interval = Duration::from_millis(settings.rooms.check_interval_ms);
    let repair = Repair {
        bus: areas.bus.clone(),
        backend: areas.backend.clone(),
        rooms: areas.rooms.clone(),
        users: areas.users.clone(),
    };
    let look_again = repair::look_again(repair.clone(), begun, hard());
    spawn("repair", Box::pin(repair::run(repair, interval, hard())));
    spawn("second looks", Box::pin(look_again));
    let forget = forget_idle(sockets.clone(), interval, hard());
    spawn("allowances", Box::pin(done(forget)));
    let (auth, stop) = (areas.auth.clone(), hard());
    spawn(
        "keys",
        Box::pin(done(async move { auth.keep_keys_fresh(stop).await })),
    );
    let (relay, stop) = (sockets.relay.clone(), hard());
    spawn(
        "relay watch",
        Box::pin(done(async move { relay.watch(stop).await })),
    );
    let capacity = health.condition("capacity");
    spawn(
        "connection count",
        Box::pin(done(count_connections(sockets.clone(), capacity, hard()))),
    );
    let (serving, soft) = (health.condition("serving"), lifecycle.soft());
    serving.set_ready();
    spawn(
        "readiness",
        Box::pin(async move {
            soft.cancelled().await;
            serving.set_unready("draining");
            Ok(())
        }),
    );
}

/// A task that cannot fail.
async fn done(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}

/// Tells who is here until the last client is gone, and says good-bye then.
fn spawn_presence(
    settings: &Settings,
    areas: Areas,
    lifecycle: &Lifecycle,
    inbox: Inbox,
    stopped: &CancellationToken,
) {
    let ms = Duration::from_millis;
    let Areas {
        bus,
        backend,
        sessions,
        served,
        rooms,
        presence,
        ..
    } = areas;
    let reporter = Reporter::new(
        presence,
        (backend.clone(), bus.clone()),
        sessions,
        (ms(settings.presence.renew_ms), ms(settings.presence.gather_ms)),
    );
    let (watch, stop) = (reporter.clone(), lifecycle.hard());
    lifecycle.spawn_background("presence watch", done(async move { watch.watch(stop).await }));
    lifecycle.spawn("presence", reporter.run(stopped.clone()));
    lifecycle.spawn("served", served.run(stopped.clone()));
    let fanout = PresenceFanout::new(
        rooms,
        backend,
        large_group(settings.presence.large_group),
        ms(settings.rooms.check_interval_ms),
    );
    let stop = lifecycle.hard();
    lifecycle.spawn_background(
        "presence fanout",
        async move { fanout.run(bus, inbox, stop).await },
    );
}

/// The public router: Socket.IO, REST and, where the settings say so, the probes.
fn router(
    settings: &Settings,
    (sockets, rest): (&SocketState, &RestState),
    bundle: Bundle,
    health: &Health,
    lifecycle: &Lifecycle,
    metrics: MetricsHandle,
) -> Router {
    let engine = socket::engine(&settings.socket, sockets);
    sockets
        .transports
        .set_close(socket::engine::closing(engine.clone()));
    let polling = Polling::new(engine.clone(), sockets.clone(), settings.socket.message_limit());
    let (relay, stop) = (sockets.relay.clone(), lifecycle.hard());
    lifecycle.spawn_background("relay", {
        let polling = polling.clone();
        async move { relay.serve(polling, stop).await }
    });
    let entrance = Entrance {
        handshake: Handshake::new(engine, polling, sockets.clone(), &settings.socket),
        bundle,
        gate: sockets.gate.clone(),
        compression: rest.compression,
    };
    let about = Router::new()
        .route("/", get(edge::about))
        .with_state((sockets.gate.clone(), settings.docs.enabled));
    about
        .merge(rest::router(rest.clone(), health.clone()))
        .merge(if settings.http.probes {
            health::probes(health.clone(), metrics)
        } else {
            Router::new()
        })
        .merge(if settings.docs.enabled {
            contract::routes()
        } else {
            Router::new()
        })
        .layer(from_fn_with_state(entrance, edge::enter))
        .layer(from_fn_with_state(sockets.gate.clone(), cors::apply))
        .layer(CatchPanicLayer::new())
}

fn spawn_servers(
    lifecycle: &Lifecycle,
    accepting: Accepting,
    (router, patience): (Router, Patience),
    internal: tokio::net::TcpListener,
    operators: Router,
    stopped: &CancellationToken,
) {
    let stop = stopped.clone();
    lifecycle.spawn("http", http::serve(accepting, router, patience, stop));
    let stop = stopped.clone();
    lifecycle.spawn("internal", health::serve_internal(internal, operators, stop));
}

/// After the soft token: unready, then clients are disconnected spread over time, then the ports close.
fn spawn_drain(
    lifecycle: &Lifecycle,
    wait_ms: u64,
    settings: &Shutdown,
    sockets: &SocketState,
    stopped: CancellationToken,
) {
    let (soft, hard) = (lifecycle.soft(), lifecycle.hard());
    let sockets = sockets.clone();
    let window = Duration::from_millis(settings.drain_ms);
    lifecycle.spawn("drain", async move {
        soft.cancelled().await;
        metrics::gauge!("chat_gateway_draining").set(1.0);
        let in_peace = async {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            sockets.refusing.cancel();
            socket::drain::run(&sockets.core.sessions, &sockets.relay, window).await;
        };
        tokio::select! {
            () = in_peace => {}
            // Nobody waits any more, and still everyone is sent away.
            () = hard.cancelled() => {
                sockets.refusing.cancel();
                socket::drain::run(&sockets.core.sessions, &sockets.relay, Duration::ZERO).await;
            }
        }
        sockets.relay.close();
        stopped.cancel();
        Ok(())
    });
}

/// Forgets users and addresses whose allowance is full again, until `stop`.
async fn forget_idle(sockets: SocketState, interval: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        sockets.core.limits.forget_idle();
        sockets.gate.addresses.forget_idle();
    }
}

async fn count_connections(sockets: SocketState, capacity: Condition, stop: CancellationToken) {
    let mut tick = tokio::time::interval(GAUGE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        sockets.transports.tidy();
        let sessions = sockets.core.sessions.all();
        let polling = sessions
            .iter()
            .filter(|session| session.transport() == "polling")
            .count();
        for (transport, count) in [("polling", polling), ("websocket", sessions.len() - polling)] {
            metrics::gauge!("chat_gateway_connections", "transport" => transport).set(count as f64);
        }
        if sockets.connections.load(Ordering::Relaxed) < sockets.max_connections {
            capacity.set_ready();
        } else {
            capacity.set_unready("full: socket.max_connections are open");
        }
    }
}
