//! What persistence measures, described once. A label has few values, and none that a client chooses.

use parlance_runtime::telemetry::Kind::{Counter, Gauge, Histogram};
use parlance_runtime::telemetry::Measure;

/// All of them.
pub const MEASURES: &[Measure] = &[
    Measure::new(
        "chat_persistence_batch_size",
        Histogram,
        &[],
        "Commands of a transaction.",
    ),
    Measure::new(
        "chat_persistence_batch_retries_total",
        Counter,
        &[],
        "Transactions tried again because the database did not commit them.",
    ),
    Measure::new(
        "chat_persistence_commit_seconds",
        Histogram,
        &[],
        "Duration of a transaction, commit included.",
    ),
    Measure::new(
        "chat_persistence_lag_messages",
        Gauge,
        &["partition"],
        "Commands that waited behind those taken last; 0 on a replica that does not own the partition.",
    ),
    Measure::new(
        "chat_persistence_commands_total",
        Counter,
        &["kind", "outcome"],
        "Commands that were answered.",
    ),
    Measure::new(
        "chat_persistence_dead_letters_total",
        Counter,
        &["kind"],
        "Messages parked because they cannot be processed: a command, a message of a service (system) or a push.",
    ),
    Measure::new(
        "chat_persistence_open_streams",
        Gauge,
        &[],
        "Messages whose text streams, at the replica that takes services' messages in.",
    ),
    Measure::new(
        "chat_persistence_streams_ended_total",
        Counter,
        &["outcome"],
        "Messages whose text streamed, by how that ended: finished, cancelled, interrupted, or deleted with the conversation.",
    ),
    Measure::new(
        "chat_persistence_stream_steps_refused_total",
        Counter,
        &[],
        "Steps of streams that were refused.",
    ),
    Measure::new(
        "chat_persistence_quarantined_total",
        Counter,
        &[],
        "Commands parked because they were too costly again and again.",
    ),
    Measure::new(
        "chat_persistence_feed_lag_seconds",
        Gauge,
        &[],
        "Age of the oldest event that the stream EVENTS lacks in the partitions of this replica; 0 when it lacks none.",
    ),
    Measure::new(
        "chat_persistence_feed_backlog_conversations",
        Gauge,
        &[],
        "Conversations of this replica's partitions of which the stream EVENTS lacks events.",
    ),
    Measure::new(
        "chat_persistence_oversized_total",
        Counter,
        &["what"],
        "Events, notices, confirmations and commands that were too large for the bus and were cut down or left out.",
    ),
    Measure::new(
        "chat_persistence_partitions",
        Gauge,
        &[],
        "Partitions that all replicas share.",
    ),
    Measure::new(
        "chat_bus_stream_messages",
        Gauge,
        &["stream"],
        "Messages that a stream holds.",
    ),
    Measure::new(
        "chat_bus_stream_bytes",
        Gauge,
        &["stream"],
        "Bytes that a stream holds.",
    ),
    Measure::new(
        "chat_bus_stream_limit_bytes",
        Gauge,
        &["stream"],
        "Bytes that a stream may hold.",
    ),
    Measure::new(
        "chat_bus_follower_waiting",
        Gauge,
        &["consumer"],
        "Events that a consumer of the feed has not taken yet.",
    ),
    Measure::new(
        "chat_bus_follower_used_ratio",
        Gauge,
        &["consumer"],
        "How much of what EVENTS can keep a consumer has used up by being behind; at 1 it loses events.",
    ),
    Measure::new(
        "chat_persistence_partitions_owned",
        Gauge,
        &[],
        "Partitions whose lease this replica holds.",
    ),
    Measure::new("chat_persistence_takeovers_total", Counter, &[], "Leases taken."),
    Measure::new(
        "chat_persistence_query_seconds",
        Histogram,
        &["name"],
        "Duration of an answer to a gateway.",
    ),
    Measure::new(
        "chat_persistence_queries_shed_total",
        Counter,
        &["cause"],
        "Queries of gateways that were not carried out: too many waited (queue), their turn would have come too late (wait), they had expired (deadline) or did while they were carried out (cut).",
    ),
    Measure::new(
        "chat_persistence_queries_waiting",
        Gauge,
        &[],
        "Queries of gateways that wait for their turn.",
    ),
    Measure::new(
        "chat_persistence_presence_changes_total",
        Counter,
        &["status"],
        "Changes of presence.",
    ),
    Measure::new(
        "chat_persistence_gateways_lost_total",
        Counter,
        &[],
        "Gateways declared dead because they were silent.",
    ),
    Measure::new(
        "chat_push_events_total",
        Counter,
        &[],
        "Pushes handed to the service that carries them out.",
    ),
    Measure::new(
        "chat_push_parked_total",
        Counter,
        &[],
        "Pushes parked because no service acknowledged them.",
    ),
];
