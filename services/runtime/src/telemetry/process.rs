//! What every process reports of itself under well-known names, and the table by which a service
//! describes what it measures.

use metrics_process::Collector;

/// What a metric of a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric of a service.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// As it is exposed.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels; the values of each are few and chosen by us.
    pub labels: &'static [&'static str],
    /// What it counts, in one sentence.
    pub help: &'static str,
}

impl Measure {
    /// A line of the table.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            labels,
            help,
        }
    }
}

/// Describes the metrics of a service, and begins counters and gauges without labels with 0, so that a rate of them
/// exists before the first time. Call once, after telemetry is installed.
pub fn describe_all(measures: &[Measure]) {
    for measure in measures {
        let Measure {
            name,
            kind,
            labels,
            help,
        } = *measure;
        match kind {
            Kind::Counter => {
                metrics::describe_counter!(name, help);
                if labels.is_empty() {
                    metrics::counter!(name).increment(0);
                }
            }
            Kind::Gauge => {
                metrics::describe_gauge!(name, help);
                if labels.is_empty() {
                    metrics::gauge!(name).increment(0.0);
                }
            }
            Kind::Histogram => metrics::describe_histogram!(name, help),
        }
    }
}

/// Describes what every process has.
pub(super) fn describe(service: &str) {
    Collector::default().describe();
    metrics::describe_gauge!("chat_build_info", "What runs; always 1.");
    metrics::describe_gauge!(
        "chat_ready",
        "1 for each condition of readiness that is met, else 0."
    );
    let labels = [
        ("service", service.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    metrics::gauge!("chat_build_info", &labels).set(1.0);
}

/// Takes stock of the process.
pub(super) fn collect() {
    Collector::default().collect();
}
