//! Metrics that no event brings about: counters with labels that shall be zero before the first event, and what is
//! fixed. Alerts compare with what was before, and before a counter exists there is nothing; those without labels
//! begin where they are described.

use crate::error::ClientError;

/// Shows what is fixed, and every value of a label that alerts look at.
#[expect(clippy::cast_precision_loss, reason = "nobody has that many connections")]
pub fn begin(max_connections: usize) {
    metrics::gauge!("chat_gateway_connections_limit").set(max_connections as f64);
    for (name, label, values) in [
        (
            "chat_gateway_commands_total",
            "outcome",
            &["ok", "unknown", "unavailable"][..],
        ),
        (
            "chat_gateway_connects_total",
            "result",
            &["ok", "refused", "unavailable"],
        ),
        (
            "chat_gateway_disconnects_total",
            "reason",
            &["client", "transport_close", "heartbeat_timeout"],
        ),
        ("chat_gateway_jwks_fetches_total", "result", &["error", "ok"]),
        ("chat_gateway_relayed_total", "result", &["gone", "unavailable"]),
        (
            "chat_gateway_returning_pages_total",
            "result",
            &["settled", "unsettled"],
        ),
        ("chat_gateway_repairs_total", "cause", &["check", "hole"]),
        (
            "chat_gateway_slow_consumers_total",
            "kind",
            &["backlog", "bus", "packets", "stalled"],
        ),
    ] {
        for value in values {
            metrics::counter!(name, label => *value).increment(0);
        }
    }
}

/// Counts the outcome of a command as its client is told it: `ok`, or the code of the error.
pub fn count_command(error: Option<&ClientError>) {
    let outcome = error.map_or("ok", |error| error.code);
    metrics::counter!("chat_gateway_commands_total", "outcome" => outcome).increment(1);
}
