//! Carries the W3C trace context of what is recorded: in headers, and in events, which share a message.
//!
//! Nothing is carried of a trace that is not recorded, so that it costs nothing. Whoever takes something without a
//! context begins no trace of its own for it: one decision holds from end to end.

use async_nats::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The one header of the context that is carried in an event.
const TRACEPARENT: &str = "traceparent";

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        // What is empty says nothing.
        if !value.is_empty() {
            self.0.insert(key, value);
        }
    }
}

struct HeadersRef<'a>(&'a HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

/// The field of an event.
struct Field(String);

impl Injector for Field {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}

struct FieldRef<'a>(&'a str);

impl Extractor for FieldRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Whether what happens now is part of a trace that is recorded.
pub fn is_recorded() -> bool {
    Context::map_current(is_sampled)
}

/// Whether the context is that of a trace that is recorded.
pub fn is_sampled(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

/// The context of a span as an event carries it; empty where it is not recorded.
pub fn traceparent(span: &Span) -> String {
    let context = span.context();
    let mut field = Field(String::new());
    if is_sampled(&context) {
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut field);
        });
    }
    field.0
}

/// Makes a span that was not entered yet part of the trace that an event carries.
pub fn follow(span: &Span, traceparent: &str) {
    let context = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &FieldRef(traceparent))
    });
    // Without a tracer there is no parent to set.
    let _ = span.set_parent(context);
}

/// The span of handing a message to NATS; none where nothing is recorded. `destination` is the subject without
/// what differs, `template` names what does.
pub(crate) fn sending(destination: &'static str, template: &'static str, bytes: usize) -> Span {
    if !is_recorded() {
        return Span::none();
    }
    tracing::info_span!(
        "send",
        otel.name = format!("send {destination}"),
        otel.kind = "producer",
        otel.status_code = tracing::field::Empty,
        messaging.system = "nats",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.template = template,
        messaging.message.body.size = bytes,
    )
}

/// The span of asking and being answered; none where nothing is recorded.
pub(crate) fn asking(name: &'static str) -> Span {
    if !is_recorded() {
        return Span::none();
    }
    tracing::info_span!(
        "request",
        otel.name = format!("request chat.qry.{name}"),
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        messaging.system = "nats",
        messaging.operation.name = "request",
        messaging.operation.type = "send",
        messaging.destination.template = "chat.qry.{name}",
    )
}

/// Marks the current span of [`sending`] or [`asking`] as failed.
pub(crate) fn failed(span: &Span) {
    span.record("otel.status_code", "ERROR");
}

/// Writes the context of what happens now into the headers, if it is recorded.
pub(crate) fn inject(headers: &mut HeaderMap) {
    Context::map_current(|context| {
        if is_sampled(context) {
            opentelemetry::global::get_text_map_propagator(|propagator| {
                propagator.inject_context(context, &mut Headers(headers));
            });
        }
    });
}

/// The context a message came with; an empty one where it has none.
pub(crate) fn extract(headers: Option<&HeaderMap>) -> Context {
    match headers {
        Some(headers) => opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &HeadersRef(headers))
        }),
        None => Context::new(),
    }
}
