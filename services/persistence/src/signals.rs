//! Metrics that no event brings about: what is fixed, and states that somebody has to look at.

use parlance_bus::StreamUse;

/// Shows what is fixed.
pub fn begin(partitions: u16) {
    metrics::gauge!("chat_persistence_partitions").set(f64::from(partitions));
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
