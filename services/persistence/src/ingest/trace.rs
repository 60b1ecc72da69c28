//! What a recorded trace shows of a batch: one `process` span for each command, in the trace of its sender, and one
//! `commit` span for the transactions they share, linked with all of them. Nothing for commands that are not
//! recorded.

use opentelemetry::trace::TraceContextExt;
use parlance_bus::{Delivery, trace};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The span of a command from its batch until it is acknowledged; none where its sender's trace is not recorded.
pub fn process(delivery: &Delivery) -> Span {
    if !trace::is_sampled(&delivery.context) {
        return Span::none();
    }
    let span = tracing::info_span!(
        parent: None,
        "process chat.cmd",
        otel.kind = "consumer",
        messaging.system = "nats",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.template = "chat.cmd.{partition}.{conversation}",
        messaging.message.body.size = delivery.payload.len(),
    );
    // Without a tracer there is no parent to set.
    let _ = span.set_parent(delivery.context.clone());
    span
}

/// The span of a batch: in the trace of the first command that is recorded, linked with each of them, as each is
/// with it.
pub fn commit(entries: &[impl AsRef<Span>]) -> Span {
    let recorded: Vec<&Span> = entries
        .iter()
        .map(AsRef::as_ref)
        .filter(|span| !span.is_none())
        .collect();
    let Some(first) = recorded.first() else {
        return Span::none();
    };
    let span = tracing::info_span!(
        parent: *first,
        "commit",
        messaging.batch.message_count = entries.len(),
        db.system.name = "postgresql",
    );
    let batch = span.context().span().span_context().clone();
    for command in recorded {
        span.add_link(command.context().span().span_context().clone());
        command.add_link(batch.clone());
    }
    span
}

/// The span of telling the conversation what a command changed; none where it is not recorded.
pub fn tell(command: &Span) -> Span {
    if command.is_none() {
        return Span::none();
    }
    tracing::info_span!(
        parent: command,
        "send chat.evt",
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.template = "chat.evt.{conversation}",
    )
}
