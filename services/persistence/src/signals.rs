//! Metrics that no event brings about: what is fixed, and states that somebody has to look at.

use parlance_bus::StreamUse;
use parlance_bus::inspect::Follower;

/// Shows what is fixed, and that what hopefully never happens has not: the first time would else not be seen to increase
/// anything.
pub fn begin(partitions: u16) {
    metrics::gauge!("chat_persistence_partitions").set(f64::from(partitions));
    metrics::counter!("chat_persistence_quarantined_total").increment(0);
    for cause in ["queue", "wait", "deadline", "cut"] {
        metrics::counter!("chat_persistence_queries_shed_total", "cause" => cause).increment(0);
    }
    for kind in ["command", "system", "push"] {
        metrics::counter!("chat_persistence_dead_letters_total", "kind" => kind).increment(0);
    }
    metrics::gauge!("chat_persistence_open_streams").set(0.0);
    metrics::counter!("chat_persistence_stream_steps_refused_total").increment(0);
    for outcome in ["finished", "cancelled", "interrupted", "deleted"] {
        metrics::counter!("chat_persistence_streams_ended_total", "outcome" => outcome).increment(0);
    }
    for what in ["command", "confirmation", "event", "notice"] {
        metrics::counter!("chat_persistence_oversized_total", "what" => what).increment(0);
    }
}

/// Shows how full the streams are. Every replica sees the same.
#[expect(clippy::cast_precision_loss, reason = "a chart needs no single bytes")]
pub fn show_streams(streams: &[StreamUse]) {
    for stream in streams {
        let name = stream.name.clone();
        metrics::gauge!("chat_bus_stream_messages", "stream" => name.clone()).set(stream.messages as f64);
        metrics::gauge!("chat_bus_stream_bytes", "stream" => name.clone()).set(stream.bytes as f64);
        metrics::gauge!("chat_bus_stream_limit_bytes", "stream" => name).set(stream.limit_bytes as f64);
    }
}

/// Shows how far those are behind who follow the feed. Every replica sees the same.
#[expect(clippy::cast_precision_loss, reason = "a chart needs no single messages")]
pub fn show_followers(followers: &[Follower]) {
    for follower in followers {
        let name = follower.consumer.clone();
        metrics::gauge!("chat_bus_follower_waiting", "consumer" => name.clone()).set(follower.waiting as f64);
        metrics::gauge!("chat_bus_follower_used_ratio", "consumer" => name).set(follower.used);
    }
}
