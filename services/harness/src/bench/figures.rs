//! What a run of a case yields: figures with their units, CPU and memory by process, violations.
//!
//! Must not know how they are shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checks::Violations;
use super::latency::Latencies;
use super::processes::Usage;
use super::world::Contender;

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// One number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Its name with its unit, such as `ack p99, ms`.
    pub name: String,
    /// Which way it should go.
    pub better: Better,
    /// The number.
    pub value: f64,
}

/// All numbers of one run of a case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// In the order in which they are shown.
    pub list: Vec<Figure>,
    /// CPU microseconds by unit and process.
    pub cpu: BTreeMap<String, BTreeMap<String, f64>>,
    /// Resident memory in KiB by process.
    pub memory: BTreeMap<String, u64>,
    /// Share of its core that the generator used.
    pub generator: f64,
    /// Share of the servers' core that other programs used.
    pub foreign: f64,
}

impl Figures {
    /// Adds a figure of which more is better.
    pub fn higher(&mut self, name: &str, value: f64) {
        self.push(name, Better::Higher, value);
    }

    /// Adds a figure of which less is better.
    pub fn lower(&mut self, name: &str, value: f64) {
        self.push(name, Better::Lower, value);
    }

    fn push(&mut self, name: &str, better: Better, value: f64) {
        let name = name.to_owned();
        self.list.push(Figure { name, better, value });
    }

    /// Adds quantiles in milliseconds, each by the name of its share; none where nothing was counted.
    pub fn latencies(&mut self, name: &str, latencies: &Latencies, quantiles: &[(&str, f64)]) {
        for (share, quantile) in quantiles {
            if let Some(value) = latencies.quantile(*quantile) {
                self.lower(&format!("{name} {share}, ms"), value);
            }
        }
    }

    /// Adds what the servers used for `count` units.
    pub fn usage(&mut self, unit: &str, usage: &Usage, count: u64) {
        let each = |cpu: &std::time::Duration| cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
        self.lower(&format!("CPU µs per {unit}"), each(&usage.total()));
        let split = usage
            .cpu
            .iter()
            .map(|(role, cpu)| ((*role).to_owned(), each(cpu)));
        self.cpu.insert(unit.to_owned(), split.collect());
        self.memory = usage
            .memory
            .iter()
            .map(|(role, memory)| ((*role).to_owned(), *memory))
            .collect();
        self.generator = usage.generator.as_secs_f64() / usage.elapsed.as_secs_f64();
        self.foreign = usage.foreign;
    }
}

/// One run of a case on one system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Name of the case.
    pub case: String,
    /// Which system.
    pub system: Contender,
    /// Counted from 1.
    pub round: u32,
    /// What was measured.
    pub figures: Figures,
    /// What must not happen.
    pub violations: Violations,
    /// Handshakes answered 503 and repeated.
    pub refused: u64,
    /// The first request or handshake that failed.
    pub failure: Option<String>,
    /// Why there are no figures.
    pub error: Option<String>,
}
