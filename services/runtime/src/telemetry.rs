//! Logs, traces and metrics of one process. Owns the global subscriber, the global propagator and
//! the global metrics recorder; everything else only uses the `tracing` and `metrics` macros.
//! It must not open a port: metrics are rendered by [`crate::health`].

mod log;
mod process;

pub use process::{Kind, Measure, describe_all};

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::anyhow;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::Deserialize;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterFn, LevelFilter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Invalid, Validate, in_range, one_of};

/// Bounds of every histogram named `*_seconds`, in seconds.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Bounds of every histogram named `*_size`, in items.
const SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// How often recorded samples are folded into the histograms when nobody scrapes; without it they
/// would pile up in memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Longest wait for the trace collector, for one export and for the last flush.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The section `telemetry` of a service's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Filter in the syntax of `tracing_subscriber::EnvFilter`, e.g. `info,parlance_bus=debug`.
    pub log: String,
    /// `text` or `json`.
    pub log_format: String,
    /// Base URL of an OTLP/HTTP collector, e.g. `http://collector:4318`; empty switches traces off.
    pub otlp_endpoint: String,
    /// Share of the traces that start here and are recorded, 0 to 1. The decision of a trace that
    /// started elsewhere is followed.
    pub sample_ratio: f64,
}

/// The running telemetry of this process.
#[derive(Debug)]
pub struct Telemetry {
    metrics: MetricsHandle,
    tracer: Option<SdkTracerProvider>,
    /// Dropped to end the upkeep thread.
    _upkeep: mpsc::Sender<()>,
}

/// Renders the metrics of this process.
#[derive(Debug, Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl Validate for TelemetrySettings {
    fn validate(&self) -> Result<(), Invalid> {
        let Self {
            log,
            log_format,
            otlp_endpoint,
            sample_ratio,
        } = self;
        if EnvFilter::try_new(log).is_err() {
            let allowed = "a log filter such as info or info,parlance_bus=debug";
            return Err(Invalid::new("telemetry.log", log, allowed));
        }
        one_of("telemetry.log_format", log_format, &["text", "json"])?;
        let is_url = ["http://", "https://"]
            .iter()
            .any(|scheme| otlp_endpoint.starts_with(scheme));
        if !otlp_endpoint.is_empty() && !is_url {
            let allowed = "an http:// or https:// URL, or empty to switch traces off";
            return Err(Invalid::new("telemetry.otlp_endpoint", otlp_endpoint, allowed));
        }
        in_range("telemetry.sample_ratio", *sample_ratio, 0.0..=1.0)
    }
}

/// Installs logging, tracing and metrics for the whole process; call once, before anything logs.
/// `instance` distinguishes the replicas of a service.
///
/// # Errors
/// When telemetry is already installed, or the exporter cannot be built from the settings.
pub fn init(settings: &TelemetrySettings, service_name: &str, instance: &str) -> anyhow::Result<Telemetry> {
    settings.validate()?;
    global::set_text_map_propagator(TraceContextPropagator::new());

    let tracer = match settings.otlp_endpoint.as_str() {
        "" => None,
        _ => Some(tracer_provider(settings, service_name, instance)?),
    };
    let spans = tracer.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("parlance"))
            .with_location(false)
            .with_threads(false)
            .with_filter(FilterFn::new(is_traced).with_max_level_hint(LevelFilter::INFO))
    });
    tracing_subscriber::registry()
        .with(log::layer(settings, std::io::stderr)?)
        .with(spans)
        .try_init()?;
    std::panic::set_hook(Box::new(log_panic));

    let metrics = MetricsHandle(prometheus()?.install_recorder()?);
    process::describe(service_name);
    let upkeep = keep_up(metrics.clone())?;
    Ok(Telemetry {
        metrics,
        tracer,
        _upkeep: upkeep,
    })
}

impl Telemetry {
    /// A handle to render the metrics with.
    #[must_use]
    pub fn metrics(&self) -> MetricsHandle {
        self.metrics.clone()
    }

    /// Sends what is still buffered; blocks for at most a few seconds. Call on every way out.
    pub fn shutdown(self) {
        let Some(tracer) = self.tracer else { return };
        if let Err(error) = tracer.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}

impl MetricsHandle {
    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        process::collect();
        self.0.render()
    }

