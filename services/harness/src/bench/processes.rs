//! CPU time and memory of server processes, from `/proc`, and on which core what runs.
//!
//! Must not know which servers there are.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::devstack::identity;

/// All servers run here.
const SERVER_CORE: usize = 0;
/// The generator runs here.
const GENERATOR_CORE: usize = 1;
/// Linux counts CPU time for programs in hundredths of a second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// A server process, its children included.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it is, such as `gateway`; several processes may share it.
    pub role: &'static str,
    /// Its process id.
    pub pid: u32,
}

/// What servers used, by role.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Time that passed.
    pub elapsed: Duration,
    /// CPU time.
    pub cpu: BTreeMap<&'static str, Duration>,
    /// Resident memory at the end in KiB, without what processes share.
    pub memory: BTreeMap<&'static str, u64>,
    /// CPU time of the generator.
    pub generator: Duration,
    /// Share of the servers' core that other programs used.
    pub foreign: f64,
}

impl Usage {
    /// CPU time of all servers.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.cpu.values().sum()
    }
}

/// A measurement that has begun.
#[derive(Debug)]
pub struct Meter {
    servers: Vec<Server>,
    began: Instant,
    cpu: BTreeMap<&'static str, Duration>,
    generator: Duration,
    core: Duration,
}

impl Meter {
    /// Begins with these servers.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn start(servers: Vec<Server>) -> anyhow::Result<Self> {
        Ok(Self {
            cpu: cpu(&servers),
            servers,
            began: Instant::now(),
            generator: own_cpu()?,
            core: busy(SERVER_CORE)?,
        })
    }

    /// What was used since.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn stop(&self) -> anyhow::Result<Usage> {
        let elapsed = self.began.elapsed();
        let cpu: BTreeMap<_, _> = cpu(&self.servers)
            .into_iter()
            .map(|(role, now)| {
                (
                    role,
                    now.saturating_sub(self.cpu.get(role).copied().unwrap_or_default()),
                )
            })
            .collect();
        let own = cpu.values().sum();
        let foreign = busy(SERVER_CORE)?.saturating_sub(self.core).saturating_sub(own);
        Ok(Usage {
            memory: memory(&self.servers),
            generator: own_cpu()?.saturating_sub(self.generator),
            foreign: if pinned() {
                foreign.as_secs_f64() / elapsed.as_secs_f64()
            } else {
                0.0
            },
            elapsed,
            cpu,
        })
    }
}

/// Resident memory by role in KiB, without what processes share.
#[must_use]
pub fn memory(servers: &[Server]) -> BTreeMap<&'static str, u64> {
    by_role(servers, resident)
}

fn cpu(servers: &[Server]) -> BTreeMap<&'static str, Duration> {
    by_role(servers, |pid| Some(ticks(&stat(pid).ok()?, &[11, 12, 13, 14])))
}

fn by_role<T: Default + std::ops::AddAssign>(
    servers: &[Server],
    look: impl Fn(u32) -> Option<T>,
) -> BTreeMap<&'static str, T> {
    let mut found = BTreeMap::<_, T>::new();
    for server in servers {
        let family = identity::descendants(server.pid).into_iter().chain([server.pid]);
        for value in family.filter_map(&look) {
            *found.entry(server.role).or_default() += value;
        }
    }
    found
}

/// What follows the name in a process's `stat`, or in the file of the calling thread.
fn stat(pid: u32) -> anyhow::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("CPU time is read from /proc")?;
    let (_, rest) = text.rsplit_once(") ").context("unknown form of /proc/…/stat")?;
    Ok(rest.to_owned())
}

fn own_cpu() -> anyhow::Result<Duration> {
    Ok(ticks(&stat(std::process::id())?, &[11, 12]))
}

/// The sum of these fields: user and system time, perhaps also those of children that have ended.
fn ticks(fields: &str, wanted: &[usize]) -> Duration {
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks: u32 = wanted
        .iter()
        .filter_map(|index| fields.get(*index)?.parse::<u32>().ok())
        .sum();
    TICK * ticks
}

/// Time a core was not idle.
fn busy(core: usize) -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("CPU time is read from /proc")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    // user nice system idle iowait irq softirq steal
    Ok(ticks(line.unwrap_or_default(), &[0, 1, 2, 5, 6, 7]))
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(field("VmRSS:")?.saturating_sub(field("RssShmem:").unwrap_or_default()))
}

fn pinned() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1)
}

/// From now on, what this thread starts runs on the servers' core.
///
/// # Errors
/// The machine has one core only, or the system has no such call.
pub fn pin_servers() -> anyhow::Result<()> {
    pin(SERVER_CORE)
}

/// From now on, this thread and what it starts runs on the generator's core.
///
/// # Errors
/// As [`pin_servers`].
pub fn pin_generator() -> anyhow::Result<()> {
    pin(GENERATOR_CORE)
}

#[cfg(target_os = "linux")]
fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores)
        .context("servers and generator need a core each: this machine has fewer than two")
}

#[cfg(not(target_os = "linux"))]
fn pin(_core: usize) -> anyhow::Result<()> {
    anyhow::bail!("measuring needs Linux: CPU time is read from /proc and processes are pinned to cores")
}

/// Lets this process and those it starts open as many files as the system allows them.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Scenarios say themselves when a connection is refused for want of files.
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_process_and_of_its_ended_children_is_added() {
        let fields = "S 1 1 1 0 -1 4194304 100 0 0 0 150 50 7 3 20 0 1 0 1 1 1";
        assert_eq!(ticks(fields, &[11, 12]), Duration::from_secs(2));
        assert_eq!(ticks(fields, &[11, 12, 13, 14]), Duration::from_millis(2_100));
    }

    #[test]
    fn a_busy_process_is_seen_to_use_cpu_and_memory() {
        let servers = vec![Server {
            role: "self",
            pid: std::process::id(),
        }];
        let meter = Meter::start(servers).unwrap();
        let mut spun = 0_u64;
        while meter.began.elapsed() < Duration::from_millis(150) {
            spun = std::hint::black_box(spun + 1);
        }
        let usage = meter.stop().unwrap();
        assert!(usage.total() >= TICK, "{usage:?}");
        assert!(usage.memory["self"] > 100, "{usage:?}");
    }
}
