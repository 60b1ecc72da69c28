//! How a line of the log looks. Inside what is recorded as part of a trace it carries `trace_id` and `span_id`, so
//! that a line leads to its trace and a trace to its lines.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::TelemetrySettings;

/// The layer that writes the log.
pub(super) fn layer<S, W>(
    settings: &TelemetrySettings,
    writer: W,
) -> anyhow::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.log)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(if settings.log_format == "json" {
        layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .map_event_format(|format| WithTrace {
                format,
                write: in_json,
            })
            .with_filter(filter)
            .boxed()
    } else {
        layer
            .with_ansi(std::io::stderr().is_terminal())
            .fmt_fields(Terse)
            .map_event_format(|format| WithTrace {
                format,
                write: in_text,
            })
            .with_filter(filter)
            .boxed()
    })
}

/// Leaves out what spans say for those who read traces.
struct Terse;

struct Visitor<'writer>(DefaultVisitor<'writer>);

impl<'writer> FormatFields<'writer> for Terse {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if is_told(field) {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        if is_told(field) {
            self.0.record_error(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if is_told(field) {
            self.0.record_debug(field, value);
        }
    }
}

fn is_told(field: &Field) -> bool {
    !["otel.", "messaging.", "http.", "db."]
        .iter()
        .any(|prefix| field.name().starts_with(prefix))
}

/// Adds the ids of the trace to the lines of another format.
struct WithTrace<F> {
    format: F,
    write: fn(line: &mut String, &SpanContext) -> fmt::Result,
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let recorded = Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            span.is_sampled().then(|| span.clone())
        });
        let Some(span) = recorded else {
            return self.format.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        (self.write)(&mut line, &span)?;
        writer.write_str(&line)
    }
}

/// In front of the other fields.
fn in_json(line: &mut String, span: &SpanContext) -> fmt::Result {
    let (trace, span) = (span.trace_id(), span.span_id());
    if line.starts_with('{') {
        line.insert_str(1, &format!(r#""trace_id":"{trace}","span_id":"{span}","#));
    }
    Ok(())
}

/// At the end of the line.
fn in_text(line: &mut String, span: &SpanContext) -> fmt::Result {
    line.truncate(line.trim_end().len());
    let (trace, span) = (span.trace_id(), span.span_id());
    writeln!(line, " trace_id={trace} span_id={span}")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of an event outside of any span, and of one inside a span.
    fn lines(format: &str, sampler: Sampler) -> Vec<String> {
        let buffer = Buffer::default();
        let settings = TelemetrySettings {
            log: "info".to_owned(),
            log_format: format.to_owned(),
            otlp_endpoint: String::new(),
            sample_ratio: 1.0,
        };
        let writer = buffer.clone();
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let subscriber = tracing_subscriber::registry()
            .with(layer(&settings, move || writer.clone()).unwrap())
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("outside");
            let span = tracing::info_span!("work", part = 7, otel.kind = "consumer");
            span.in_scope(|| tracing::info!(count = 3, "inside"));
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn is_id(text: &str, digits: usize) -> bool {
        text.len() == digits
            && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            && text.bytes().any(|byte| byte != b'0')
    }

    #[test]
    fn json_lines_inside_a_recorded_span_carry_its_ids() {
        let lines = lines("json", Sampler::AlwaysOn);
        let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert_eq!(read(&lines[0]).get("trace_id"), None);
        let inside = read(&lines[1]);
        assert!(is_id(inside["trace_id"].as_str().unwrap(), 32), "{inside}");
        assert!(is_id(inside["span_id"].as_str().unwrap(), 16), "{inside}");
        assert_eq!(
            (&inside["message"], &inside["count"]),
            (&"inside".into(), &3.into())
        );
    }

    #[test]
    fn text_lines_inside_a_recorded_span_end_with_its_ids() {
        let lines = lines("text", Sampler::AlwaysOn);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(!lines[0].contains("trace_id"), "{lines:?}");
        let (line, ids) = lines[1].split_once(" trace_id=").unwrap();
        assert!(
            line.contains("work{part=7}:") && line.ends_with("inside count=3"),
            "{lines:?}"
        );
        let (trace, span) = ids.split_once(" span_id=").unwrap();
        assert!(is_id(trace, 32) && is_id(span, 16), "{lines:?}");
    }

    #[test]
    fn lines_of_what_is_not_recorded_carry_nothing() {
        for format in ["json", "text"] {
            let lines = lines(format, Sampler::AlwaysOff);
            assert!(lines.iter().all(|line| !line.contains("trace_id")), "{lines:?}");
        }
    }
}