    /// A handle to a recorder of its own, for tests of routes that need one.
    #[must_use]
    pub fn detached() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }
}

/// Spans of our own crates, and what went wrong inside them. Independent of the log filter: a
/// quiet log must not cut traces. Foreign crates are left out, the exporter's own HTTP client
/// among them, whose spans would be exported in turn.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let loud_enough = metadata.is_span() || *metadata.level() <= Level::WARN;
    loud_enough && metadata.target().starts_with("parlance")
}

fn tracer_provider(
    settings: &TelemetrySettings,
    service_name: &str,
    instance: &str,
) -> anyhow::Result<SdkTracerProvider> {
    let base = settings.otlp_endpoint.trim_end_matches('/');
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{base}/v1/traces"))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| anyhow!("telemetry.otlp_endpoint: {error}"))?;
    let resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio)));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .with_sampler(sampler)
        .build();
    Ok(provider)
}

fn prometheus() -> anyhow::Result<PrometheusBuilder> {
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)?)
}

/// Runs the recorder's upkeep on a thread of its own until the returned sender is dropped.
fn keep_up(metrics: MetricsHandle) -> std::io::Result<mpsc::Sender<()>> {
    let (alive, ended) = mpsc::channel();
    std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            while ended.recv_timeout(UPKEEP_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                metrics.0.run_upkeep();
            }
        })?;
    Ok(alive)
}

/// One log line per panic.
fn log_panic(info: &PanicHookInfo<'_>) {
    let text = panic_text(info.payload());
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(location, text, "panic");
}

/// The text of a panic as it may be logged. A formatted text may quote what a user wrote (that of a
/// string cut at a bad boundary does), so only literal texts are shown; the location names the rest.
fn panic_text(payload: &dyn Any) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(text withheld)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TelemetrySettings {
        TelemetrySettings {
            log: "info".to_owned(),
            log_format: "text".to_owned(),
            otlp_endpoint: String::new(),
            sample_ratio: 0.1,
        }
    }

    #[test]
    fn usual_settings_are_valid() {
        assert_eq!(settings().validate(), Ok(()));
        let mut with_traces = settings();
        with_traces.otlp_endpoint = "http://127.0.0.1:4318".to_owned();
        assert_eq!(with_traces.validate(), Ok(()));
    }

    #[test]
    fn each_bad_setting_is_named() {
        let refused = |change: fn(&mut TelemetrySettings)| {
            let mut changed = settings();
            change(&mut changed);
            changed.validate().map_err(|invalid| invalid.key)
        };
        assert_eq!(
            refused(|s| s.log = "a=b=c".to_owned()),
            Err("telemetry.log".to_owned())
        );
        let format = refused(|s| s.log_format = "xml".to_owned());
        assert_eq!(format, Err("telemetry.log_format".to_owned()));
        let endpoint = refused(|s| s.otlp_endpoint = "collector:4318".to_owned());
        assert_eq!(endpoint, Err("telemetry.otlp_endpoint".to_owned()));
        assert_eq!(
            refused(|s| s.sample_ratio = 1.5),
            Err("telemetry.sample_ratio".to_owned())
        );
        assert_eq!(
            refused(|s| s.sample_ratio = f64::NAN),
            Err("telemetry.sample_ratio".to_owned())
        );
    }

    #[test]
    fn durations_and_sizes_are_histograms_with_fixed_bounds() {
        let recorder = prometheus().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("chat_commit_seconds").record(0.003);
            metrics::histogram!("chat_batch_size").record(7.0);
        });
        let text = handle.render();
        assert!(
            text.contains("chat_commit_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("chat_commit_seconds_bucket{le=\"0.0025\"} 0"),
            "{text}"
        );
        assert!(text.contains("chat_batch_size_bucket{le=\"10\"} 1"), "{text}");
    }

    #[test]
    fn only_literal_panic_texts_are_shown() {
        assert_eq!(panic_text(&"no such state"), "no such state");
        assert_eq!(panic_text(&"content of a message".to_owned()), "(text withheld)");
    }
}
