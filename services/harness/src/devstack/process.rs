//! A started process in the hands of a test: ready-waiting, signals, restart, log.
//!
//! Killed with all its descendants when dropped.

use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::identity::{self, Identity};
use super::launch::Launch;
use super::probe::Probe;
use crate::eventually::{eventually, eventually_blocking};

/// Longest wait for a process to serve.
pub const START_LIMIT: Duration = Duration::from_secs(30);
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// Longest wait for its threads to stop.
const STOPPING: Duration = Duration::from_secs(2);

/// A process of a stack. Restarting keeps ports, data and settings.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    probe: Probe,
    base_url: String,
    internal_url: String,
    gentle: bool,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// A process that is not started yet. `base_url` is where clients reach it, `internal_url` where
    /// operators look.
    #[must_use]
    pub fn new(launch: Launch, probe: Probe, base_url: String, internal_url: String) -> Self {
        // Postgres alone has shared memory to give back.
        let gentle = matches!(probe, Probe::Postgres { .. });
        Self {
            launch,
            probe,
            base_url,
            internal_url,
            gentle,
            child: Mutex::new(None),
        }
    }

    /// Short name, such as `gateway-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Where clients reach it: `http://…`, `nats://…` or `postgres://…`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Where operators look: `/readyz` and `/metrics` of a service, the monitoring pages of NATS.
    #[must_use]
    pub fn internal_url(&self) -> &str {
        &self.internal_url
    }

    /// Process id while it runs, also while it is paused.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.child();
        let running = child.as_mut()?;
        matches!(running.try_wait(), Ok(None)).then(|| running.id())
    }

    /// Starts it, without waiting until it serves. Does nothing while it runs.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn spawn(&self) -> anyhow::Result<()> {
        if self.pid().is_none() {
            let started = self.launch.spawn()?;
            *self.child() = Some(started);
        }
        Ok(())
    }

    /// Starts it with further variables, which its next start forgets, and waits until it serves.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn start_with(&self, variables: &[(&str, &str)]) -> anyhow::Result<()> {
        if self.pid().is_none() {
            let mut launch = self.launch.clone();
            let further = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            launch.environment.extend(further);
            let started = launch.spawn()?;
            *self.child() = Some(started);
        }
        self.wait_ready(START_LIMIT).await
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// It cannot be executed, ends by itself, or does not serve in time; carries the end of its log.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready(START_LIMIT).await
    }

    /// Kills it if it runs, then starts it on the same ports and data and waits until it serves.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.kill();
        self.start().await
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// It ended, or does not serve in time; carries the end of its log.
    pub async fn wait_ready(&self, within: Duration) -> anyhow::Result<()> {
        let outcome = eventually(within, format_args!("{} ready", self.name()), || async {
            if self.pid().is_some() {
                self.probe.look().await?;
            }
            // What answered may be another program if this one is gone: no use in waiting on.
            anyhow::Ok(self.pid().is_some())
        })
        .await;
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{} ended while starting:\n{}", self.name(), self.log_tail(15)),
            Err(error) => bail!("{error}\n{}", self.log_tail(15)),
        }
    }

    /// Whether it serves right now.
    pub async fn is_ready(&self) -> bool {
        self.pid().is_some() && self.probe.look().await.is_ok()
    }

    /// `kill -9` of it and all its descendants; returns when they are gone: a new Postgres refuses to start
    /// while a child of the old one still holds its shared memory.
    pub fn kill(&self) {
        let Some(pid) = self.pid() else { return };
        let family: Vec<_> = identity::descendants(pid)
            .into_iter()
            .filter_map(Identity::of)
            .collect();
        identity::send(pid, Signal::KILL);
        family.iter().for_each(|child| child.signal(Signal::KILL));
        if let Some(child) = self.child().as_mut() {
            child.wait().ok();
        }
        // One that hangs in the kernel is beyond reach; what needs it gone will say so.
        let _gone = eventually_blocking(LAST_CHANCE, || family.iter().all(|child| !child.is_alive()));
    }

    /// SIGSTOP to it and all its descendants: it keeps its connections and does nothing, from when this returns.
    pub fn pause(&self) {
        self.signal_family(Signal::STOP);
        // On a busy machine a thread may run on until it is its turn to stop.
        let began = std::time::Instant::now();
        while self.pid().is_some_and(|pid| !identity::is_stopped(pid)) && began.elapsed() < STOPPING {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGCONT, the opposite of [`Process::pause`].
    pub fn resume(&self) {
        self.signal_family(Signal::CONT);
    }

    /// SIGTERM: asks it to end in its own way.
    pub fn terminate(&self) {
        if let Some(pid) = self.pid() {
            identity::send(pid, Signal::TERM);
        }
    }

    /// SIGHUP: asks it to read its files again.
    pub fn hang_up(&self) {
        if let Some(pid) = self.pid() {
            identity::send(pid, Signal::HUP);
        }
    }

    /// Waits until it has ended by itself or by a signal.
    ///
    /// # Errors
    /// It still runs at the deadline, or was never started.
    pub async fn wait_exit(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        let look = || async {
            self.child()
                .as_mut()
                .context("never started")?
                .try_wait()?
                .context("still runs")
        };
        eventually(within, format_args!("{} ended", self.name()), look).await
    }

    /// Lets it live on without this handle; none if it has ended.
    #[must_use]
    pub fn release(self) -> Option<Identity> {
        let pid = self.pid()?;
        self.child().take();
        Identity::of(pid)
    }

    /// The last `lines` lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.launch.log_tail(lines)
    }

    /// The recipe it is started from.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    fn signal_family(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            identity::send(pid, signal);
            identity::descendants(pid)
                .into_iter()
                .for_each(|child| identity::send(child, signal));
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.gentle && self.pid().is_some() {
            self.resume();
            if let Some(pid) = self.pid() {
                identity::send(pid, Signal::QUIT);
            }
            // Whether or not it went, what follows ends it.
            let _gone = eventually_blocking(LAST_CHANCE, || self.pid().is_none());
        }
        self.kill();
    }
}
