//! Metrics that no event brings about: counters that shall be zero before the first event, and states that somebody
//! has to look at. Alerts compare with what was before, and before a counter exists there is nothing.

use parlance_bus::StreamUse;

/// Shows what is fixed, and every counter of something that should never happen.
pub fn begin(partitions: u16) {
    metrics::gauge!("chat_persistence_partitions").set(f64::from(partitions));
    for name in [
        "chat_persistence_batch_retries_total",
        "chat_persistence_dead_letters_total",
        "chat_persistence_gateways_lost_total",
        "chat_persistence_takeovers_total",
        "chat_push_events_total",
        "chat_push_parked_total",
    ] {
        metrics::counter!(name).increment(0);
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
