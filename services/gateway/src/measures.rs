//! What a gateway measures, described once. A label has few values, and none that a client chooses.

use parlance_runtime::telemetry::Kind::{Counter, Gauge, Histogram};
use parlance_runtime::telemetry::Measure;

/// All of them.
pub const MEASURES: &[Measure] = &[
    Measure::new(
        "chat_gateway_connections",
        Gauge,
        &["transport"],
        "Connected clients.",
    ),
    Measure::new(
        "chat_gateway_connections_limit",
        Gauge,
        &[],
        "Connections beyond which new ones are refused.",
    ),
    Measure::new(
        "chat_gateway_commands_total",
        Counter,
        &["outcome"],
        "Commands of clients, by outcome.",
    ),
    Measure::new(
        "chat_gateway_connects_total",
        Counter,
        &["result"],
        "Connects that were admitted or refused.",
    ),
    Measure::new(
        "chat_gateway_disconnects_total",
        Counter,
        &["reason"],
        "Connections that ended, by cause.",
    ),
    Measure::new(
        "chat_gateway_events_total",
        Counter,
        &["direction", "event"],
        "Events from and to clients, by their name in the dialect.",
    ),
    Measure::new(
        "chat_gateway_inflight_commands",
        Gauge,
        &[],
        "Commands whose outcome clients wait for.",
    ),
    Measure::new(
        "chat_gateway_rooms",
        Gauge,
        &[],
        "Conversations subscribed for connected clients.",
    ),
    Measure::new(
        "chat_gateway_repairs_total",
        Counter,
        &["cause"],
        "Rooms that repaired a gap from the database.",
    ),
    Measure::new(
        "chat_gateway_resyncs_total",
        Counter,
        &[],
        "Rooms that resynced because the database was restored.",
    ),
    Measure::new(
        "chat_gateway_queries_repeated_total",
        Counter,
        &["cause"],
        "Queries asked of a second replica: the first was slow (hedge), does not answer anything (lost), is gone (gone) or refused (refused).",
    ),
    Measure::new(
        "chat_gateway_queries_failed_total",
        Counter,
        &["cause"],
        "Queries without an answer: persistence refused them (refused), did not answer in time (expired) or was not there (unreachable).",
    ),
    Measure::new(
        "chat_gateway_inbox_refused_total",
        Counter,
        &["inbox"],
        "Requests to a room (room) or to presence (presence) that were refused because too many waited there.",
    ),
    Measure::new(
        "chat_gateway_silent_replicas",
        Gauge,
        &[],
        "Replicas of persistence that do not answer pings of this gateway.",
    ),
    Measure::new(
        "chat_gateway_jwks_fetches_total",
        Counter,
        &["result"],
        "Fetches of the identity provider's keys.",
    ),
    Measure::new(
        "chat_gateway_token_renewals_total",
        Counter,
        &["result"],
        "Requests to continue a connection with a newer token.",
    ),
    Measure::new(
        "chat_gateway_control_total",
        Counter,
        &["kind"],
        "Orders to end connections or tokens.",
    ),
    Measure::new(
        "chat_gateway_relayed_total",
        Counter,
        &["result"],
        "Polling requests relayed for other gateways' sessions, by result.",
    ),
    Measure::new(
        "chat_gateway_returning_pages_total",
        Counter,
        &["result"],
        "Pages that reconnected, by whether their served position was stored in time.",
    ),
    Measure::new(
        "chat_gateway_refused_addresses_total",
        Counter,
        &["limit"],
        "Connections and handshakes refused because their address has or makes too many.",
    ),
    Measure::new(
        "chat_gateway_idle_connections_closed_total",
        Counter,
        &[],
        "Connections closed because no whole request came in time.",
    ),
    Measure::new(
        "chat_gateway_displaced_sessions_total",
        Counter,
        &[],
        "Sessions ended because their user began too many.",
    ),
    Measure::new(
        "chat_gateway_tls_handshakes_total",
        Counter,
        &["result"],
        "TLS handshakes with clients and other gateways, by result.",
    ),
    Measure::new(
        "chat_gateway_slow_consumers_total",
        Counter,
        &["kind"],
        "Clients disconnected because they read too slowly; unacknowledged: the kernel gave them up, slow or gone.",
    ),
    Measure::new("chat_gateway_draining", Gauge, &[], "1 while the gateway drains."),
    Measure::new(
        "chat_gateway_lease_lapses_total",
        Counter,
        &[],
        "Times the gateway lost its presence lease and started a new one.",
    ),
    Measure::new(
        "chat_message_delivery_seconds",
        Histogram,
        &[],
        "From the commit of a message to its delivery to the sockets.",
    ),
];
